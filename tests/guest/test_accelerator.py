"""A real guest under `auto` on a KVM that is believed and then fails it: it boots all the same, emulated."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest

from hba.lab import accelerator, kvm, qemu
from hba.lab.cache import Cache
from hba.lab.experiment import Experiment, Options
from hba.lab.progress import Progress

pytestmark = pytest.mark.qemu

# QEMU itself, but what is started with KVM is what such a host makes of it.
WRAPPER = """#!/bin/sh
case " $* " in
*" -accel kvm "*)
    echo "KVM internal error. Suberror: 1" >&2
    echo "emulation failure" >&2
    exec sleep 600
    ;;
esac
exec {command} "$@"
"""


def test_a_guest_that_kvm_fails_boots_under_tcg_on_the_same_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    cache = Cache(Progress(said))
    real = qemu.find(cache)
    wrapper = tmp_path / "qemu"
    environment = [f"{name}={value}" for name, value in real.env.items()]
    wrapper.write_text(WRAPPER.format(command=shlex.join(["env", *environment, *real.argv])))
    wrapper.chmod(0o755)
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(kvm, "DEVICE", device)
    monkeypatch.setenv("HBA_QEMU", str(wrapper))
    monkeypatch.delenv(accelerator.VARIABLE, raising=False)
    answers = kvm.Answers(cache, qemu.find(cache))
    try:
        answers.keep(None)
        with Experiment(Options(), Progress(said)) as experiment:
            experiment.start()
            size = experiment.guest.agent.exec(["cat", "/sys/block/sda/size"], check=True).stdout
        assert int(size) * 512 == 128 << 20
        lines = [line for line in said.getvalue().splitlines() if "under TCG" in line]
        assert lines == [
            "KVM does not run this guest (KVM internal error. Suberror: 1, emulation failure): "
            "starting it again under TCG (emulated)"
        ]
        assert answers.kept() == (True, "KVM internal error. Suberror: 1, emulation failure")
    finally:
        answers.forget()
