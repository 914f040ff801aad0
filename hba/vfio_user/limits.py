"""How many DMA maps a client may have: each keeps a file descriptor open here, and a process has only so many."""

from __future__ import annotations

import resource

from hba.vfio_user.protocol import MAX_DMA_MAPS

RESERVE = 512  # descriptors for everything else: stores, sockets, eventfds
LEAST = 64


def raise_descriptor_limit() -> None:
    """Take as many descriptors as may be had, up to what the announced maps need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DMA_MAPS + RESERVE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def dma_maps() -> int:
    """What a client is told it may have at a time, and can."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_DMA_MAPS
    return max(LEAST, min(MAX_DMA_MAPS, soft - RESERVE))
