"""What every suite can ask for. Runs inside the guest, as root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from adapter import Adapter, find_adapters
from kernellog import KernelLog

EXPERIMENT = Path("/run/lab/experiment.json")


@pytest.fixture(scope="session")
def experiment() -> dict:
    """What the host says we should find: adapters and their drivers, disks, patterns."""
    return json.loads(EXPERIMENT.read_text())


@pytest.fixture
def adapters(experiment: dict) -> list[Adapter]:
    """The PCI functions under test, looked up anew for every test."""
    return find_adapters(experiment["adapters"])


@pytest.fixture
def disks(experiment: dict, adapters: list[Adapter]) -> list:
    """The disks of our adapters with what the host says about each, by target and lun."""
    found = {(disk.target, disk.lun): disk for adapter in adapters for disk in adapter.disks()}
    paired = []
    for expected in experiment["disks"]:
        disk = found.get((expected["target"], expected["lun"]))
        assert disk is not None, f"no disk at target {expected['target']} lun {expected['lun']}; there are {found}"
        disk.expected = expected
        paired.append(disk)
    return paired


@pytest.fixture
def writable(disks: list) -> list:
    """Those of the disks that may be written."""
    found = [disk for disk in disks if not disk.expected["read_only"]]
    if not found:
        pytest.skip("the experiment has no disk that may be written")
    return found


@pytest.fixture
def known_messages(experiment: dict) -> tuple[str, ...]:
    """Patterns of kernel messages that are no fault on this device."""
    return tuple(experiment["known_messages"])


@pytest.fixture(scope="session")
def driver_logs(experiment: dict) -> tuple[str, ...]:
    """Patterns of the messages of the adapters' drivers."""
    return tuple({about["log"] for about in experiment["adapters"]})


@pytest.fixture(autouse=True)
def kernel_is_content(request: pytest.FixtureRequest, known_messages: tuple[str, ...], driver_logs: tuple[str, ...]):
    """After every test: nothing in the kernel log that tells of trouble with our device."""
    marker = request.node.get_closest_marker("expects_kernel_messages")
    log = KernelLog(driver_logs)
    log.expected += [*known_messages, *(marker.args if marker else ())]
    yield log
    trouble = log.trouble()
    assert not trouble, "the kernel complains:\n" + "\n".join(trouble)
