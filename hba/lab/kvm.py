"""Whether KVM runs what the lab will run: found out by booting a Linux kernel with it, and remembered.

/dev/kvm may open, make a machine and run a boot sector, and still run no Linux kernel: under some nested hypervisors
the instructions of its 64-bit code end in `KVM internal error ... emulation failure`, or in silence. So the proof is
the guest's own kernel: it must say its first line and come to its own end, which needs long mode, paging, SSE, timers
and interrupts. Without a root file system that end is a panic, and `panic=-1` makes it a reset, which ends QEMU.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from hba.errors import GuestError
from hba.lab import process
from hba.lab.cache import Cache, key_of
from hba.lab.qemu import Qemu

DEVICE = Path("/dev/kvm")
# In seconds. Under a working KVM a kernel says its first line within one and ends within three; a busy host needs more.
FIRST_LINE = 15.0
WHOLE_BOOT = 60.0

# What QEMU says on its standard error when KVM gives up on a guest, or was not to be had.
_COMPLAINT = re.compile(
    r"KVM internal error.*|emulation failure.*|KVM: entry failed.*|error: kvm run failed.*"
    r"|failed to initialize kvm.*|Could not access KVM.*|KVM is not (?:supported|available).*|ioctl\(KVM_\w+\) failed.*"
)


class KvmFailure(GuestError):
    """A guest did not run because of KVM; `cause` says how, in a few words."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"KVM does not run this guest: {cause}; run it with --accel tcg (or HBA_ACCEL=tcg), which emulates it"
        )
        self.cause = cause


def complaint(said: str) -> str | None:
    """What QEMU reports of KVM in `said`, its standard error, as one line; None when it reports nothing of the kind."""
    found = [match.group().strip() for match in _COMPLAINT.finditer(said)]
    return ", ".join(dict.fromkeys(found))[:200] or None


def unusable() -> str | None:
    """Why /dev/kvm cannot be opened, or None: cheap, and asked anew every time."""
    device = DEVICE
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {device} (no virtualisation here, or the module kvm is not loaded)"
    except PermissionError:
        return f"this user may not open {device} (join the group kvm)"
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            return f"{device} is there, but no module behind it (modprobe kvm_intel or kvm_amd)"
        return f"{device} cannot be opened: {error.strerror}"
    return None


def boot(qemu: Qemu, kernel: Path) -> str | None:
    """Boot `kernel` under KVM to its own end; why it did not come to it, or None when it did."""
    with tempfile.TemporaryDirectory(prefix="hba-kvm-") as folder:
        console, errors = Path(folder) / "console.log", Path(folder) / "qemu.log"
        command = [
            *qemu.argv,
            *("-name", "hba-kvm-probe", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-accel", "kvm", "-cpu", "host", "-m", "256M"),
            *("-object", "memory-backend-memfd,share=on,id=mem,size=256M", "-machine", "pc,memory-backend=mem"),
            *("-kernel", str(kernel), "-append", "console=ttyS0 panic=-1", "-serial", f"file:{console}"),
        ]
        with errors.open("wb") as output:
            child = process.spawn(command, env=qemu.env, stdout=output, stderr=output)
        try:
            return _watch(child, console, errors)
        finally:
            process.stop(child)


def _watch(child: subprocess.Popen[bytes], console: Path, errors: Path) -> str | None:
    started = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.05)
        said = errors.read_text(errors="replace")
        if (cause := complaint(said)) is not None:
            return cause
        spoke = _size(console) > 0
        passed = time.monotonic() - started
        if child.returncode is not None:
            if child.returncode == 0 and spoke:
                return None
            return said.strip()[-300:] or f"QEMU has ended ({process.describe_exit(child.returncode)}) without a word"
        if not spoke and passed > FIRST_LINE:
            return f"a Linux kernel said nothing within {FIRST_LINE:.0f} s"
        if passed > WHOLE_BOOT:
            return f"a Linux kernel began, and did not come to its end within {WHOLE_BOOT:.0f} s"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _Answer(msgspec.Struct):
    """A kept answer, good on one host until it boots again."""

    host: str
    problem: str | None


class Answers:
    """What was found out earlier: one file in the cache for each QEMU, good for this boot of this host."""

    def __init__(self, cache: Cache, qemu: Qemu) -> None:
        self._path = cache.path(f"kvm-{key_of(*_identity(qemu))}.json")

    def kept(self) -> tuple[bool, str | None]:
        """Whether there is an answer, and it: a problem, or None when KVM runs a kernel."""
        try:
            answer = msgspec.json.decode(self._path.read_bytes(), type=_Answer)
        except (OSError, msgspec.MsgspecError):
            return False, None
        return (True, answer.problem) if answer.host == _host() else (False, None)

    def keep(self, problem: str | None) -> None:
        """Remember an answer. A cache that cannot be written only costs the next start its time."""
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            aside.write_bytes(msgspec.json.encode(_Answer(_host(), problem)))
            aside.replace(self._path)

    def forget(self) -> None:
        """What was found out counts no more."""
        self._path.unlink(missing_ok=True)


def problem(qemu: Qemu, kernel: Callable[[], Path], answers: Answers) -> str | None:
    """Why KVM cannot be used, or None. `kernel` gives the kernel to try; it is asked only when nothing is known yet."""
    if (cause := unusable()) is not None:
        return cause
    known, cause = answers.kept()
    if known:
        return f"{cause} (found earlier; `hba doctor` tries anew)" if cause is not None else None
    cause = boot(qemu, kernel())
    answers.keep(cause)
    return cause


def _host() -> str:
    """This boot of this host: a virtual machine that was moved to another processor is another one."""
    cpu = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
    fixed = [line for line in cpu.splitlines() if line.startswith(("model name", "stepping", "flags"))]
    return key_of(Path("/proc/sys/kernel/random/boot_id").read_text(), *fixed)


def _identity(qemu: Qemu) -> list[str]:
    """A QEMU by its command and the state of the programs in it: one that was upgraded in place is another one."""
    identity = []
    for word in qemu.argv:
        identity.append(word)
        with contextlib.suppress(OSError, ValueError):
            if (path := Path(word)).is_file():
                found = path.stat()
                identity.append(f"{found.st_mtime_ns}:{found.st_size}")
    return identity
