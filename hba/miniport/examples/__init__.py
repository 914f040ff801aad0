"""Miniports to read and to copy from: `good` keeps every rule, `queued` too, with the structure of a real driver;
`naughty` breaks a documented list of them."""
