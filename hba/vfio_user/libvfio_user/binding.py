"""libvfio-user's functions, as include/libvfio-user.h declares them, with types.

Only what the engine needs. A call that fails raises OSError with the library's errno. Callbacks get pointers as
integers and may set errno with `ctypes.set_errno`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, NamedTuple

SONAME = "libvfio-user.so.0"

_ATTACH_NB = 1 << 0  # LIBVFIO_USER_FLAG_ATTACH_NB
_TRANS_SOCK = 0  # VFU_TRANS_SOCK
_DEV_TYPE_PCI = 0  # VFU_DEV_TYPE_PCI

REGION_READ = 1 << 0  # VFU_REGION_FLAG_READ
REGION_WRITE = 1 << 1
REGION_ALWAYS_CB = 1 << 3

# vfu_reset_type_t
RESET_DEVICE, RESET_LOST_CONN, RESET_PCI_FLR = range(3)

LOG_ERR, LOG_WARNING = 3, 4  # syslog(3)


class Iovec(ctypes.Structure):
    """struct iovec (readv(2))."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class DmaInfo(ctypes.Structure):
    """vfu_dma_info_t: a range of bus addresses, and where the library has mapped it, if it has."""

    _fields_ = (
        ("iova", Iovec),
        ("vaddr", ctypes.c_void_p),
        ("mapping", Iovec),
        ("page_size", ctypes.c_size_t),
        ("prot", ctypes.c_uint32),
    )


class DmaRange(NamedTuple):
    """The same in Python. `address` is 0 where nothing is mapped; `base` and `length` are the whole mapping."""

    iova: int
    size: int
    prot: int
    address: int
    base: int
    length: int


def dma_range(info: int) -> DmaRange:
    """What a DMA callback was given."""
    of = DmaInfo.from_address(info)
    return DmaRange(of.iova.base or 0, of.iova.length, of.prot, of.vaddr or 0, of.mapping.base or 0, of.mapping.length)


_Context = ctypes.c_void_p  # vfu_ctx_t *
_LogFn = ctypes.CFUNCTYPE(None, _Context, ctypes.c_int, ctypes.c_char_p)
_AccessFn = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t,
    _Context,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_longlong,  # loff_t
    ctypes.c_bool,
    use_errno=True,
)
_QuiesceFn = ctypes.CFUNCTYPE(ctypes.c_int, _Context, use_errno=True)
_ResetFn = ctypes.CFUNCTYPE(ctypes.c_int, _Context, ctypes.c_int, use_errno=True)
_DmaFn = ctypes.CFUNCTYPE(None, _Context, ctypes.c_void_p)

# What callbacks look like from Python: without the context, which is the caller's own.
Access = Callable[[int, int, int, bool], int]  # buffer, count, offset, is_write -> count or -1
Reset = Callable[[int], int]
Dma = Callable[[DmaRange], None]
Log = Callable[[int, str], None]

_INT, _UINT, _SIZE, _POINTER = ctypes.c_int, ctypes.c_uint32, ctypes.c_size_t, ctypes.c_void_p
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "vfu_create_ctx": (_Context, (_INT, ctypes.c_char_p, _INT, _POINTER, _INT)),
    "vfu_realize_ctx": (_INT, (_Context,)),
    "vfu_attach_ctx": (_INT, (_Context,)),
    "vfu_get_poll_fd": (_INT, (_Context,)),
    "vfu_run_ctx": (_INT, (_Context,)),
    "vfu_destroy_ctx": (None, (_Context,)),
    "vfu_setup_log": (_INT, (_Context, _LogFn, _INT)),
    "vfu_setup_region": (
        _INT,
        (_Context, _INT, _SIZE, _AccessFn, _INT, ctypes.POINTER(Iovec), _UINT, _INT, ctypes.c_uint64),
    ),
    "vfu_setup_device_reset_cb": (_INT, (_Context, _ResetFn)),
    "vfu_setup_device_quiesce_cb": (None, (_Context, _QuiesceFn)),
    "vfu_setup_device_nr_irqs": (_INT, (_Context, _INT, _UINT)),
    "vfu_irq_trigger": (_INT, (_Context, _UINT)),
    # region, fd, offset, size, flags, datamatch; and a shadow, which there was none of before July 2022
    "vfu_create_ioeventfd": (_INT, (_Context, _UINT, _INT, _SIZE, _UINT, _UINT, ctypes.c_uint64, _INT, _SIZE)),
}
_DMA = "vfu_setup_device_dma"  # its arguments differ


class Unusable(Exception):
    """What was loaded is not the library, or none that can be used."""


class Library:
    """The library, loaded. Raises OSError when it cannot be, `Unusable` for a function it does not have.

    `dma_limit`: vfu_setup_device_dma takes the number of DMA regions a client may have before its callbacks.
    """

    def __init__(self, path: str, dma_limit: bool) -> None:
        self.path = path
        self.dma_limit = dma_limit
        self.handle = ctypes.CDLL(path, use_errno=True)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = self.function(name)
            function.restype, function.argtypes = result, arguments
        self.function(_DMA).restype = _INT
        self.function(_DMA).argtypes = (_Context, *((_SIZE,) if dma_limit else ()), _DmaFn, _DmaFn)

    def function(self, name: str) -> Any:
        """A function by its name."""
        try:
            return getattr(self.handle, name)
        except AttributeError:
            raise Unusable(f"it has no function {name}") from None


def failed(what: str) -> OSError:
    """The error of the call that has just failed."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


class Context:
    """A vfu_ctx_t, not blocking. `path`: where it makes its socket. Raises OSError.

    It keeps what it was given to call: the library has only the addresses.
    """

    def __init__(self, library: Library, path: str) -> None:
        self._library = library
        self._of = library.handle
        self._kept: list[object] = []
        made: int | None = self._of.vfu_create_ctx(_TRANS_SOCK, os.fsencode(path), _ATTACH_NB, None, _DEV_TYPE_PCI)
        if not made:
            raise failed("vfu_create_ctx")
        self._context: int | None = made

    def _check(self, what: str, result: int) -> int:
        if result < 0:
            raise failed(what)
        return result

    # -- set-up -----------------------------------------------------------------------------------------------

    def log(self, log: Log, level: int) -> None:
        """What it logs up to a level of syslog(3)."""
        callback = _LogFn(lambda _context, level, text: log(level, (text or b"").decode(errors="replace")))
        self._kept.append(callback)
        self._check("vfu_setup_log", self._of.vfu_setup_log(self._context, callback, level))

    def region(
        self,
        index: int,
        size: int,
        access: Access | None,
        flags: int,
        *,
        areas: tuple[tuple[int, int], ...] = (),
        fd: int = -1,
        offset: int = 0,
    ) -> None:
        """A region; with `fd` one that clients may map, or only its `areas` (offset, size)."""
        callback = _AccessFn() if access is None else _AccessFn(lambda _context, *of: access(*of))
        self._kept.append(callback)
        mapped = (Iovec * len(areas))(*(Iovec(*area) for area in areas)) if areas else None
        self._check(
            f"vfu_setup_region {index}",
            self._of.vfu_setup_region(self._context, index, size, callback, flags, mapped, len(areas), fd, offset),
        )

    def ioeventfd(self, region: int, fd: int, offset: int, size: int) -> None:
        """A part of a region where writes may come as events on `fd`, which stays the caller's."""
        result = self._of.vfu_create_ioeventfd(self._context, region, fd, offset, size, 0, 0, -1, 0)
        self._check(f"vfu_create_ioeventfd {region}", result)

    def irqs(self, kind: int, count: int) -> None:
        self._check("vfu_setup_device_nr_irqs", self._of.vfu_setup_device_nr_irqs(self._context, kind, count))

    def on_reset(self, reset: Reset) -> None:
        callback = _ResetFn(lambda _context, kind: reset(kind))
        self._kept.append(callback)
        self._check("vfu_setup_device_reset_cb", self._of.vfu_setup_device_reset_cb(self._context, callback))

    def on_quiesce(self, quiesce: Callable[[], int]) -> None:
        callback = _QuiesceFn(lambda _context: quiesce())
        self._kept.append(callback)
        self._of.vfu_setup_device_quiesce_cb(self._context, callback)

    def on_dma(self, most: int, register: Dma, unregister: Dma) -> None:
        """`most`: regions a client may have at a time, where the library takes that."""
        callbacks = (
            _DmaFn(lambda _context, info: register(dma_range(info))),
            _DmaFn(lambda _context, info: unregister(dma_range(info))),
        )
        self._kept += callbacks
        limit = (most,) if self._library.dma_limit else ()
        self._check(_DMA, self._of.vfu_setup_device_dma(self._context, *limit, *callbacks))

    def on_dma_guessing(self, first: Dma, second: Dma, third: Dma) -> None:
        """For `probe` only: vfu_setup_device_dma with a callback in every place where either ABI has one, or a number.

        A function does not look at arguments beyond those it has (System V and AArch64 calling conventions).
        """
        callbacks = tuple(_DmaFn(lambda _context, info, of=of: of(dma_range(info))) for of in (first, second, third))
        self._kept += callbacks
        function = self._library.function(_DMA)
        function.argtypes = (_Context, *(_DmaFn,) * len(callbacks))
        self._check(_DMA, function(self._context, *callbacks))

    def realize(self) -> None:
        """Set-up is complete."""
        self._check("vfu_realize_ctx", self._of.vfu_realize_ctx(self._context))

    # -- use --------------------------------------------------------------------------------------------------

    def poll_fd(self) -> int:
        """The descriptor of the client's socket; without a client, of the listening one. The library's own."""
        return self._check("vfu_get_poll_fd", self._of.vfu_get_poll_fd(self._context))

    def attach(self) -> None:
        """Accept a client and negotiate with it: waits for its VERSION."""
        self._check("vfu_attach_ctx", self._of.vfu_attach_ctx(self._context))

    def run(self) -> int:
        """Carry out one request if there is one: how many that were. ENOTCONN: the client has gone."""
        return self._check("vfu_run_ctx", self._of.vfu_run_ctx(self._context))

    def trigger(self, vector: int) -> None:
        """Write the eventfd of an interrupt vector. ENOENT: it has none."""
        if self._of.vfu_irq_trigger(self._context, vector) < 0:
            raise failed("vfu_irq_trigger")

    def destroy(self) -> None:
        """Idempotent."""
        context, self._context = self._context, None
        if context:
            self._of.vfu_destroy_ctx(context)
            self._kept.clear()
