"""When the ring is looked at without a kick and when completions are announced: the two policies of one adapter."""

from __future__ import annotations

from collections.abc import Callable

from hba.adapters.moderation.announce import Announcer, Driver
from hba.adapters.moderation.look import Ring, Window
from hba.adapters.moderation.options import InterruptOptions, PollOptions
from hba.loop import EventLoop


class Moderation:
    """`ring` is what is looked at, `driver` who is told; `listens`: whether it wants to be, or looks by itself."""

    def __init__(
        self,
        loop: EventLoop,
        ring: Ring,
        driver: Driver,
        listens: Callable[[], bool],
        poll: PollOptions,
        interrupts: InterruptOptions,
    ) -> None:
        self._driver = driver
        self._listens = listens
        self.window = Window(loop, ring, poll)
        self.announcer = Announcer(loop, driver, interrupts)

    def arrived(self) -> None:
        """Requests are being taken from the ring."""
        self.window.arrived()
        self.announcer.arrived()

    def posted(self, count: int, size: int) -> None:
        """`count` completions of `size` bytes are on the ring."""
        if self._listens():
            self.announcer.posted(count, size)
        else:
            self._driver.interrupt()  # which interrupts nobody: a driver that polls shall see it at once
        self.window.worked()

    def forget(self) -> None:
        """The rings are gone."""
        self.window.forget()
        self.announcer.forget()

    def snapshot(self) -> dict[str, object]:
        """For `hba show`; JSON-able."""
        return {"poll": self.window.snapshot(), "interrupts": self.announcer.snapshot()}
