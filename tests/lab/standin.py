"""A QEMU stand-in: it makes QEMU's sockets and files, and behaves under KVM as a test wants it to.

works           the kernel says its line and comes to its end; a guest's agent answers
hangs           not a word, for ever
stops           one line on the console, and no more
internal error  what QEMU prints when KVM gives up, and then it keeps running
dies            what QEMU says when there is no KVM behind the device
"""

from __future__ import annotations

import sys
from pathlib import Path

_PROGRAM = """#!{python}
import json, signal, socket, sys

PROBE, GUEST, LOG = {probe!r}, {guest!r}, {log!r}
words = sys.argv[1:]
if "vfio-user-pci,help" in words:
    print("  socket=<SocketAddress>")
    sys.exit()
if "--version" in words:
    print("QEMU emulator version 11.1.3 (stand-in)")
    sys.exit()


def values(option):
    return [words[at + 1] for at, word in enumerate(words) if word == option]


accelerator, = values("-accel")
probing = "hba-kvm-probe" in words
behaviour = (PROBE if probing else GUEST) if accelerator == "kvm" else "works"
with open(LOG, "a") as log:
    print(accelerator, "probe" if probing else "guest", file=log)

listeners, console = {{}}, None
for option in values("-chardev"):
    fields = dict(field.partition("=")[::2] for field in option.split(","))
    if option.startswith("socket,"):
        listeners[fields["id"]] = socket.socket(socket.AF_UNIX)
        listeners[fields["id"]].bind(fields["path"])
        listeners[fields["id"]].listen()
        console = fields.get("logfile", console)
for option in values("-serial"):
    if option.startswith("file:"):
        console = option[5:]

if behaviour in ("works", "stops"):
    with open(console, "w") as file:
        print("[    0.000000] Linux version 6.12 (stand-in)", file=file)
if behaviour == "internal error":
    said = "KVM internal error. Suberror: 1\\nextra data[0]: 0x1\\nemulation failure\\nRAX=0"
    print(said, file=sys.stderr, flush=True)
if behaviour == "dies":
    sys.exit("qemu: failed to initialize kvm: No such device")
if behaviour == "works" and probing:
    sys.exit()
if behaviour == "works":
    agent, _ = listeners["agent"].accept()
    agent.sendall(json.dumps({{"event": "ready", "release": "6.12-standin"}}).encode() + b"\\n")
    agent.recv(1)  # it is told to switch itself off
    sys.exit()
while True:
    signal.pause()
"""


class Standin:
    """The program, and what it was started for: `kvm probe`, `kvm guest`, `tcg guest`."""

    def __init__(self, folder: Path, *, probe: str = "works", guest: str = "works") -> None:
        self.path = folder / "qemu-standin"
        self._log = folder / "started"
        self.path.write_text(_PROGRAM.format(python=sys.executable, probe=probe, guest=guest, log=str(self._log)))
        self.path.chmod(0o755)

    def started(self) -> list[str]:
        """Since the last time this was asked."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return lines
