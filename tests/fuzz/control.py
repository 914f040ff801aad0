"""Lines on the control socket: any bytes, and requests whose parameters are nearly right.

Every request is answered once, no answer is a defect of ours, and every result has the shape it is documented with.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from hba.clock import MS, S, VirtualClock
from hba.config.model import adapter_config
from hba.control import protocol
from hba.control.methods import METHODS
from hba.control.server import Connection, ControlServer
from hba.loop import EventLoop
from hba.scsi.config import LunConfig
from hba.scsi.unit import LogicalUnit
from hba.server.assemble import Assembler
from hba.storage.config import StorageConfig
from hba.storage.memory import MemoryBackend
from hba.storage.opener import Store
from tests.contract.checker import Checker
from tests.fuzz.machine import DISK, NOWHERE, UNITS
from tests.fuzz.reader import Reader
from tests.fuzz.target import Target

MOST_STEPS = 24
PATIENCE = 20.0  # s for an answer that waits for a thread
SHAPES = Checker()
WORDS = (
    "", "memory", "file", "overlay", "nbd", "scsi", "inline", "64M", "1T", "-1", "512", "0", "verifier", "trace",
    "client", "storage", "hotplug", "MB-05", "GD-01", "disk", "cdrom", "enclosure", "off", "report", "strict",
    "\x00", "é",
)  # fmt: skip
KEYS = (
    "target", "lun", "unit", "storage", "kind", "size", "path", "type", "removable", "block_size", "force", "topics",
    "start", "limit", "name", "level", "read_only", "rule", "base", "memory", "protection", "on_gone", "write_cache",
)  # fmt: skip


def run(data: bytes) -> None:
    session = _Session(Reader(data))
    try:
        for _ in session.reader.steps(MOST_STEPS):
            session.step()
            if session.over:
                break
        session.finish()
    finally:
        session.close()


class _Session:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._loop = EventLoop(VirtualClock())
        config = {
            "type": "pvscsi", "name": "fuzz", "socket": str(NOWHERE / "fuzz"), "lun": UNITS,
            "port": reader.choose(("storport", "scsiport")), "trace": {"enabled": bool(reader.u8() & 1)},
        }  # fmt: skip
        self._assembled = Assembler()(msgspec.convert(config, adapter_config()), NOWHERE, self._loop)
        parts = self._assembled.parts
        parts.open_store = parts.open_medium = _open
        make = parts.make_unit
        parts.make_unit = lambda lun, store: _made(make, lun, store)
        self._assembled._adapter.start()
        ours, self._theirs = socket.socketpair()
        ours.setblocking(False)
        self._theirs.setblocking(False)
        self._server = ControlServer(self._loop, NOWHERE / "control", parts, METHODS)
        self._connection = Connection(self._server, ours)
        self._asked: dict[int, str] = {}  # by the id of a request, its method
        self._received = b""

    @property
    def over(self) -> bool:
        """Hung up on, or `server.stop` has ended the loop: what is still asked is not answered any more."""
        return self._connection._closed or self._loop._stopping

    def step(self) -> None:
        kind = self.reader.u8()
        if kind < 0x20:
            self._send(self.reader.piece() + b"\n" * (kind & 1))
        elif kind < 0x40:
            text = json.dumps({"id": self._value(1), "method": self._value(1), "params": self._value(3)})
            self._send(text.encode() + b"\n")
        else:
            self._ask()
        self._turn()

    def _ask(self) -> None:
        method = self.reader.choose(METHODS)
        number = len(self._asked) + 1_000_000
        self._asked[number] = method.name
        params = self._struct(method.params) if self.reader.u8() % 8 else self._value(3)
        # Behind what may stand there unfinished.
        line = json.dumps({"id": number, "method": method.name, "params": params})
        self._send(b"\n" + line.encode() + b"\n")

    # -- values that nearly fit -----------------------------------------------------------------------------------

    def _struct(self, kind: Any) -> dict[str, Any]:
        hints = get_type_hints(kind, include_extras=True)
        return {name: self._fitting(hint) for name, hint in hints.items() if self.reader.u8() % 4}

    def _fitting(self, hint: Any, depth: int = 4) -> Any:
        """A value of this type, mostly."""
        reader = self.reader
        if reader.u8() % 8 == 0 or depth == 0:
            return self._value(2)
        origin = get_origin(hint)
        if origin is Annotated:
            return self._fitting(get_args(hint)[0], depth)
        if origin in (Union, UnionType):
            return self._fitting(reader.choose(get_args(hint)), depth - 1)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self._struct(hint)
        if hint is int:
            return reader.number() >> reader.u8() % 64
        if hint is bool:
            return bool(reader.u8() & 1)
        if origin is list:
            return [self._fitting(get_args(hint)[0], depth - 1) for _ in range(reader.u8() % 4)]
        if origin is dict:
            # A unit or a store, as the configuration has them.
            unit = {"target": reader.u8() % 70, "lun": reader.u8() % 3, "storage": {"kind": "memory", "size": 65536}}
            return unit if reader.u8() & 1 else self._value(3)
        return reader.choose(WORDS)

    def _value(self, depth: int) -> Any:
        """Anything JSON has."""
        reader = self.reader
        kind = reader.u8() % (9 if depth else 6)
        if kind == 0:
            return None
        if kind == 1:
            return bool(reader.u8() & 1)
        if kind == 2:
            return reader.number() - (reader.u8() & 1) * 2**63
        if kind == 3:
            return reader.u32() / 256
        if kind == 4:
            return reader.choose(WORDS)
        if kind == 5:
            return reader.piece().decode("utf-8", "replace")
        if kind == 6:
            return [self._value(depth - 1) for _ in range(reader.u8() % 4)]
        return {reader.choose(KEYS): self._value(depth - 1) for _ in range(reader.u8() % 5)}

    # -- the socket -----------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        try:
            self._theirs.send(data, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # hung up on, which ends what is asked

    def _turn(self) -> None:
        for _ in range(6):
            self._loop.run_once(0)
        self._read()

    def _read(self) -> None:
        try:
            while data := self._theirs.recv(1 << 20):
                self._received += data
        except OSError:
            pass
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._check(json.loads(line))

    def _check(self, said: dict[str, Any]) -> None:
        if "event" in said:
            return
        error = said.get("error")
        assert error is None or error["code"] != protocol.INTERNAL, error
        name = self._asked.pop(said["id"], None) if isinstance(said["id"], int) else None
        if name is not None and error is None:
            (method,) = (method for method in METHODS if method.name == name)
            SHAPES.check(said["result"], method.result)

    def finish(self) -> None:
        """Wait for the answers that are still owed."""
        self._send(b"\n")
        clock = self._loop.clock
        assert isinstance(clock, VirtualClock)
        deadline = time.monotonic() + PATIENCE
        while self._asked and not self.over:
            self._turn()
            clock.advance(1 * MS)
            assert time.monotonic() < deadline, f"never answered: {self._asked}"
        clock.advance(60 * S)
        self._turn()

    def close(self) -> None:
        self._connection.close()
        self._theirs.close()
        self._assembled.close()
        self._loop.close()


def _open(storage: StorageConfig) -> MemoryBackend:
    """Whatever is asked for: a fuzzer shall not open files."""
    return MemoryBackend(DISK)


def _made(make: Any, lun: LunConfig, store: Store | None) -> LogicalUnit:
    unit: LogicalUnit = make(msgspec.structs.replace(lun, state_file=None, protection_file=None), store)
    return unit


def _seeds() -> Iterator[bytes]:
    for number in range(len(METHODS)):
        yield bytes((number % 2, 1, 0x40, number, 1)) + bytes((1, 1, 3, 1)) * 8
        yield bytes((number % 2, 0, 0x40, number, 1)) + bytes((1, 9, 1, 0, 17, 0, 1)) * 6
    for text in (b"{}", b'{"id": 1, "method": "ping"}', b"[[[[", b'{"id":1,"method":"lun.ls","params":{}}', b"\xff\n"):
        yield bytes((0, 0, 1, len(text))) + text


TARGET = Target("control", run, tuple(_seeds()))
