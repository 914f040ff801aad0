"""KVM or emulation (TCG): what a guest is started with, and what happens when KVM turns out not to run it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from hba.errors import GuestError, WrongUsage
from hba.lab import kvm
from hba.lab.cache import Cache
from hba.lab.progress import Progress
from hba.lab.qemu import Qemu

Wanted = Literal["auto", "kvm", "tcg"]
Accelerator = Literal["kvm", "tcg"]
VARIABLE = "HBA_ACCEL"  # for CI, and for whoever does not want to say it every time

_Started = TypeVar("_Started")


def default() -> Wanted:
    """What `$HBA_ACCEL` says, else `auto`; `WrongUsage` when it says something else."""
    said = os.environ.get(VARIABLE) or "auto"
    if said not in get_args(Wanted):
        raise WrongUsage(f"{VARIABLE}={said}: auto, kvm or tcg is wanted")
    return cast(Wanted, said)


@dataclass(frozen=True)
class Decision:
    """What a guest runs with; under `auto`, KVM is only believed as long as it runs the guest."""

    wanted: Wanted
    chosen: Accelerator
    answers: kvm.Answers
    progress: Progress

    def run(self, start: Callable[[Accelerator], _Started]) -> _Started:
        """`start` a guest; under `auto` once more under TCG when KVM fails it, with a line that says so."""
        try:
            return start(self.chosen)
        except kvm.KvmFailure as failure:
            self.emulate_instead(failure)
            return start("tcg")

    def distrust(self, failure: kvm.KvmFailure) -> None:
        """Remember that KVM failed a guest: the next one is not started with it."""
        self.answers.keep(failure.cause)

    def emulate_instead(self, failure: kvm.KvmFailure) -> None:
        """`distrust`, and raise `failure` again unless the guest may be started under TCG instead."""
        self.distrust(failure)
        if self.wanted != "auto":
            raise failure
        self.progress.say(f"KVM does not run this guest ({failure.cause}): starting it again under TCG (emulated)")


def decide(wanted: Wanted, qemu: Qemu, cache: Cache, kernel: Callable[[], Path]) -> Decision:
    """KVM if it works and was not ruled out, else TCG, with a line that says why.

    `kernel` gives a kernel to try KVM with. `GuestError` when KVM was asked for and does not work.
    """
    answers = kvm.Answers(cache, qemu)
    if wanted == "tcg":
        return Decision(wanted, "tcg", answers, cache.progress)
    problem = kvm.problem(qemu, kernel, answers)
    if problem is None:
        return Decision(wanted, "kvm", answers, cache.progress)
    if wanted == "kvm":
        raise GuestError(f"KVM cannot be used: {problem}. --accel tcg emulates the guest, --accel auto chooses")
    cache.progress.say(f"the guest is emulated (TCG): {problem}")
    return Decision(wanted, "tcg", answers, cache.progress)
