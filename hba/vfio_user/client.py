"""A small synchronous client: what QEMU is to the server, for tests and benchmarks, without a QEMU.

It never runs behind the caller's back. DMA_READ and DMA_WRITE from the server are served out of the client's own
memory while it waits for a reply, and by `poll()`.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from hba.errors import EXIT_SOCKET, HbaError, SocketError
from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.device import IoEventFd, IrqInfo, RegionInfo
from hba.vfio_user.framing import Stream, close_fds, send_message
from hba.vfio_user.protocol import Capabilities, Header, ProtocolError

# What QEMU announces (without its migration parameters).
CAPABILITIES = Capabilities(
    max_msg_fds=16, max_data_xfer_size=p.MAX_DATA_XFER, max_dma_maps=65535, pgsizes=4096, write_multiple=True
)
_REGION_INFO_ARGSZ = 4096  # room for the capabilities of a region


class ReplyError(HbaError):
    """The server refused a request; `errno` says why."""

    exit_code = EXIT_SOCKET

    def __init__(self, command: int, code: int) -> None:
        super().__init__(f"the server refused {p.command_name(command)}: {os.strerror(code)}")
        self.command = command
        self.errno = code


class Disconnected(SocketError):
    """The server closed the connection, did not answer in time, or sent what no server may send."""


class GuestRam:
    """Guest memory as a memfd: `view` is its bytes, `iova` its bus address. A context manager."""

    def __init__(self, size: int, iova: int = 0, *, prot: int = dev.DMA_READ | dev.DMA_WRITE) -> None:
        self.size = size
        self.iova = iova
        self.prot = prot
        self.fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)
        self.view = memoryview(self.map)

    def at(self, iova: int, length: int) -> memoryview:
        """The bytes at a bus address. Raises ValueError when they are not all in this memory."""
        start = iova - self.iova
        if start < 0 or length < 0 or start + length > self.size:
            raise ValueError(f"0x{iova:x}+0x{length:x} is not in 0x{self.iova:x}+0x{self.size:x}")
        return self.view[start : start + length]

    def close(self) -> None:
        self.view.release()
        self.map.close()
        os.close(self.fd)

    def __enter__(self) -> GuestRam:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VfioUserClient:
    """One connection to a device server. A context manager; every call waits for its reply.

    Calls raise `ReplyError` when the server refuses and `Disconnected` when it is gone.
    """

    def __init__(self, sock: socket.socket, timeout: float = 5.0) -> None:
        """Takes over a connected `sock`. `timeout`: seconds to wait for one reply."""
        sock.setblocking(True)
        # The kernel's own time-out: a blocking receive then costs one system call, not a poll and a receive.
        whole = int(timeout)
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", whole, int((timeout - whole) * 1_000_000))
        )
        self._sock = sock
        self._timeout = timeout
        self._stream = Stream(sock)
        self._id = 0
        self._unshared: list[GuestRam] = []  # memory the server reaches by message only
        self.capabilities: Capabilities | None = None  # the server's; None before `version()`
        self.dma_reads = 0
        self.dma_writes = 0

    @classmethod
    def connect(cls, path: str | Path, timeout: float = 5.0) -> VfioUserClient:
        """Connect to a server's socket. Raises `SocketError`. Call `version()` next."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(os.fspath(path))
        except OSError as error:
            sock.close()
            raise SocketError(f"cannot connect to {path}: {error.strerror}; is the server running?") from None
        return cls(sock, timeout)

    def close(self) -> None:
        self._stream.close()
        self._sock.close()

    def __enter__(self) -> VfioUserClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    # -- messages ---------------------------------------------------------------------------------------------

    def send(
        self, command: int, body: bytes = b"", *, flags: int = 0, fds: Sequence[int] = (), size: int | None = None
    ) -> int:
        """Send one message and do not wait; its id. `size` overrides the header's size field (tests of bad input)."""
        self._id = (self._id + 1) & 0xFFFF
        length = p.HEADER_SIZE + len(body) if size is None else size
        self.send_raw(p.HEADER.pack(self._id, command, length, flags, 0) + body, fds)
        return self._id

    def send_raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes as they are, descriptors with the first of them."""
        view = memoryview(data)
        try:
            sent = send_message(self._sock, [view], list(fds))
            while sent < len(view):
                sent += send_message(self._sock, [view[sent:]])
        except OSError as error:
            raise Disconnected(f"the server took no more of what it was sent ({error.strerror})") from None

    def receive(self, wait: bool = True) -> tuple[Header, bytes, list[int]] | None:
        """The next message that is no DMA request (those are served): header, body, descriptors (now the caller's).

        None when nothing is there and `wait` is false.
        """
        while True:
            try:
                header = self._stream.next()
            except ProtocolError as error:
                raise Disconnected(f"the server sent nonsense: {error}") from None
            if header is not None:
                if header[3] & p.TYPE_MASK == p.TYPE_COMMAND:
                    self._serve(header)
                    continue
                return header, bytes(self._stream.body), self._stream.fds
            try:
                count = self._stream.receive(0 if wait else socket.MSG_DONTWAIT)
            except OSError as error:
                raise Disconnected(f"the connection to the server broke ({error.strerror})") from None
            if count == 0:
                raise Disconnected("the server closed the connection")
            if count < 0:
                if wait:
                    raise Disconnected(f"no reply within {self._timeout} s")
                return None

    def wait_reply(self, message_id: int, command: int, max_fds: int = 0) -> tuple[bytes, list[int]]:
        """Wait for the reply to one message: its body and descriptors."""
        message = self.receive()
        assert message is not None
        header, body, fds = message
        if header[0] != message_id or header[1] != command or len(fds) > max_fds:
            close_fds(fds)
            raise Disconnected(f"reply {header[0]} to {p.command_name(header[1])} with {len(fds)} fds is not expected")
        if header[3] & p.ERROR:
            raise ReplyError(command, header[4])
        return body, fds

    def request(self, command: int, body: bytes = b"", *, flags: int = 0, fds: Sequence[int] = ()) -> bytes:
        """Send one message and wait for the body of its reply."""
        return self.wait_reply(self.send(command, body, flags=flags, fds=fds), command)[0]

    def poll(self) -> None:
        """Serve the DMA requests that are there; does not wait. Raises `Disconnected` for an unexpected reply."""
        message = self.receive(wait=False)
        if message is not None:
            close_fds(message[2])
            raise Disconnected(f"reply {message[0][0]} to {p.command_name(message[0][1])} is not expected")

    # -- DMA from the server ----------------------------------------------------------------------------------

    def _serve(self, header: Header) -> None:
        message_id, command, _, flags, _ = header
        body = self._stream.body
        close_fds(self._stream.fds)
        if command not in (p.DMA_READ, p.DMA_WRITE) or len(body) < p.DMA_ACCESS_BODY.size:
            self._answer(message_id, command, flags, errno.EINVAL)
            return
        access = p.DMA_ACCESS_BODY.decode(body)
        data = body[p.DMA_ACCESS_BODY.size :]
        if access.count > p.MAX_DATA_XFER or (command == p.DMA_WRITE and len(data) != access.count):
            self._answer(message_id, command, flags, errno.EINVAL)
            return
        ram = self._find(access.address, access.count, dev.DMA_READ if command == p.DMA_READ else dev.DMA_WRITE)
        if ram is None:
            self._answer(message_id, command, flags, errno.ENODEV)
            return
        place = ram.at(access.address, access.count)
        if command == p.DMA_READ:
            self.dma_reads += 1
            self._answer(message_id, command, flags, 0, bytes(body[: p.DMA_ACCESS_BODY.size]) + place)
        else:
            self.dma_writes += 1
            place[:] = data
            self._answer(message_id, command, flags, 0, bytes(body[: p.DMA_ACCESS_BODY.size]))

    def _answer(self, message_id: int, command: int, flags: int, code: int, body: bytes = b"") -> None:
        if not flags & p.NO_REPLY:
            kind = p.TYPE_REPLY | p.ERROR if code else p.TYPE_REPLY
            self.send_raw(p.HEADER.pack(message_id, command, p.HEADER_SIZE + len(body), kind, code) + body)

    def _find(self, address: int, length: int, access: int) -> GuestRam | None:
        for ram in self._unshared:
            if ram.iova <= address and address + length <= ram.iova + ram.size and ram.prot & access:
                return ram
        return None

    # -- requests ---------------------------------------------------------------------------------------------

    def version(self, capabilities: Capabilities | None = CAPABILITIES) -> Capabilities:
        """Negotiate; the server's capabilities."""
        reply = self.request(p.VERSION, p.encode_version(0, 0, capabilities))
        major, minor, self.capabilities = p.decode_version(reply)
        if (major, minor) != (0, 0):
            raise Disconnected(f"the server speaks version {major}.{minor}, this client 0.0")
        return self.capabilities

    def map_ram(self, ram: GuestRam, *, shared: bool = True) -> None:
        """DMA_MAP all of `ram`: with its descriptor, or without, and then the server has to ask for every byte."""
        self.dma_map(ram.iova, ram.size, prot=ram.prot, fd=ram.fd if shared else None)
        if not shared:
            self._unshared.append(ram)

    def unmap_ram(self, ram: GuestRam) -> None:
        self.dma_unmap(ram.iova, ram.size)
        if ram in self._unshared:
            self._unshared.remove(ram)

    def dma_map(self, iova: int, size: int, *, prot: int = 3, fd: int | None = None, offset: int = 0) -> None:
        body = p.DMA_MAP_BODY.encode(p.DmaMap(p.DMA_MAP_BODY.size, prot, offset, iova, size))
        self.request(p.DMA_MAP, body, fds=() if fd is None else (fd,))

    def dma_unmap(self, iova: int, size: int, flags: int = 0) -> None:
        body = p.DMA_UNMAP_BODY.encode(p.DmaUnmap(p.DMA_UNMAP_BODY.size, flags, iova, size))
        if self.request(p.DMA_UNMAP, body) != body:
            raise Disconnected("the reply to DMA_UNMAP does not repeat the request")

    def dma_unmap_all(self) -> None:
        self.dma_unmap(0, 0, p.DMA_UNMAP_FLAG_ALL)
        self._unshared.clear()

    def device_info(self) -> p.DeviceInfo:
        size = p.DEVICE_INFO_BODY.size
        request = p.DEVICE_INFO_BODY.encode(p.DeviceInfo(size, 0, 0, 0))
        return p.DEVICE_INFO_BODY.decode(self.request(p.DEVICE_GET_INFO, request))

    def region_info(self, index: int) -> RegionInfo:
        """What a region is; the caller closes its `fd`."""
        request = p.REGION_INFO_BODY.encode(p.RegionInfoBody(_REGION_INFO_ARGSZ, 0, index, 0, 0, 0))
        message_id = self.send(p.DEVICE_GET_REGION_INFO, request)
        body, fds = self.wait_reply(message_id, p.DEVICE_GET_REGION_INFO, max_fds=1)
        info = p.REGION_INFO_BODY.decode(body)
        sparse: tuple[tuple[int, int], ...] = ()
        if info.flags & p.REGION_INFO_FLAG_CAPS and info.cap_offset:
            sparse = p.decode_sparse(body[info.cap_offset :])
        return RegionInfo(info.size, info.flags, fds[0] if fds else None, info.offset, sparse)

    def region_io_fds(self, index: int) -> list[IoEventFd]:
        """Where writes to a region may come as events instead of messages; the caller closes each `fd`, once."""
        size = p.REGION_IO_FDS_BODY.size
        most = self.capabilities.max_msg_fds if self.capabilities is not None else 1
        room = size + (most or 1) * p.SUB_REGION_BODY.size
        request = p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(room, 0, index, 0))
        message_id = self.send(p.DEVICE_GET_REGION_IO_FDS, request)
        body, fds = self.wait_reply(message_id, p.DEVICE_GET_REGION_IO_FDS, max_fds=p.MAX_MSG_FDS)
        count = p.REGION_IO_FDS_BODY.decode(body).count
        parts = [
            p.SUB_REGION_BODY.decode(body[at : at + p.SUB_REGION_BODY.size])
            for at in range(size, size + count * p.SUB_REGION_BODY.size, p.SUB_REGION_BODY.size)
        ]
        if any(part.type != p.IO_FD_TYPE_IOEVENTFD or part.fd_index >= len(fds) for part in parts):
            close_fds(fds)
            raise Disconnected("a sub-region has no file descriptor, or of a kind this client does not know")
        return [IoEventFd(part.offset, part.size, fds[part.fd_index]) for part in parts]

    def irq_info(self, index: int) -> IrqInfo:
        request = p.IRQ_INFO_BODY.encode(p.IrqInfoBody(p.IRQ_INFO_BODY.size, 0, index, 0))
        info = p.IRQ_INFO_BODY.decode(self.request(p.DEVICE_GET_IRQ_INFO, request))
        return IrqInfo(info.count, info.flags)

    def set_irqs(
        self,
        index: int,
        flags: int,
        start: int = 0,
        count: int = 0,
        *,
        eventfds: Sequence[int] = (),
        data: bytes = b"",
    ) -> None:
        """DEVICE_SET_IRQS as it is; `flags` are device.IRQ_SET_DATA_* | IRQ_SET_ACTION_*."""
        size = p.SET_IRQS_BODY.size + len(data)
        body = p.SET_IRQS_BODY.encode(p.SetIrqs(size, flags, index, start, count)) + data
        self.request(p.DEVICE_SET_IRQS, body, fds=eventfds)

    def set_eventfds(self, index: int, eventfds: Sequence[int]) -> None:
        """Give every vector of an interrupt index its eventfd, in as many messages as the server's limit asks for."""
        most = 1 if self.capabilities is None else self.capabilities.max_msg_fds or 1
        for start in range(0, len(eventfds), most):
            part = eventfds[start : start + most]
            flags = dev.IRQ_SET_DATA_EVENTFD | dev.IRQ_SET_ACTION_TRIGGER
            self.set_irqs(index, flags, start, len(part), eventfds=part)

    def disable_irqs(self, index: int) -> None:
        self.set_irqs(index, dev.IRQ_SET_DATA_NONE | dev.IRQ_SET_ACTION_TRIGGER)

    def region_read(self, region: int, offset: int, count: int) -> bytes:
        body = self.request(p.REGION_READ, p.REGION_ACCESS_BODY.struct.pack(offset, region, count))
        if len(body) != p.REGION_ACCESS_BODY.size + count:
            raise Disconnected(f"REGION_READ of {count} bytes was answered with {len(body)}")
        return body[p.REGION_ACCESS_BODY.size :]

    def region_write(self, region: int, offset: int, data: bytes, *, posted: bool = False) -> None:
        """`posted`: do not wait, there is no reply, as QEMU does for memory BARs."""
        self._id = (self._id + 1) & 0xFFFF
        size = p.REGION_MESSAGE.size + len(data)
        flags = p.NO_REPLY if posted else 0
        head = p.REGION_MESSAGE.pack(self._id, p.REGION_WRITE, size, flags, 0, offset, region, len(data))
        message = head + data
        try:
            sent = self._sock.send(message, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise Disconnected(f"the server took no more of what it was sent ({error.strerror})") from None
        if sent < len(message):
            self.send_raw(message[sent:])
        if not posted:
            self.wait_reply(self._id, p.REGION_WRITE)

    def write_multi(self, writes: list[tuple[int, int, bytes]], *, posted: bool = True) -> None:
        """REGION_WRITE_MULTI of (offset, region, data) with at most 8 bytes of data each."""
        body = p.encode_multi(writes)
        if posted:
            self.send(p.REGION_WRITE_MULTI, body, flags=p.NO_REPLY)
        else:
            self.request(p.REGION_WRITE_MULTI, body)

    def reset(self) -> None:
        self.request(p.DEVICE_RESET)
