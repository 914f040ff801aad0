"""scripts/setup.sh: what a machine lacks is found in one list, and installed only where that may be done."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hba.lab import paths

PACKAGES = """\
# when what package why
run    sh                    dash       is everywhere
lab    no-such-tool          tool-pkg   a tool
lab    /no/such/file         file-pkg   a file
user   no-such-user-tool     user-pkg   without root
test   no-such-test-tool     test-pkg   a test
run    python:no_such_module module-pkg a module
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class Machine:
    """A machine with stand-ins for apt-get, id and sudo, and a list of packages of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir()
        (folder / "scripts" / "packages").write_text(PACKAGES)
        self.called = folder / "called"
        self.user(0)
        self.program("apt-get", f'echo "$*" >>{self.called}')

    def program(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def user(self, number: int) -> None:
        self.program("id", f"echo {number}")

    def run(self, words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-euc", f'project={self.folder}; . "{paths.SCRIPTS}/setup.sh"; {words}'],
            env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def installs(self) -> list[str]:
        return self.called.read_text().splitlines() if self.called.exists() else []


def test_only_what_is_missing_and_wanted_is_installed(machine: Machine) -> None:
    assert machine.run("setup_packages run lab user").returncode == 0
    assert machine.installs() == ["-y -qq --no-install-recommends install tool-pkg file-pkg module-pkg"]


def test_nothing_missing_calls_nobody(machine: Machine) -> None:
    (machine.folder / "scripts" / "packages").write_text("run sh dash\n")
    assert machine.run("setup_packages run lab user test").returncode == 0
    assert machine.installs() == []


def test_without_root_and_terminal_it_goes_on_and_says_what_to_run(machine: Machine) -> None:
    machine.user(1000)
    answer = machine.run("setup_packages lab user; echo went on")
    assert answer.stdout == "went on\n"
    assert "sudo apt-get install -y tool-pkg file-pkg user-pkg" in answer.stderr
    assert machine.installs() == []


def test_old_package_lists_are_fetched_anew(machine: Machine) -> None:
    machine.program("apt-get", f'echo "$*" >>{machine.called}; case "$*" in *update*) touch {machine.folder}/fresh;; esac; [ -e {machine.folder}/fresh ]')  # fmt: skip # noqa: E501
    assert machine.run("install_packages one two").returncode == 0
    assert [line.split()[3] for line in machine.installs()] == ["install", "update", "install"]


def test_what_cannot_be_installed_is_said(machine: Machine) -> None:
    machine.program("apt-get", "echo cannot find it >&2; exit 100")
    assert machine.run("install_packages one").returncode != 0
    assert "cannot find it" in machine.run("setup_packages test").stderr


def test_an_environment_is_made_once_for_each_project_and_set_of_extras(machine: Machine) -> None:
    project = machine.folder / "pyproject.toml"
    project.write_text("as it was")
    venv = machine.folder / ".venv"
    venv.mkdir()
    (venv / ".installed").write_text("as it was")
    assert machine.run("venv_is_ready").returncode == 0
    assert machine.run("venv_is_ready compile").returncode != 0
    (venv / ".installed-dev").write_text("as it was")  # has all extras
    assert machine.run("venv_is_ready compile").returncode == 0
    assert machine.run("setup_venv compile; echo ready").stdout == "ready\n"
    project.write_text("as it is")
    assert machine.run("venv_is_ready compile").returncode != 0
    assert machine.run("venv_is_ready").returncode != 0


def test_ci_is_the_test_command() -> None:
    """What CI sets up and checks is what everybody's `scripts/test` does."""
    lines = [line for line in (paths.PROJECT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 1 and "scripts/test" in lines[0]
    assert "setup_packages" in (paths.SCRIPTS / "test").read_text()
