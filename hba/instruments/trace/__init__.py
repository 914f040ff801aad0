"""The trace at the port's boundaries: every step of every request, in order, for `hba.trace.recorder`."""
