"""A disk whose boot sector shows that the firmware's own driver can read and write it.

The boot sector, run by the BIOS in real mode, says MARKER on the first serial port, reads `STRETCH` bytes from sector 1
on through INT 13h (extended read, 32 KiB at a time), says a hash of them, writes that hash into a sector of its own
(extended write), and says DONE; or FAIL and the BIOS's error code. No boot loader is needed, nor root.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

MARKER = "HBA boot sector runs"
DONE = "DONE"
FAIL = "FAIL"
SECTOR = 512
CHUNK = 32 * 1024
STRETCH = 1 << 20
RESULT_SECTOR = 1 + STRETCH // SECTOR  # where the hash is written

_ORIGIN = 0x7C00
_BUFFER_SEGMENT = 0x1000


@dataclass(frozen=True)
class BootDisk:
    """What the boot sector must say, and then have written."""

    path: Path
    hash: str  # eight hex digits

    def result(self) -> bytes:
        """What is in the sector the guest wrote."""
        with self.path.open("rb") as file:
            file.seek(RESULT_SECTOR * SECTOR)
            return file.read(SECTOR)


def make(path: Path, seed: int = 1, size: int = 16 << 20) -> BootDisk:
    """A new disk at `path`."""
    content = random.Random(seed).randbytes(STRETCH)
    path.write_bytes(code() + content)
    with path.open("r+b") as file:
        file.truncate(size)
    return BootDisk(path, f"{hash_of(content):08x}")


def hash_of(content: bytes) -> int:
    """The boot sector's hash: rotate left by 5, exclusive-or the next byte; 32 bits."""
    value = 0
    for byte in content:
        value = ((value << 5 | value >> 27) & 0xFFFFFFFF) ^ byte
    return value


class Assembler:
    """Bytes with labels: just enough for one boot sector."""

    def __init__(self, origin: int) -> None:
        self._origin = origin
        self._code = bytearray()
        self._labels: dict[str, int] = {}
        self._absolute: list[tuple[int, str, int]] = []  # position, label, addend
        self._short: list[tuple[int, str]] = []
        self._near: list[tuple[int, str]] = []

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def code(self, text: str, address: str = "", then: str = "", plus: int = 0) -> None:
        """Bytes in hex, then the 16-bit address of a label, then more bytes."""
        self._code += bytes.fromhex(text)
        if address:
            self._absolute.append((len(self._code), address, plus))
            self._code += bytes(2)
        self._code += bytes.fromhex(then)

    def jump(self, opcode: str, target: str) -> None:
        """A jump with an 8-bit distance."""
        self._code += bytes.fromhex(opcode) + b"\0"
        self._short.append((len(self._code), target))

    def call(self, target: str) -> None:
        self._code += b"\xe8\0\0"
        self._near.append((len(self._code), target))

    def data(self, name: str, content: bytes) -> None:
        self.label(name)
        self._code += content

    def finish(self) -> bytes:
        for position, name, plus in self._absolute:
            address = self._origin + self._labels[name] + plus
            self._code[position : position + 2] = address.to_bytes(2, "little")
        for position, name in self._short:
            self._code[position - 1 : position] = (self._labels[name] - position).to_bytes(1, "little", signed=True)
        for position, name in self._near:
            self._code[position - 2 : position] = (self._labels[name] - position).to_bytes(2, "little", signed=True)
        return bytes(self._code)


def code() -> bytes:
    """The boot sector, 512 bytes."""
    a = Assembler(_ORIGIN)
    a.code("fa 31c0 8ed8 8ec0 8ed0 bc007c fb fc")  # cli; ds = es = ss = 0; sp = 0x7c00; sti; cld
    a.code("8816", "drive")  # mov [drive], dl: the BIOS's number of the disk we came from
    a.code("be", "marker")  # mov si, marker
    a.call("print")

    a.label("next_chunk")
    a.code("be", "read_packet")
    a.code("8a16", "drive")
    a.code("b442 cd13")  # ah = 42h extended read; int 13h
    a.jump("72", "fail")  # jc
    a.code("668b1e", "hash")  # mov ebx, [hash]
    a.code(f"1e b8{_BUFFER_SEGMENT.to_bytes(2, 'little').hex()} 8ed8 31f6")  # push ds; ds = buffer; si = 0
    a.code(f"b9{CHUNK.to_bytes(2, 'little').hex()}")  # mov cx, CHUNK
    a.label("next_byte")
    a.code("ac 66c1c305 30c3")  # lodsb; rol ebx, 5; xor bl, al
    a.jump("e2", "next_byte")  # loop
    a.code("1f")  # pop ds
    a.code("66891e", "hash")
    a.code("668306", "read_packet", f"{CHUNK // SECTOR:02x}", plus=8)  # add dword [read_packet.lba], sectors
    a.code("ff0e", "chunks")  # dec word [chunks]
    a.jump("75", "next_chunk")

    a.code("bf", "text")  # mov di, text
    a.code("b90800")  # mov cx, 8
    a.label("next_digit")
    a.code("66c1c304 88d8 240f 0430 3c3a 7202 0427 aa")  # rol ebx, 4; al = hex digit of bl; stosb
    a.jump("e2", "next_digit")
    a.code("be", "write_packet")
    a.code("8a16", "drive")
    a.code("b80043 cd13")  # ah = 43h extended write, al = 0 no verify
    a.jump("72", "fail")
    a.code("be", "text")
    a.call("print")
    a.code("be", "done")
    a.label("say_and_stop")
    a.call("print")
    a.label("stop")
    a.code("f4")  # hlt
    a.jump("eb", "stop")

    a.label("fail")
    a.code("88e0 0441 a2", "fail_code")  # the error code (ah) as a letter: mov al, ah; add al, 'A'; store
    a.code("be", "fail_text")
    a.jump("eb", "say_and_stop")

    a.label("print")  # the zero-ended text at si
    a.code("ac 08c0")  # lodsb; or al, al
    a.jump("74", "printed")
    a.code("88c3 bafd03")  # bl = al; dx = line status register of COM1
    a.label("wait")
    a.code("ec a820")  # in al, dx; test al, 20h: transmitter empty
    a.jump("74", "wait")
    a.code("baf803 88d8 ee")  # dx = data register; out dx, al
    a.jump("eb", "print")
    a.label("printed")
    a.code("c3")

    # Disk address packets (EDD): size, 0, sectors, offset, segment, LBA.
    buffer = _BUFFER_SEGMENT.to_bytes(2, "little")
    a.data(
        "read_packet",
        b"\x10\0" + (CHUNK // SECTOR).to_bytes(2, "little") + b"\0\0" + buffer + (1).to_bytes(8, "little"),
    )
    a.data("write_packet", b"\x10\0\x01\0")
    a.code("", "text")
    a.code("0000" + RESULT_SECTOR.to_bytes(8, "little").hex())
    a.data("chunks", (STRETCH // CHUNK).to_bytes(2, "little"))
    a.data("hash", bytes(4))
    a.data("drive", bytes(1))
    a.data("marker", MARKER.encode() + b"\r\n\0")
    a.data("done", b"\r\n" + DONE.encode() + b"\r\n\0")
    a.data("fail_text", b"\r\n" + FAIL.encode() + b" ")
    a.data("fail_code", b"?\r\n\0")
    # The sector that is written begins with the hash and goes on into whatever memory holds next.
    a.data("text", bytes(8) + b"\0")
    assembled = a.finish()
    assert len(assembled) <= 446, "the code runs into the partition table"
    return assembled.ljust(510, b"\0") + b"\x55\xaa"
