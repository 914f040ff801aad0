"""When to look for requests, and when to announce completions: for every adapter, knowing none."""
