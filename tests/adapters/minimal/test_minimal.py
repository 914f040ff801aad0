"""A second adapter from its configuration to its guest's data, and nothing outside its folder knows it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli

from hba.adapters.pvscsi.type import PVSCSI
from hba.adapters.registry import ADAPTERS
from hba.adapters.types import Registry
from hba.bench import measure, ports
from hba.cli.views import counters, glance, queues, regs
from hba.config import schema
from hba.config.load import parse
from hba.control.client import CallRefused, ControlClient
from hba.control.methods import methods
from hba.control.parts import Parts
from hba.control.results.show import shown
from hba.errors import ConfigError, GuestError
from hba.lab import config as lab_config
from hba.lab import devices, machine
from hba.srb import SCSISTAT_CHECK_CONDITION, SRB_STATUS_ERROR
from tests.adapters.minimal.bench import ENTRIES, MinimalDriver, entry
from tests.adapters.minimal.structures import COME, ENTRY_SIZE, GONE, HEARD, IN, OUT, UNIT
from tests.adapters.minimal.type import MINIMAL
from tests.config.jsonschema import fits
from tests.contract.adapter import running
from tests.contract.checker import Checker

NAME = "small"
FILE = Path("hba.toml")
HEAD = f'[[adapter]]\ntype = "minimal"\nname = "{NAME}"\n'
DISK = '[[adapter.lun]]\nstorage = { kind = "file", path = "disk.img", size = "1M", create = true }\n'


@pytest.fixture
def known() -> Registry:
    return Registry(PVSCSI, MINIMAL)


@pytest.fixture(params=["storport", "scsiport"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path, known: Registry) -> Iterator[Parts]:
    """A running one. Its files: `disk.img`, `small.sock`, `small.ctl`."""
    text = HEAD + f'port = "{request.param}"\nminimal = {{ entries = {ENTRIES} }}\n' + DISK
    with running(tmp_path, text, known) as parts:
        yield parts


@pytest.fixture
def control(adapter: Parts, tmp_path: Path) -> Iterator[ControlClient]:
    with ControlClient(tmp_path / f"{NAME}.ctl") as client:
        yield client


@pytest.fixture
def driver(adapter: Parts, tmp_path: Path) -> Iterator[MinimalDriver]:
    with MinimalDriver(tmp_path / f"{NAME}.sock", 1 << 20) as driver:
        yield driver


# -- its configuration ------------------------------------------------------------------------------------------------


def test_it_is_there_only_where_it_is_registered(known: Registry) -> None:
    (adapter,) = parse(HEAD + DISK, FILE, known).adapters
    assert (adapter.type, adapter.options) == ("minimal", MINIMAL.options())
    with pytest.raises(ConfigError, match='expected one of "pvscsi", got "minimal"'):
        parse(HEAD + DISK, FILE)


def test_its_table_is_read(known: Registry) -> None:
    (adapter,) = parse(HEAD + "[adapter.minimal]\nentries = 7\n", FILE, known).adapters
    assert adapter.options.entries == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("minimal = { entries = 0 }", "hba.toml:4: adapter[0].minimal.entries: expected a whole number >= 1, got 0"),
        ("minimal = { entry = 1 }", "did you mean"),
        ("pvscsi = { max_targets = 8 }", 'options of pvscsi, but type = "minimal"'),
    ],
)
def test_what_is_wrong_is_told_by_the_program_and_by_editors(text: str, told: str, known: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(HEAD + text + "\n", FILE, known)
    assert told in str(caught.value)
    made = schema.build(known)
    assert not fits(tomli.loads(HEAD + text), made, made)
    assert fits(tomli.loads(HEAD + "minimal = { entries = 1 }"), made, made)


def test_units_beyond_its_targets_are_told(known: Registry) -> None:
    assert parse(HEAD + DISK + "target = 3\n", FILE, known)
    with pytest.raises(ConfigError, match=r"expected a target below 4 \(minimal HBA\), got 4"):
        parse(HEAD + DISK + "target = 4\n", FILE, known)


def test_its_rules_are_rules(known: Registry) -> None:
    rules = '[adapter.verifier]\nrules = { MN-01 = "off" }\n'
    assert parse(HEAD + rules, FILE, known)
    with pytest.raises(ConfigError, match="no such rule"):
        parse(HEAD.replace("minimal", "pvscsi") + rules, FILE)


def test_names_and_rules_are_unique() -> None:
    with pytest.raises(AssertionError, match="same name"):
        Registry(MINIMAL, MINIMAL)


# -- its data ---------------------------------------------------------------------------------------------------------


def test_data_goes_from_its_ring_to_the_file_and_back(driver: MinimalDriver, tmp_path: Path) -> None:
    assert driver.capacity() == (2048, 512)
    data = os.urandom(8192)
    area = driver.ram.view[driver._data_at : driver._data_at + len(data)]
    area[:] = data
    assert driver.execute(bytes.fromhex("2a000000002000001000"), len(data), OUT) == 0
    assert (tmp_path / "disk.img").read_bytes()[0x20 * 512 : 0x20 * 512 + len(data)] == data
    area[:] = bytes(len(data))
    assert driver.execute(bytes.fromhex("28000000002000001000"), len(data), IN) == 0
    assert bytes(area) == data
    area.release()


def test_many_go_round_the_ring(driver: MinimalDriver, control: ControlClient) -> None:
    driver.prepare([(number % 2 == 0, number * 4096, 4096) for number in range(5)], 512)
    before = control.call("show.counters")["adapter"]
    assert driver.run(3600, ENTRIES - 1, most=10 * ENTRIES)[0] >= 10 * ENTRIES
    after = control.call("show.counters")["adapter"]
    assert after["completions"] - before["completions"] >= 10 * ENTRIES
    assert after["outstanding"] == 0


def test_a_command_that_fails_has_its_sense_data(driver: MinimalDriver) -> None:
    assert driver.execute(bytes.fromhex("28007fffffff00000100"), 512, IN) == (
        SRB_STATUS_ERROR << 8 | SCSISTAT_CHECK_CONDITION
    )
    assert (driver.sense[2] & 0xF, driver.sense[12]) == (5, 0x21)  # ILLEGAL REQUEST, LBA OUT OF RANGE


def test_a_reset_of_the_function_forgets_its_ring(driver: MinimalDriver, control: ControlClient) -> None:
    assert control.call("show.queues")["adapter"]["rings"] is not None
    driver._client.reset()
    assert control.call("show.queues")["adapter"]["rings"] is None


def test_what_makes_no_sense_stops_its_ring_until_it_is_set_up_anew(
    driver: MinimalDriver, control: ControlClient
) -> None:
    driver.doorbell(ENTRIES + 1)
    queues = control.call("show.queues")["adapter"]
    assert queues["ring_fault"] == f"{ENTRIES + 1} requests are said to be ready; the ring has {ENTRIES} entries"
    driver._bring_up()
    driver._rung = 0
    driver.settle()
    assert driver.command(bytes(6)) == 0
    assert control.call("show.queues")["adapter"]["ring_fault"] == ""


def test_memory_that_is_not_there_ends_the_request_alone(driver: MinimalDriver, control: ControlClient) -> None:
    at = driver.ram.view[:ENTRY_SIZE]
    at[:] = entry(bytes.fromhex("28000000000000000100"), 1 << 40, 512, IN)
    slot = driver._rung % ENTRIES * ENTRY_SIZE
    driver.ram.view[slot : slot + ENTRY_SIZE] = at
    at.release()
    driver.doorbell(1)
    driver._wait()
    assert driver.command(bytes(6)) == 0
    counters = control.call("show.counters")["adapter"]
    assert (counters["outstanding"], counters["dma_faults"]) == (0, 1)
    assert control.call("show.verifier")["counts"] == {"GD-07": 1}


def test_it_is_looked_at_without_a_kick_and_announces_together(driver: MinimalDriver, control: ControlClient) -> None:
    driver.prepare([(False, 0, 4096)], 512)
    driver.run(3600, 8, most=40 * ENTRIES)
    moderation = control.call("show.queues")["adapter"]["moderation"]
    assert moderation["poll"]["looks"] and moderation["interrupts"]["depth"] > 1


def test_MN_01_a_doorbell_without_work(driver: MinimalDriver, control: ControlClient) -> None:
    assert control.call("show.verifier")["counts"] == {}
    driver.doorbell(0)
    control.call("ping")
    assert control.call("show.verifier")["counts"] == {"MN-01": 1}


# -- what is shown of it ----------------------------------------------------------------------------------------------


def test_every_answer_has_the_shape_that_is_told(
    adapter: Parts, driver: MinimalDriver, control: ControlClient, known: Registry
) -> None:
    checker = Checker()
    for method in methods(shown(known)):
        if method.name.startswith("show."):
            checker.check(control.call(method.name), method.result)
    told = control.call("schema", name="show.queues")["result"]
    assert "MinimalQueues" in told["$defs"]
    everything = control.call("show.all")
    assert everything["summary"]["type"] == everything["counters"]["adapter"]["type"] == "minimal"
    assert everything["config"]["minimal"] == {"entries": ENTRIES}
    assert "pvscsi" not in everything["config"]
    assert [register["name"] for register in everything["regs"]["adapter"]["registers"]][:1] == ["RING"]


def test_it_can_be_looked_at(driver: MinimalDriver, control: ControlClient, capsys: pytest.CaptureFixture[str]) -> None:
    everything: dict[str, Any] = control.call("show.all")
    glance.view(everything)
    queues.view(everything["queues"])
    counters.view(everything["counters"])
    regs.view(everything["regs"])
    said = capsys.readouterr().out
    assert "minimal on" in said and "DOORBELL" in said and "kicks" in said


def test_units_come_and_go(driver: MinimalDriver, control: ControlClient) -> None:
    storage = {"kind": "memory", "size": "1M"}
    posted = {"state": "posted", "why": ""}
    assert control.call("lun.add", unit={"target": 3, "storage": storage})["announcement"] == posted
    assert driver._read(UNIT) == COME << 16 | 3 << 8
    driver._write(HEARD, 0)
    assert control.call("lun.remove", target=3)["announcement"] == posted
    assert driver._read(UNIT) == GONE << 16 | 3 << 8
    # It has not heard of that: the next waits behind it.
    answer = control.call("lun.add", unit={"target": 2, "storage": storage})
    assert answer["announcement"]["state"] == "waiting"
    driver._write(HEARD, 0)
    deadline = time.monotonic() + 10
    while driver._read(UNIT) != COME << 16 | 2 << 8:
        assert time.monotonic() < deadline, "it is never told"


def test_without_a_ring_nobody_is_told_of_units(adapter: Parts, control: ControlClient) -> None:
    storage = {"kind": "memory", "size": "1M"}
    answer = control.call("lun.add", unit={"target": 3, "storage": storage})["announcement"]
    assert answer["state"] == "none" and "no driver has set up the adapter's rings" in answer["why"]
    control.call("lun.remove", target=3)
    with pytest.raises(CallRefused, match="target 4 is beyond max_targets = 4"):
        control.call("lun.add", unit={"target": 4, "storage": storage})


# -- benchmarks and the lab -------------------------------------------------------------------------------------------


def test_it_can_be_measured(adapter: Parts, tmp_path: Path) -> None:
    case = measure.Case("a few reads", 4096, 8)
    result = measure.measure(
        MINIMAL.bench_driver,
        str(tmp_path / f"{NAME}.sock"),
        os.getpid(),
        tmp_path / "disk.img",
        [case],
        seconds=0.05,
        rounds=1,
    )
    (found,) = result["cases"]
    assert found["adapter"]["commands_per_s"] > 0 and found["loop"]["commands_per_s"] > 0


def test_its_ports_can_be_measured() -> None:
    (case,) = ports.measure(MINIMAL, ["storport"], [4], rounds=1, commands=4 * ENTRIES)
    assert set(case["cpu_us"]) == set(ports.KINDS)


def test_the_lab_can_attach_it_and_qemus_own(tmp_path: Path, known: Registry) -> None:
    text = lab_config.one_disk(tmp_path, tmp_path / "disk.img", "storport", "minimal")
    (adapter,) = parse(text, FILE, known).adapters
    assert adapter.type == "minimal"
    kind, device = devices.builtin(known)["builtin-minimal-hba"]
    assert kind is MINIMAL
    words = machine.builtin(machine.load("pc"), device, tmp_path / "disk.img", "serial", boot_index=None)
    assert any('"driver": "minimal-hba"' in word for word in words)
    assert devices.known_messages("builtin-minimal-hba", known) == ("of QEMU's own",)
    assert devices.known_messages(devices.OURS, known) == ()


def test_suites_are_told_of_its_driver() -> None:
    assert devices.for_guest(MINIMAL) == {
        "pci_id": "1234:0001",
        "driver": "minimal_hba",
        "log": "minimal_hba",
        "resets": ("bus",),
        "without_bus_master": ("no bus master",),
    }


def test_nothing_of_it_is_in_the_registry_of_the_program() -> None:
    assert MINIMAL.name not in ADAPTERS.names
    assert "MN-01" not in ADAPTERS.rules


def test_the_first_type_is_the_default() -> None:
    assert Registry(MINIMAL, PVSCSI).default is MINIMAL


def test_a_benchmark_says_what_went_wrong(driver: MinimalDriver) -> None:
    driver.prepare([(False, 1 << 30, 4096)], 512)
    with pytest.raises(GuestError, match="a command failed"):
        driver.run(1, 1)
