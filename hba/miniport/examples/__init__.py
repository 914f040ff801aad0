"""Two miniports to read and to copy from: `good` keeps every rule, `naughty` breaks a documented list of them."""
