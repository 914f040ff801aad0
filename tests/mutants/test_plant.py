"""What plants faults: each is one that Python can run, can be told apart, and lets a good test fail."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.plant import everything, plant

SOURCE = '''
"""Text."""

def least(numbers: list[int], limit: int = 5) -> int:
    """Text."""
    found = 0
    for number in numbers:
        if number < limit and not number < 0:
            found += 1
    log.info("%d", found)
    return found
'''


def test_kinds() -> None:
    assert [(mutant.kind, mutant.old, mutant.new) for mutant in plant(Path("x.py"), SOURCE)] == [
        ("off by one", "0", "1"),
        ("condition", "number < limit and not number < 0", "not (number < limit and (not number < 0))"),
        ("and/or", "number < limit and not number < 0", "(number < limit or not number < 0)"),
        ("comparison", "number < limit", "(number <= limit)"),
        ("not", "not number < 0", "(number < 0)"),
        ("comparison", "number < 0", "(number <= 0)"),
        ("off by one", "0", "1"),
        ("dropped", "found += 1", "pass"),
        ("operator", "found += 1", "found -= 1"),
        ("off by one", "1", "2"),
    ]


@pytest.mark.parametrize("folder", ["port", "miniport", "adapters"])
def test_each_can_run_and_has_a_name_of_its_own(folder: str) -> None:
    mutants = everything(Path("hba", folder).rglob("*.py"))
    assert len(mutants) > 500
    names = [mutant.name for mutant in mutants]
    assert len(set(names)) == len(names)
    texts: dict[Path, str] = {}
    for mutant in mutants[::7]:
        text = texts.setdefault(mutant.path, mutant.path.read_text("utf-8"))
        faulty = mutant.source(text)
        assert faulty != text
        ast.parse(faulty)
