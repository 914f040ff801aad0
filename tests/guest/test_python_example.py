"""The example of docs/guests.md does what it says, and what cannot be done says why."""

from __future__ import annotations

import textwrap

import pytest

from hba.errors import GuestError
from hba.lab import paths
from hba.lab.experiment import Experiment, Options
from hba.lab.progress import Progress

pytestmark = pytest.mark.qemu


def example() -> str:
    """The code of the section "From Python"."""
    section = (paths.PROJECT / "docs" / "guests.md").read_text().partition("## From Python\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("    ") or not line]
    return textwrap.dedent("\n".join(lines))


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = example()
    assert "device_del" in code
    exec(compile(code, "docs/guests.md", "exec"), {"__name__": "example"})
    assert "/dev/sda" in capsys.readouterr().out


def test_a_machine_that_cannot_unplug_says_so() -> None:
    with Experiment(Options(machine="q35"), Progress()) as experiment:
        experiment.start()
        with pytest.raises(GuestError, match=r"does not support hotplugging.*machine pc can"):
            experiment.guest.monitor.execute("device_del", {"id": "hba0"})
        for arguments in (
            {"driver": "virtio-rng-pci", "id": "late"},
            {"driver": "virtio-rng-pci", "id": "late", "bus": "pcie.0"},
        ):
            with pytest.raises(GuestError, match=r"'pcie\.0' does not support hotplugging.*machine pc can"):
                experiment.guest.monitor.execute("device_add", arguments)
