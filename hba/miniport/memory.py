"""Addresses a miniport gets from the port: its SRB extensions, and places inside of them.

Source: SCSI_REQUEST_BLOCK (SrbExtension), STORAGE_REQUEST_BLOCK (MiniportContext): memory of SrbExtensionSize bytes,
which the port does not initialise and the adapter can reach by DMA.
"""

from __future__ import annotations

from typing import Any


class SrbExtension:
    """`srb.srb_extension`: so many bytes, for one request, until it is completed.

    As memory: `memory` is a writable view of all bytes, for `struct.pack_into`, `ctypes` structures (`from_buffer`) and
    slices; `extension[8]`, `extension[8:16] = data` and `len(extension)` are those of `memory`. `extension + 24` is the
    address of a place inside, which `get_physical_address` takes as it takes the extension itself.

    As an object: any attribute may be set on it (`extension.task = task`), which stands for a structure a C driver lays
    over the bytes. Attributes go when the request is completed, and do not lie in `memory`: no device sees them.
    """

    __slots__ = ("__dict__", "_physical", "_request", "memory")

    def __init__(self, memory: memoryview, physical: int) -> None:
        self.memory = memory
        self._physical = physical  # its bus address
        self._request: Any = None  # of the port: whose it is now

    def __len__(self) -> int:
        return len(self.memory)

    def __bool__(self) -> bool:
        return True  # a pointer that is not NULL

    def __bytes__(self) -> bytes:
        return bytes(self.memory)

    def __getitem__(self, index: Any) -> Any:
        return self.memory[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.memory[index] = value

    def __add__(self, offset: int) -> Pointer:
        return Pointer(self, offset)

    def __repr__(self) -> str:
        return f"<SrbExtension of {len(self.memory)} bytes>"


class Pointer:
    """The address of a place inside an SRB extension: `extension + offset`."""

    __slots__ = ("extension", "offset")

    def __init__(self, extension: SrbExtension, offset: int) -> None:
        self.extension = extension
        self.offset = offset

    def __add__(self, offset: int) -> Pointer:
        return Pointer(self.extension, self.offset + offset)

    @property
    def memory(self) -> memoryview:
        """From there to the end of the extension."""
        return self.extension.memory[self.offset :]

    def __repr__(self) -> str:
        return f"<{self.extension!r} + {self.offset:#x}>"
