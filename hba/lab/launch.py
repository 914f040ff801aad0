"""`scripts/launch`: one experiment from the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, get_args

import click

from hba.adapters.registry import ADAPTERS
from hba.config.model import ENGINES
from hba.errors import EXIT_FAILED, EXIT_OK, HbaError
from hba.lab import (
    accelerator,
    console,
    devices,
    interruption,
    junit,
    ktap,
    kvm,
    machine,
    native,
    observe,
    paths,
    selection,
    suite,
    verdict,
)
from hba.lab.artifacts import Artifacts
from hba.lab.experiment import Experiment, Options
from hba.lab.findings import FailOn, Findings
from hba.lab.interruption import Interrupted
from hba.lab.progress import Progress
from hba.lab.space import full_disk
from hba.places import cache_root, state_root
from hba.terminal import entry, screen
from hba.terminal.tables import lay_out

_PATH = click.Path(path_type=Path)
# Options that say something about a suite, by the name of their parameter.
_OF_SUITES = {
    "junit": "--junit",
    "ktap": "--ktap",
    "artifacts": "--artifacts",
    "select": "-k",
    "dataloss": "--dataloss",
}
# And those that say something about an HBA of ours.
_OF_OURS = {"config": "--config", "port_model": "--port-model", "engine": "--engine", "adapter": "--adapter"}


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


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=entry.exit_codes())
@click.option("--suite", "suite_name", metavar="NAME", help="Run this suite of guest-tests/ and print the verdict.")
@click.option("--list-suites", is_flag=True, help="List the suites and stop.")
@click.option("-k", "select", metavar="EXPRESSION", help="Only the suite's tests whose name matches (pytest's -k).")
@click.option("--port-model", type=click.Choice(["scsiport", "storport"]), help="Semantics of the port driver.")
@click.option("--engine", type=click.Choice(ENGINES), help="What speaks vfio-user.")
@click.option("--config", type=_PATH, help="Configuration of the HBA server. Default: one adapter, its disks new.")
@click.option("--kernel", default="", metavar="VERSION|FILE", help="Debian kernel such as 6.12 or 6.1, or a vmlinuz.")
@click.option("--modules", type=_PATH, metavar="DIR", help="The modules of a --kernel FILE.")
@click.option("--append", default="", metavar="WORDS", help="More words for the kernel's command line.")
@click.option("--disk", type=_PATH, metavar="FILE", help="Boot this raw disk image behind the HBA instead of Linux.")
@click.option("--machine", "machine_name", default="pc", show_default=True, help="Profile of qemu/machines/.")
@click.option("--memory", type=click.IntRange(min=64), default=768, show_default=True, metavar="MIB",
              help="The guest's memory.")  # fmt: skip
@click.option("--cpus", type=click.IntRange(min=1), default=1, show_default=True, help="The guest's processors.")
@click.option("--accel", type=click.Choice(get_args(accelerator.Wanted)), default="auto", show_default=True,
              envvar=accelerator.VARIABLE, show_envvar=True,
              help="Run the guest with KVM or emulate it; auto takes KVM where it runs a Linux kernel.")  # fmt: skip
@click.option("--adapter", type=click.Choice(ADAPTERS.names), metavar="TYPE",
              help=f"Type of our HBA, without --config: {', '.join(ADAPTERS.names)}.")  # fmt: skip
@click.option("--device", type=click.Choice([devices.OURS, *devices.builtin()]), default=devices.OURS,
              show_default=True, help="Our HBA, or QEMU's own model of one to compare with.")  # fmt: skip
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
@click.option("--boot-timeout", type=click.FloatRange(min=1), default=240.0, show_default=True, metavar="SECONDS",
              help="How long a boot may take.")  # fmt: skip
@screen.color_option
@click.argument("qemu_arguments", nargs=-1, type=click.UNPROCESSED)
def command(**given: Any) -> int:
    """Start an HBA and boot a guest beside it.

    With --suite, run it and print the verdict; without, give the guest's console (Ctrl-] leaves it).
    Arguments after `--` go to QEMU.
    """
    if given["list_suites"]:
        _list_suites()
        return EXIT_OK
    return _launch(*_understand(given))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    try:
        return entry.run(command, "scripts/launch", arguments, lambda error: full_disk(error, cache_root()))
    except Interrupted as interrupted:
        return interruption.told(interrupted)


def main() -> NoReturn:
    """The command."""
    screen.prepare_streams()
    interruption.listen()
    sys.exit(run(sys.argv[1:]))


def _list_suites() -> None:
    paths.require_tree()
    rows = [(name, suite.load(name).title) for name in suite.names()]
    for line in lay_out(("suite", "title"), rows, indent=0, width=screen.width(sys.stdout)):
        click.echo(line)


def _understand(given: dict[str, Any]) -> tuple[Options, Task]:
    _check_together(given)
    if given["suite_name"]:
        chosen = suite.load(given["suite_name"])  # a wrong name must not cost a boot
        if given["select"]:
            _check_selection(chosen, given["select"])
    machine.load(given["machine_name"])
    options = Options(
        machine=given["machine_name"],
        memory_mib=given["memory"],
        cpus=given["cpus"],
        accelerator=given["accel"],
        kernel=given["kernel"],
        modules=given["modules"],
        append=given["append"],
        device=given["device"],
        adapter=given["adapter"] or ADAPTERS.default.name,
        config=given["config"],
        port_model=given["port_model"] or "",
        engine=given["engine"] or "",
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


def _check_together(given: dict[str, Any]) -> None:
    """What does not go together, whatever else is right. Raises `click.UsageError`."""
    if given["suite_name"] and given["disk"]:
        raise click.UsageError("--suite runs in the lab's own guest, --disk boots another one: give one of the two")
    for name, written in _OF_SUITES.items():
        if given[name] and not given["suite_name"]:
            raise click.UsageError(f"{written} is for the tests of a suite: add --suite NAME")
    if given["disk"] and given["config"]:
        raise click.UsageError(
            "--disk makes a configuration of its own: name the disk in that of --config, or leave --config out"
        )
    if given["device"] != devices.OURS:
        for name, written in _OF_OURS.items():
            if given[name]:
                raise click.UsageError(
                    f"--device {given['device']} is QEMU's own, {written} is for ours: leave one out"
                )
    if given["adapter"] and given["config"]:
        raise click.UsageError("--adapter is for a configuration that is made here: that of --config says its types")
    if given["modules"] and not given["kernel"]:
        raise click.UsageError("--modules are those of a kernel of your own: add --kernel FILE")


def _launch(options: Options, task: Task) -> int:
    progress = Progress()
    chosen = suite.load(task.suite) if task.suite else None
    artifacts = Artifacts(task.artifacts, state_root() / "runs")
    if chosen is not None and options.config is None:
        options = replace(options, luns=chosen.luns)
    if options.device == devices.OURS:
        native.compile_first(progress)
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
        except Interrupted:
            if chosen is not None and experiment.commands:
                _keep_artifacts(artifacts, lambda: artifacts.keep(experiment), progress)
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
    run = suite.Run(chosen, experiment, dataloss=task.dataloss)
    experiment.start_device()
    run.before_guest()
    findings = Findings(experiment.adapters)
    experiment.start_guest()
    started = time.monotonic()
    with progress.step(f"running suite {chosen.name} in the guest"):
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
    verdict.print_outcome(chosen, outcome, time.monotonic() - started)
    for adapter in seen:
        verdict.print_seen(adapter, [group for group in groups if group.adapter == adapter.name])
    if artifacts.asked or not outcome.passed:
        _keep_artifacts(artifacts, lambda: artifacts.keep(experiment, seen, groups), progress)
    verdict.print_last(chosen, outcome)
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
