"""Who watches a ring: what an instrument is told where requests are taken and completions posted.

As at the port (`hba.port.watcher`): an adapter has a tuple of watchers, put together once when it is made
(`hba.adapters.make`), mostly empty. It tells all of them the same things at the same points, a batch at a time, and
never asks who they are. What is on a ring can be seen, and changed, by who stands in front of the `Rings` or a part of
them: `set_up` is the time to put it there.
"""

from __future__ import annotations

from collections.abc import Sequence

from hba.errors import DmaFault
from hba.native import mypyc_attr
from hba.srb import Srb


@mypyc_attr(allow_interpreted_subclasses=True)
class RingWatcher:
    """Watches, and does nothing. Override what is of interest."""

    def set_up(self) -> None:
        """The driver has set its rings up."""

    def resetting(self) -> None:
        """The adapter is about to be reset, and to end what is outstanding."""

    def kicked(self) -> None:
        """The driver has asked for a look at the ring, which is had soon."""

    def looked(self, ready: int, why: str) -> None:
        """`ready` requests are about to be taken. `why`: see `RingAdapter.look`."""

    def took(self, srbs: Sequence[Srb]) -> None:
        """These were taken; the port gets them next."""

    def malformed(self, handle: int, why: str) -> None:
        """A request was refused for what is written in it."""

    def out_of_reach(self, handle: int, why: str) -> None:
        """A request was refused, or its sense data not delivered, because memory it names cannot be reached."""

    def completed(self, srbs: Sequence[Srb]) -> None:
        """These have come back from the port; their completions are not posted yet."""

    def stopped(self, why: str) -> None:
        """Nothing more is taken from this ring."""

    def failed(self, command: str, fault: DmaFault) -> None:
        """A command could not reach the memory it is about."""
