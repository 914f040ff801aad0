"""The migration states of a device, and the way from one to another.

Source: the vfio-user specification, `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`, and enum vfio_device_mig_state in
linux/vfio.h. Saved is what a stopped device has: there is no PRE_COPY, since all of a state but the guest's own memory
is a few kilobytes.
"""

from __future__ import annotations

import errno
from functools import partial

from hba.vfio_user.device import Device, Done, RequestError

ERROR, STOP, RUNNING, STOP_COPY, RESUMING = range(5)
NAMES = {ERROR: "ERROR", STOP: "STOP", RUNNING: "RUNNING", STOP_COPY: "STOP_COPY", RESUMING: "RESUMING"}

MAX_STATE = 32 << 20  # bytes; a state has a few thousand, and more with what guests keep in their units' buffers

_ARCS = {
    RUNNING: (STOP,),
    STOP: (RUNNING, STOP_COPY, RESUMING),
    STOP_COPY: (STOP,),
    RESUMING: (STOP,),
    ERROR: (),  # only a reset leads out of it
}


def way(start: int, end: int) -> tuple[int, ...]:
    """The states to go through, the last one is `end`: the shortest way, with none of those that save in between.

    Raises `RequestError(EINVAL)` when there is none.
    """
    if start == end and end != ERROR:
        return ()
    if end in _ARCS[start]:
        return (end,)
    if start != ERROR and end in _ARCS[STOP]:
        return (STOP, end)
    raise RequestError(
        errno.EINVAL, f"no way from migration state {NAMES[start]} to {NAMES.get(end, f'{end}, which is not served')}"
    )


class Migration:
    """The migration state of one device, for as long as a client is there."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.state = RUNNING
        self._saved = memoryview(b"")  # what was not read yet
        self._received = bytearray()

    def change(self, state: int, done: Done) -> None:
        """Go to `state`; `done` is called when it is reached, or with why it is not."""
        try:
            self._walk(way(self.state, state), done)
        except RequestError as error:
            done(error)

    def _walk(self, states: tuple[int, ...], done: Done) -> None:
        for number, state in enumerate(states):
            if self.state == RUNNING:
                self._device.stop(partial(self._stopped, states[number + 1 :], done))
                return
            self._step(state)
        done(None)

    def _stopped(self, rest: tuple[int, ...], done: Done, error: RequestError | None) -> None:
        if error is not None:
            done(error)
            return
        self.state = STOP
        try:
            self._walk(rest, done)
        except RequestError as failure:
            done(failure)

    def _step(self, state: int) -> None:
        """One arc that does not begin in RUNNING. Raises `RequestError`."""
        device = self._device
        if state == STOP_COPY:
            self._saved = memoryview(device.save())
        elif state == RESUMING:
            self._received = bytearray()
        elif state == RUNNING:
            device.resume()
        elif self.state == RESUMING:
            received, self._received = bytes(self._received), bytearray()
            try:
                device.restore(received)
            except RequestError:
                self.state = ERROR
                raise
        else:
            self._saved = memoryview(b"")
        self.state = state

    def read(self, size: int) -> bytes:
        """The next `size` bytes of the state, fewer at its end. Raises `RequestError(EINVAL)`."""
        self._must_be(STOP_COPY, "read")
        part, self._saved = self._saved[:size], self._saved[size:]
        return bytes(part)

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes of the state to take over. Raises `RequestError`: EINVAL, ENOSPC for more than `MAX_STATE`."""
        self._must_be(RESUMING, "written")
        if len(self._received) + len(data) > MAX_STATE:
            raise RequestError(errno.ENOSPC, f"a device's state has at most {MAX_STATE} bytes")
        self._received += data

    def _must_be(self, state: int, what: str) -> None:
        if self.state != state:
            raise RequestError(
                errno.EINVAL, f"the state can be {what} in {NAMES[state]} only; the device is in {NAMES[self.state]}"
            )

    def reset(self) -> None:
        """The device was reset, and runs."""
        self.state = RUNNING
        self._saved = memoryview(b"")
        self._received = bytearray()
