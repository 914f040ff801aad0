"""DMA by message: guest memory without a file descriptor, read and written by asking the client for it.

What one message may carry is limited, so a transfer is one exchange after the other. How one is carried out without a
deadlock is the session's own business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from hba.errors import DmaFault
from hba.vfio_user import protocol as p
from hba.vfio_user.counters import Counters
from hba.vfio_user.protocol import ProtocolError

# Requests that pile up while one DMA reply is awaited; past that the DMA fails, so that the pile can be worked off.
MAX_DEFERRED = 4096
MAX_DEFERRED_BYTES = 4 << 20
# DMA replies that did not come in time and are still owed; past that the client does not answer any more.
MAX_ABANDONED = 64

CROWDED = "too many requests arrived while DMA by message was under way"
SILENT = "the client has not answered the DMA message before this one"
RESET = "the client is resetting the device"


class DmaMessages(ABC):
    """`device.Client` for a session."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._max_dma = p.MAX_DMA_MESSAGE  # bytes in one message
        self._dma_id = 0
        self._abandoned: set[int] = set()  # messages whose reply may still come, and nobody waits for
        self._silent = False  # the client owes an answer to a DMA message: it is not waited for again
        self._no_dma: str | None = None  # why the request in progress may not do any
        self._reset_waits = False  # one of the requests that came meanwhile is a reset
        self._why: str | None = None  # set once the session is to end

    @property
    @abstractmethod
    def _under_way(self) -> bool:
        """A transfer goes on."""
        ...

    @property
    @abstractmethod
    def _crowded(self) -> bool:
        """As many requests wait for the end of a transfer as may."""
        ...

    @abstractmethod
    def _begin_dma(self) -> None:
        """Before the first exchange of a transfer: answer the request in progress."""
        ...

    @abstractmethod
    def _end_dma(self) -> None:
        """After the last exchange, or the one that failed."""
        ...

    @abstractmethod
    def _send(self, parts: list[bytes | memoryview]) -> None:
        """Send one message to the client."""
        ...

    @abstractmethod
    def _wait(self, mine: int, command: int) -> tuple[int | None, bytes] | str:
        """The reply to our message `mine`: (errno or None, body), or the reason why there is none. Raises
        `ProtocolError`."""
        ...

    @abstractmethod
    def fail(self, why: str | None) -> None:
        """End the session soon. `why`: None when the client hung up."""
        ...

    def dma_read(self, address: int, length: int) -> bytes:
        """`device.Client.dma_read`."""
        self._start_dma(address, length)
        parts: list[bytes] = []
        try:
            for at in range(address, address + length, self._max_dma):
                count = min(self._max_dma, address + length - at)
                self._counters.dma_reads += 1
                request = p.DMA_ACCESS_BODY.encode(p.DmaAccess(at, count))
                reply = self._exchange(p.DMA_READ, [request], at, count)
                # The specification repeats address and count before the data, and so does QEMU.
                if len(reply) != p.DMA_ACCESS_BODY.size + count or reply[: p.DMA_ACCESS_BODY.size] != request:
                    raise self._fault(at, count, f"the client's reply of {len(reply)} bytes does not fit the request")
                parts.append(reply[p.DMA_ACCESS_BODY.size :])
        finally:
            self._end_dma()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        """`device.Client.dma_write`."""
        view = memoryview(data).cast("B")
        self._start_dma(address, len(view))
        try:
            for done in range(0, len(view), self._max_dma):
                part = view[done : done + self._max_dma]
                at = address + done
                self._counters.dma_writes += 1
                request = p.DMA_ACCESS_BODY.encode(p.DmaAccess(at, len(part)))
                # What the reply holds differs: the specification repeats address and count, QEMU sends nothing.
                self._exchange(p.DMA_WRITE, [request, part], at, len(part))
        finally:
            self._end_dma()

    def _fault(self, address: int, length: int, why: str) -> DmaFault:
        self._counters.dma_faults += 1
        return DmaFault(address, length, why)

    def _start_dma(self, address: int, length: int) -> None:
        why = self._no_dma
        if self._why is not None:
            why = "the client is gone"
        elif self._under_way:
            why = "another DMA by message is under way"
        elif self._reset_waits:
            why = RESET
        elif self._crowded:
            why = CROWDED
        elif self._silent:
            why = SILENT
        elif address < 0 or length < 0 or address + length > 1 << 64:
            why = "there is no such range"
        if why is not None:
            raise self._fault(address, length, why)
        self._begin_dma()

    def _exchange(self, command: int, parts: list[bytes | memoryview], address: int, length: int) -> bytes:
        """Send one request and wait for its reply; the body of it. Raises `DmaFault`."""
        mine = self._next_id()
        size = p.HEADER_SIZE + sum(map(len, parts))
        self._send([p.HEADER.pack(mine, command, size, p.TYPE_COMMAND, 0), *parts])
        try:
            reply = self._wait(mine, command)
        except ProtocolError as error:
            self.fail(str(error))
            reply = str(error)
        if isinstance(reply, str):
            self._abandoned.add(mine)
            if len(self._abandoned) > MAX_ABANDONED:
                self.fail("the client does not answer DMA messages")
            raise self._fault(address, length, reply)
        code, body = reply
        if code is not None:
            raise self._fault(address, length, f"the client refused it with errno {code}")
        return body

    def _check_late(self, message_id: int, command: int, kind: int) -> None:
        """A message that is no command, and that nobody waits for. Raises `ProtocolError` unless it is the answer to a
        message of ours that came too late."""
        if kind != p.TYPE_REPLY:
            raise ProtocolError(f"message type {kind} is neither command nor reply")
        if message_id not in self._abandoned:
            raise ProtocolError(f"unsolicited reply {message_id} to {p.command_name(command)}")
        self._abandoned.discard(message_id)
        self._silent = False

    def _next_id(self) -> int:
        """The number of the next DMA message: none that an answer is still owed to."""
        self._dma_id = (self._dma_id + 1) & 0xFFFF
        while self._dma_id in self._abandoned:
            self._dma_id = (self._dma_id + 1) & 0xFFFF
        return self._dma_id
