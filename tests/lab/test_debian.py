"""The host's mirror, found in every form apt's configuration can have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.errors import HbaError
from hba.lab import debian


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, errors="replace")


def test_one_line_form(tmp_path: Path) -> None:
    write(
        tmp_path / "sources.list",
        "# deb http://no.example/debian trixie main\ndeb http://one.example/debian/ bookworm main contrib\n",
    )
    assert debian.host_mirror(tmp_path) == debian.Mirror("http://one.example/debian")


def test_options_of_the_one_line_form(tmp_path: Path) -> None:
    line = "deb [arch=amd64 signed-by=/etc/key.gpg] http://one.example/debian trixie main # the mirror\n"
    write(tmp_path / "sources.list", line)
    mirror = debian.host_mirror(tmp_path)
    assert mirror == debian.Mirror("http://one.example/debian", "/etc/key.gpg")
    assert mirror.line("sid") == "deb [signed-by=/etc/key.gpg] http://one.example/debian sid main"


def test_deb822_form(tmp_path: Path) -> None:
    text = (
        "# the mirror\nTypes: deb deb-src\nURIs: http://two.example/debian\nSuites: trixie\n trixie-updates\n"
        "Components: main\nSigned-By: /usr/share/keyrings/a.gpg\n"
    )
    write(tmp_path / "sources.list.d" / "debian.sources", text)
    assert debian.host_mirror(tmp_path) == debian.Mirror("http://two.example/debian", "/usr/share/keyrings/a.gpg")


def test_a_key_inside_a_stanza_is_no_path(tmp_path: Path) -> None:
    write(
        tmp_path / "sources.list.d" / "debian.sources",
        "Types: deb\nURIs: http://two.example/debian\nSuites: sid\nComponents: main\n"
        "Signed-By:\n -----BEGIN PGP\n .\n abc\n",
    )
    assert debian.host_mirror(tmp_path).signed_by == ""


@pytest.mark.parametrize(
    "line",
    [
        "deb http://other.example/ubuntu noble main",
        "deb http://other.example/tools stable-tools main",
        "deb http://security.example/debian-security bookworm-security main",
        "deb http://other.example/debian trixie non-free",
        "deb-src http://other.example/debian trixie main",
        "nonsense",
    ],
)
def test_what_is_no_mirror_of_ours(tmp_path: Path, line: str) -> None:
    write(tmp_path / "sources.list", line)
    with pytest.raises(HbaError, match="no Debian mirror"):
        debian.host_mirror(tmp_path)


def test_disabled_stanzas_are_left_out(tmp_path: Path) -> None:
    stanza = "Types: deb\nURIs: http://{}.example/debian\nSuites: trixie\nComponents: main\n"
    write(
        tmp_path / "sources.list.d" / "debian.sources",
        "Enabled: no\n" + stanza.format("off") + "\n" + stanza.format("on"),
    )
    assert debian.host_mirror(tmp_path).uri == "http://on.example/debian"


def test_no_configuration_at_all(tmp_path: Path) -> None:
    with pytest.raises(HbaError, match=r"sources\.list"):
        debian.host_mirror(tmp_path)


@settings(max_examples=50)
@given(st.text(), st.text())
def test_any_text_is_survived(tmp_path_factory: pytest.TempPathFactory, one: str, two: str) -> None:
    folder = tmp_path_factory.mktemp("etc")
    write(folder / "sources.list", one)
    write(folder / "sources.list.d" / "a.sources", two)
    try:
        debian.host_mirror(folder)
    except HbaError:
        pass


def test_a_missing_tool_without_root_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stubs(tmp_path, id="echo 1000")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(debian, "find_tool", lambda name: None)
    with pytest.raises(
        debian.ToolMissing, match="sudo apt-get install -y --no-install-recommends erofs-utils mmdebstrap"
    ):
        debian.ensure_tools(["mmdebstrap", "mkfs.erofs"])


def test_the_package_of_a_tool() -> None:
    assert debian.package_of("mkfs.erofs") == "erofs-utils"
    assert debian.package_of("no-such-tool") == "no-such-tool"


def stubs(folder: Path, **programs: str) -> None:
    for name, body in programs.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
