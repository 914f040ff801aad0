"""How the configuration spells a store: one typed record per kind, told apart by `kind`.

storage = { kind = "memory", size = "64M" }
storage = { kind = "file", path = "disk.img", size = "1G", create = true }
storage = { kind = "nbd", uri = "nbd+unix:///?socket=/run/nbd.sock" }
storage = { kind = "host", path = "/dev/sdx" }
storage = { kind = "scsi", path = "/dev/sg1" }
storage = { kind = "overlay", base = { kind = "file", path = "golden.img" } }
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

import msgspec

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SIZE = re.compile(r"([0-9]{1,18})\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)

LARGEST = 1 << 62  # bytes; a file can have little more
LONGEST = 86_400.0  # s; whoever waits longer has left
_Text = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": r"^ *[0-9]{1,18} *([KMGTPkmgtp]?)([iI]?[bB])? *$"})]
Size = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)] | _Text  # bytes, or a number with K, M, G, T, P (powers of 1024)


def parse_size(text: Size) -> int:
    """Bytes: 512, "512", "64M", "1G", "1 GiB". Raises `ValueError` that says what was expected."""
    if isinstance(text, bool) or not isinstance(text, int | str):
        raise ValueError(f'a size is a number of bytes or a text such as "64M", not {text!r}')
    if isinstance(text, int):
        size = text
        if size < 0:
            raise ValueError(f"a size is not negative: {size}")
    else:
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f'"{text}" is not a size; expected bytes, or a number with K, M, G or T such as "64M"')
        size = int(match[1]) * _UNITS[match[2].upper()]
    if size > LARGEST:
        raise ValueError(f"the size {text} is larger than {format_size(LARGEST)}, the most there can be")
    return size


def format_size(size: int) -> str:
    """The shortest exact spelling `parse_size` understands: 67108864 -> "64M"."""
    for unit in "PTGMK":
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def _check_size(size: Size) -> None:
    value = parse_size(size)
    if value <= 0 or value % 512:
        raise ValueError(f"size {size!r} is not a positive multiple of 512 bytes")


class MemoryStorage(msgspec.Struct, tag_field="kind", tag="memory", forbid_unknown_fields=True, frozen=True):
    """Sparse memory, gone at the end. `limit`: how much of it may be used; None: half of the machine's."""

    size: Size
    read_only: bool = False
    limit: Size | None = None

    def __post_init__(self) -> None:
        _check_size(self.size)
        if self.limit is not None:
            parse_size(self.limit)


class FileStorage(msgspec.Struct, tag_field="kind", tag="file", forbid_unknown_fields=True, frozen=True):
    """A raw file. `size` is checked, or with `create` used for a file that does not exist yet."""

    path: str
    size: Size | None = None
    create: bool = False
    read_only: bool = False
    direct: bool = False
    inline_writes: Literal["auto", "always", "never"] = "auto"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path is empty")
        if self.size is not None:
            _check_size(self.size)
        elif self.create:
            raise ValueError('create = true needs a size, such as size = "64M"')


class NbdStorage(msgspec.Struct, tag_field="kind", tag="nbd", forbid_unknown_fields=True, frozen=True):
    """An export of an NBD server (qemu-nbd, nbdkit, ...), by URI. Times in seconds."""

    uri: str
    read_only: bool = False
    hold: Annotated[float, msgspec.Meta(ge=0, le=LONGEST)] = 5.0  # how long requests wait for a server that left
    connect_timeout: Annotated[float, msgspec.Meta(gt=0, le=LONGEST)] = 3.0

    def __post_init__(self) -> None:
        if not re.match(r"nbds?(\+unix|\+vsock)?://", self.uri):
            raise ValueError(f'"{self.uri}" is not an NBD URI such as nbd://host:10809/export')
        for key in ("hold", "connect_timeout"):
            if math.isnan(getattr(self, key)):  # which is in no range, and outside of none
                raise ValueError(f"{key}: expected a number of seconds, got nan")


class HostStorage(msgspec.Struct, tag_field="kind", tag="host", forbid_unknown_fields=True, frozen=True):
    """A block device of this machine."""

    path: str
    read_only: bool = False
    direct: bool = True


class ScsiStorage(msgspec.Struct, tag_field="kind", tag="scsi", forbid_unknown_fields=True, frozen=True):
    """A SCSI device of this machine, which is given the guest's own commands (SG_IO)."""

    path: str
    read_only: bool = False


class OverlayStorage(msgspec.Struct, tag_field="kind", tag="overlay", forbid_unknown_fields=True, frozen=True):
    """Copy-on-write over `base`, which is opened read-only and never written.

    What is written goes to memory (`memory = true`), to the file `path`, which is kept, or else to a temporary file
    in `directory` (default: the system's) that is thrown away. `limit` is that of `MemoryStorage`.
    """

    base: StorageConfig
    path: str | None = None
    memory: bool = False
    limit: Size | None = None
    directory: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None:
            parse_size(self.limit)
            if not self.memory:
                raise ValueError("limit: is for memory = true")
        if sum((self.path is not None, self.memory, self.directory is not None)) > 1:
            raise ValueError("path, memory and directory exclude each other")


StorageConfig = MemoryStorage | FileStorage | NbdStorage | HostStorage | ScsiStorage | OverlayStorage
