"""What watches or disturbs the machine without being part of it: one folder an instrument, one module a boundary.

Each wraps an interface the machine has anyway (docs/architecture.md, "Boundaries"), is put there once at start, and
decides nothing: with it and without it, the machine takes the same steps.
"""
