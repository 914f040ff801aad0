"""The command line. It talks to running adapters over their control sockets and has no other way in.

`main` is the entry; each command is a module of its name, imported when it is called. `adapters` finds the running
ones, `output` prints for people and for programs, `views/` shows the subjects of `hba show`. `results` has the types of
what `--json` prints, and `document` makes docs/schemas.json and docs/schemas.md of them.
"""
