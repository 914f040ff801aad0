"""Storport: the push model. One module per concern; `driver.StorPort` puts them together.

driver    dispatch, BuildIo and StartIo, completion      resets    time-outs, LU -> target -> bus, aborts
flow      depths, pause, busy, queue full, link          power     adapter and unit control, NOT_POWERED
mapping   MapBuffers, scatter/gather lists               perf      performance options, concurrent channels
locks     spin locks, ranks, IRQL                        extended  STORAGE_REQUEST_BLOCK
races     shared state written by unsynchronised BuildIo services  what the miniport sees of all this
"""
