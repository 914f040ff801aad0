"""Suites: folders of `guest-tests/` with a `suite.toml`, run with pytest inside the guest.

The guest's half is told by `experiment.json` what it should find. The host's half happens here: before the guest
starts, a pattern is written to each disk's file; after the suite, the pattern that the guest has written is looked for.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import tomli

from hba.errors import ConfigError, GuestError, WrongUsage
from hba.lab import devices, disks, junit, paths, pattern
from hba.lab.case import Case
from hba.lab.experiment import Experiment
from hba.storage.config import parse_size
from hba.terminal.suggest import did_you_mean

# Where things are in the guest.
_GUEST_FOLDER = "/run/lab"
_PYTEST = ("/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-ra", "-v", "--color=no", "--tb=short")


_NOTHING_SELECTED = 5  # pytest's exit code
# What pytest writes before a test, and once more with its result behind it.
_TEST = re.compile(r"(?P<test>[\w/.\-]+\.py::.+?) (?:(?:PASSED|FAILED|SKIPPED|ERROR)\b.*)?$")


class NothingSelected(WrongUsage):
    """An expression that matches none of the suite's tests."""


@dataclass(frozen=True)
class Pattern:
    """A stretch of every disk that one side fills and the other checks; bytes."""

    offset: int
    size: int
    test: str = ""  # the guest's test that fills it


@dataclass(frozen=True)
class Discarded:
    """A stretch of every disk that the guest discards: after the suite, at most `keeps` bytes of it are in the file."""

    where: Pattern
    keeps: int


@dataclass(frozen=True)
class Suite:
    """What `suite.toml` says."""

    name: str
    folder: Path
    title: str
    timeout: float  # seconds for the whole run
    programs: tuple[str, ...] = ()  # programs the guest must have
    disk_size: int = 0  # the least size of a disk, bytes
    writes: bool = True  # whether it overwrites what the disks hold
    project: bool = False  # whether it runs this project's own code in the guest: the package `hba` goes there, too
    luns: tuple[dict[str, Any], ...] = ()  # the logical units it is made for, as `[[adapter.lun]]` has them
    from_host: Pattern | None = None
    from_guest: Pattern | None = None
    discarded: tuple[Discarded, ...] = ()


@dataclass
class Outcome:
    """A suite's results: the guest's half, the host's, and what else had something to say."""

    cases: list[Case] = field(default_factory=list)
    junit: ElementTree.Element = field(default_factory=lambda: ElementTree.Element("testsuites"))

    def add(self, name: str, cases: list[Case]) -> None:
        """Cases of somebody else than the guest, `name`."""
        if cases:
            self.cases += cases
            junit.add(self.junit, name, cases)

    def count(self, outcome: str) -> int:
        return sum(case.outcome == outcome for case in self.cases)

    @property
    def passed(self) -> bool:
        """Whether something ran and nothing failed."""
        return self.count("passed") > 0 and self.count("failed") == 0


def names() -> list[str]:
    """The suites there are."""
    return sorted(path.parent.name for path in paths.GUEST_TESTS.glob("*/suite.toml"))


def load(name: str) -> Suite:
    """The suite `name`; `WrongUsage` when there is none, `ConfigError` when its description is wrong."""
    folder = paths.GUEST_TESTS / name
    file = folder / "suite.toml"
    known = names()
    if name not in known:
        hint = did_you_mean(name, known)
        raise WrongUsage(f"--suite {name}: there is no such suite{hint}; there are: {', '.join(known) or 'none'}")
    try:
        plain = tomli.loads(file.read_text())
        needs = plain.get("needs", {})
        return Suite(
            name=name,
            folder=folder,
            title=plain["title"],
            timeout=float(plain["timeout"]),
            programs=tuple(needs.get("programs", ())),
            disk_size=parse_size(needs.get("disk_size", 0)),
            writes=bool(plain.get("writes", True)),
            project=bool(plain.get("project", False)),
            luns=tuple(plain.get("lun", ())),
            from_host=_pattern(plain.get("from_host")),
            from_guest=_pattern(plain.get("from_guest")),
            discarded=tuple(_discarded(table) for table in plain.get("discarded", ())),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: {type(error).__name__}: {error}") from error


def _pattern(table: Any) -> Pattern | None:
    return None if table is None else _stretch(table)


def _discarded(table: Any) -> Discarded:
    return Discarded(_stretch(table), parse_size(table.get("keeps", 0)))


def _stretch(table: Any) -> Pattern:
    where = Pattern(parse_size(table["offset"]), parse_size(table["size"]), table.get("test", ""))
    if where.offset % pattern.BLOCK or where.size % pattern.BLOCK or not where.size:
        raise ValueError(f"offset and size of a pattern are multiples of {pattern.BLOCK}")
    return where


class Run:
    """One run of one suite in one experiment.

    Call `before_guest` between the start of the device and that of the guest, then `run`.
    """

    def __init__(self, suite: Suite, experiment: Experiment, *, dataloss: bool = False) -> None:
        self._suite = suite
        self._experiment = experiment
        self._dataloss = dataloss
        self._seed = secrets.token_hex(8)

    def before_guest(self) -> None:
        """Check that the disks may be used, and write the host's pattern to those that are files."""
        if not self._experiment.disks:
            raise ConfigError(f"suite {self._suite.name} needs a disk; the configuration has none")
        for disk in self._experiment.disks:
            if disk.size < self._suite.disk_size:
                raise ConfigError(
                    f"suite {self._suite.name} needs disks of {self._suite.disk_size} bytes; "
                    f"the one at target {disk.target} lun {disk.lun} has {disk.size}"
                )
            if self._suite.writes and not disk.read_only and disk.file is not None:
                if not self._dataloss and disks.holds_data(disk.file):
                    raise ConfigError(
                        f"suite {self._suite.name} overwrites what is on {disk.file}; "
                        "say --dataloss if that is meant, or use a configuration with a new disk"
                    )
                if (where := self._suite.from_host) is not None:
                    disks.write_pattern(disk.file, self._seed_of(disk, "host"), where.offset, where.size)

    def run(
        self,
        show: Callable[[str], None],
        arguments: tuple[str, ...] = (),
        on_test: Callable[[str], None] = lambda name: None,
    ) -> Outcome:
        """Run the guest's half, then the host's; `show` gets the guest's output as it comes, `on_test` each test's name
        when it begins and again when it has ended.

        A test that fails is an outcome; a guest that dies is a `GuestError`. What is known by then is in
        `experiment.folder`.
        """
        agent = self._experiment.guest.agent
        agent.exec(["mkdir", "-p", f"{_GUEST_FOLDER}/tests"], check=True)
        agent.put(f"{_GUEST_FOLDER}/tests.tar", _packed(self._suite))
        agent.exec(["tar", "-xf", f"{_GUEST_FOLDER}/tests.tar", "-C", f"{_GUEST_FOLDER}/tests"], check=True)
        agent.put(f"{_GUEST_FOLDER}/experiment.json", json.dumps(self._for_guest()).encode())
        for program in self._suite.programs:
            if agent.exec(["sh", "-c", 'command -v "$0"', program]).code != 0:
                raise GuestError(
                    f"suite {self._suite.name} needs {program} in the guest; add its package to qemu/guest.toml"
                )
        agent.exec(["udevadm", "settle", "--timeout=60"], timeout=90)
        file = f"{_GUEST_FOLDER}/junit.xml"
        result = agent.exec(
            [*_PYTEST, f"--junit-xml={file}", *arguments, self._suite.name],
            cwd=f"{_GUEST_FOLDER}/tests",
            timeout=self._suite.timeout,
            on_output=_lines(show, on_test),
        )
        if result.code == _NOTHING_SELECTED:
            raise NothingSelected(f"-k selects no test of suite {self._suite.name}")
        try:
            report = agent.get(file)
        except GuestError as error:
            raise GuestError(
                f"the suite left no report (pytest's exit code {result.code}): {error}"
                + self._experiment.guest.last_console_lines()
            ) from error
        outcome = Outcome()
        for part, cases in junit.parse(report):
            part.set("name", "guest")
            outcome.junit.append(part)
            outcome.cases += cases
        self._host_half(outcome)
        return outcome

    def _seed_of(self, disk: disks.Disk, writer: str) -> str:
        return f"{self._seed}/{writer}/{disk.target}/{disk.lun}"

    def _for_guest(self) -> dict[str, Any]:
        units = []
        for disk in self._experiment.disks:
            unit = disk.for_guest()
            for writer, where in (("host", self._suite.from_host), ("guest", self._suite.from_guest)):
                filled = writer == "guest" or (disk.file is not None and not disk.read_only and self._suite.writes)
                if where is not None and filled:
                    unit[f"from_{writer}"] = {
                        "offset": where.offset,
                        "size": where.size,
                        "seed": self._seed_of(disk, writer),
                    }
            units.append(unit)
        return {
            "suite": self._suite.name,
            "device": self._experiment.options.device,
            "port_model": self._experiment.port_model,
            "adapters": [devices.for_guest(kind) for kind in self._experiment.kinds],
            "known_messages": devices.known_messages(self._experiment.options.device),
            "disks": units,
        }

    def _host_half(self, outcome: Outcome) -> None:
        """Look in the files for what the guest wrote and discarded. The device must have done it: the guest flushed."""
        added: list[Case] = []
        passed = [case.name.partition("[")[0] for case in outcome.cases if case.outcome == "passed"]
        for disk in self._experiment.disks:
            unit = f"target {disk.target} lun {disk.lun}"
            # Without its test (`-k`), or with that one failed, there is nothing to look for.
            where = self._suite.from_guest
            if where is not None and any(name.endswith(where.test) for name in passed):
                check = partial(
                    disks.check_pattern, seed=self._seed_of(disk, "guest"), offset=where.offset, size=where.size
                )
                added.append(_host_case(f"what the guest wrote is in the file of {unit}", disk, check))
            for number, gone in enumerate(self._suite.discarded, 1):
                if not any(name.endswith(gone.where.test) for name in passed):
                    continue
                check = partial(disks.check_discarded, offset=gone.where.offset, size=gone.where.size, keeps=gone.keeps)
                added.append(
                    _host_case(f"what the guest discarded is not in the file of {unit} ({number})", disk, check)
                )
        outcome.add("host", added)

    def describe(self, outcome: Outcome) -> None:
        """Say in every JUnit suite what it was run on."""
        facts = {
            "suite": self._suite.name,
            "device": self._experiment.options.device,
            "port_model": self._experiment.port_model,
            "machine": self._experiment.options.machine,
            "kernel": self._experiment.kernel_release,
        }
        junit.describe(outcome.junit, facts)


def _host_case(name: str, disk: disks.Disk, check: Callable[[Path], str | None]) -> Case:
    """One look at the file of a disk; `check` says what is wrong, or None."""
    case = Case(f"host: {name}", "passed")
    started = time.monotonic()
    if disk.read_only:
        case.outcome, case.message = "skipped", "the disk is read-only"
    elif disk.file is None:
        case.outcome, case.message = "skipped", "the disk is not a raw file of the host"
    elif why := check(disk.file):
        case.outcome, case.message = "failed", why
    case.seconds = time.monotonic() - started
    return case


def _packed(suite: Suite) -> bytes:
    """The suite's folder and what suites share, as a tar archive; with `project`, the package `hba` beside them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(paths.GUEST_TESTS.glob("*.py")):
            archive.add(path, path.name)
        archive.add(Path(pattern.__file__), "pattern.py")
        archive.add(suite.folder, suite.name, filter=_no_bytecode)
        if suite.project:
            archive.add(paths.PACKAGE, paths.PACKAGE.name, filter=_no_bytecode)
        ini = paths.GUEST_TESTS / "pytest.ini"
        archive.add(ini, ini.name)
    return buffer.getvalue()


def _no_bytecode(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """It is that of the host's Python, not of the guest's."""
    return None if "__pycache__" in info.name else info


def _lines(show: Callable[[str], None], on_test: Callable[[str], None]) -> Callable[[bytes], None]:
    """Output that comes in pieces, shown by whole lines; a test begins when its name is there, before its result is."""
    rest = bytearray()

    def feed(piece: bytes) -> None:
        rest.extend(piece)
        *whole, last = bytes(rest).split(b"\n")
        rest[:] = last
        for line in whole:
            text = line.decode(errors="replace").rstrip("\r")
            show(text)
            begun(text)
        begun(last.decode(errors="replace"))

    def begun(text: str) -> None:
        if (found := _TEST.fullmatch(text)) is not None:
            on_test(found["test"])

    return feed
