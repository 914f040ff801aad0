"""`scripts/mutate`: plant faults, run the tests, report those that nobody noticed."""

from __future__ import annotations

import os
import random
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

import click

from tests.mutants.plant import everything
from tests.mutants.run import HUNG, KILLED, Reach, outcomes

SOURCES = ("hba/port", "hba/instruments", "hba/miniport", "hba/adapters")
TESTS = (
    "tests/port",
    "tests/miniport",
    "tests/adapters",
    "tests/rules",
    "tests/trace",
    "tests/classdriver",
    "tests/hostile",
    "tests/bench/test_ports.py",
)
TOLD = 20  # mutants from one word of how far it is to the next
ACCEPTED = Path("tests/mutants/accepted.toml")


def accepted() -> dict[str, str]:
    """Name of a fault that changes nothing -> why."""
    if not ACCEPTED.exists():
        return {}
    return {entry["mutant"]: entry["reason"] for entry in tomllib.loads(ACCEPTED.read_text("utf-8"))["equivalent"]}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--sample", type=int, help="Only so many, chosen at random.")
@click.option("--seed", type=int, default=1, help="What is random about it.")
@click.option("--workers", type=int, default=os.cpu_count() or 1, help="Processes at a time.")
@click.option("--list", "only_list", is_flag=True, help="Only name them.")
def main(paths: tuple[Path, ...], sample: int | None, seed: int, workers: int, only_list: bool) -> None:
    """Plant faults in PATHS (default: port, instruments, miniport, adapters); report those that no test notices."""
    roots = paths or tuple(map(Path, SOURCES))
    files = (file for root in roots for file in ([root] if root.is_file() else root.rglob("*.py")))
    mutants = everything(files)
    if sample is not None and sample < len(mutants):
        mutants = random.Random(seed).sample(mutants, sample)
    if only_list:
        for mutant in mutants:
            click.echo(mutant.name)
        return
    known = accepted()
    tests = [test for test in TESTS if Path(test).exists()]
    with tempfile.TemporaryDirectory() as folder:
        reach = Reach(tests, SOURCES, Path(folder) / "coverage")
        click.echo("running the tests once, without a fault", err=True)
        reach.measure()
    counts: Counter[str] = Counter()
    unexplained = 0
    for number, (mutant, outcome) in enumerate(outcomes(mutants, reach, workers), 1):
        counts[outcome] += 1
        if number % TOLD == 0:
            click.echo(f"{number} of {len(mutants)}", err=True)
        if outcome == KILLED:
            continue
        if outcome == HUNG:  # which is noticed, but on a loaded machine it may have been too slow only: to be seen
            click.echo(f"{outcome:12} {mutant.name}  [line {mutant.line}]")
            continue
        reason = known.get(mutant.name)
        unexplained += reason is None
        click.echo(f"{outcome:12} {mutant.name}  [line {mutant.line}]" + (f"  accepted: {reason}" if reason else ""))
    share = 100 * unexplained / max(1, len(mutants))
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    click.echo(f"{len(mutants)} mutants: {said}; {unexplained} of them unexplained ({share:.1f} %)")
    raise SystemExit(unexplained > 0)


if __name__ == "__main__":
    main()
