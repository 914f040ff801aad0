"""Which ABI a libvfio-user has, found out by using it: `python -m hba.vfio_user.libvfio_user.probe PATH`.

Its soname has been libvfio-user.so.0 since the beginning, it exports the same functions before and after a change of
their arguments, and none of them tells a version. What changed for us is vfu_setup_device_dma: since March 2026 the
number of DMA regions comes before the two callbacks. So it is given a callback in all three places, a client maps
memory, and which of them is called tells where the library looks for the first one. A library that does something
else, or crashes, does so in this process, which has nothing to lose.

Prints one JSON object: {"dma_limit": true, "file": "..."} when it takes the number, {"dma_limit": false, "file": "..."}
when not, or {"why": "..."}.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hba.vfio_user import protocol as p
from hba.vfio_user.client import GuestRam
from hba.vfio_user.framing import send_message
from hba.vfio_user.libvfio_user.binding import Context, DmaRange, Library, Unusable
from hba.vfio_user.mappings import mapped_at

_IOVA, _SIZE = 0x10000, 0x1000
_MARK = b"what is in the client's memory"


def probe(library: Library) -> bool:
    """Whether its vfu_setup_device_dma takes the number of regions. Raises OSError or `Unusable`."""
    called: list[tuple[int, DmaRange]] = []
    with TemporaryDirectory(prefix="hba-") as folder, GuestRam(_SIZE, _IOVA) as ram:
        socket_path = str(Path(folder, "s"))
        context = Context(library, socket_path)
        context.on_dma_guessing(*(lambda range_, place=place: called.append((place, range_)) for place in range(3)))
        context.realize()
        ram.view[: len(_MARK)] = _MARK
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(socket_path)
            client.settimeout(5)
            _say(client, p.VERSION, p.encode_version(0, 0, p.Capabilities()))
            context.attach()
            _heard(client, p.VERSION)
            request = p.DmaMap(p.DMA_MAP_BODY.size, p.DMA_MAP_FLAG_READ | p.DMA_MAP_FLAG_WRITE, 0, _IOVA, _SIZE)
            _say(client, p.DMA_MAP, p.DMA_MAP_BODY.encode(request), ram.fd)
            context.run()
            _heard(client, p.DMA_MAP)
        return _judge(called)


def _judge(called: list[tuple[int, DmaRange]]) -> bool:
    if len(called) != 1:
        raise Unusable(f"it has called {len(called)} callbacks for one DMA_MAP")
    place, found = called[0]
    if place not in (0, 1):
        raise Unusable("it takes vfu_setup_device_dma's third callback for the first")
    if (found.iova, found.size) != (_IOVA, _SIZE) or not found.address:
        raise Unusable(f"its vfu_dma_info_t has another layout: {found}")
    with open("/proc/self/mem", "rb") as memory:  # noqa: PTH123
        memory.seek(found.address)
        seen = memory.read(len(_MARK))
    if seen != _MARK:
        raise Unusable("what it says is mapped is not the client's memory")
    return place == 1


def _say(client: socket.socket, command: int, body: bytes, *fds: int) -> None:
    send_message(client, [p.HEADER.pack(1, command, p.HEADER_SIZE + len(body), p.TYPE_COMMAND, 0), body], fds)


def _heard(client: socket.socket, command: int) -> None:
    """Its answer, which must not be a refusal."""
    answer = client.recv(p.MAX_VERSION_DATA)
    if len(answer) < p.HEADER_SIZE:
        raise Unusable(f"it does not answer {p.command_name(command)}")
    _, said, _, flags, code = p.HEADER.unpack_from(answer)
    if said != command or flags & p.TYPE_MASK != p.TYPE_REPLY or flags & p.ERROR:
        raise Unusable(f"it refuses {p.command_name(command)} with errno {code}")


def main(path: str) -> None:
    try:
        library = Library(path, dma_limit=False)
        code = mapped_at(ctypes.cast(library.function("vfu_run_ctx"), ctypes.c_void_p).value or 0)
        result: dict[str, object] = {"dma_limit": probe(library), "file": path if code is None else code.path}
    except (OSError, Unusable) as error:
        result = {"why": str(error)}
    print(json.dumps(result), flush=True)
    os._exit(0)  # what it would do at its end is not asked


if __name__ == "__main__":
    main(sys.argv[1])
