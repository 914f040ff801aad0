"""`scripts/launch`: one experiment from the command line.

Exit codes: 0 the suite passed (or the console was left), 1 the suite failed, 2 wrong usage, 3 wrong configuration,
4 a socket, 5 storage, 6 permissions, 7 no QEMU with vfio-user to be had, 8 the guest did not boot, hangs or died,
9 the adapter's control socket does not answer, 10 the HBA server failed, 130/143/129 ended by Ctrl-C, SIGTERM or
SIGHUP.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn, get_args

import click
from rich.console import Console

from hba.errors import EXIT_FAILED, EXIT_INTERNAL, EXIT_OK, HbaError
from hba.lab import accelerator, console, junit, ktap, kvm, machine, observe, paths, selection, suite, verdict
from hba.lab.artifacts import Artifacts
from hba.lab.cache import default_root, state_root
from hba.lab.experiment import Experiment, Options
from hba.lab.findings import FailOn, Findings
from hba.lab.progress import Progress
from hba.lab.space import full_disk

_PATH = click.Path(path_type=Path)
# Options that say something about a suite, by the name of their parameter.
_OF_SUITES = {
    "junit": "--junit",
    "ktap": "--ktap",
    "artifacts": "--artifacts",
    "select": "-k",
    "dataloss": "--dataloss",
}
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal that ends us; everything is cleaned up on its way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Task:
    """What to do once the guest is there."""

    suite: str | None
    suite_arguments: tuple[str, ...]
    junit: Path | None
    ktap: Path | None
    artifacts: Path | None
    keep: bool
    dataloss: bool
    fail_on: FailOn


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--suite", "suite_name", metavar="NAME", help="Run this suite of guest-tests/ and print the verdict.")
@click.option("--list-suites", is_flag=True, help="List the suites and stop.")
@click.option("-k", "select", metavar="EXPRESSION", help="Only the suite's tests whose name matches (pytest's -k).")
@click.option("--port-model", type=click.Choice(["scsiport", "storport"]), help="Semantics of the port driver.")
@click.option("--config", type=_PATH, help="Configuration of the HBA server. Default: one adapter, its disks new.")
@click.option("--kernel", default="", metavar="VERSION|FILE", help="Debian kernel such as 6.12 or 6.1, or a vmlinuz.")
@click.option("--modules", type=_PATH, metavar="DIR", help="The modules of a --kernel FILE.")
@click.option("--append", default="", metavar="WORDS", help="More words for the kernel's command line.")
@click.option("--disk", type=_PATH, metavar="FILE", help="Boot this raw disk image behind the HBA instead of Linux.")
@click.option("--machine", "machine_name", default="pc", show_default=True, help="Profile of qemu/machines/.")
@click.option("--memory", default=768, show_default=True, metavar="MIB", help="The guest's memory.")
@click.option("--cpus", default=1, show_default=True, help="The guest's processors.")
@click.option("--accel", type=click.Choice(get_args(accelerator.Wanted)), default="auto", show_default=True,
              envvar=accelerator.VARIABLE, show_envvar=True,
              help="Run the guest with KVM or emulate it; auto takes KVM where it runs a Linux kernel.")  # fmt: skip
@click.option("--device", type=click.Choice(["hba", "builtin-pvscsi"]), default="hba", show_default=True,
              help="Our HBA, or QEMU's own PVSCSI model to compare with.")  # fmt: skip
@click.option("--posted-writes/--no-posted-writes", default=True, show_default=True,
              help="Whether QEMU may post register writes, where the server lets it.")  # fmt: skip
@click.option("--junit", type=_PATH, metavar="FILE", help="Write the suite's results as JUnit XML.")
@click.option("--ktap", type=_PATH, metavar="FILE", help="Write them as KTAP, too, as the kernel's own tests do.")
@click.option("--artifacts", type=_PATH, metavar="DIR",
              help="Keep logs, findings, trace and commands there; a red run keeps them anyway.")  # fmt: skip
@click.option("--fail-on", type=click.Choice(get_args(FailOn)), default="violation", show_default=True,
              help="Findings of the verifier that are failures: these, and worse ones.")  # fmt: skip
@click.option("--dataloss", is_flag=True, help="The suite may overwrite disks that hold data.")
@click.option(
    "--keep", is_flag=True, help="Keep guest and folder after the suite until Ctrl-C, and say where they are."
)
@click.option("--boot-timeout", default=240.0, show_default=True, metavar="SECONDS", help="How long a boot may take.")
@click.argument("qemu_arguments", nargs=-1, type=click.UNPROCESSED)
def main(**given: Any) -> NoReturn:
    """Start an HBA and boot a guest beside it.

    With --suite, run it and print the verdict; without, give the guest's console (Ctrl-] leaves it).
    Arguments after `--` go to QEMU.
    """
    for number in _ENDING:
        signal.signal(number, _interrupt)
    try:
        if given["list_suites"]:
            _list_suites()
            code = EXIT_OK
        else:
            code = _launch(*_understand(given))
    except click.ClickException:
        raise
    except HbaError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except Interrupted as interrupted:
        print(f"interrupted by {signal.Signals(interrupted.number).name}; everything is cleaned up", file=sys.stderr)
        code = 128 + interrupted.number
    except Exception as error:
        if os.environ.get("HBA_DEBUG"):
            traceback.print_exc(file=sys.stderr)
        if (full := full_disk(error, default_root())) is not None:
            print(f"error: {full}", file=sys.stderr)
            code = full.exit_code
        else:
            print(
                f"internal error: {type(error).__name__}: {error}\n"
                "This is a defect of hba. Run the same with HBA_DEBUG=1 for the traceback, and report it with that.",
                file=sys.stderr,
            )
            code = EXIT_INTERNAL
    sys.exit(code)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    # Cleaning up has begun and takes a few seconds at most; a second Ctrl-C must not leave half of it undone.
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)


def _list_suites() -> None:
    paths.require_tree()
    for name in suite.names():
        print(f"{name:12} {suite.load(name).title}")


def _understand(given: dict[str, Any]) -> tuple[Options, Task]:
    if given["suite_name"] and given["disk"]:
        raise click.UsageError("a suite runs in the lab's own guest, --disk boots another one: give one of the two")
    for name, said in _OF_SUITES.items():
        if given[name] and not given["suite_name"]:
            raise click.UsageError(f"{said} needs --suite")
    device: Literal["hba", "builtin-pvscsi"] = given["device"]
    options = Options(
        machine=given["machine_name"],
        memory_mib=given["memory"],
        cpus=given["cpus"],
        accelerator=given["accel"],
        kernel=given["kernel"],
        modules=given["modules"],
        append=given["append"],
        device=device,
        config=given["config"],
        port_model=given["port_model"] or "",
        disk=given["disk"],
        posted_writes=given["posted_writes"],
        console=not given["suite_name"],
        qemu_arguments=machine.arguments(given["qemu_arguments"]),
        boot_timeout=given["boot_timeout"],
    )
    task = Task(
        suite=given["suite_name"],
        suite_arguments=("-k", given["select"]) if given["select"] else (),
        junit=given["junit"],
        ktap=given["ktap"],
        artifacts=given["artifacts"],
        keep=given["keep"],
        dataloss=given["dataloss"],
        fail_on=given["fail_on"],
    )
    return options, task


def _launch(options: Options, task: Task) -> int:
    progress = Progress()
    chosen = suite.load(task.suite) if task.suite else None  # a wrong name must not cost a boot
    if chosen is not None and task.suite_arguments:
        _check_selection(chosen, task.suite_arguments[-1])
    artifacts = Artifacts(task.artifacts, state_root() / "runs")
    if chosen is not None and options.config is None:
        options = replace(options, luns=chosen.luns)
    with Experiment(options, progress) as experiment:
        if task.keep:
            experiment.keep()
        try:
            if chosen is None:
                experiment.start()
                return _console(experiment, progress, task)
            return _suite(chosen, experiment, progress, task, artifacts)
        except suite.NothingSelected:
            raise
        except HbaError as error:
            if chosen is not None and experiment.commands:
                _keep_artifacts(artifacts, lambda: artifacts.keep(experiment), progress)
            if isinstance(error, kvm.KvmFailure):
                experiment.distrust(error)
            if task.keep:
                progress.say(f"what there is of it is in {experiment.folder}")
            raise


def _check_selection(chosen: suite.Suite, expression: str) -> None:
    """An expression that selects nothing must not cost a boot, either."""
    try:
        if selection.selects(chosen.folder, expression):
            return
    except selection.BadExpression as error:
        raise click.UsageError(f'-k "{expression}": {error}') from error
    meant = selection.suggestion(chosen.folder, expression)
    advice = f'did you mean "{meant}"?' if meant else "its tests: " + ", ".join(selection.known(chosen.folder))
    raise click.UsageError(f'-k "{expression}" selects no test of suite {chosen.name}; {advice}')


def _suite(chosen: suite.Suite, experiment: Experiment, progress: Progress, task: Task, artifacts: Artifacts) -> int:
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    run = suite.Run(chosen, experiment, dataloss=task.dataloss)
    experiment.start_device()
    run.before_guest()
    findings = Findings(experiment.adapters)
    experiment.start_guest()
    started = time.monotonic()
    progress.say(f"running suite {chosen.name} in the guest")
    outcome = run.run(lambda line: progress.say(f"  | {line}"), task.suite_arguments, findings.test)
    experiment.guest.alive()  # nothing may have died on the way and been started again
    groups = findings.end()
    outcome.add("verifier", verdict.cases(groups, task.fail_on))
    run.describe(outcome)
    if task.junit is not None:
        junit.write(outcome.junit, task.junit)
    if task.ktap is not None:
        junit.write_text(task.ktap, ktap.render(chosen.name, outcome.cases, outcome.passed))
    seen = [observe.look(adapter.control) for adapter in experiment.adapters]
    verdict.print_outcome(out, chosen, outcome, time.monotonic() - started)
    for adapter in seen:
        verdict.print_seen(out, adapter, [group for group in groups if group.adapter == adapter.name])
    if artifacts.asked or not outcome.passed:
        _keep_artifacts(artifacts, lambda: artifacts.keep(experiment, seen, groups), progress)
    verdict.print_last(out, chosen, outcome)
    if task.keep:
        _tell_where(experiment, progress)
        progress.say("the guest keeps running; Ctrl-C ends it")
        try:
            experiment.guest.wait()
        except Interrupted:
            progress.say("ending the guest")
    return EXIT_OK if outcome.passed else EXIT_FAILED


def _keep_artifacts(artifacts: Artifacts, keep: Callable[[], list[str]], progress: Progress) -> None:
    """Keep them; where that fails and nobody asked for them, what the run found must not be lost over it."""
    try:
        names = keep()
    except HbaError as error:
        if artifacts.asked:
            raise
        progress.say(str(error))
        return
    progress.say(f"artifacts {artifacts.folder} ({', '.join(names)})")


def _console(experiment: Experiment, progress: Progress, task: Task) -> int:
    _tell_where(experiment, progress)
    if sys.stdin.isatty():
        progress.say("the guest's console; Ctrl-] leaves it, `poweroff` in the guest ends it")
    while True:
        try:
            console.attach(experiment.guest, experiment.guest.sockets.serial)
            break
        except kvm.KvmFailure as failure:
            experiment.emulate_instead(failure)
    if task.keep and experiment.guest.running:
        progress.say("the guest keeps running; Ctrl-C ends it")
        try:
            experiment.guest.wait()
        except Interrupted:
            progress.say("ending the guest")
    return EXIT_OK


def _tell_where(experiment: Experiment, progress: Progress) -> None:
    progress.say(f"folder    {experiment.folder} (console.log, firmware.log, server.log)")
    progress.say(f"monitor   {experiment.guest.sockets.monitor} (QMP)")
    progress.say(f"console   {experiment.guest.sockets.serial}")
    for adapter in experiment.adapters:
        progress.say(f"adapter   {adapter.name}: `hba show {adapter.name}` (control socket {adapter.control})")
    progress.say(f"processes QEMU {experiment.guest.pid}")


if __name__ == "__main__":
    main()
