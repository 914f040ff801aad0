"""One client of a device: its requests answered in order, its memory reached by message.

The rules that make this more than a dispatch table come from the client being a virtual machine monitor. While one of
its processors waits for the reply to a register access, QEMU holds its big lock and cannot serve our DMA_READ or
DMA_WRITE. So no DMA message leaves before the request in progress is answered, and while we wait for a DMA reply
every request that somebody may wait for is answered at once:

* region reads, questions about the device, DMA maps and interrupt set-up are handled on the spot, from inside
  `Client.dma_read/dma_write`;
* region writes are checked and acknowledged on the spot, and carried out in order when the device has returned. Those
  to registers that neither reach memory nor the port are carried out on the spot unless others wait: an interrupt that
  the guest has acknowledged is not asserted any more when it reads the cause again;
* a reset ends the wait with a `DmaFault`, since the request that wanted the data is about to be thrown away.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable

import msgspec

from hba.clock import MS, S, Timer
from hba.loop import EventLoop
from hba.peer import peer_pid
from hba.vfio_user import limits
from hba.vfio_user import protocol as p
from hba.vfio_user.client_session import ClientSession
from hba.vfio_user.counters import Counters
from hba.vfio_user.device import REGION_WRITE, Device, Done, RequestError
from hba.vfio_user.dma_messages import (
    CROWDED,
    MAX_DEFERRED,
    MAX_DEFERRED_BYTES,
    RESET,
)
from hba.vfio_user.framing import NO_FDS, Stream, close_fds
from hba.vfio_user.outbox import Outbox
from hba.vfio_user.plan import Plan
from hba.vfio_user.protocol import Header, ProtocolError
from hba.vfio_user.requests import ACCESS_SIZE, Requests, unpack_access
from hba.vfio_user.sharing import Sharing

log = logging.getLogger(__name__)

# What is handled in one turn of the event loop: some messages in any case, more as long as they cost little.
AT_ONCE = 16
TURN = 5 * MS  # of CPU
VERSION_TIMEOUT = 10 * S  # there is one seat; who takes it has to say what he is


class Connection(ClientSession):
    """Serves one connected socket until either side closes it; the device's `Client` meanwhile.

    `closed` is called once, when the socket and all descriptors are closed and the device knows.
    """

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        device: Device,
        counters: Counters,
        closed: Callable[[], None],
        dma_timeout: int,
    ) -> None:
        super().__init__(loop, sock, device, counters, closed, dma_timeout)
        sock.setblocking(False)
        self._stream = Stream(sock)
        self._outbox = Outbox(loop, sock, counters, self.fail)
        self._requests: Requests | None = None  # None before VERSION
        self._regions: list[tuple[int, int]] = []
        self._in_process = False
        self._paused = False  # whole messages wait for the next turn

        # The request in progress: its reply if that is known before the request is carried out, and whether it was
        # answered.
        self._early: bytes | None = None
        self._answered = False
        self._begun = False  # a request takes a while; nothing else is looked at before it has ended

        # DMA by message.
        self._deferred: deque[tuple[Header, Plan, int]] = deque()  # checked (writes: and answered), with body size
        self._deferred_bytes = 0
        self._impatience: Timer | None = loop.clock.call_later(VERSION_TIMEOUT, self._no_version)
        loop.add_reader(sock.fileno(), self._readable)

    def _no_version(self) -> None:
        self.fail(f"the client has sent no VERSION for {VERSION_TIMEOUT // S} s")

    # -- receiving --------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._paused:
            return  # what came before has its turn first, also before an end of the stream
        if self._receive():
            self._process()
        if self._why is not None:
            self._tear_down()

    def _receive(self) -> bool:
        """Take in what the socket has; False when there is nothing to parse."""
        try:
            count = self._stream.receive()
        except OSError as error:
            self.fail(f"receive: {error.strerror}")
            return False
        if count > 0:
            self._counters.bytes_received += count
            return True
        if count == 0:
            self.fail(None)
            return False
        return self._stream.ready

    def _process(self) -> None:
        """The whole messages that were received, in order, as many as one turn may take; never raises."""
        stream = self._stream
        next_message = stream.next
        self._in_process = True
        count = end = 0
        try:
            while self._why is None and not self._begun:
                count += 1
                if count > AT_ONCE:
                    now = time.thread_time_ns()
                    end = end or now + TURN
                    if now > end:
                        self._pause()
                        break
                if self._deferred:
                    self._carry_out_deferred()
                    continue
                header = next_message()
                if header is None:
                    break
                if header[1] == p.REGION_WRITE and header[3] == p.NO_REPLY and not stream.fds:
                    self._posted_write(header, stream.body)
                else:
                    self._dispatch(header)
        except ProtocolError as error:
            self.fail(str(error))
        finally:
            self._in_process = False

    def _pause(self) -> None:
        """Timers, the control socket and signals have their turn; what is left here has the next."""
        if not self._paused:
            self._paused = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._paused = False
        self._resume()

    def _resume(self) -> None:
        """After a pause, or a DMA by message outside of any request: what arrived meanwhile."""
        if not self._torn_down:
            self._process()
            if self._why is not None:
                self._tear_down()

    def _posted_write(self, header: Header, body: memoryview) -> None:
        """The hot path: a register write nobody waits for. What is not right goes the long way, which says why."""
        try:
            offset, region, count = unpack_access(body)
            size, flags = self._regions[region]
        except Exception:
            self._dispatch(header)
            return
        if not count or len(body) != ACCESS_SIZE + count or offset + count > size or not flags & REGION_WRITE:
            self._dispatch(header)
            return
        counters = self._counters
        counters.requests[p.REGION_WRITE] += 1
        counters.posted += 1
        try:
            self._device.region_write(region, offset, body[ACCESS_SIZE:])
        except Exception as error:
            self._failed(header, error)

    def _dispatch(self, header: Header) -> None:
        """One message from the client. Raises `ProtocolError` when the connection cannot go on."""
        message_id, command, _, flags, _ = header
        stream = self._stream
        kind = flags & p.TYPE_MASK
        if kind != p.TYPE_COMMAND:
            close_fds(stream.fds)
            self._check_late(message_id, command, kind)
            return
        self._counters.count(header)
        self._answered = False
        try:
            if command == p.VERSION or self._requests is None:
                self._negotiate(header, stream.body, stream.fds)
                return
            plan = self._requests.check(command, stream.body, stream.fds, stream.fds_cut)
            if plan.reply is None and flags & p.NO_REPLY:
                raise RequestError(errno.EINVAL, f"{p.command_name(command)} without a reply makes no sense")
        except Exception as error:
            self._failed(header, error)
            return
        self._carry_out(header, plan)

    def _carry_out(self, header: Header, plan: Plan) -> None:
        """Let the device do what was asked, and answer unless that was done before."""
        if plan.begin is not None:
            self._begin(header, plan, plan.begin)
            return
        try:
            body = plan.reply
            if plan.act is not None:
                if body is None:
                    # Whoever waits for this reply may hold the lock that a DMA by message needs at the other end.
                    self._no_dma = "the client waits for the answer to a register read"
                    body = plan.act()
                    assert body is not None
                else:
                    if not header[3] & p.NO_REPLY and not self._answered:
                        self._early = _reply(header, body) + body
                    plan.act()
            if self._early is not None:
                self._acknowledge()
            elif body is not None and not header[3] & p.NO_REPLY and not self._answered:
                self._outbox.send([_reply(header, body), body], plan.fds)
        except Exception as error:
            self._failed(header, error)
        finally:
            self._early = self._no_dma = None

    def _begin(self, header: Header, plan: Plan, begin: Callable[[Done], None]) -> None:
        """Let the device begin with what takes a while, and answer when it has ended. Requests are carried out in their
        order, so those behind it wait in the socket; a client that hangs up meanwhile is noticed afterwards."""
        if self._begun:  # it came while we waited for the client's answer to a DMA message of that request
            self._failed(header, RequestError(errno.EBUSY, f"{p.command_name(header[1])}: the one before it goes on"))
            return
        self._begun = True

        def done(error: RequestError | None) -> None:
            self._begun = False
            if self._torn_down:
                return
            self._answered = False
            body = plan.reply
            if error is not None:
                self._failed(header, error)
            elif body is not None and not header[3] & p.NO_REPLY:
                self._outbox.send([_reply(header, body), body], plan.fds)
            if waiting:
                self._loop.add_reader(self._sock.fileno(), self._readable)
                self._pause()

        waiting = False
        try:
            begin(done)
        except Exception as error:
            self._begun = False
            self._failed(header, error)
        if self._begun:
            waiting = True
            self._loop.remove_reader(self._sock.fileno())

    def _carry_out_deferred(self) -> None:
        header, plan, size = self._deferred.popleft()
        self._deferred_bytes -= size
        self._answered = header[1] != p.DEVICE_RESET
        if header[1] == p.DEVICE_RESET:
            self._reset_waits = False
        self._carry_out(header, plan)

    def _acknowledge(self) -> None:
        """Answer the request in progress, if its answer is known and was not sent."""
        message = self._early
        if message is not None:
            self._early = None
            self._answered = True
            self._outbox.send([message])

    def _failed(self, header: Header, error: Exception) -> None:
        """Refuse a request. A defect of ours or of the device must not end the server, so that is one way to fail."""
        if isinstance(error, (RequestError, ProtocolError)):
            code, why = error.errno, str(error)
        else:
            log.error("%s failed", p.command_name(header[1]), exc_info=error)
            code, why = errno.EIO, f"internal error in {p.command_name(header[1])}: {error!r}"
        self._note(why)
        if not header[3] & p.NO_REPLY and not self._answered:
            self._outbox.send([p.HEADER.pack(header[0], header[1], p.HEADER_SIZE, p.TYPE_REPLY | p.ERROR, code)])
            self._answered = True

    def _negotiate(self, header: Header, body: memoryview, fds: list[int]) -> None:
        """VERSION, and whatever comes in its place. Raises `RequestError`."""
        close_fds(fds)
        command = header[1]
        if command != p.VERSION:
            raise RequestError(errno.EINVAL, f"{p.command_name(command)} before VERSION")
        if self._requests is not None:
            raise RequestError(errno.EINVAL, "VERSION: already negotiated")
        try:
            major, _, theirs = p.decode_version(body)
            if major != 0:
                raise ProtocolError(f"VERSION: major version {major} is not served, only 0")
            if fds:
                raise ProtocolError("VERSION takes no file descriptors")
            if header[3] & p.NO_REPLY:
                raise ProtocolError("VERSION without a reply makes no sense")
        except ProtocolError as error:
            self._failed(header, error)
            self.fail(str(error))  # there is nothing to go on with
            return
        if self._impatience is not None:
            self._impatience.cancel()
        maps = limits.dma_maps()
        self._requests = Requests(self._device, maps, Sharing(peer_pid(self._sock)), theirs)
        self._regions = self._requests.regions
        self.capabilities = theirs
        self._max_dma = min(p.MAX_DMA_MESSAGE, theirs.max_data_xfer_size or p.MAX_DATA_XFER)
        answer = p.encode_version(0, 0, p.agree(theirs, msgspec.structs.replace(p.OURS, max_dma_maps=maps)))
        self._outbox.send([_reply(header, answer), answer])
        self._answered = True
        self._device.connected(self)

    # -- the end ----------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
        self._outbox.close()
        self._stream.close()
        self._deferred.clear()

    # -- DMA by message ---------------------------------------------------------------------------------------

    @property
    def _under_way(self) -> bool:
        return self._stream.pinned

    def _begin_dma(self) -> None:
        self._acknowledge()
        self._stream.pinned = True

    def _send(self, parts: list[bytes | memoryview]) -> None:
        self._outbox.send(parts)

    def _end_dma(self) -> None:
        self._stream.pinned = False
        if not self._in_process and (self._deferred or self._stream.ready):
            self._loop.call_soon(self._resume)

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
                self._silent = True
                return f"no reply from the client within {self._dma_timeout // MS} ms"
            poller.register(self._sock, select.POLLIN | (select.POLLOUT if self._outbox.blocked else 0))
            for _, event in poller.poll(left / MS):
                if event & select.POLLOUT:
                    self._outbox.flush()
                if event & ~select.POLLOUT:
                    self._receive()
        return self._why

    def _meanwhile(self, header: Header) -> str | None:
        """A message that arrived while we wait for a DMA reply; the reason to stop waiting, if it is one."""
        # The request whose DMA we serve keeps its own state of being answered.
        saved = self._early, self._answered, self._no_dma
        try:
            if header[3] & p.TYPE_MASK == p.TYPE_COMMAND and header[1] in (
                p.REGION_WRITE,
                p.REGION_WRITE_MULTI,
                p.DEVICE_RESET,
            ):
                return self._defer(header)
            self._dispatch(header)
        finally:
            self._early, self._answered, self._no_dma = saved
        return None

    def _defer(self, header: Header) -> str | None:
        """Check a request now and keep it for later; the reason to stop waiting, if it is one."""
        stream, requests = self._stream, self._requests
        assert requests is not None  # nobody does DMA before VERSION
        self._counters.count(header)
        self._answered = False
        body = bytes(stream.body)
        try:
            plan = requests.check(header[1], memoryview(body), stream.fds or NO_FDS, stream.fds_cut)
            at_once = not self._deferred and requests.at_once(header[1], memoryview(body))
        except Exception as error:
            self._failed(header, error)
            return None
        if at_once:
            self._carry_out(header, plan)
            return None
        self._counters.deferred += 1
        self._deferred.append((header, plan, len(body)))
        self._deferred_bytes += len(body)
        if header[1] == p.DEVICE_RESET:
            self._reset_waits = True
            return RESET
        if not header[3] & p.NO_REPLY:
            assert plan.reply is not None
            self._outbox.send([_reply(header, plan.reply), plan.reply])
        return CROWDED if self._crowded else None

    @property
    def _crowded(self) -> bool:
        return len(self._deferred) >= MAX_DEFERRED or self._deferred_bytes >= MAX_DEFERRED_BYTES


def _reply(header: Header, body: bytes) -> bytes:
    """The header of the reply to a request."""
    return p.HEADER.pack(header[0], header[1], p.HEADER_SIZE + len(body), p.TYPE_REPLY, 0)
