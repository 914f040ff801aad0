"""One client of a device: its requests answered in order, its memory reached by message.

The rules that make this more than a dispatch table come from the client being a virtual machine monitor. While one of
its processors waits for the reply to a register access, QEMU holds its big lock and cannot serve our DMA_READ or
DMA_WRITE. So no DMA message leaves before the request in progress is answered, and while we wait for a DMA reply
every request that somebody may wait for is answered at once:

* region reads, questions about the device, DMA maps and interrupt set-up are handled on the spot, from inside
  `Client.dma_read/dma_write`;
* region writes are checked and acknowledged on the spot, and carried out in order when the device has returned;
* a reset ends the wait with a `DmaFault`, since the request that wanted the data is about to be thrown away.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable

from hba.clock import MS
from hba.errors import DmaFault
from hba.loop import EventLoop
from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.device import Device, RequestError
from hba.vfio_user.framing import NO_FDS, Stream, close_fds, send_message
from hba.vfio_user.protocol import Capabilities, Header, ProtocolError

log = logging.getLogger(__name__)

# Replies nobody reads: a client behind by this much is dropped.
MAX_UNSENT = 4 << 20
# Requests that pile up while one DMA reply is awaited; past that the DMA fails, so that the pile can be worked off.
MAX_DEFERRED = 4096
MAX_DEFERRED_BYTES = 4 << 20
# DMA replies that did not come in time and are still owed; past that the client does not answer any more.
MAX_ABANDONED = 64

_CROWDED = "too many requests arrived while DMA by message was under way"

_SET_DATA = dev.IRQ_SET_DATA_NONE | dev.IRQ_SET_DATA_BOOL | dev.IRQ_SET_DATA_EVENTFD
_SET_ACTION = dev.IRQ_SET_ACTION_MASK | dev.IRQ_SET_ACTION_UNMASK | dev.IRQ_SET_ACTION_TRIGGER
_unpack_access = p.REGION_ACCESS_BODY.struct.unpack_from


class Counters:
    """What passed over the wire since the engine started, over all connections."""

    def __init__(self) -> None:
        self.requests: dict[int, int] = dict.fromkeys(p.COMMAND_NAMES, 0)
        self.unknown_requests = 0
        self.posted = 0  # requests that wanted no reply
        self.errors = 0  # requests refused
        self.dma_reads = 0
        self.dma_writes = 0
        self.dma_faults = 0
        self.deferred = 0  # requests that arrived during a DMA by message and had to wait for its end
        self.bytes_received = 0
        self.bytes_sent = 0
        self.connections = 0
        self.refused = 0
        self.last_error: str | None = None

    def snapshot(self) -> dict[str, object]:
        return {
            "requests": {p.COMMAND_NAMES[command]: count for command, count in self.requests.items() if count},
            "unknown_requests": self.unknown_requests,
            "posted": self.posted,
            "errors": self.errors,
            "dma_reads": self.dma_reads,
            "dma_writes": self.dma_writes,
            "dma_faults": self.dma_faults,
            "deferred": self.deferred,
            "bytes_received": self.bytes_received,
            "bytes_sent": self.bytes_sent,
            "connections": self.connections,
            "refused": self.refused,
            "last_error": self.last_error,
        }


class Connection:
    """Serves one connected socket until either side closes it; the device's `Client` meanwhile."""

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        device: Device,
        counters: Counters,
        closed: Callable[[], None],
        dma_timeout: int,
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._device = device
        self._counters = counters
        self._closed = closed
        self._dma_timeout = dma_timeout  # ns
        self._stream = Stream(sock)
        self._regions: list[tuple[int, int]] = []  # (size, flags) by index, fixed for a connection
        self._maps = 0
        self.capabilities: Capabilities | None = None  # what the client announced; None before VERSION
        self._connected = False  # the device was told

        self._why: str | None = None  # set once the connection is to be closed
        self._orderly = False  # the client hung up between two messages
        self._torn_down = False
        self._unsent: deque[tuple[bytes, list[int]]] = deque()  # (message or the rest of one, its fds)
        self._unsent_bytes = 0

        # The reply to the synchronous request in progress, if it is known before the request was carried out.
        self._early: bytes | None = None
        self._answered = False  # it was sent
        self._no_dma: str | None = None  # why the request in progress may not do DMA by message

        # DMA by message.
        self._max_dma = p.MAX_DMA_MESSAGE
        self._dma_id = 0
        self._waiting_for: int | None = None
        self._abandoned: set[int] = set()
        self._deferred: deque[tuple[Header, bytes]] = deque()  # requests to carry out; writes are acknowledged already
        self._deferred_bytes = 0
        self._reset_waits = False  # one of the deferred requests is a reset
        self._in_process = False

        self._handlers: dict[int, Callable[[Header, memoryview, list[int]], None]] = {
            p.VERSION: self._version,
            p.DMA_MAP: self._dma_map,
            p.DMA_UNMAP: self._dma_unmap,
            p.DEVICE_GET_INFO: self._get_info,
            p.DEVICE_GET_REGION_INFO: self._get_region_info,
            p.DEVICE_GET_REGION_IO_FDS: self._get_region_io_fds,
            p.DEVICE_GET_IRQ_INFO: self._get_irq_info,
            p.DEVICE_SET_IRQS: self._set_irqs,
            p.REGION_READ: self._region_read,
            p.REGION_WRITE: self._region_write,
            p.REGION_WRITE_MULTI: self._region_write_multi,
            p.DEVICE_RESET: self._reset,
        }
        loop.add_reader(sock.fileno(), self._readable)

    # -- receiving --------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._receive():
            self._process()
        if self._why is not None:
            self._tear_down()

    def _receive(self) -> bool:
        """Take in what the socket has; False when there is nothing new to parse."""
        try:
            count = self._stream.receive()
        except OSError as error:
            self.fail(f"receive: {error.strerror}")
            return False
        if count > 0:
            self._counters.bytes_received += count
            return True
        if count == 0:
            self._orderly = True
            self.fail("the client closed the connection")
            return False
        return self._stream.ready

    def _resume(self) -> None:
        """After a DMA by message outside of any request: what arrived meanwhile."""
        if not self._torn_down:
            self._process()
            if self._why is not None:
                self._tear_down()

    def _process(self) -> None:
        """Every whole message that was received, in order; never raises."""
        stream = self._stream
        self._in_process = True
        try:
            while self._why is None:
                if self._deferred:
                    deferred, body = self._deferred.popleft()
                    self._deferred_bytes -= len(body)
                    self._carry_out(deferred, body)
                    continue
                header = stream.next()
                if header is None:
                    break
                self._dispatch(header)
        except ProtocolError as error:
            self.fail(str(error))
        finally:
            self._in_process = False

    def _dispatch(self, header: Header) -> None:
        """One message from the client. Raises `ProtocolError` when the connection cannot go on."""
        message_id, command, _, flags, _ = header
        stream = self._stream
        fds = stream.fds
        kind = flags & p.TYPE_MASK
        if kind != p.TYPE_COMMAND:
            close_fds(fds)
            if kind == p.TYPE_REPLY and message_id in self._abandoned:
                self._abandoned.discard(message_id)
                return
            raise ProtocolError(
                f"unsolicited reply {message_id} to {p.command_name(command)}"
                if kind == p.TYPE_REPLY
                else f"message type {kind} is neither command nor reply"
            )
        self._count(command, flags)
        self._answered = False
        try:
            handler = self._handlers.get(command)
            if handler is None:
                close_fds(fds)
                raise RequestError(errno.ENOSYS, f"{p.command_name(command)} is not served")
            if self.capabilities is None and command != p.VERSION:
                close_fds(fds)
                raise RequestError(errno.EINVAL, f"{p.command_name(command)} before VERSION")
            if stream.fds_cut:
                close_fds(fds)
                raise RequestError(errno.EINVAL, f"{p.command_name(command)}: too many file descriptors")
            if fds and command != p.DMA_MAP and command != p.DEVICE_SET_IRQS:
                close_fds(fds)
                raise RequestError(errno.EINVAL, f"{p.command_name(command)} takes no file descriptors")
            handler(header, stream.body, fds)
        except (RequestError, ProtocolError) as error:
            self._refuse(header, error.errno, str(error))
        except Exception as error:  # a defect of the device must not end the server
            self._defect(header, error)
        finally:
            self._early = self._no_dma = None

    def _count(self, command: int, flags: int) -> None:
        counters = self._counters
        if command in counters.requests:
            counters.requests[command] += 1
        else:
            counters.unknown_requests += 1
        if flags & p.NO_REPLY:
            counters.posted += 1

    def _carry_out(self, header: Header, body: bytes) -> None:
        """A request that was put off during a DMA by message. Writes were checked and acknowledged by then."""
        command = header[1]
        self._answered = command != p.DEVICE_RESET
        try:
            if command == p.REGION_WRITE:
                offset, region, count = _unpack_access(body)
                if count:
                    self._device.region_write(region, offset, memoryview(body)[16:])
            elif command == p.REGION_WRITE_MULTI:
                self._carry_out_multi(p.decode_multi(body))
            else:
                self._reset_waits = False
                self._reset(header, memoryview(body), NO_FDS)
        except (RequestError, ProtocolError) as error:
            self._refuse(header, error.errno, str(error))
        except Exception as error:
            self._defect(header, error)
        finally:
            self._early = self._no_dma = None

    # -- sending ----------------------------------------------------------------------------------------------

    def _reply(self, header: Header, body: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        """Answer `header` now, unless the client wants no answer."""
        if not header[3] & p.NO_REPLY:
            head = p.HEADER.pack(header[0], header[1], p.HEADER_SIZE + len(body), p.TYPE_REPLY, 0)
            self._send([head, body], fds)

    def _promise(self, header: Header, body: bytes = b"") -> None:
        """Prepare the answer to a request that is about to be carried out: a DMA by message has to send it first."""
        if not header[3] & p.NO_REPLY:
            self._early = p.HEADER.pack(header[0], header[1], p.HEADER_SIZE + len(body), p.TYPE_REPLY, 0) + body

    def _keep_promise(self) -> None:
        message = self._early
        if message is not None:
            self._early = None
            self._answered = True
            self._send([message])

    def _refuse(self, header: Header, code: int, why: str) -> None:
        self._early = None
        self._note(why)
        if not header[3] & p.NO_REPLY and not self._answered:
            self._send([p.HEADER.pack(header[0], header[1], p.HEADER_SIZE, p.TYPE_REPLY | p.ERROR, code)])

    def _defect(self, header: Header, error: Exception) -> None:
        log.exception("%s failed", p.command_name(header[1]))
        self._refuse(header, errno.EIO, f"internal error in {p.command_name(header[1])}: {error!r}")

    def _note(self, why: str) -> None:
        self._counters.errors += 1
        self._counters.last_error = why
        log.info("%s", why)

    def _send(self, parts: list[bytes | memoryview], fds: tuple[int, ...] = ()) -> None:
        """Send one message, or as much of it as fits and the rest when the client has read on."""
        if self._why is not None:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = send_message(self._sock, parts, fds)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self.fail(f"send: {error.strerror}")
                return
            self._counters.bytes_sent += sent
        if sent < sum(map(len, parts)):
            self._keep_for_later(b"".join(parts)[sent:], [] if sent else list(fds))

    def _keep_for_later(self, message: bytes, fds: list[int]) -> None:
        if self._unsent_bytes + len(message) > MAX_UNSENT:
            self.fail(f"the client does not read: {self._unsent_bytes} bytes are waiting for it")
            return
        if not self._unsent:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        # A copy of everything: the device may change its data and close its descriptors before the client reads on.
        self._unsent.append((message, [os.dup(fd) for fd in fds]))
        self._unsent_bytes += len(message)

    def _writable(self) -> None:
        self._flush()
        if self._why is not None:
            self._tear_down()

    def _flush(self) -> None:
        """Send what waits, one `sendmsg` for a message: gluing messages together could split a header."""
        while self._unsent and self._why is None:
            message, fds = self._unsent[0]
            try:
                sent = send_message(self._sock, [message], fds)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.fail(f"send: {error.strerror}")
                return
            close_fds(fds)
            self._counters.bytes_sent += sent
            self._unsent_bytes -= sent
            if sent < len(message):
                self._unsent[0] = (message[sent:], [])
                return
            self._unsent.popleft()
        if not self._unsent:
            self._loop.remove_writer(self._sock.fileno())

    # -- the end ----------------------------------------------------------------------------------------------

    def fail(self, why: str) -> None:
        """Close the connection as soon as nobody is inside it any more."""
        if self._why is None:
            self._why = why
            if not self._orderly:
                self._note(why)
            self._loop.call_soon(self._tear_down)

    def _tear_down(self) -> None:
        if self._torn_down:
            return
        self._torn_down = True
        if self._why is None:
            self._why = "closed"
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._stream.close()
        for _, fds in self._unsent:
            close_fds(fds)
        self._unsent.clear()
        self._deferred.clear()
        self._sock.close()
        if self._connected:
            self._connected = False
            try:
                self._device.disconnected()
            except Exception as error:
                log.exception("disconnect failed")
                self._note(f"internal error at disconnect: {error!r}")
        self._closed()

    def close(self) -> None:
        """Hang up now. Not from inside the device."""
        self._orderly = True
        self._tear_down()

    @property
    def gone(self) -> bool:
        """The peer has hung up, seen or not yet seen."""
        if self._why is not None:
            return True
        try:
            return self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    # -- VERSION ----------------------------------------------------------------------------------------------

    def _version(self, header: Header, body: memoryview, fds: list[int]) -> None:
        if self.capabilities is not None:
            raise RequestError(errno.EINVAL, "VERSION: already negotiated")
        try:
            major, _, theirs = p.decode_version(body)
            if major != 0:
                raise ProtocolError(f"VERSION: major version {major} is not served, only 0")
            if header[3] & p.NO_REPLY:
                raise ProtocolError("VERSION: wants no reply")
        except ProtocolError as error:
            self._refuse(header, error.errno, str(error))
            self.fail(str(error))
            return
        device = self._device
        self._regions = [(info.size, info.flags) for info in map(device.region_info, range(device.num_regions))]
        self.capabilities = theirs
        self._max_dma = min(p.MAX_DMA_MESSAGE, theirs.max_data_xfer_size or p.MAX_DATA_XFER)
        self._reply(header, p.encode_version(0, 0, p.agree(theirs)))
        self._connected = True
        device.connected(self)

    # -- guest memory -----------------------------------------------------------------------------------------

    def _dma_map(self, header: Header, body: memoryview, fds: list[int]) -> None:
        try:
            request = p.DMA_MAP_BODY.decode(body)
            if request.argsz < p.DMA_MAP_BODY.size:
                raise RequestError(errno.EINVAL, f"DMA_MAP: argsz {request.argsz}")
            if request.flags & ~(p.DMA_MAP_FLAG_READ | p.DMA_MAP_FLAG_WRITE):
                raise RequestError(errno.EINVAL, f"DMA_MAP: unknown flags 0x{request.flags:x}")
            if not request.size or request.iova + request.size > 1 << 64 or request.offset + request.size > 1 << 63:
                raise RequestError(errno.EINVAL, f"DMA_MAP: impossible range 0x{request.iova:x}+0x{request.size:x}")
            if len(fds) > 1:
                raise RequestError(errno.EINVAL, f"DMA_MAP: {len(fds)} file descriptors, at most 1 expected")
            if self._maps >= p.MAX_DMA_MAPS:
                raise RequestError(errno.ENOSPC, f"DMA_MAP: more than {p.MAX_DMA_MAPS} maps")
        except (RequestError, ProtocolError):
            close_fds(fds)
            raise
        self._promise(header)
        fd = fds[0] if fds else None
        self._device.dma_map(request.iova, request.size, request.flags, fd, request.offset)
        self._maps += 1
        self._keep_promise()

    def _dma_unmap(self, header: Header, body: memoryview, fds: list[int]) -> None:
        request = p.DMA_UNMAP_BODY.decode(body)
        if request.argsz < p.DMA_UNMAP_BODY.size:
            raise RequestError(errno.EINVAL, f"DMA_UNMAP: argsz {request.argsz}")
        if request.flags & p.DMA_UNMAP_FLAG_GET_DIRTY_BITMAP:
            raise RequestError(errno.EOPNOTSUPP, "DMA_UNMAP: there is no dirty page log")
        if request.flags & ~p.DMA_UNMAP_FLAG_ALL:
            raise RequestError(errno.EINVAL, f"DMA_UNMAP: unknown flags 0x{request.flags:x}")
        self._promise(header, p.DMA_UNMAP_BODY.encode(request))
        if request.flags & p.DMA_UNMAP_FLAG_ALL:
            if request.iova or request.size:
                raise RequestError(errno.EINVAL, "DMA_UNMAP: all, but with a range")
            self._device.dma_unmap_all()
            self._maps = 0
        else:
            self._device.dma_unmap(request.iova, request.size)
            self._maps -= 1
        self._keep_promise()

    # -- questions --------------------------------------------------------------------------------------------

    def _get_info(self, header: Header, body: memoryview, fds: list[int]) -> None:
        request = p.DEVICE_INFO_BODY.decode(body)
        size = p.DEVICE_INFO_BODY.size
        if request.argsz < size:
            raise RequestError(errno.EINVAL, f"DEVICE_GET_INFO: argsz {request.argsz}, at least {size} expected")
        flags = p.DEVICE_FLAG_RESET | p.DEVICE_FLAG_PCI
        answer = p.DeviceInfo(size, flags, self._device.num_regions, self._device.num_irqs)
        self._reply(header, p.DEVICE_INFO_BODY.encode(answer))

    def _get_region_info(self, header: Header, body: memoryview, fds: list[int]) -> None:
        request = p.REGION_INFO_BODY.decode(body)
        size = p.REGION_INFO_BODY.size
        if request.argsz < size:
            raise RequestError(errno.EINVAL, f"DEVICE_GET_REGION_INFO: argsz {request.argsz}, at least {size} expected")
        self._check_region(request.index, "DEVICE_GET_REGION_INFO")
        info = self._device.region_info(request.index)
        flags, offset, answer_fds = info.flags, 0, tuple[int, ...]()
        capabilities = b""
        cap_offset = 0
        if info.flags & dev.REGION_MMAP:
            if info.fd is None:
                raise RequestError(errno.EIO, f"region {request.index} is mappable but has no file descriptor")
            offset, answer_fds = info.offset, (info.fd,)
            if info.sparse:
                capabilities = p.encode_sparse(info.sparse)
                flags |= p.REGION_INFO_FLAG_CAPS
        needed = size + len(capabilities)
        if needed > request.argsz:
            capabilities = b""  # the client sees from argsz that there is more, and asks again
        elif capabilities:
            cap_offset = size
        answer = p.RegionInfoBody(needed, flags, request.index, cap_offset, info.size, offset)
        self._reply(header, p.REGION_INFO_BODY.encode(answer) + capabilities, answer_fds)

    def _get_region_io_fds(self, header: Header, body: memoryview, fds: list[int]) -> None:
        request = p.REGION_IO_FDS_BODY.decode(body)
        size = p.REGION_IO_FDS_BODY.size
        if request.argsz < size or request.flags or request.count:
            raise RequestError(errno.EINVAL, "DEVICE_GET_REGION_IO_FDS: bad argsz, flags or count")
        self._check_region(request.index, "DEVICE_GET_REGION_IO_FDS")
        # No sub-region is served by an ioeventfd or ioregionfd: every access comes as a message.
        self._reply(header, p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(size, 0, request.index, 0)))

    def _get_irq_info(self, header: Header, body: memoryview, fds: list[int]) -> None:
        request = p.IRQ_INFO_BODY.decode(body)
        size = p.IRQ_INFO_BODY.size
        if request.argsz < size:
            raise RequestError(errno.EINVAL, f"DEVICE_GET_IRQ_INFO: argsz {request.argsz}, at least {size} expected")
        if request.index >= self._device.num_irqs:
            raise RequestError(errno.EINVAL, f"DEVICE_GET_IRQ_INFO: there is no interrupt index {request.index}")
        info = self._device.irq_info(request.index)
        self._reply(header, p.IRQ_INFO_BODY.encode(p.IrqInfoBody(size, info.flags, request.index, info.count)))

    def _check_region(self, index: int, what: str) -> None:
        if index >= len(self._regions):
            raise RequestError(errno.EINVAL, f"{what}: there is no region {index}")

    # -- interrupts -------------------------------------------------------------------------------------------

    def _set_irqs(self, header: Header, body: memoryview, fds: list[int]) -> None:
        try:
            request = p.SET_IRQS_BODY.decode(body)
            data = self._check_set_irqs(request, bytes(body[p.SET_IRQS_BODY.size :]), len(fds))
        except (RequestError, ProtocolError):
            close_fds(fds)
            raise
        self._promise(header)
        self._device.set_irqs(request.index, request.flags, request.start, request.count, fds, data)
        self._keep_promise()

    def _check_set_irqs(self, request: p.SetIrqs, data: bytes, fds: int) -> bytes:
        """The booleans that came with the request. Raises `RequestError` for what the specification forbids."""

        def refuse(why: str) -> RequestError:
            return RequestError(errno.EINVAL, f"DEVICE_SET_IRQS: {why}")

        if request.argsz < p.SET_IRQS_BODY.size:
            raise refuse(f"argsz {request.argsz}")
        kind, action = request.flags & _SET_DATA, request.flags & _SET_ACTION
        if request.flags & ~(_SET_DATA | _SET_ACTION) or kind.bit_count() != 1 or action.bit_count() != 1:
            raise refuse(f"flags 0x{request.flags:x} do not name one kind of data and one action")
        if request.index >= self._device.num_irqs:
            raise refuse(f"there is no interrupt index {request.index}")
        info = self._device.irq_info(request.index)
        if request.start + request.count > info.count:
            raise refuse(f"vectors {request.start}+{request.count} of index {request.index}, which has {info.count}")
        if not request.count and (
            kind != dev.IRQ_SET_DATA_NONE or action != dev.IRQ_SET_ACTION_TRIGGER or request.start
        ):
            raise refuse("count 0 goes with start 0, no data and the trigger action only")
        if action != dev.IRQ_SET_ACTION_TRIGGER and not info.flags & dev.IRQ_MASKABLE:
            raise refuse(f"index {request.index} cannot be masked")
        if kind == dev.IRQ_SET_DATA_EVENTFD:
            if not info.flags & dev.IRQ_EVENTFD:
                raise refuse(f"index {request.index} takes no eventfds")
            if fds not in (0, request.count):
                raise refuse(f"{fds} eventfds for {request.count} vectors")
        elif fds:
            raise refuse("eventfds, but the flags announce none")
        if kind == dev.IRQ_SET_DATA_BOOL:
            if len(data) < request.count:
                raise refuse(f"{len(data)} booleans for {request.count} vectors")
            return data[: request.count]
        return b""

    # -- regions ----------------------------------------------------------------------------------------------

    def _check_access(self, region: int, offset: int, count: int, flag: int) -> None:
        regions = self._regions
        if region >= len(regions):
            raise RequestError(errno.EINVAL, f"access to region {region}, which does not exist")
        size, flags = regions[region]
        if offset + count > size:
            raise RequestError(errno.EINVAL, f"access to region {region} at 0x{offset:x}+{count}, past its end")
        if not flags & flag:
            raise RequestError(
                errno.EPERM, f"region {region} cannot be {'read' if flag == dev.REGION_READ else 'written'}"
            )

    def _region_read(self, header: Header, body: memoryview, fds: list[int]) -> None:
        if len(body) < 16:
            raise ProtocolError(f"REGION_READ: body of {len(body)} bytes, at least 16 expected")
        offset, region, count = _unpack_access(body)
        if count > p.MAX_DATA_XFER:
            raise RequestError(errno.EINVAL, f"REGION_READ of {count} bytes, at most {p.MAX_DATA_XFER}")
        self._check_access(region, offset, count, dev.REGION_READ)
        if header[3] & p.NO_REPLY:
            raise RequestError(errno.EINVAL, "REGION_READ: wants no reply")
        # Whoever waits for this reply may hold the lock that a DMA by message needs at the other end.
        self._no_dma = "a region read is not answered yet"
        data = self._device.region_read(region, offset, count)
        if len(data) != count:
            raise RequestError(errno.EIO, f"the device gave {len(data)} bytes for {count} of region {region}")
        size = p.REGION_MESSAGE.size + count
        head = p.REGION_MESSAGE.pack(header[0], p.REGION_READ, size, p.TYPE_REPLY, 0, offset, region, count)
        self._send([head, data])

    def _region_write(self, header: Header, body: memoryview, fds: list[int]) -> None:
        offset, region, count = self._check_write(body)
        if not header[3] & p.NO_REPLY:
            self._early = p.REGION_MESSAGE.pack(
                header[0], p.REGION_WRITE, p.REGION_MESSAGE.size, p.TYPE_REPLY, 0, offset, region, count
            )
        if count:
            self._device.region_write(region, offset, body[16:])
        if self._early is not None:
            self._keep_promise()

    def _check_write(self, body: memoryview) -> tuple[int, int, int]:
        if len(body) < 16:
            raise ProtocolError(f"REGION_WRITE: body of {len(body)} bytes, at least 16 expected")
        access: tuple[int, int, int] = _unpack_access(body)
        offset, region, count = access
        if len(body) != 16 + count:
            raise ProtocolError(f"REGION_WRITE of {count} bytes with {len(body) - 16} bytes of data")
        self._check_access(region, offset, count, dev.REGION_WRITE)
        return access

    def _region_write_multi(self, header: Header, body: memoryview, fds: list[int]) -> None:
        writes = self._check_multi(body)
        self._promise(header, p.MULTI_COUNT.pack(len(writes)))
        self._carry_out_multi(writes)
        self._keep_promise()

    def _carry_out_multi(self, writes: list[tuple[int, int, int, bytes]]) -> None:
        for offset, region, count, data in writes:
            if count:
                self._device.region_write(region, offset, data[:count])

    def _check_multi(self, body: memoryview) -> list[tuple[int, int, int, bytes]]:
        writes = p.decode_multi(body)
        for offset, region, count, _ in writes:
            self._check_access(region, offset, count, dev.REGION_WRITE)
        return writes

    def _reset(self, header: Header, body: memoryview, fds: list[int]) -> None:
        self._promise(header)
        self._device.reset()
        self._keep_promise()

    # -- DMA by message ---------------------------------------------------------------------------------------

    def dma_read(self, address: int, length: int) -> bytes:
        """`device.Client.dma_read`."""
        self._start_dma(address, length)
        parts: list[bytes] = []
        try:
            for at in range(address, address + length, self._max_dma):
                count = min(self._max_dma, address + length - at)
                request = p.DMA_ACCESS_BODY.encode(p.DmaAccess(at, count))
                self._counters.dma_reads += 1
                reply = self._exchange(p.DMA_READ, [request], at, count)
                got = p.DMA_ACCESS_BODY.decode(reply)
                if (got.address, got.count) != (at, count) or len(reply) != p.DMA_ACCESS_BODY.size + count:
                    raise ProtocolError(f"DMA_READ: reply for 0x{got.address:x}+{got.count} with {len(reply)} bytes")
                parts.append(reply[p.DMA_ACCESS_BODY.size :])
        except ProtocolError as error:
            raise self._fault(address, length, str(error)) from None
        finally:
            self._end_dma()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        """`device.Client.dma_write`."""
        view = memoryview(data).cast("B")
        length = len(view)
        self._start_dma(address, length)
        try:
            for done in range(0, length, self._max_dma):
                part = view[done : done + self._max_dma]
                at = address + done
                request = p.DMA_ACCESS_BODY.encode(p.DmaAccess(at, len(part)))
                self._counters.dma_writes += 1
                # Replies differ: the specification repeats address and count, QEMU sends the header alone.
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
        elif self._waiting_for is not None or self._stream.pinned:
            why = "another DMA by message is under way"
        elif self._reset_waits:
            why = "the client is resetting the device"
        elif self._crowded:
            why = _CROWDED
        elif length < 0 or address + length > 1 << 64:
            why = "no such range"
        if why is not None:
            raise self._fault(address, length, why)
        self._keep_promise()
        self._stream.pinned = True

    def _end_dma(self) -> None:
        self._stream.pinned = False
        if not self._in_process and (self._deferred or self._stream.ready):
            self._loop.call_soon(self._resume)

    def _exchange(self, command: int, parts: list[bytes | memoryview], address: int, length: int) -> bytes:
        """Send one request and wait for its reply; the body of it. Raises `DmaFault`."""
        self._dma_id = (self._dma_id + 1) & 0xFFFF
        while self._dma_id in self._abandoned:
            self._dma_id = (self._dma_id + 1) & 0xFFFF
        mine = self._waiting_for = self._dma_id
        size = p.HEADER_SIZE + sum(map(len, parts))
        self._send([p.HEADER.pack(mine, command, size, p.TYPE_COMMAND, 0), *parts])
        try:
            reply = self._wait(mine, command)
        except ProtocolError as error:
            self.fail(str(error))
            raise self._fault(address, length, str(error)) from None
        finally:
            self._waiting_for = None
        if isinstance(reply, str):
            if self._why is None:
                self._abandoned.add(mine)
                if len(self._abandoned) > MAX_ABANDONED:
                    self.fail("the client does not answer DMA messages")
            raise self._fault(address, length, reply)
        code, body = reply
        if code is not None:
            raise self._fault(address, length, f"the client refused with errno {code}")
        return body

    def _wait(self, mine: int, command: int) -> tuple[int | None, bytes] | str:
        """The reply to our message `mine`: (errno or None, body), or the reason why there is none.

        Blocks the loop's thread, at most for the DMA time-out in real time: nothing else can be done while the device
        is in the middle of a request, and the other side of the wait is a process that no virtual clock drives.
        """
        stream = self._stream
        deadline = time.monotonic_ns() + self._dma_timeout
        poller = select.poll()
        while self._why is None:
            header = stream.next()
            if header is not None:
                if header[3] & p.TYPE_MASK == p.TYPE_REPLY and header[0] == mine and header[1] == command:
                    close_fds(stream.fds)
                    return (header[4], b"") if header[3] & p.ERROR else (None, bytes(stream.body))
                why = self._meanwhile(header)
                if why is not None:
                    return why
                continue
            left = deadline - time.monotonic_ns()
            if left <= 0:
                return f"no reply from the client within {self._dma_timeout // MS} ms"
            poller.register(self._sock, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            for _, event in poller.poll(left / MS):
                if event & select.POLLOUT:
                    self._flush()
                if event & ~select.POLLOUT:
                    self._receive()
        return self._why

    def _meanwhile(self, header: Header) -> str | None:
        """A request that arrived while we wait for a DMA reply; the reason to stop waiting, if it is one."""
        _, command, _, flags, _ = header
        if flags & p.TYPE_MASK == p.TYPE_COMMAND and not self._stream.fds and not self._stream.fds_cut:
            body = self._stream.body
            try:
                if command == p.REGION_WRITE:
                    self._check_write(body)
                    self._defer(header, body, bytes(body[: p.REGION_ACCESS_BODY.size]))
                    return _CROWDED if self._crowded else None
                if command == p.REGION_WRITE_MULTI:
                    count = len(self._check_multi(body))
                    self._defer(header, body, p.MULTI_COUNT.pack(count))
                    return _CROWDED if self._crowded else None
            except (RequestError, ProtocolError):
                pass  # refused below, like any other
            if command == p.DEVICE_RESET:
                self._defer(header, body, None)
                self._reset_waits = True
                return "the client is resetting the device"
        # The request whose DMA we serve keeps its own state of being answered.
        saved = self._early, self._answered, self._no_dma
        try:
            self._dispatch(header)
        finally:
            self._early, self._answered, self._no_dma = saved
        return None

    def _defer(self, header: Header, body: memoryview, acknowledgement: bytes | None) -> None:
        self._count(header[1], header[3])
        self._counters.deferred += 1
        self._deferred.append((header, bytes(body)))
        self._deferred_bytes += len(body)
        if acknowledgement is not None:
            self._reply(header, acknowledgement)

    @property
    def _crowded(self) -> bool:
        return len(self._deferred) >= MAX_DEFERRED or self._deferred_bytes >= MAX_DEFERRED_BYTES
