"""Blocks on their way between a store and memory: what `Backend.read_batch` takes."""

from __future__ import annotations

from hba.dma import DmaBuffer
from hba.errors import StorageError
from hba.native import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Transfer:
    """Blocks and the memory they go to or come from; who wants them derives from it.

    data    the memory; its length is that of the blocks
    offset  in the store, bytes
    """

    data: DmaBuffer | None = None
    offset = 0

    def failed(self, error: StorageError) -> None:
        """It has ended at once, with an error."""
        raise NotImplementedError

    def waits(self) -> None:
        """It does not end at once: `answered` will be called. Told before anything else can happen to the store."""
        raise NotImplementedError

    def answered(self, error: StorageError | None) -> None:
        """It waited, and has ended."""
        raise NotImplementedError
