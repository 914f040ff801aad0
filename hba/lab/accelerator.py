"""KVM or emulation: found out by trying, since /dev/kvm may exist and still run nothing."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from hba.errors import GuestError
from hba.lab.qemu import Qemu

# A boot sector that ends QEMU through isa-debug-exit: mov dx,0x501; mov al,0x2a; out dx,al; hlt; jmp -3.
_PROBE = bytes.fromhex("ba0105 b02a ee f4 ebfd".replace(" ", ""))
_EXIT_CODE = (0x2A << 1) | 1


def choose(wanted: str, qemu: Qemu) -> str:
    """`kvm` or `tcg` for `auto`, `kvm` or `tcg`; `GuestError` when KVM was asked for and does not work."""
    if wanted == "tcg":
        return "tcg"
    problem = kvm_problem(qemu)
    if problem is None:
        return "kvm"
    if wanted == "kvm":
        raise GuestError(f"KVM cannot be used: {problem}")
    return "tcg"


def kvm_problem(qemu: Qemu) -> str | None:
    """Why KVM runs no guest here, or None when it does: a boot sector is run with it."""
    if not Path("/dev/kvm").exists():
        return "there is no /dev/kvm (no virtualisation, or the module kvm is not loaded)"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "this user may not open /dev/kvm (join the group kvm)"
    with tempfile.TemporaryDirectory() as folder:
        sector = Path(folder) / "probe.img"
        sector.write_bytes(_PROBE.ljust(510, b"\0") + b"\x55\xaa" + bytes(1474560 - 512))
        command = [
            *qemu.argv,
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc", "-accel", "kvm"),
            *("-device", "isa-debug-exit,iobase=0x501,iosize=1", "-drive", f"file={sector},format=raw,if=floppy"),
        ]
        try:
            answer = subprocess.run(
                command, env={**os.environ, **qemu.env}, capture_output=True, text=True, timeout=10, check=False
            )
        except subprocess.TimeoutExpired:
            return "a guest started with it does not run"
        if answer.returncode == _EXIT_CODE:
            return None
        return (answer.stderr.strip() or f"QEMU ended with exit code {answer.returncode}")[-300:]
