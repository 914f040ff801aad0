"""The host's way into a running adapter: JSON lines over a UNIX socket (docs/control.md).

* `protocol`: the limits and the shape of a line;
* `method`, `methods/`: what can be called, one module per subject, all in one table;
* `results/`, `schema`: what the methods answer and what events carry, as types and as JSON schemas;
* `events`: what can be subscribed to;
* `parts`: the assembled adapter, as the methods reach it;
* `server`: the socket in the adapter's event loop;
* `client`: the other side, blocking, for the command line and for tests.
"""
