"""A PVSCSI driver for tests: rings in a memfd, register accesses straight to the PCI function, no wire.

`ScriptedPort` stands in for the port driver: it keeps the SRBs it gets until the test completes them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence

from hba.adapters.make import make_adapter
from hba.adapters.moderation.options import InterruptOptions
from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.adapter import PvscsiAdapter
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.adapters.pvscsi.type import PVSCSI
from hba.adapters.registry import ADAPTERS
from hba.adapters.types import Wiring
from hba.clock import VirtualClock
from hba.loop import EventLoop
from hba.pci.memory import GuestMemory
from hba.port.driver import PortDriver
from hba.scsi.bus import ScsiBus
from hba.srb import SRB_STATUS_BUS_RESET, SRB_STATUS_SUCCESS, Srb
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

RAM = 4 << 20
STATE, REQ, CMP, MSG, DATA, SENSE = 0x1000, 0x10000, 0x40000, 0x80000, 0x100000, 0x200000
COMMAND_REGISTER, MEMORY_ENABLE, BUS_MASTER = 0x04, 2, 4


class ScriptedPort(PortDriver):
    model = "scripted"

    def __init__(self) -> None:
        self.srbs: list[Srb] = []
        self.at_once: Callable[[Srb], None] | None = None
        self.resets = 0
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def submit_all(self, srbs: Sequence[Srb]) -> None:
        for srb in srbs:
            if self.at_once is not None:
                self.at_once(srb)
                self.complete(srb, srb.srb_status or SRB_STATUS_SUCCESS)
            else:
                self.srbs.append(srb)

    def complete(self, srb: Srb, status: int = SRB_STATUS_SUCCESS) -> None:
        srb.srb_status = status
        if srb in self.srbs:
            self.srbs.remove(srb)
        assert srb.completion is not None
        srb.completion(srb)

    def reset_adapter(self) -> None:
        self.resets += 1
        for srb in list(self.srbs):
            self.complete(srb, SRB_STATUS_BUS_RESET)

    def stop(self) -> None:
        self.calls.append("stop")

    def unload(self) -> None:
        self.calls.append("unload")

    def snapshot(self) -> dict[str, object]:
        return {}


class Driver:
    """The guest's side."""

    def __init__(
        self,
        *,
        verify: bool = False,
        options: PvscsiOptions | None = None,
        ram: bool = True,
        posted_writes: bool = False,
        interrupts: InterruptOptions | None = None,
        trace: bool = False,
        msi: bool = True,
        msix_vectors: int = 0,
        ioeventfd: bool = True,
    ) -> None:
        self.clock = VirtualClock()
        self.loop = EventLoop(self.clock)
        self.memory = GuestMemory()
        self.port = ScriptedPort()
        self.bus = ScsiBus()
        self.verifier = Verifier(self.clock, rules=ADAPTERS.rules) if verify else None
        wiring = Wiring(
            self.loop,
            self.port,
            self.bus,
            self.memory,
            msi=msi,
            msix_vectors=msix_vectors,
            posted_writes=posted_writes,
            ioeventfd=ioeventfd,
            interrupts=interrupts,
        )
        self.recorder = Recorder(self.clock)
        adapter = make_adapter(
            PVSCSI, wiring, options or PvscsiOptions(), self.verifier, self.recorder if trace else None
        )
        assert isinstance(adapter, PvscsiAdapter)
        self.adapter = adapter
        self.adapter.start()
        self.fd = os.memfd_create("ram")
        os.ftruncate(self.fd, RAM)
        if ram:
            self.memory.map(0, RAM, 3, os.dup(self.fd), 0)
        self.write_config(COMMAND_REGISTER, MEMORY_ENABLE | BUS_MASTER, 2)
        self.prod = 0
        self.cons = 0
        self.entries = 0
        self.completion_entries = 0

    def close(self) -> None:
        self.adapter.stop()
        self.memory.unmap_all()
        os.close(self.fd)
        self.loop.close()

    # -- memory and registers

    def poke(self, address: int, data: bytes) -> None:
        os.pwrite(self.fd, data, address)

    def peek(self, address: int, length: int) -> bytes:
        return os.pread(self.fd, length, address)

    def u32(self, address: int) -> int:
        return int.from_bytes(self.peek(address, 4), "little")

    def set_u32(self, address: int, value: int) -> None:
        self.poke(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def write_config(self, offset: int, value: int, size: int) -> None:
        self.adapter.function.region_write(7, offset, value.to_bytes(size, "little"))

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.adapter.function.region_write(0, offset, value.to_bytes(size, "little"))

    def read(self, offset: int, size: int = 4) -> int:
        return int.from_bytes(self.adapter.function.region_read(0, offset, size), "little")

    def command(self, number: int, descriptor: bytes = b"") -> int:
        self.write(0x0, number)
        for (word,) in struct.iter_unpack("<I", descriptor):
            self.write(0x4, word)
        return self.read(0x8)

    # -- rings

    def setup(self, req_pages: int = 1, cmp_pages: int = 1, state: int = STATE) -> int:
        req = [(REQ >> 12) + i for i in range(req_pages)]
        cmp = [(CMP >> 12) + i for i in range(cmp_pages)]
        padded = [*req, *[0] * (32 - len(req)), *cmp, *[0] * (32 - len(cmp))]
        self.entries, self.completion_entries = req_pages * 32, cmp_pages * 128
        self.prod = self.cons = 0
        return self.command(r.CMD_SETUP_RINGS, st.SETUP_RINGS.pack(req_pages, cmp_pages, state >> 12, *padded))

    def setup_messages(self, pages: int = 1) -> int:
        ppns = [(MSG >> 12) + i for i in range(pages)] + [0] * (16 - pages)
        return self.command(r.CMD_SETUP_MSG_RING, st.SETUP_MSG_RING.pack(pages, 0, *ppns))

    def put(
        self,
        cdb: bytes = b"\x00" * 6,
        *,
        context: int = 1,
        address: int = DATA,
        length: int = 0,
        flags: int | None = None,
        target: int = 0,
        lun: bytes = bytes(8),
        tag: int = 0x20,
        bus: int = 0,
        sense_length: int = 96,
        cdb_length: int | None = None,
    ) -> None:
        """Write a descriptor and move reqProdIdx."""
        if flags is None:
            flags = st.FLAG_DIR_TOHOST if length else st.FLAG_DIR_NONE
        descriptor = st.REQUEST.pack(
            context,
            address,
            length,
            SENSE,
            sense_length,
            flags,
            cdb.ljust(16, b"\0"),
            len(cdb) if cdb_length is None else cdb_length,
            int.from_bytes(lun, "little"),
            tag,
            bus,
            target,
            0,
        )
        self.poke(REQ + self.prod % self.entries * st.REQUEST_SIZE, descriptor)
        self.prod = (self.prod + 1) & 0xFFFFFFFF
        self.set_u32(STATE + st.REQ_PROD_IDX, self.prod)

    def kick(self) -> None:
        self.write(0x4018, 0)
        self.turn()

    def turn(self) -> None:
        for _ in range(4):
            self.loop.run_once(0)

    def completions(self, consume: bool = True) -> list[tuple[int, int, int, int, int]]:
        """(context, dataLen, senseLen, hostStatus, scsiStatus) of what the device posted since the last call."""
        prod = self.u32(STATE + st.CMP_PROD_IDX)
        result = []
        index = self.cons
        while index != prod:
            slot = index % self.completion_entries * st.COMPLETION_SIZE
            result.append(st.COMPLETION.unpack(self.peek(CMP + slot, st.COMPLETION_SIZE)))
            index = (index + 1) & 0xFFFFFFFF
        if consume:
            self.cons = index
            self.set_u32(STATE + st.CMP_CONS_IDX, index)
        return result

    def scatter(self, address: int, elements: Sequence[tuple[int, int, int]]) -> None:
        self.poke(address, b"".join(st.SG_ELEMENT.pack(*element) for element in elements))

    def found(self) -> dict[str, int]:
        assert self.verifier is not None
        return dict(self.verifier.counts)
