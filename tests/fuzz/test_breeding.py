"""The coverage-guided fuzzer for a few seconds on every harness; `scripts/fuzz` is the same for as long as one likes.

`HBA_FUZZ_SECONDS` sets how long each harness is fuzzed (default 4).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuzz.__main__ import Outcome, breed, have_atheris
from tests.fuzz.target import Target
from tests.fuzz.targets import NAMES, target

SEED = 1  # a run that fails here fails again, and one that does not is no matter of luck; scripts/fuzz has luck
SECONDS = int(os.environ.get("HBA_FUZZ_SECONDS", "4"))

needs_atheris = pytest.mark.skipif(not have_atheris(), reason="atheris is missing: pip install 'hba[fuzz]'")


@needs_atheris
def test_a_few_seconds_of_each_find_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        outcomes = list(pool.map(lambda name: _few(target(name), tmp_path / name), NAMES))
    for outcome in outcomes:
        name = outcome.attacked.name
        assert outcome.executions > len(outcome.attacked.inputs()), f"{name} was not fuzzed:\n{outcome.said}"
        found = [f"{path.name}: {path.read_bytes().hex()}" for path in outcome.findings]
        assert not found, f"{name} is broken by {found}\n{outcome.said}"
        print(f"{name}: {outcome.executions} executions in {outcome.seconds:.0f} s, {outcome.covered} edges")


def _few(attacked: Target, folder: Path) -> Outcome:
    return breed(attacked, SECONDS, folder / "grown", folder / "found", SEED)


@needs_atheris
def test_what_breaks_is_found_and_named(tmp_path: Path) -> None:
    """The fuzzer sees our coverage, and what we compare: it comes through checks that chance would not pass."""
    outcome = breed(target("breakable"), 60, tmp_path / "grown", tmp_path / "found", SEED)
    assert [path.name.partition("-")[0] for path in outcome.findings] == ["crash"], outcome.said
    with pytest.raises(AssertionError):
        target("breakable").run(outcome.findings[0].read_bytes())
