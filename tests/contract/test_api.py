"""docs/api.md: the modules and names that stay are there, and what we tell others to import is among them."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| `(hba[a-z_.]*)` \| (.*) \| .* \|")
ROWS = [row for line in (ROOT / "docs/api.md").read_text("utf-8").splitlines() if (row := ROW.fullmatch(line))]
LISTED = {row[1]: re.findall(r"`([\w.*]+)`", row[2]) for row in ROWS}


def reach(module: str, name: str) -> object:
    """What `name` (`Class.method`, `PREFIX_*`) of a module is. Raises for one that is not there."""
    found: object = importlib.import_module(module)
    if name.endswith("*"):
        names = [known for known in vars(found) if known.startswith(name[:-1])]
        assert names, f"{module} has no {name}"
        return names
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in LISTED.items() for name in names])
def test_what_stays_is_there(module: str, name: str) -> None:
    found = reach(module, name)
    assert not any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
    if isinstance(found, type):
        assert found.__module__ == module  # and not only imported there


def test_the_list_is_read() -> None:
    assert len(LISTED) > 20
    assert all(LISTED.values())


def imported(code: str) -> set[tuple[str, str]]:
    """(module, name) of everything that code takes from hba."""
    return {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hba"
        for alias in node.names
    }


def shown() -> dict[str, str]:
    """The code we show to others: miniports to start from, and all Python in the documents."""
    found = {"good.py": (ROOT / "hba/miniport/examples/good.py").read_text()}
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text("utf-8")
        lines = re.findall(r"^ *(from hba[\w.]* import .*)$", text, re.MULTILINE)
        found[path.name] = "\n".join(lines)
    return found


def test_what_we_show_is_listed() -> None:
    def listed(module: str, name: str) -> bool:
        return any(
            name == known or (known.endswith("*") and name.startswith(known[:-1])) for known in LISTED.get(module, ())
        )

    taken = {place for code in shown().values() for place in imported(code)}
    assert len(taken) > 20
    assert sorted(place for place in taken if not listed(*place)) == []
