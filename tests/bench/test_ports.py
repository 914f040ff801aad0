"""The benchmark of the ports: its commands are real and plain, and its figures fit together."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest

from hba.adapters.registry import ADAPTERS
from hba.bench.ports import DISK, KINDS, Stack, measure
from hba.instruments.make import MODELS

SLOTS = 128  # commands, as many as there are slots


def completions(stack: Stack) -> int:
    counters: Any = stack.adapter.snapshot()["counters"]
    return int(counters["completions"])


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "disk.img"
    path.write_bytes(os.urandom(DISK))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_commands_are_reads_that_end_well_and_leave_nothing_for_the_garbage_collector(
    model: str, kind: str, disk: Path
) -> None:
    stack = Stack(ADAPTERS.default, model, kind, disk)
    try:
        for depth in (1, 16, 32):
            before = completions(stack)
            gc.collect()
            gc.disable()
            try:
                stack.run(SLOTS, depth)
                assert gc.collect() < SLOTS  # less than one object a command; cycles would wait for the collector
            finally:
                gc.enable()
            assert completions(stack) == before + SLOTS
        if stack.verifier is not None:
            assert not stack.verifier.findings
    finally:
        stack.close()


def test_ratios_are_those_of_the_costs() -> None:
    result = measure(ADAPTERS.default, ["storport"], [32], rounds=1, commands=SLOTS)
    (case,) = result
    assert (case["model"], case["depth"]) == ("storport", 32)
    assert set(case["cpu_us"]) == set(KINDS)
    cost = case["cpu_us"]
    assert case["report_ratio"] == pytest.approx(cost["report"] / cost["off"], rel=0.01)
    assert case["port_share"] == pytest.approx(1 - cost["without"] / cost["off"], abs=0.01)
