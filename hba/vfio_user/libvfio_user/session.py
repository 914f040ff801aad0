"""One client of the library: its requests let at the library one by one, its memory reached by message beside it.

The library carries out a request within vfu_run_ctx and then answers it. What the module `connection` says of a client
that waits holds here as well, so what the library does not do by itself is done around it:

* a request is given to it when all of it is there (`incoming`), and only while the client reads our answers, so it
  never waits for either;
* the device carries out a register write or a reset before it is answered. If it needs memory by message for that, the
  client is answered by us first, and the library's own answer goes nowhere;
* DMA by message is ours, not vfu_sgl_read's and vfu_sgl_write's: those take the next message for the reply, whatever
  it is, and the client may have sent a request just then. Such a request is given to the library while we wait;
  register writes and resets are then carried out after it (`device.Device`).
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from mmap import mmap

import msgspec

from hba.clock import MS, S, Timer
from hba.loop import EventLoop
from hba.peer import peer_pid
from hba.vfio_user import protocol as p
from hba.vfio_user.client_session import ClientSession
from hba.vfio_user.connection import VERSION_TIMEOUT
from hba.vfio_user.counters import Counters
from hba.vfio_user.device import Device, RequestError
from hba.vfio_user.dma_messages import CROWDED, MAX_DEFERRED, MAX_DEFERRED_BYTES, RESET
from hba.vfio_user.framing import close_fds, send_message
from hba.vfio_user.libvfio_user import answers, irqs
from hba.vfio_user.libvfio_user.binding import DmaRange, Unusable
from hba.vfio_user.libvfio_user.duplicate import duplicate, reaches
from hba.vfio_user.libvfio_user.handover import LONGEST
from hba.vfio_user.libvfio_user.incoming import Incoming
from hba.vfio_user.libvfio_user.served import Served
from hba.vfio_user.protocol import Capabilities, Header, ProtocolError
from hba.vfio_user.sharing import Sharing

log = logging.getLogger(__name__)

# Of one turn of the event loop: requests, and bytes of answers. Both fit into a socket that takes any more.
_BATCH = 64
_MOST_SAID = 16 << 10
_REST = MS  # before the rest of a message is looked for: it cannot be waited for
_NOTHING: Header = (0, 0, 0, p.NO_REPLY, 0)


class LibrarySession(ClientSession):
    """`client_session.ClientSession`, with the library behind it."""

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        served: Served,
        device: Device,
        counters: Counters,
        left: Callable[[], None],
        dma_timeout: int,
    ) -> None:
        super().__init__(loop, sock, device, counters, left, dma_timeout)
        self._served = served
        self._incoming = Incoming(sock)
        self._sharing = Sharing(peer_pid(sock))
        self._in_process = False

        # The request in progress, its answer if we may give it, and whether we did.
        self._current = _NOTHING
        self._early: bytes | None = None
        self._answered = False

        self._waiting = False  # for the reply to a DMA message
        self._deferred: deque[tuple[Callable[[], None], int]] = deque()  # what is left to do, with bytes of data
        self._deferred_bytes = 0

        self._impatience: Timer | None = None
        self._expect("VERSION")
        # A large answer may fill the socket while the library sends it; it then waits, but not for ever.
        sock.setblocking(True)
        limit = struct.pack("@ll", dma_timeout // S, dma_timeout % S // 1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        loop.add_reader(sock.fileno(), self._readable)

    def _expect(self, what: str) -> None:
        """Lose patience if it does not come."""
        if self._impatience is None:
            why = f"the client has sent no {what} for {VERSION_TIMEOUT // S} s"
            self._impatience = self._loop.clock.call_later(VERSION_TIMEOUT, lambda: self.fail(why))

    def _calm(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    # -- receiving --------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if not self._reads_on():
            return
        self._process()
        if self._why is None and self._incoming.part:
            self._expect("rest of a message")
            self._loop.rest(self._sock, _REST)
        elif self._why is None and self.capabilities is not None:
            self._calm()

    def _reads_on(self) -> bool:
        """Whether there is room for answers; if not, nothing more is asked of us until the client has read some."""
        poller = select.poll()
        poller.register(self._sock, select.POLLOUT)
        if poller.poll(0):
            return True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.add_writer(self._sock.fileno(), self._writable)
        return False

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def _process(self) -> None:
        """What was deferred, and then what is there, in order; never raises."""
        self._in_process = True
        enough = self._counters.bytes_sent + _MOST_SAID
        try:
            for _ in range(_BATCH):
                if self._why is not None or self._counters.bytes_sent > enough:
                    break
                if self._deferred:
                    self._carry_out_deferred()
                    continue
                header = self._incoming.next()
                if header is None:
                    break
                if self.capabilities is None:
                    self._negotiate(header)
                else:
                    self._serve(header)
        except EOFError:
            self.fail(None)
        except OSError as error:
            self.fail(f"receive: {error.strerror}")
        except ProtocolError as error:
            self.fail(str(error))
        finally:
            self._in_process = False
        if self._why is not None:
            self._tear_down()
        elif self._deferred:
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        """What arrived during a DMA by message and is still to be carried out: nothing else may come for it."""
        if not self._torn_down:
            self._process()

    def _negotiate(self, header: Header) -> None:
        """The first message; the library judges it."""
        self._count(header)
        if header[2] > LONGEST:
            raise ProtocolError(f"a first message of {header[2]} bytes")
        message, fds = self._incoming.take(header[2])
        self._calm()
        served = self._served
        served.calls = self
        try:
            version = _without_twin_socket(message)
            self._counters.bytes_sent += served.handover.negotiate(self._sock, version, fds)
        except (OSError, Unusable) as error:
            self.fail(str(served.take_errors()) or str(error))
            return
        finally:
            close_fds(fds)
        self.capabilities = _announced(message)
        self._max_dma = min(p.MAX_DMA_MESSAGE, self.capabilities.max_data_xfer_size or p.MAX_DATA_XFER)
        self._device.connected(self)

    def _count(self, header: Header) -> None:
        self._counters.count(header)
        self._counters.bytes_received += header[2]

    def _serve(self, header: Header) -> None:
        """Let the library carry out the next message."""
        message_id, command, size, flags, _ = header
        if flags & p.TYPE_MASK != p.TYPE_COMMAND:
            close_fds(self._incoming.take(size)[1])
            self._check_late(message_id, command, flags & p.TYPE_MASK)
            return
        self._count(header)
        self._served.take_errors()  # of an interrupt that could not be triggered: its vector's wire has said so
        body = self._incoming.head[p.HEADER_SIZE :]
        told = irqs.read(self._incoming, size) if command == p.DEVICE_SET_IRQS else None
        outer = self._current, self._early, self._answered, self._no_dma
        self._current, self._early, self._answered, self._no_dma = header, None, False, None
        given_up = False
        try:
            self._served.context.run()
        except OSError as error:
            given_up = True
            self.fail(f"{p.command_name(command)}: {error.strerror}")
        finally:
            answered = self._answered
            if answered:
                self._served.handover.put(self._sock)
                self._served.handover.drain()
            self._current, self._early, self._answered, self._no_dma = outer
        errors = self._served.take_errors()
        refused, by_device = bool(errors.theirs), bool(errors.ours)
        if refused or by_device:
            self._note(str(errors))
        if not answered:
            self._counters.bytes_sent += answers.length(
                header, body, self._device, refused=refused, by_device=by_device
            )
        if told is not None:
            self._tell(told, accepted=not refused and not given_up)

    def _tell(self, told: irqs.IrqRequest, accepted: bool) -> None:
        if not accepted:
            told.close()
            return
        try:
            told.tell(self._device, self._served.context)
        except RequestError as error:
            self._note(f"DEVICE_SET_IRQS, which libvfio-user has taken: {error}")

    # -- what the library calls for ---------------------------------------------------------------------------

    def region_read(self, region: int, offset: int, count: int) -> bytes:
        self._no_dma = "the client waits for the answer to a register read"
        return self._device.region_read(region, offset, count)

    def region_write(self, region: int, offset: int, data: bytes) -> None:
        body = p.REGION_ACCESS_BODY.struct.pack(offset, region, len(data))
        at_once = not self._waiting or (not self._deferred and self._device.at_once(region, offset, len(data)))
        self._act(partial(self._device.region_write, region, offset, data), body, len(data), at_once)

    def reset(self) -> None:
        if self._waiting:
            self._reset_waits = True
        self._act(self._reset, b"", 0, not self._waiting)

    def _reset(self) -> None:
        self._reset_waits = False
        self._device.reset()

    def _act(self, act: Callable[[], None], body: bytes, size: int, at_once: bool) -> None:
        """Carry out a request whose answer has this body; later, if it came while the device waits for a DMA reply and
        has to wait, too."""
        if not at_once:
            self._counters.deferred += 1
            self._deferred.append((act, size))
            self._deferred_bytes += size
            return
        message_id, command, _, flags, _ = self._current
        if not flags & p.NO_REPLY:
            self._early = p.HEADER.pack(message_id, command, p.HEADER_SIZE + len(body), p.TYPE_REPLY, 0) + body
        try:
            act()
        finally:
            self._early = None
            if self._answered:
                self._served.handover.divert()

    def dma_map(self, found: DmaRange) -> None:
        memory = self._mapped(found)
        if memory is None:
            self._device.dma_map(found.iova, found.size, found.prot, None, 0)
        else:
            self._device.dma_map_here(found.iova, found.size, found.prot, memory, found.address - found.base)

    def dma_unmap(self, iova: int, size: int) -> None:
        self._device.dma_unmap(iova, size)

    def lost(self) -> None:
        why = str(self._served.take_errors()) or "it does not say why"
        self.fail(f"libvfio-user has let go of the client: {why}")

    def _mapped(self, found: DmaRange) -> mmap | None:
        """A mapping of our own of what the library has mapped; None for what can be had by message only."""
        if not found.address or self._sharing.is_private_at(found.address):
            return None
        try:
            memory = duplicate(found.base, found.length)
        except OSError as error:
            log.warning("memory at 0x%x is reached by message: %s", found.iova, error)
            return None
        if not reaches(memory, found.address - found.base + found.size - 1):
            memory.close()
            self._note(f"the file behind 0x{found.iova:x}+0x{found.size:x} is smaller than the map: it is not used")
            return None
        return memory

    # -- answers of our own -----------------------------------------------------------------------------------

    def _begin_dma(self) -> None:
        early, self._early = self._early, None
        if early is not None:
            self._answered = True
            self._send([early])
        self._waiting = True

    # -- DMA by message ---------------------------------------------------------------------------------------

    @property
    def _under_way(self) -> bool:
        return self._waiting

    @property
    def _crowded(self) -> bool:
        return len(self._deferred) >= MAX_DEFERRED or self._deferred_bytes >= MAX_DEFERRED_BYTES

    def _end_dma(self) -> None:
        self._waiting = False
        if self._deferred and not self._in_process:
            self._loop.call_soon(self._resume)

    def _carry_out_deferred(self) -> None:
        act, size = self._deferred.popleft()
        self._deferred_bytes -= size
        try:
            act()
        except RequestError as error:
            self._note(str(error))
        except Exception as error:
            log.error("a deferred request failed", exc_info=error)
            self._note(f"internal error: {error!r}")

    def _send(self, parts: list[bytes | memoryview]) -> None:
        whole = sum(map(len, parts))
        try:
            sent = send_message(self._sock, parts)
            self._counters.bytes_sent += sent
            if sent < whole:
                self.fail("the client does not read")
        except OSError as error:
            self.fail("the client does not read" if error.errno == errno.EAGAIN else f"send: {error.strerror}")

    def _wait(self, mine: int, command: int) -> tuple[int | None, bytes] | str:
        """As of `DmaMessages`. Blocks the loop's thread as `connection` does, and for no longer."""
        deadline = time.monotonic_ns() + self._dma_timeout
        while self._why is None:
            try:
                header = self._incoming.next()
                if header is not None and header[3] & p.TYPE_MASK == p.TYPE_REPLY and header[:2] == (mine, command):
                    message, fds = self._incoming.take(header[2])
                    close_fds(fds)
                    return (header[4], b"") if header[3] & p.ERROR else (None, message[p.HEADER_SIZE :])
                if header is not None:
                    self._serve(header)
            except EOFError:
                self.fail(None)
                break
            except OSError as error:
                self.fail(f"receive: {error.strerror}")
                break
            if header is not None:
                if self._reset_waits or self._crowded:
                    return RESET if self._reset_waits else CROWDED
                continue
            left = deadline - time.monotonic_ns()
            if left <= 0:
                self._silent = True
                return f"no reply from the client within {self._dma_timeout // MS} ms"
            self._incoming.wait(left / S)
        return self._why or "the client is gone"

    # -- the end ----------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        self._calm()
        self._loop.remove_writer(self._sock.fileno())
        self._deferred.clear()
        served = self._served
        served.handover.hang_up()
        served.take_errors()
        served.calls = None


def _announced(message: bytes) -> Capabilities:
    """What a client has announced whose VERSION the library has taken, as far as it is understood."""
    try:
        return p.decode_version(message[p.HEADER_SIZE :])[2]
    except ProtocolError:
        return Capabilities()


def _without_twin_socket(message: bytes) -> bytes:
    """A VERSION without the offer of a second socket for DMA by message: ours goes over the first one, and waits there
    without a deadlock, and not for ever. A client that offers one has to do without where it is not taken up."""
    head = p.HEADER_SIZE + p.VERSION_BODY.size
    if b"twin_socket" not in message:
        return message
    try:
        said = msgspec.json.decode(message[head:].rstrip(b"\0"))
        del said["capabilities"]["twin_socket"]
    except (msgspec.MsgspecError, ValueError, RecursionError, TypeError, KeyError):
        return message  # the library says what is wrong with it
    message_id, command, _, flags, code = p.HEADER.unpack_from(message)
    data = msgspec.json.encode(said) + b"\0"
    size = head + len(data)
    return p.HEADER.pack(message_id, command, size, flags, code) + message[p.HEADER_SIZE : head] + data
