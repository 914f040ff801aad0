"""`scripts/mutate`: plant faults, run the tests, report those that nobody noticed."""

from __future__ import annotations

import os
import random
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

import click

from tests.mutants.plant import Mutant, everything
from tests.mutants.reach import Reach
from tests.mutants.run import HUNG, KILLED, OUTCOMES, Runner

SOURCES = ("hba/port", "hba/instruments", "hba/miniport", "hba/adapters")
TESTS = (
    "tests/port",
    "tests/miniport",
    "tests/adapters",
    "tests/rules",
    "tests/trace",
    "tests/classdriver",
    "tests/hostile",
    "tests/server",
    "tests/control",
    "tests/contract",
    "tests/bench/test_driver.py",
    "tests/bench/test_ports.py",
)
TOLD = 200  # mutants from one word of how far it is to the next
ACCEPTED = Path(__file__).with_name("accepted")


def accepted() -> dict[str, str]:
    """Name of a fault that changes nothing -> why."""
    files = (tomllib.loads(file.read_text("utf-8")) for file in sorted(ACCEPTED.glob("*.toml")))
    entries = (entry for file in files for entry in file["equivalent"])
    return {name: entry["reason"] for entry in entries for name in entry["mutants"]}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--sample", type=int, help="Only so many, chosen at random.")
@click.option("--seed", type=int, default=1, help="What is random about it.")
@click.option("--workers", type=int, default=os.cpu_count() or 1, help="Processes at a time.")
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that gets a line for each. Those that were noticed and stand in it are not planted again.",
)
@click.option(
    "--tests", multiple=True, type=click.Path(exists=True), help="The tests that are to notice (default: of the heart)."
)
@click.option(
    "--only",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with names: only these are planted. A line is a name, or begins with what became of it.",
)
@click.option(
    "--patience", type=float, default=300.0, help="Seconds of CPU for a fault; after them it is told as survived."
)
@click.option("--list", "only_list", is_flag=True, help="Only name them.")
def main(
    paths: tuple[Path, ...],
    sample: int | None,
    seed: int,
    workers: int,
    results: Path | None,
    tests: tuple[str, ...],
    only: Path | None,
    patience: float,
    only_list: bool,
) -> None:
    """Plant faults in PATHS (default: port, instruments, miniport, adapters); report those that no test notices."""
    roots = paths or tuple(map(Path, SOURCES))
    files = (file for root in roots for file in ([root] if root.is_file() else root.rglob("*.py")))
    mutants = everything(files)
    if gone := sorted(accepted().keys() - {mutant.name for mutant in mutants}) if not paths else []:
        click.echo("accepted, and not planted any more:\n  " + "\n  ".join(gone), err=True)
    if only is not None:
        names = {_name(line) for line in only.read_text("utf-8").splitlines()}
        mutants = [mutant for mutant in mutants if mutant.name in names]
    if sample is not None and sample < len(mutants):
        mutants = random.Random(seed).sample(mutants, sample)
    if only_list:
        for mutant in mutants:
            click.echo(mutant.name)
        return
    report = Report(len(mutants), results)
    with tempfile.TemporaryDirectory() as folder:
        reach = Reach(tests or TESTS, roots, Path(folder))
        click.echo("running the tests once, without a fault", err=True)
        reach.measure()
        left = (mutant for mutant in mutants if not report.known(mutant))
        Runner(left, reach, workers, patience, Path(folder), report).run()
    click.echo(report.sum())
    raise SystemExit(report.unexplained > 0)


def _name(line: str) -> str:
    """Of a line as it is told or stands in a file of results: what became of it, the name, remarks."""
    outcome, _, rest = line.partition(" ")
    name = rest if outcome in OUTCOMES else line
    return name.strip().partition("  ")[0]


class Report:
    """Says what becomes of each, as it becomes known."""

    def __init__(self, total: int, results: Path | None) -> None:
        self._total = total
        self._results = results
        self._accepted = accepted()
        self._counts: Counter[str] = Counter()
        self.unexplained = 0
        lines = results.read_text("utf-8").splitlines() if results is not None and results.exists() else []
        self._noticed = {line.partition(" ")[2] for line in lines if line.startswith(f"{KILLED} ")}

    def known(self, mutant: Mutant) -> bool:
        """Whether it was noticed in an earlier run; then it is counted."""
        if mutant.name not in self._noticed:
            return False
        self._counts[KILLED] += 1
        return True

    def __call__(self, mutant: Mutant, outcome: str) -> None:
        self._counts[outcome] += 1
        if self._results is not None:
            with self._results.open("a", encoding="utf-8") as file:
                file.write(f"{outcome} {mutant.name}\n")
        if self._counts.total() % TOLD == 0:
            click.echo(f"{self._counts.total()} of {self._total}", err=True)
        if outcome == KILLED:
            return
        reason = self._accepted.get(mutant.name)
        self.unexplained += reason is None and outcome != HUNG  # which the time limit of the tests notices
        click.echo(f"{outcome:10} {mutant.name}  [line {mutant.line}]" + (f"  accepted: {reason}" if reason else ""))

    def sum(self) -> str:
        """The last line."""
        share = 100 * self.unexplained / max(1, self._total)
        said = ", ".join(f"{count} {outcome}" for outcome, count in self._counts.most_common())
        return f"{self._total} mutants: {said}; {self.unexplained} of them unexplained ({share:.1f} %)"


if __name__ == "__main__":
    main()
