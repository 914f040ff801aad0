"""`scripts/fuzz`: breed inputs for the harnesses, keep those that break something, replay and minimise."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from hba.lab.paths import PROJECT
from tests.fuzz.target import MOST, Target
from tests.fuzz.targets import NAMES, target

TOO_SLOW = 10  # s for one input, instrumented
MEMORY = 1024  # MiB of a fuzzing process
GRACE = 120.0  # s to begin and to end
_EXECUTED = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")


@dataclass(frozen=True)
class Outcome:
    """Of one target. `findings`: files with an input that broke something. `said`: what the fuzzer printed at last."""

    attacked: Target
    executions: int
    seconds: float
    covered: int
    findings: list[Path]
    said: str


def have_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def breed(attacked: Target, seconds: int, grown: Path, found: Path, seed: int = 0) -> Outcome:
    """Fuzz for so long. `grown` gets inputs that reach something new, `found` those that break something. `seed`: of
    what is random about it; 0: another each time."""
    grown.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hba-fuzz-") as folder:
        seeds = _seeds(attacked, Path(folder))
        arguments = [
            f"-max_total_time={seconds}", f"-max_len={MOST}", f"-seed={seed}", f"-timeout={TOO_SLOW}",
            f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={found}/", "-print_final_stats=1",
            *_dictionary(attacked, Path(folder)), str(grown),
            *([str(attacked.corpus)] if attacked.corpus.is_dir() else []), str(seeds),
        ]  # fmt: skip
        begin = time.monotonic()
        said = _run(attacked, arguments, seconds + GRACE)
        taken = time.monotonic() - begin
    executed, covered = _EXECUTED.search(said), _COVERED.findall(said)
    return Outcome(
        attacked,
        int(executed[1]) if executed else 0,
        taken,
        int(covered[-1]) if covered else 0,
        sorted(found.iterdir()),
        said[-4000:],
    )


def minimise(attacked: Target, grown: Path) -> tuple[int, int]:
    """Make the corpus the fewest inputs that reach what it, its seeds and `grown` reach; how many it was and is."""
    before = attacked.inputs()
    with tempfile.TemporaryDirectory(prefix="hba-fuzz-") as folder:
        merged = Path(folder) / "merged"
        merged.mkdir()
        grown.mkdir(parents=True, exist_ok=True)
        attacked.corpus.mkdir(parents=True, exist_ok=True)
        seeds = _seeds(attacked, Path(folder))
        _run(attacked, ["-merge=1", str(merged), str(attacked.corpus), str(seeds), str(grown)], 3600)
        kept = sorted(merged.iterdir())
        if not kept:
            raise click.ClickException(f"{attacked.name}: merging left nothing; the corpus is as it was")
        for path in before:
            if not path.name.startswith("found-"):  # what broke something once stays
                path.unlink()
        for path in kept:
            shutil.copyfile(path, attacked.corpus / path.name[:16])
    return len(before), len(attacked.inputs())


def _run(attacked: Target, arguments: list[str], limit: float) -> str:
    """What the fuzzer printed."""
    with tempfile.TemporaryDirectory(prefix="hba-fuzz-") as folder:
        again = Path(folder) / attacked.name
        again.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.fuzz.breed {attacked.name} "$@"\n')
        again.chmod(0o700)
        try:
            said = subprocess.run(
                [again, *arguments],
                cwd=PROJECT,
                env={**os.environ, "HBA_FUZZ_AGAIN": str(again)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=limit,
            ).stdout
        except subprocess.TimeoutExpired as late:
            said = (late.stdout or b"") + f"\nnot over within {limit:.0f} s, killed\n".encode()
    return said.decode("utf-8", "replace")


def _seeds(attacked: Target, folder: Path) -> Path:
    seeds = folder / "seeds"
    seeds.mkdir()
    for number, data in enumerate(attacked.seeds):
        (seeds / f"{number}").write_bytes(data)
    return seeds


def _dictionary(attacked: Target, folder: Path) -> list[str]:
    words = ["".join(f"\\x{byte:02x}" for byte in word) for word in attacked.tokens]
    if not words:
        return []
    file = folder / "words"
    file.write_text("".join(f'"{word}"\n' for word in words))
    return [f"-dict={file}"]


def _state() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "hba" / "fuzz"


@click.command()
@click.argument("names", metavar="[TARGET]...", nargs=-1, type=click.Choice(NAMES))
@click.option("--seconds", type=click.IntRange(min=1), default=60, show_default=True, help="For each target.")
@click.option("--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Run this input once.")
@click.option("--minimise", "shrink", is_flag=True, help="Instead: the fewest inputs that reach as much, in the tree.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where inputs are kept.")
def main(names: tuple[str, ...], seconds: int, replay: Path | None, shrink: bool, folder: Path | None) -> None:
    """Fuzz each TARGET (all of them without one), guided by the coverage of hba.

    Inputs that reach something new are kept from run to run. One that breaks something is named, with exit code 1.
    """
    targets = [target(name) for name in names or NAMES]
    if replay is not None:
        if len(targets) != 1:
            raise click.UsageError("name the one TARGET the input is for")
        targets[0].run(replay.read_bytes())
        click.echo(f"{targets[0].name}: nothing is broken by {replay}")
        return
    if not have_atheris():
        raise click.ClickException(
            "atheris is missing; pip install 'hba[fuzz]' (Linux on x86-64, CPython 3.11 to 3.13)"
        )
    folder = folder or _state()
    broken = False
    for one in targets:
        if shrink:
            before, now = minimise(one, folder / "grown" / one.name)
            click.echo(f"{one.name}: {before} inputs before, {now} now, in {one.corpus}")
            continue
        outcome = breed(one, seconds, folder / "grown" / one.name, folder / "found" / one.name)
        per_second = outcome.executions / outcome.seconds
        click.echo(
            f"{one.name}: {outcome.executions} executions in {outcome.seconds:.0f} s ({per_second:.0f}/s), "
            f"{outcome.covered} edges, {len(outcome.findings)} findings"
        )
        if outcome.findings or not outcome.executions:
            broken = True
            click.echo(outcome.said, err=True)
        for path in outcome.findings:
            click.echo(f"  again: scripts/fuzz {one.name} --replay {path}")
    raise SystemExit(broken)


if __name__ == "__main__":
    main()
