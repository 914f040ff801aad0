# ruff: noqa: E501
"""A guest that means harm: whatever a PVSCSI driver can write, it writes, at random and fast.

Most of what it does is nearly right, or nothing would get past the first check.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.vfio_user.client import GuestRam, ReplyError, VfioUserClient

BASE = 0x100000
SIZE = 8 << 20
CONFIG = 7
PAGES = 8  # of each ring
STATE, REQUESTS, COMPLETIONS, MESSAGES, LISTS, DATA = 0x0, 0x1000, 0x9000, 0x11000, 0x20000, 0x100000
SLOTS = PAGES * 32

TEMPLATES = [
    bytes.fromhex(text.replace(" ", ""))
    for text in (
        "00", "03 00 00 00 fc", "12 00 00 00 ff", "12 01 83 00 ff", "12 01 b0 00 ff", "1a 00 3f 00 ff",
        "5a 00 3f ff 00 00 00 ff ff", "15 10 00 00 18", "55 11 00 00 00 00 00 00 20", "1b 00 00 00 00", "1b 00 00 00 02",
        "1b 00 00 00 03", "1b 00 00 00 01", "1e 00 00 00 01", "1e", "25", "9e 10 00 00 00 00 00 00 00 00 00 00 00 20",
        "9e 12 00 00 00 00 00 00 00 00 00 00 ff ff", "28 00 00 00 00 00 00 00 08", "2a 00 00 00 00 00 00 00 08",
        "88 00 00 00 00 00 00 00 00 00 00 00 00 40", "8a 08 00 00 00 00 00 00 00 00 00 00 00 40",
        "a8 00 00 00 00 00 00 00 00 08", "35", "91", "34 00 00 00 00 00 00 10 00", "2f 00 00 00 00 00 00 10 00",
        "8f 02 00 00 00 00 00 00 00 00 00 00 00 10", "2e 02 00 00 00 00 00 00 08", "42 00 00 00 00 00 00 00 18",
        "41 08 00 00 00 00 00 10 00", "93 01 00 00 00 00 00 00 00 00 00 00 ff ff", "89 00 00 00 00 00 00 00 00 00 00 00 00 01",
        "8b 00 00 00 00 00 00 00 00 00 00 00 00 10", "9c 00 00 00 00 00 00 00 00 00 00 00 00 08", "04", "04 10",
        "48 81 00 00 00 00 00 00 08", "48 82", "48 9f", "4d 00 7f ff 00 00 00 ff ff", "a0 00 00 00 00 00 00 00 10 00",
        "a3 0c 00 00 00 00 00 00 ff ff", "a3 0f 00 00 00 00 00 00 00 ff", "a4 0f 00 00 00 00 00 00 00 0c",
        "5e 00 00 00 00 00 00 ff ff", "5e 03 00 00 00 00 00 ff ff", "5f 00 00 00 00 00 00 00 18", "5f 01 03 00 00 00 00 00 18",
        "5f 03 00 00 00 00 00 00 18", "5f 06 00 00 00 00 00 00 18", "16", "17", "3b 02 00 00 00 00 00 10 00",
        "3c 0a 00 00 00 00 00 10 00", "1d 04", "1c 01 01 00 ff", "83 00 00 00 00 00 00 00 00 00 00 00 02 00",
        "46 00 00 00 00 00 00 ff ff", "4a 01 00 00 fe 00 00 00 08", "ad 00 00 00 00 00 00 00 ff ff", "43 02 00 00 00 00 00 ff ff",
        "be 00 00 00 00 00 00 00 08 10", "b9 00 00 00 02 00 00 03 00 10", "51 00 00 00 00 00 00 ff ff",
    )
]  # fmt: skip


class HostileGuest:
    """One connection after another to `socket`; `targets` are the units there are."""

    def __init__(self, socket: str, targets: Sequence[int], seed: int) -> None:
        self._socket = socket
        self._targets = list(targets)
        self._chance = random.Random(seed)
        self.ram = GuestRam(SIZE, BASE)
        self.operations = 0
        self._produced = 0
        self._client = self._connect()

    def close(self) -> None:
        self._client.close()
        self.ram.close()

    def _connect(self) -> VfioUserClient:
        client = VfioUserClient.connect(self._socket, timeout=30)
        client.version()
        client.map_ram(self.ram)
        self._mapped = True
        client.region_write(CONFIG, 0x04, b"\x06\x00")
        self._client = client
        self._set_up()
        return client

    # -- what a driver does -------------------------------------------------------------------------------------------

    def _write(self, offset: int, value: int) -> None:
        self._client.region_write(0, offset, (value & 0xFFFFFFFF).to_bytes(4, "little"), posted=True)

    def _command(self, code: int, descriptor: bytes = b"") -> None:
        self._write(0, code)
        for at in range(0, len(descriptor), 4):
            self._client.region_write(0, 4, descriptor[at : at + 4].ljust(4, b"\0"), posted=True)
        self._client.region_read(0, 8, 4)

    def _set_up(self) -> None:
        self.ram.view[STATE : STATE + 4096] = bytes(4096)
        self._produced = 0
        first = BASE >> 12
        requests = [first + (REQUESTS >> 12) + page for page in range(PAGES)] + [0] * (32 - PAGES)
        completions = [first + (COMPLETIONS >> 12) + page for page in range(PAGES)] + [0] * (32 - PAGES)
        self._command(r.CMD_ADAPTER_RESET)
        self._command(r.CMD_SETUP_RINGS, st.SETUP_RINGS.pack(PAGES, PAGES, first, *requests, *completions))
        if self._chance.random() < 0.5:
            messages = [first + (MESSAGES >> 12), *[0] * 15]
            self._command(r.CMD_SETUP_MSG_RING, st.SETUP_MSG_RING.pack(1, 0, *messages))

    def _state(self, offset: int, value: int) -> None:
        self.ram.view[STATE + offset : STATE + offset + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def _consume(self) -> None:
        produced = bytes(self.ram.view[STATE + st.CMP_PROD_IDX : STATE + st.CMP_PROD_IDX + 4])
        self.ram.view[STATE + st.CMP_CONS_IDX : STATE + st.CMP_CONS_IDX + 4] = produced

    # -- one step -----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Something. `operations` counts requests, commands, register accesses, maps and connections."""
        chance = self._chance.random()
        try:
            if chance < 0.90:
                self._requests()
            elif chance < 0.94:
                self._registers()
            elif chance < 0.97:
                self._task_management()
            elif chance < 0.98:
                self._state(self._chance.choice((0, 4, 12, 16, 128, 132)), self._chance.getrandbits(32))
                self._write(0x4018, 0)
                self._set_up()
            elif chance < 0.99:
                self._memory()
            elif chance < 0.995:
                self._client.region_write(CONFIG, 0x04, self._chance.choice((b"\x00\x00", b"\x02\x00", b"\x04\x00")))
                self._write(0x4018, 0)
                self._client.region_write(CONFIG, 0x04, b"\x06\x00")
            elif chance < 0.998:
                self._client.reset()
                self._client.region_write(CONFIG, 0x04, b"\x06\x00")
                self._set_up()
            else:
                self._client.close()
                self._connect()
        except ReplyError:
            pass  # refused, which is what should happen
        self.operations += 1

    def _requests(self) -> None:
        count = self._chance.choice((1, 1, 1, 4, 16, 64))
        for _ in range(count):
            self._request()
        self._state(st.REQ_PROD_IDX, self._produced)
        self._write(self._chance.choice((0x4018, 0x2014)), 0)
        self.operations += count - 1
        self._client.region_read(0, 0x100C, 4)  # the server has had its turn
        self._consume()

    def _request(self) -> None:
        chance = self._chance
        cdb = bytearray(chance.choice(TEMPLATES).ljust(16, b"\0"))
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            cdb[chance.randrange(16)] = chance.getrandbits(8)
        if chance.random() < 0.02:
            cdb = bytearray(chance.randbytes(16))
        length = chance.choice((0, 8, 24, 36, 255, 512, 513, 4096, 65536, 1 << 20))
        flags = chance.choice((st.FLAG_DIR_NONE, st.FLAG_DIR_TOHOST, st.FLAG_DIR_TOHOST, st.FLAG_DIR_TODEVICE))
        address = BASE + DATA + chance.randrange(0, 4 << 20)
        if length and chance.random() < 0.2:
            address, length = self._list(length)
            flags |= st.FLAG_WITH_SG_LIST
        if chance.random() < 0.01:
            address, length, flags = chance.getrandbits(64), chance.getrandbits(32), chance.getrandbits(5)
        descriptor = st.REQUEST.pack(
            chance.getrandbits(8), address & (1 << 64) - 1, length, BASE + DATA, chance.choice((0, 18, 96, 255)), flags,
            bytes(cdb), chance.choice((6, 10, 12, 16, 16, 16, 0, 17)), chance.choice((0, 0, 0, 0, 0x100, 0xC1)),
            chance.choice((0x20, 0x20, 0x20, 0x21, 0x22, 0x24)), 0, chance.choice((*self._targets, *self._targets, 99)), 0,
        )  # fmt: skip
        at = REQUESTS + self._produced % SLOTS * st.REQUEST_SIZE
        self.ram.view[at : at + st.REQUEST_SIZE] = descriptor
        self._produced = (self._produced + 1) & 0xFFFFFFFF

    def _list(self, length: int) -> tuple[int, int]:
        """A scatter list, perhaps of very many small pieces, empty ones, or a chain that has no end."""
        chance = self._chance
        size = chance.choice((0, 1, 1, 3, 512, 4096))
        kind = chance.random()
        page = LISTS + chance.randrange(0, 0x60000 // 4096) * 4096
        elements = []
        for _ in range(chance.choice((1, 10, 255))):
            elements.append((BASE + DATA + chance.randrange(0, 4 << 20), size, 0))
        following = BASE + (page if kind < 0.2 else LISTS + chance.randrange(0, 0x60000 // 4096) * 4096)
        elements.append((following, 0, st.SG_FLAG_CHAIN_ELEMENT if kind < 0.6 else 0))
        data = b"".join(st.SG_ELEMENT.pack(*element) for element in elements)
        self.ram.view[page : page + len(data)] = data
        return BASE + page, length

    def _registers(self) -> None:
        chance = self._chance
        for _ in range(8):
            offset = chance.choice(
                (0, 4, 8, 12, 0x100C, 0x200C, 0x2010, 0x2014, 0x3014, 0x4018, chance.randrange(0x8000))
            )
            size = chance.choice((1, 2, 4, 4, 4, 8))
            if chance.random() < 0.5:
                self._client.region_write(0, offset, chance.randbytes(size), posted=True)
            else:
                self._client.region_read(0, offset, size)
        self.operations += 7
        self._set_up()

    def _task_management(self) -> None:
        chance = self._chance
        target = chance.choice((*self._targets, 99))
        kind = chance.randrange(4)
        if kind == 0:
            self._command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(chance.getrandbits(8), target, 0))
        elif kind == 1:
            self._command(r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(target, bytes(8)))
        elif kind == 2:
            self._command(r.CMD_RESET_BUS)
        else:
            self._command(
                r.CMD_CONFIG, st.CONFIG.pack(BASE + DATA, chance.getrandbits(64), 0x1958 + chance.randrange(4), 0)
            )

    def _memory(self) -> None:
        """The memory goes while requests use it, and comes back."""
        self._write(0x4018, 0)
        if self._mapped:
            self._client.unmap_ram(self.ram)
            self._mapped = False
        self._client.region_read(0, 8, 4)
        self._client.map_ram(self.ram)
        self._mapped = True
        self._set_up()
