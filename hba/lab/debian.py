"""Debian packages from the host's own mirror, unpacked where we want them; nothing is installed on the host.

The mirror is whatever the host's apt is configured to use (`sources.list` in its one-line form and the
deb822 `.sources` form, sources.list(5)); this project names none of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hba.errors import HbaError
from hba.lab import paths, process
from hba.lab.progress import Step

# Suites by which a Debian mirror is recognised among other vendors' archives. A security archive has its own
# layout and does not carry ordinary packages.
_DEBIAN_SUITES = re.compile(
    r"^(buster|bullseye|bookworm|trixie|forky|duke|sid|unstable|testing|stable|oldstable|oldoldstable)"
    r"(-updates|-backports|-proposed-updates)?$"
)


class ToolMissing(HbaError):
    """A tool of the host is missing and cannot be installed by us."""


@dataclass(frozen=True)
class Mirror:
    """A Debian mirror as apt on the host names it."""

    uri: str
    signed_by: str = ""

    def line(self, suite: str, components: str = "main") -> str:
        """One line for sources.list."""
        options = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {options}{self.uri} {suite} {components}"


def host_mirror(apt_etc: Path = Path("/etc/apt")) -> Mirror:
    """The first Debian mirror in the host's apt configuration; `HbaError` when there is none."""
    for entry in _sources(apt_etc):
        if entry.is_debian():
            signed_by = entry.signed_by if entry.signed_by.startswith("/") else ""
            return Mirror(entry.uri.rstrip("/"), signed_by)
    raise HbaError(
        f"no Debian mirror in {apt_etc}/sources.list and {apt_etc}/sources.list.d: the lab unpacks QEMU and "
        "the guest from the mirror apt uses; add a Debian source there, or run on a Debian host"
    )


@dataclass(frozen=True)
class _Source:
    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str

    def is_debian(self) -> bool:
        return "main" in self.components and any(_DEBIAN_SUITES.match(suite) for suite in self.suites)


def _sources(apt_etc: Path) -> Iterator[_Source]:
    parts = apt_etc / "sources.list.d"
    one_line = [apt_etc / "sources.list", *sorted(parts.glob("*.list"))]
    for file in one_line:
        if file.is_file():
            yield from _one_line_sources(file.read_text(errors="replace"))
    for file in sorted(parts.glob("*.sources")):
        yield from _deb822_sources(file.read_text(errors="replace"))


def _one_line_sources(text: str) -> Iterator[_Source]:
    pattern = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)$")
    for line in text.splitlines():
        match = pattern.match(line.split("#")[0].strip())
        if match is None:
            continue
        signed_by = ""
        for option in (match["options"] or "").split():
            name, _, value = option.partition("=")
            if name.lower() == "signed-by":
                signed_by = value
        yield _Source(match["uri"], (match["suite"],), tuple(match["rest"].split()), signed_by)


def _deb822_sources(text: str) -> Iterator[_Source]:
    for stanza in re.split(r"\n[ \t]*\n", "\n".join(_without_comments(text))):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t") and name:
                fields[name] += " " + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        for uri in fields.get("uris", "").split():
            yield _Source(
                uri,
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by", ""),
            )


def _without_comments(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if not line.startswith("#"))


def acquire_options() -> list[str]:
    """The host's `Acquire::` settings (proxies, validity checks) as `Name "value";`, for our private apts."""
    options = []
    for line in process.run(["apt-config", "dump"]).splitlines():
        if re.match(r'^Acquire::(?!IndexTargets|CompressionTypes|Changelogs|cdrom)\S+ "[^"]+";$', line):
            options.append(line)
    return options


def package_of(tool: str) -> str:
    """The package that has `tool`, by `scripts/packages`; a tool that is not listed has its package's name."""
    for line in (paths.SCRIPTS / "packages").read_text().splitlines():
        words = line.split()
        if len(words) > 2 and words[0] != "#" and words[1] == tool:
            return words[2]
    return tool


def ensure_tools(tools: Iterable[str]) -> None:
    """Make sure the host has `tools`: their packages are installed as root, or by sudo when the user says yes.

    Raises `ToolMissing` that says what to run.
    """
    missing = sorted({package_of(tool) for tool in tools if find_tool(tool) is None})
    if not missing:
        return
    install = '. "$0"; install_packages "$@"'
    answer = subprocess.run(["sh", "-c", install, str(paths.SCRIPTS / "setup.sh"), *missing], check=False)
    if answer.returncode != 0:
        raise ToolMissing(f"these packages are missing: {' '.join(missing)}; run: {_install_command(missing)}")


def _install_command(packages: Sequence[str]) -> str:
    return shlex.join(["sudo", "apt-get", "install", "-y", "--no-install-recommends", *packages])


def find_tool(name: str) -> str | None:
    """The path of a tool; `sbin` folders are searched too, which an ordinary user's PATH leaves out."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def tool(name: str) -> str:
    """Like `find_tool`, but raises `ToolMissing`."""
    if (path := find_tool(name)) is None:
        raise ToolMissing(f"{name} is missing; run: {_install_command([package_of(name)])}")
    return path


def unpack_tree(
    destination: Path,
    *,
    mirror: Mirror,
    suites: Sequence[str],
    packages: Sequence[str],
    variant: str,
    default_release: str = "",
    exclude: Sequence[str] = (),
    keep: Sequence[str] = (),
    step: Step,
) -> None:
    """Make a Debian tree in the (empty) folder `destination` with mmdebstrap(1).

    `variant` is mmdebstrap's: `extract` only unpacks, `minbase` also configures, so that the tree can run.
    `exclude`/`keep` are dpkg path patterns. The tree comes through a tar file and belongs to the caller, so
    that it is the same made by root or, in a user namespace, by an ordinary user.
    """
    scratch = destination.parent / f"{destination.name}.scratch"
    scratch.mkdir(parents=True)
    tar = scratch / "tree.tar"
    command: list[str | Path] = [tool("mmdebstrap"), f"--variant={variant}", f"--include={','.join(packages)}"]
    if os.geteuid() != 0:
        _check_user_namespace()
        command.append("--mode=unshare")
    command.append('--aptopt=APT::Install-Recommends "false"')
    command += [f"--aptopt={option.removesuffix(';')}" for option in acquire_options()]
    if default_release:
        command.append(f'--aptopt=APT::Default-Release "{default_release}"')
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in exclude]
    command += [f"--dpkgopt=path-include={pattern}" for pattern in keep]
    # With the suite left empty, the sources are exactly the lines given.
    command += ["", tar, *[mirror.line(suite) for suite in suites]]
    # In a user namespace the folder must be one that the mapped user can enter; only root gets a private one.
    env = {"TMPDIR": str(scratch)} if os.geteuid() == 0 else {}
    process.run(command, env=env, on_line=lambda line: _mmdebstrap_line(line, step))
    step.update("unpacking")
    destination.mkdir(exist_ok=True)
    process.run(
        [
            tool("tar"),
            "-xf",
            tar,
            "-C",
            destination,
            "--no-same-owner",
            "--exclude=./dev/*",
            "--delay-directory-restore",
        ]
    )
    shutil.rmtree(scratch)


def _mmdebstrap_line(line: str, step: Step) -> None:
    if line.startswith("I: ") and line.endswith("..."):  # its stages; the rest is detail
        step.update(line[3:].rstrip("."))


def _check_user_namespace() -> None:
    ensure_tools(["newuidmap"])
    user = os.environ.get("USER") or str(os.getuid())
    names = {user, str(os.getuid())}
    subuid = Path("/etc/subuid")
    lines = subuid.read_text().splitlines() if subuid.is_file() else []
    if not any(line.split(":")[0] in names for line in lines):
        raise ToolMissing(
            f"{user} has no range in /etc/subuid, which a Debian tree made without root needs. "
            f"Run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
        )


class PackageIndex:
    """A private apt that knows the packages of some suites and downloads them; the host's own is untouched."""

    def __init__(self, folder: Path, mirror: Mirror, suites: Sequence[str]) -> None:
        self._folder = folder
        self._suites = suites
        self._mirror = mirror
        self._config = folder / "apt.conf"

    def refresh(self, step: Step) -> None:
        """Fetch the package lists. A suite the mirror does not have is left out with a notice."""
        for sub in ("etc/preferences.d", "etc/apt.conf.d", "state/lists/partial", "cache/archives/partial"):
            (self._folder / sub).mkdir(parents=True, exist_ok=True)
        (self._folder / "state/status").touch()
        sources = self._folder / "etc/sources.list"
        sources.write_text("".join(self._mirror.line(suite) + "\n" for suite in self._suites))
        # Dir::Etc moves with us, so the keys apt trusts are named by the host's path.
        self._config.write_text(
            "\n".join(
                [
                    f'Dir "{self._folder}";',
                    f'Dir::Etc "{self._folder}/etc";',
                    f'Dir::State "{self._folder}/state";',
                    f'Dir::State::status "{self._folder}/state/status";',
                    f'Dir::Cache "{self._folder}/cache";',
                    'Dir::Etc::sourcelist "sources.list";',
                    'Dir::Etc::sourceparts "-";',
                    'Dir::Etc::Trusted "/etc/apt/trusted.gpg";',
                    'Dir::Etc::TrustedParts "/etc/apt/trusted.gpg.d/";',
                    'Acquire::Languages "none";',
                    # Downloads run as us: apt's own user may not enter a private cache folder.
                    f'APT::Sandbox::User "{"root" if os.geteuid() == 0 else ""}";',
                    *acquire_options(),
                    "",
                ]
            )
        )
        process.run(["apt-get", "update", "-qq"], env=self._env(), on_line=step.update)

    def names(self, pattern: str) -> list[str]:
        """Names of the packages that match the regular expression."""
        found = process.run(["apt-cache", "search", "--names-only", pattern], env=self._env())
        return [line.split()[0] for line in found.splitlines() if " - " in line]

    def depends(self, package: str) -> list[str]:
        """Names a package depends on, alternatives and versions dropped."""
        text = process.run(["apt-cache", "show", "--no-all-versions", package], env=self._env())
        match = re.search(r"^Depends: (.*)$", text, re.MULTILINE)
        if match is None:
            return []
        return [word.split()[0] for word in match[1].split(",")]

    def download(self, packages: Sequence[str], destination: Path, step: Step) -> list[Path]:
        """Download packages into `destination`; returns the files."""
        destination.mkdir(parents=True, exist_ok=True)
        process.run(["apt-get", "download", *packages], env=self._env(), cwd=destination, on_line=step.update)
        return sorted(destination.glob("*.deb"))

    def _env(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self._config)}
