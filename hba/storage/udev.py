"""The kernel's news about devices, in the event loop."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hba.loop import EventLoop

DeviceEvent = Callable[[str, int], None]  # action ("add", "remove", "change"), device number (`st_rdev`)


class DeviceWatch:
    """Calls `event` in the loop's thread for each device that comes, goes or changes, until `close`."""

    def __init__(self, loop: EventLoop, event: DeviceEvent, monitor: Any) -> None:
        self._loop = loop
        self._event = event
        self._monitor = monitor
        self._fd = monitor.fileno()
        loop.in_loop(lambda: loop.add_reader(self._fd, self._readable))

    def _readable(self) -> None:
        while True:
            try:
                device = self._monitor.poll(timeout=0)
            except OSError:
                return  # the kernel had more news than the socket holds; the size is compared every few seconds anyway
            if device is None:
                return
            try:
                number = os.makedev(int(device.properties["MAJOR"]), int(device.properties["MINOR"]))
            except (KeyError, ValueError):
                continue
            self._event(str(device.action), number)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        self._monitor = None


def watch_devices(loop: EventLoop, event: DeviceEvent, subsystem: str = "block") -> DeviceWatch | None:
    """None when there is no libudev or no netlink here: then removal shows only in the errors of requests."""
    try:
        import pyudev

        # "kernel", not "udev": its messages come in containers and on machines without udevd too.
        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        monitor.filter_by(subsystem)
        monitor.start()
    except (ImportError, OSError):
        return None
    return DeviceWatch(loop, event, monitor)


def let_go(*fds: int) -> bool:
    """Close a device that was pulled, without giving the numbers back, which calls in workers may still use.

    The kernel keeps a device's name (/dev/sdb) taken while anybody has it open: only then can the device have it again
    when it is put back. Calls on `fds` fail with EBADF now. False when it cannot be done yet (no descriptor is free).
    """
    try:
        nothing = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    for fd in fds:
        if fd >= 0:
            os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)
    return True
