"""Whether an expression selects anything of a suite, known before a guest is booted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hba.lab import paths, selection
from hba.lab.selection import BadExpression, selects

SMOKE = paths.GUEST_TESTS / "smoke"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("driver", True),
        ("DRIVER", True),
        ("test_1_driver.py", True),
        ("smoke", True),
        ("xyzzy", False),
        ("not smoke", False),
        ("not xyzzy", True),
        ("driver and xyzzy", False),
        ("driver or xyzzy", True),
        ("not (driver or xyzzy) and rebind", True),
        ("unbind and 2", True),
        ("test_unbind_and_bind[2]", True),
        ("test_unbind_and_bind[3]", False),
    ],
)
def test_the_smoke_suite(expression: str, expected: bool) -> None:
    assert selects(SMOKE, expression) == expected


@pytest.mark.parametrize("expression", ["", "and", "driver and", "(driver", "driver)", "not", "driver driver", "a = b"])
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(BadExpression):
        selects(SMOKE, expression)


def test_parameters_that_only_the_guest_knows(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("@pytest.mark.parametrize('disk', sorted(DISKS))\ndef test_a(disk): pass\n")
    assert selects(tmp_path, "anything")
    assert not selects(tmp_path, "not test_a")
    (tmp_path / "test_x.py").write_text("def test_a(disk): pass\n")
    assert not selects(tmp_path, "anything")
    (tmp_path / "conftest.py").write_text("def pytest_generate_tests(metafunc): pass\n")
    assert selects(tmp_path, "anything")


def test_a_test_that_is_meant_perhaps() -> None:
    assert selection.suggestion(SMOKE, "test_unbind_and_bnd") == "test_unbind_and_bind"
    assert selection.suggestion(SMOKE, "xyzzy") == ""


@pytest.mark.parametrize("expression", ["driver", "xyzzy", "not smoke", "bind[2]", "bind[3]", "test_w", "not a"])
def test_pytest_is_of_the_same_opinion(tmp_path: Path, expression: str) -> None:
    """Of tests that need nothing of a guest."""
    folder = tmp_path / "smoke"
    folder.mkdir()
    names = selection.known(SMOKE)
    text = "import pytest\n" + "".join(
        ("@pytest.mark.parametrize('turn', [1, 2])\n" if name == "test_unbind_and_bind" else "")
        + f"def {name}({'turn' if name == 'test_unbind_and_bind' else ''}): pass\n"
        for name in names
    )
    (folder / "test_1_driver.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--collect-only",
        "-p",
        "no:cacheprovider",
        "-k",
        expression,
        "smoke",
    ]
    code = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode
    assert code in (0, 5)
    assert selects(folder, expression) == (code == 0)
