"""An experiment: an HBA server and a guest beside it, in one private folder, started and ended as one.

    with Experiment(Options(port_model="scsiport"), Progress()) as experiment:
        experiment.start()
        print(experiment.guest.agent.exec(["lsscsi"]).stdout.decode())

Leaving the block ends both, whatever happened, and removes the folder.
"""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from hba.adapters.registry import ADAPTERS
from hba.adapters.types import AdapterType
from hba.errors import StorageError, WrongUsage
from hba.lab import accelerator, config, devices, disks, image, initramfs, kernel, kvm, machine, observe, paths, qemu
from hba.lab.cache import Cache
from hba.lab.devices import OURS
from hba.lab.disks import Disk
from hba.lab.guest import Guest
from hba.lab.progress import Progress
from hba.lab.rundir import RunDir
from hba.lab.server import Adapter, Server
from hba.terminal.files import is_file

DISK_SIZE = 128 << 20


@dataclass(frozen=True)
class Options:
    """What to experiment with."""

    machine: str = "pc"
    memory_mib: int = 768
    cpus: int = 1
    accelerator: accelerator.Wanted = field(default_factory=accelerator.default)
    kernel: str = ""  # empty: the recipe's default
    modules: Path | None = None
    append: str = ""  # added to the kernel's command line
    device: str = OURS  # or one of `devices.builtin`
    adapter: str = ADAPTERS.default.name  # type of the adapter, where there is no `config`
    config: Path | None = None  # of the HBA server; None: one adapter with `luns`, or with one new disk
    luns: tuple[dict[str, Any], ...] = ()  # as `[[adapter.lun]]` has them
    port_model: str = ""  # empty: what the configuration says, or storport
    engine: str = ""  # empty: what the configuration says, or native
    disk: Path | None = None  # a disk to boot from, instead of the lab's own guest
    # Whether QEMU may send register writes without waiting for them, where the server lets it (it does not by default).
    posted_writes: bool = True
    console: bool = False  # a shell on the serial console
    qemu_arguments: tuple[str, ...] = ()
    boot_timeout: float = 240.0


@dataclass
class _Parts:
    """What is running, in the order it was started."""

    server: Server | None = None
    guest: Guest | None = None
    adapters: list[Adapter] = field(default_factory=list)


class Experiment:
    """A context manager; `start` does the work, in two halves so that disks can be filled in between."""

    def __init__(self, options: Options, progress: Progress) -> None:
        paths.require_tree()
        self.options = options
        self.progress = progress
        self.disks: list[Disk] = []
        self.kernel_release = ""
        self.port_model = ""
        self.kinds: list[AdapterType[Any]] = []  # of each adapter, or of QEMU's own device
        self._profile = machine.load(options.machine)
        self._parts = _Parts()
        self._rundir = RunDir()
        self._decision: accelerator.Decision | None = None
        self._commands: dict[str, list[str]] = {}
        self._start: Callable[[accelerator.Accelerator], None] | None = None
        self._accelerator: accelerator.Accelerator | None = None

    def __enter__(self) -> Experiment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(orderly=error is None)

    @property
    def folder(self) -> Path:
        """The private folder: sockets, `console.log`, `firmware.log`, `server.log`, disks."""
        return self._rundir.path

    @property
    def commands(self) -> list[list[str]]:
        """How what runs was started: the server, then QEMU."""
        return list(self._commands.values())

    @property
    def runs_with(self) -> accelerator.Accelerator:
        """What runs the guest."""
        assert self._accelerator is not None, "start() first"
        return self._accelerator

    @property
    def guest(self) -> Guest:
        assert self._parts.guest is not None, "start() first"
        return self._parts.guest

    @property
    def adapters(self) -> list[Adapter]:
        """The server's adapters; none for QEMU's own device."""
        return self._parts.adapters

    def start(self) -> None:
        """Start the device, then the guest."""
        self.start_device()
        self.start_guest()

    def start_device(self) -> None:
        """Start the HBA server; `disks` is known afterwards, and their files exist.

        For QEMU's own device, which starts with QEMU, there is only the disk to make.
        """
        if self.options.device != OURS:
            if self.options.config is not None or self.options.port_model or self.options.engine:
                raise WrongUsage("QEMU's own device has no configuration of ours, no port model and no engine")
            self.kinds = [devices.builtin()[self.options.device][0]]
            self.disks = [disks.of_builtin(self._boot_disk() or self._new_disk())]
            return
        server = self._parts.server = Server(self._server_config(), self.folder)
        self._commands["server"] = server.command
        with self.progress.step("starting the HBA server"):
            self._parts.adapters = server.wait_listening()
        for adapter in self.adapters:
            self.disks += disks.of_adapter(adapter.control)
        models = [observe.model(adapter.control) for adapter in self.adapters]
        self.kinds = [ADAPTERS[kind] for kind, _ in models]
        self.port_model = ", ".join(sorted({port_model for _, port_model in models}))

    def start_guest(self) -> None:
        """Start QEMU; returns when the guest's agent answers (or, with the option `disk`, when QEMU runs).

        Raises the `HbaError` that names the cause when anything fails.
        """
        cache = Cache(self.progress)
        chosen = qemu.find(cache)
        boot = None if self.options.disk is not None else self._make_boot(cache)
        self._decision = accelerator.decide(
            self.options.accelerator, chosen, cache, lambda: boot.kernel if boot is not None else _any_kernel(cache)
        )
        self._start = functools.partial(
            self._start_guest, chosen, boot, [*self._devices(), *self.options.qemu_arguments]
        )
        self._decision.run(self._start)

    def distrust(self, failure: kvm.KvmFailure) -> None:
        """After KVM failed a guest that was at work: the next one is not started with it."""
        if self._decision is not None:
            self._decision.distrust(failure)

    def emulate_instead(self, failure: kvm.KvmFailure) -> None:
        """After KVM failed a guest on whose console a person was looking: the same guest again, under TCG.

        Raises `failure` again when the options rule that out.
        """
        assert self._decision is not None and self._start is not None, "start() first"
        self._decision.emulate_instead(failure)
        self._start("tcg")

    def _devices(self) -> list[str]:
        boot_index = 0 if self.options.disk is not None else None
        if self.options.device != OURS:
            disk = self.disks[0]
            assert disk.file is not None
            _, device = devices.builtin()[self.options.device]
            return machine.builtin(self._profile, device, disk.file, disk.serial, boot_index=boot_index)
        return [
            machine.vfio_user_device(
                self._profile,
                adapter.socket,
                number=number,
                boot_index=boot_index if number == 0 else None,
                posted_writes=self.options.posted_writes,
            )
            for number, adapter in enumerate(self.adapters)
        ]

    def _start_guest(
        self,
        chosen: qemu.Qemu,
        boot: machine.Boot | None,
        devices: list[str],
        chosen_accelerator: accelerator.Accelerator,
    ) -> None:
        if self._parts.guest is not None:
            self._parts.guest.kill()
        self._accelerator = chosen_accelerator
        sockets = machine.Sockets(self.folder)
        command = machine.command_line(
            chosen,
            self._profile,
            sockets,
            boot=boot,
            memory_mib=self.options.memory_mib,
            cpus=self.options.cpus,
            accelerator=chosen_accelerator,
            devices=devices,
        )
        self._commands["QEMU"] = [*map(str, command)]
        others = self._parts.server.alive if self._parts.server is not None else lambda: None
        guest = self._parts.guest = Guest(
            chosen, command, sockets, others, accelerator=chosen_accelerator, first_line=kvm.FIRST_LINE
        )
        if boot is not None:
            what = f"booting Linux {self.kernel_release} on {self._profile.name}"
            with self.progress.step(what) as step:
                guest.wait_for_agent(self.options.boot_timeout, on_line=_console_filter(step.update))

    def keep(self) -> None:
        """Leave the folder there after the end."""
        self._rundir.keep()

    def close(self, orderly: bool = True) -> None:
        """End the guest, then the server, then remove the folder; safe to call at any time, more than once.

        `orderly` lets the guest write out what it has and switch itself off first.
        """
        with _undisturbed():
            if self._parts.guest is not None:
                if orderly:
                    self._parts.guest.shut_down()
                self._parts.guest.kill()
            if self._parts.server is not None:
                self._parts.server.stop()
            self._parts = _Parts()
            self._rundir.close()

    # -- the device ---------------------------------------------------------------------------------------------------

    def _server_config(self) -> Path:
        given, port_model, engine = self.options.config, self.options.port_model, self.options.engine
        alone = (port_model or "storport", self.options.adapter, engine or "native")
        made = self.folder / "config.toml"
        if given is None and self.options.luns:
            text = config.one_adapter(self.folder, self.options.luns, *alone)
        elif given is None:
            disk = self._boot_disk() or self._new_disk()
            text = config.one_disk(self.folder, disk, *alone)
        elif self.options.disk is not None:
            raise WrongUsage("--disk makes a configuration of its own; name the disk in that of --config instead")
        elif not port_model and not engine:
            return given
        else:
            text = config.with_other(given, port_model=port_model, engine=engine)
        made.write_text(text)
        return made

    def _boot_disk(self) -> Path | None:
        disk = self.options.disk
        if disk is not None and not is_file(disk):
            raise StorageError(f"--disk {disk}: no such file; name a raw disk image")
        return disk

    def _new_disk(self) -> Path:
        path = self.folder / "disk.img"
        disks.make_file(path, DISK_SIZE)
        return path

    # -- the guest ----------------------------------------------------------------------------------------------------

    def _make_boot(self, cache: Cache) -> machine.Boot:
        recipe = image.recipe()
        root = image.find(recipe, cache)
        linux = kernel.find(self.options.kernel or recipe["kernel"]["default"], recipe, cache, self.options.modules)
        self.kernel_release = linux.release
        initrd = self.folder / "initrd"
        initrd.write_bytes(initramfs.build(linux, root / "busybox"))
        words = [recipe["kernel"]["append"], "lab.console" if self.options.console else "", self.options.append]
        return machine.Boot(linux.image, initrd, root / "root.erofs", linux.modules, " ".join(filter(None, words)))


def _any_kernel(cache: Cache) -> Path:
    """A kernel to try KVM with, for a guest that boots from a disk of its own."""
    recipe = image.recipe()
    linux = kernel.cached(recipe, cache) or kernel.find(recipe["kernel"]["default"], recipe, cache)
    return linux.image


def _console_filter(update: Callable[[str], None]) -> Callable[[str], None]:
    """Console lines as progress: without the kernel's time stamps, and nothing that would steer our terminal."""

    def show(line: str) -> None:
        line = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)
        line = re.sub(r"^\[ *[0-9.]+\] ", "", line)
        update("".join(filter(str.isprintable, line)))

    return show


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave half of the cleaning up undone: signals wait until it is over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        pending.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])
