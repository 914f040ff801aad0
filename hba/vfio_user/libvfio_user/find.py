"""Where libvfio-user is, and whether it can be used."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from hba.errors import EngineMissing
from hba.vfio_user.libvfio_user.binding import SONAME, Library

VARIABLE = "HBA_LIBVFIO_USER"
SOURCES = "github.com/nutanix/libvfio-user"
PROBE = [sys.executable, "-m", "hba.vfio_user.libvfio_user.probe"]  # and a name
PATIENCE = 20  # s, for it

HOW_TO_GET_IT = (
    f"no distribution is known to package it: build it from {SOURCES} as its README says (it needs json-c), and "
    f"install it where the loader looks, or name the file in {VARIABLE}"
)
OTHERWISE = 'or serve with engine = "native", which needs nothing'


class Place(NamedTuple):
    """A name for the loader, and who gave it."""

    name: str
    by: str


class Found(NamedTuple):
    """A library that can be used. `file`: what the loader has found; `dma_limit`: see `binding.Library`."""

    place: Place
    file: str
    dma_limit: bool

    def load(self) -> Library:
        return Library(self.place.name, self.dma_limit)

    @property
    def told(self) -> str:
        """What was found, for people."""
        abi = "takes" if self.dma_limit else "does not take"
        return f"{self.file}, by {self.place.by}; vfu_setup_device_dma {abi} a number of regions"


class _Said(msgspec.Struct):
    """What the probe prints."""

    dma_limit: bool | None = None
    file: str = ""
    why: str = ""


def place(configured: Path | None = None) -> Place:
    """Where to look: the environment, the configuration, the loader; the first that says something."""
    if said := os.environ.get(VARIABLE):
        return Place(str(Path(said).absolute()) if os.sep in said else said, VARIABLE)
    if configured is not None:
        return Place(str(configured), "the configuration")
    return Place(SONAME, "the loader")


def find(configured: Path | None = None) -> Found:
    """The library, tried in a process of its own. Raises `EngineMissing`: what is wrong, and what to do."""
    return _tried(place(configured))


@functools.cache
def _tried(where: Place) -> Found:
    """Once for each name in a process: a file does not change under us."""
    try:
        done = subprocess.run(
            [*PROBE, where.name],
            capture_output=True,
            timeout=PATIENCE,
            env={**os.environ, "HBA_PURE": "1"},
        )
    except subprocess.TimeoutExpired:
        raise unusable(where, f"it does not answer within {PATIENCE} s") from None
    try:
        said = msgspec.json.decode(done.stdout, type=_Said)
    except msgspec.MsgspecError:
        raise unusable(where, _ended(done.returncode, done.stderr)) from None
    if said.dma_limit is None:
        raise unusable(where, said.why)
    return Found(where, said.file, said.dma_limit)


def unusable(where: Place, why: str) -> EngineMissing:
    """The one message for all that can be wrong with it."""
    named = where.name if where.by == "the loader" else f"{where.name} (named by {where.by})"
    why = why.removeprefix(f"{where.name}: ")
    return EngineMissing(f"libvfio-user cannot be used: {named}: {why}; {HOW_TO_GET_IT}, {OTHERWISE}")


def _ended(code: int, said: bytes) -> str:
    if code < 0:
        return f"trying it out ended with {signal.Signals(-code).name}: it has an ABI that is not known"
    last = said.decode(errors="replace").strip().rpartition("\n")[2]
    return f"trying it out failed: {last or f'exit code {code}'}"
