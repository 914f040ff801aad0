"""A PVSCSI driver over vfio-user, for tests that look at every answer: its status, its sense data, each byte of it.

The suite's server runs in the guest and has no guest of its own, so this stands in for one. What is asked is about the
storage; the adapter is the one that has a driver here.
"""

from __future__ import annotations

import os
import select
import time
from typing import NamedTuple

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.vfio_user.client import GuestRam, VfioUserClient

CONFIG = 7  # region index of config space (vfio-pci)
MSI = 1  # interrupt index
COMMAND, STATUS, INTR_STATUS, INTR_MASK, KICK = 0x0000, 0x0008, 0x100C, 0x2010, 0x4018
BASE = 0x1000_0000  # bus address of our memory
PAGE = st.PAGE_SIZE

SLOTS = 8  # commands at a time
DATA_SIZE = 4 << 20  # bytes of data in one command
REQUESTS, COMPLETIONS, MESSAGES, SENSE, DATA = PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE, 5 * PAGE
REQUEST_ENTRIES, COMPLETION_ENTRIES, MESSAGE_ENTRIES = (
    PAGE // size for size in (st.REQUEST_SIZE, st.COMPLETION_SIZE, st.MESSAGE_SIZE)
)
SENSE_SIZE = PAGE // SLOTS
FILLER = 0xA5  # what the data buffer holds before a command
PATIENCE = 60.0  # seconds without any answer


class Answer(NamedTuple):
    """`host` is PVSCSI's hostStatus; `data` what came, `buffer` all of the data buffer, `moved` its dataLen."""

    host: int
    status: int
    sense: bytes
    moved: int
    buffer: bytes

    @property
    def data(self) -> bytes:
        return self.buffer[: self.moved]

    @property
    def condition(self) -> tuple[int, int, int]:
        """Sense key, ASC and ASCQ of fixed or descriptor format; (0, 0, 0) without sense data."""
        if not self.sense:
            return 0, 0, 0
        if self.sense[0] & 0x7F in (0x72, 0x73):
            return self.sense[1] & 15, self.sense[2], self.sense[3]
        return self.sense[2] & 15, self.sense[12], self.sense[13]


class Driver:
    """One adapter, up and running. A context manager."""

    def __init__(self, socket: str) -> None:
        self._ram = GuestRam(DATA + SLOTS * DATA_SIZE, BASE)
        self._interrupt = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._client = VfioUserClient.connect(socket, timeout=30)
        self._produced = self._consumed = self._heard = 0
        self._pending: dict[int, tuple[int, int]] = {}  # context: slot, length of its data
        self._answers: dict[int, Answer] = {}
        self._context = 0
        client = self._client
        client.version()
        client.map_ram(self._ram)
        client.region_write(CONFIG, 0x04, (0x0006).to_bytes(2, "little"))  # memory space, bus master
        control = self._capability(5) + 2
        value = int.from_bytes(client.region_read(CONFIG, control, 2), "little")
        client.region_write(CONFIG, control, (value | 1).to_bytes(2, "little"))
        client.set_eventfds(MSI, [self._interrupt])
        first = BASE >> st.PAGE_SHIFT
        self._command(r.CMD_ADAPTER_RESET)
        self._command(r.CMD_SETUP_RINGS, st.SETUP_RINGS.pack(1, 1, first, first + 1, *[0] * 31, first + 2, *[0] * 31))
        self._command(r.CMD_SETUP_MSG_RING, st.SETUP_MSG_RING.pack(1, 0, first + 3, *[0] * 15))
        self._write(INTR_MASK, r.INTR_CMPL_0 | r.INTR_MSG_0)

    def _capability(self, wanted: int) -> int:
        at = self._client.region_read(CONFIG, 0x34, 1)[0]
        while at:
            kind, following = self._client.region_read(CONFIG, at, 2)
            if kind == wanted:
                return at
            at = following
        raise AssertionError(f"the adapter has no PCI capability {wanted:#x}")

    def _write(self, offset: int, value: int) -> None:
        self._client.region_write(0, offset, value.to_bytes(4, "little"))

    def _command(self, code: int, descriptor: bytes = b"") -> None:
        self._write(COMMAND, code)
        for at in range(0, len(descriptor), 4):
            self._client.region_write(0, 4, descriptor[at : at + 4])
        status = int.from_bytes(self._client.region_read(0, STATUS, 4), "little")
        assert status != r.STATUS_FAILED, f"the adapter refused PVSCSI command {code}"

    def _index(self, at: int) -> int:
        return int.from_bytes(self._ram.view[at : at + 4], "little")

    def _set_index(self, at: int, value: int) -> None:
        self._ram.view[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    # -- commands -----------------------------------------------------------------------------------------------------

    def start(self, target: int, cdb: bytes, room: int = 0, out: bytes = b"") -> int:
        """Send a command, with `room` bytes for what it reads or with the data it writes; `wait` takes the result."""
        used = {slot for slot, _ in self._pending.values()}
        slot = next(slot for slot in range(SLOTS) if slot not in used)
        length = len(out) or room
        at = DATA + slot * DATA_SIZE
        self._ram.view[at : at + length] = out or bytes((FILLER,)) * room
        self._context += 1
        self._pending[self._context] = (slot, length)
        flags = st.FLAG_DIR_TODEVICE if out else st.FLAG_DIR_TOHOST if room else st.FLAG_DIR_NONE
        st.REQUEST.pack_into(
            self._ram.view, REQUESTS + self._produced % REQUEST_ENTRIES * st.REQUEST_SIZE,
            self._context, BASE + at if length else 0, length, BASE + SENSE + slot * SENSE_SIZE, SENSE_SIZE, flags,
            cdb.ljust(16, b"\0"), len(cdb), 0, 0x20, 0, target, 0,
        )  # fmt: skip
        self._produced += 1
        self._set_index(st.REQ_PROD_IDX, self._produced)
        self._write(KICK, 0)
        return self._context

    def wait(self, context: int) -> Answer:
        """The end of a command that was started."""
        deadline = time.monotonic() + PATIENCE
        while context not in self._answers:
            self._collect()
            if context not in self._answers:
                assert time.monotonic() < deadline, f"command {context} has no answer after {PATIENCE} s"
                self._sleep(deadline)
        return self._answers.pop(context)

    def run(self, target: int, cdb: bytes, room: int = 0, out: bytes = b"") -> Answer:
        return self.wait(self.start(target, cdb, room, out))

    def settle(self, target: int) -> None:
        """Take the unit attentions that are due, as a driver's first commands do."""
        for _ in range(8):
            answer = self.run(target, bytes(6))
            if (answer.host, answer.status) == (0, 0):
                return
        raise AssertionError(f"target {target} does not become ready: {answer}")

    def _collect(self) -> None:
        produced = self._index(st.CMP_PROD_IDX)
        while self._consumed & 0xFFFFFFFF != produced:
            place = COMPLETIONS + self._consumed % COMPLETION_ENTRIES * st.COMPLETION_SIZE
            context, moved, sense_length, host, status = st.COMPLETION.unpack_from(self._ram.view, place)
            slot, length = self._pending.pop(context)
            sense = SENSE + slot * SENSE_SIZE
            data = DATA + slot * DATA_SIZE
            self._answers[context] = Answer(
                host, status, bytes(self._ram.view[sense : sense + sense_length]), moved,
                bytes(self._ram.view[data : data + length]),
            )  # fmt: skip
            self._consumed += 1
        self._set_index(st.CMP_CONS_IDX, self._consumed)

    def _sleep(self, deadline: float) -> None:
        select.select([self._interrupt], [], [], max(0.0, deadline - time.monotonic()))
        try:
            os.eventfd_read(self._interrupt)
        except BlockingIOError:
            pass

    # -- messages -----------------------------------------------------------------------------------------------------

    def message(self, timeout: float = PATIENCE) -> tuple[str, int]:
        """The next message about a unit that came ("added") or went ("removed"), and its target."""
        deadline = time.monotonic() + timeout
        while self._index(st.MSG_PROD_IDX) == self._heard:
            assert time.monotonic() < deadline, f"no message on the message ring within {timeout} s"
            self._sleep(deadline)
        place = MESSAGES + self._heard % MESSAGE_ENTRIES * st.MESSAGE_SIZE
        kind, _, target, lun = st.MESSAGE.unpack_from(self._ram.view, place)
        assert lun == bytes(8), f"a message about LUN {lun.hex()}"
        self._heard += 1
        self._set_index(st.MSG_CONS_IDX, self._heard)
        return {st.MSG_DEV_ADDED: "added", st.MSG_DEV_REMOVED: "removed"}[kind], target

    def no_message(self) -> bool:
        return self._index(st.MSG_PROD_IDX) == self._heard

    def close(self) -> None:
        self._client.close()
        self._ram.close()
        os.close(self._interrupt)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
