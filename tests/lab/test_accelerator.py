"""KVM or emulation, the whole decision: with a QEMU stand-in that behaves under KVM in each way there is."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from hba.errors import EXIT_GUEST, EXIT_USAGE, GuestError, HbaError
from hba.lab import accelerator, doctor, kvm, launch, machine
from hba.lab.cache import Cache
from hba.lab.experiment import Experiment, Options
from hba.lab.progress import Progress
from hba.lab.qemu import Qemu, find_installed
from tests.lab.standin import Standin

SHORT = (
    0.3  # seconds of silence after which a stand-in that says nothing is given up; one that works is not judged by it
)
BROKEN = {
    "hangs": "said nothing within",
    "stops": "did not come to its end within",
    "internal error": "KVM internal error. Suberror: 1, emulation failure",
    "dies": "failed to initialize kvm: No such device",
}


class Lab:
    """A host with a /dev/kvm that opens, a cache of its own, and QEMU's own device, so that no server is needed."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = patch
        self.said = io.StringIO()
        self.device = folder / "kvm"
        self.device.touch()
        patch.setattr(kvm, "DEVICE", self.device)
        patch.setenv("HBA_CACHE", str(folder / "cache"))
        patch.delenv(accelerator.VARIABLE, raising=False)
        file = folder / "file"
        file.touch()
        patch.setattr(Experiment, "_make_boot", lambda self, cache: machine.Boot(file, file, file, file))

    def qemu(self, *, probe: str = "works", guest: str = "works") -> Standin:
        if "hangs" in (probe, guest):
            self.patch.setattr(kvm, "FIRST_LINE", SHORT)
        if probe == "stops":
            self.patch.setattr(kvm, "WHOLE_BOOT", 1.0)
        standin = Standin(self.folder, probe=probe, guest=guest)
        self.patch.setenv("HBA_QEMU", str(standin.path))
        return standin

    def believes(self, standin: Standin) -> None:
        """KVM was found to work earlier."""
        found, _ = find_installed()
        assert found is not None and found.argv == (str(standin.path),)
        kvm.Answers(Cache(Progress(self.said)), found).keep(None)

    def start(self, wanted: accelerator.Wanted | None = None) -> str:
        """Boot a guest; what it runs with."""
        options = Options(device="builtin-pvscsi")
        if wanted is not None:
            options = Options(device="builtin-pvscsi", accelerator=wanted)
        with Experiment(options, Progress(self.said)) as experiment:
            experiment.start()
            assert experiment.guest.agent.release == "6.12-standin"
            words = experiment.guest.process.args
            assert isinstance(words, list)
            return str(words[words.index("-accel") + 1])

    def lines(self, part: str) -> list[str]:
        return [line for line in self.said.getvalue().splitlines() if part in line]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def test_kvm_that_works_is_used_and_tried_once(lab: Lab) -> None:
    qemu = lab.qemu()
    assert lab.start() == "kvm"
    assert qemu.started() == ["kvm probe", "kvm guest"]
    assert lab.start("kvm") == "kvm"
    assert qemu.started() == ["kvm guest"]
    assert not lab.lines("TCG")


@pytest.mark.parametrize("how", BROKEN)
def test_kvm_that_runs_no_kernel_is_not_used(lab: Lab, how: str) -> None:
    qemu = lab.qemu(probe=how)
    assert lab.start() == "tcg"
    assert qemu.started() == ["kvm probe", "tcg guest"]
    (line,) = lab.lines("emulated (TCG)")
    assert BROKEN[how] in line
    assert lab.start() == "tcg"
    assert qemu.started() == ["tcg guest"], "the second time costs nothing"


@pytest.mark.parametrize("how", BROKEN)
def test_kvm_that_was_asked_for_and_runs_no_kernel_is_an_error_at_once(lab: Lab, how: str) -> None:
    qemu = lab.qemu(probe=how)
    for _ in range(2):
        with pytest.raises(GuestError) as error:
            lab.start("kvm")
        assert BROKEN[how] in str(error.value) and "--accel tcg" in str(error.value)
        assert error.value.exit_code == EXIT_GUEST
    assert qemu.started() == ["kvm probe"]


@pytest.mark.parametrize("how", ["hangs", "internal error", "dies"])
def test_a_guest_that_kvm_fails_is_started_again_under_tcg(lab: Lab, how: str) -> None:
    qemu = lab.qemu(guest=how)
    lab.believes(qemu)
    assert lab.start() == "tcg"
    assert qemu.started() == ["kvm guest", "tcg guest"]
    (line,) = lab.lines("starting it again under TCG")
    assert (BROKEN[how] if how != "hangs" else "nothing on its console") in line
    assert lab.start() == "tcg"
    assert qemu.started() == ["tcg guest"], "KVM is not believed again"


@pytest.mark.parametrize("how", ["hangs", "internal error", "dies"])
def test_a_guest_that_kvm_fails_is_an_error_where_kvm_was_asked_for(lab: Lab, how: str) -> None:
    qemu = lab.qemu(guest=how)
    lab.believes(qemu)
    with pytest.raises(kvm.KvmFailure, match="--accel tcg"):
        lab.start("kvm")
    assert qemu.started() == ["kvm guest"]


def test_without_the_device_nothing_is_tried(lab: Lab) -> None:
    qemu = lab.qemu()
    lab.device.unlink()
    assert lab.start() == "tcg"
    assert qemu.started() == ["tcg guest"]
    assert lab.lines("there is no")
    with pytest.raises(GuestError, match="there is no"):
        lab.start("kvm")


def test_a_device_that_may_not_be_opened(lab: Lab) -> None:
    lab.device.chmod(0)
    root = os.geteuid() == 0  # root may open everything: look as nobody
    if root:
        os.seteuid(65534)
    try:
        assert kvm.unusable() == f"this user may not open {lab.device} (join the group kvm)"
    finally:
        if root:
            os.seteuid(0)


def test_permission_is_asked_anew_each_time(lab: Lab) -> None:
    """What was found out about KVM does not hide that it cannot be opened now, nor the other way round."""
    qemu = lab.qemu()
    lab.patch.setattr(kvm, "unusable", lambda: "this user may not open it")
    assert lab.start() == "tcg"
    assert qemu.started() == ["tcg guest"]
    lab.patch.setattr(kvm, "unusable", lambda: None)
    assert lab.start() == "kvm"


def test_tcg_that_was_asked_for_asks_nobody(lab: Lab) -> None:
    qemu = lab.qemu()
    assert lab.start("tcg") == "tcg"
    assert qemu.started() == ["tcg guest"]


def test_an_answer_is_good_for_this_boot_and_this_qemu(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = lab.qemu(probe="internal error")
    assert lab.start() == "tcg"
    monkeypatch.setattr(kvm, "_host", lambda: "after another boot")
    assert lab.start() == "tcg"
    assert qemu.started() == ["kvm probe", "tcg guest"] * 2
    qemu = lab.qemu()  # another program under the same name
    os.utime(qemu.path, (1, 1))
    assert lab.start() == "kvm"


def test_a_damaged_answer_is_found_out_anew(lab: Lab) -> None:
    qemu = lab.qemu()
    lab.start()
    (answer,) = (lab.folder / "cache").glob("kvm-*.json")
    for content in (b"", b"\xff", b"[]", b'{"host":1}'):
        answer.write_bytes(content)
        qemu.started()
        assert lab.start() == "kvm"
        assert qemu.started() == ["kvm probe", "kvm guest"]


def test_a_cache_that_cannot_be_written_only_costs_time(lab: Lab) -> None:
    qemu = lab.qemu()
    answers = kvm.Answers(Cache(Progress(lab.said)), Qemu((str(qemu.path),), "a test"))
    answers._path = Path("/proc/no/such")
    answers.keep(None)
    assert answers.kept() == (False, None)


@pytest.mark.parametrize("value", ["tcg", "kvm", "auto"])
def test_the_variable_chooses_where_nothing_is_said(lab: Lab, value: accelerator.Wanted) -> None:
    lab.qemu()
    lab.patch.setenv(accelerator.VARIABLE, value)
    assert lab.start() == ("tcg" if value == "tcg" else "kvm")
    assert lab.start("tcg") == "tcg"


def test_a_wrong_variable_is_said(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.patch.setenv(accelerator.VARIABLE, "vmx")
    with pytest.raises(HbaError, match="HBA_ACCEL=vmx: auto, kvm or tcg"):
        Options()
    assert launch.run(["--suite", "smoke"]) == EXIT_USAGE
    assert "HBA_ACCEL" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["works", *BROKEN])
def test_doctor_tells_what_kvm_does(lab: Lab, how: str) -> None:
    """It tries anew, whatever was found earlier, and what it finds is what the next guest is started by."""
    qemu = lab.qemu(probe=how)
    store = Cache(Progress(lab.said))
    found = Qemu((str(qemu.path),), "a test")
    kernel = lab.folder / "cache" / "kernel-6.12-x"
    lab.patch.setattr(
        doctor.kernel, "cached", lambda recipe, cache: doctor.kernel.Kernel("6.12", kernel, kernel, kernel)
    )
    for _ in range(2):
        check = doctor._kvm(found, store)
        assert (check.state == doctor.GOOD) == (how == "works")
        assert BROKEN.get(how, "runs Linux 6.12") in check.found
    assert qemu.started() == ["kvm probe"] * 2
    assert lab.start() == ("kvm" if how == "works" else "tcg")
    assert qemu.started() == ["kvm guest" if how == "works" else "tcg guest"]


def test_doctor_does_not_claim_what_it_did_not_try(lab: Lab) -> None:
    store = Cache(Progress(lab.said))
    assert "not tried: no QEMU" in doctor._kvm(None, store).found
    qemu = lab.qemu()
    check = doctor._kvm(Qemu((str(qemu.path),), "a test"), store)
    assert "not tried: no guest kernel" in check.found and check.state == doctor.LIMITED
    lab.device.unlink()
    assert "there is no" in doctor._kvm(None, store).found
