"""Saving a PVSCSI adapter and restoring it in another one: all that only the device knows, and nothing a state could
say harms the one that takes it."""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as s

from hba.adapters import state as form
from hba.adapters.keeper import PATIENCE, AdapterKeeper
from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.adapters.pvscsi.status import BTSTAT_BUSRESET
from hba.adapters.ring.hotplug import STALE
from hba.clock import MS, VirtualClock
from hba.pci.interrupts import MSI
from hba.scsi.disk.disk import Disk
from hba.scsi.server import Identity
from hba.scsi.unit import LogicalUnit
from hba.vfio_user import device as dev
from hba.vfio_user.device import RequestError
from tests.adapters.pvscsi.driver import RAM, Driver
from tests.scsi.util import GOOD, Deferred, disk, run

MSI_CONTROL, MSI_ENABLE = 0x4A, 0x81  # behind power management; the bit, and that addresses have 64 bits


def unit() -> Disk:
    return Disk(Deferred(1 << 20, deferred=False), Identity(), VirtualClock())


def keep(driver: Driver, options: PvscsiOptions | None = None, *units: LogicalUnit) -> Driver:
    """Give a driver's adapter a keeper, and units."""
    for lun, each in enumerate(units):
        driver.bus.attach(0, lun, each)
    driver.bus.on_change = driver.adapter.hot_plug
    driver.adapter.function.keeper = AdapterKeeper(
        driver.loop, driver.adapter, driver.port, driver.bus, options or PvscsiOptions()
    )
    return driver


@pytest.fixture
def source(make: Callable[..., Driver]) -> Driver:
    driver = keep(make(), None, unit())
    assert driver.setup() == 0
    return driver


def stop(driver: Driver) -> RequestError | None:
    """Stop it now; its answer."""
    answers: list[RequestError | None] = []
    driver.adapter.function.stop(answers.append)
    assert len(answers) == 1
    return answers[0]


def saved(driver: Driver) -> bytes:
    assert stop(driver) is None
    return driver.adapter.function.save()


def other(make: Callable[..., Driver], source: Driver, **options: Any) -> Driver:
    """A second adapter with the same guest's memory."""
    driver = keep(make(ram=False, **options), options.get("options"), unit())
    os.close(driver.fd)
    driver.fd = os.dup(source.fd)
    driver.memory.map(0, RAM, 3, os.dup(source.fd), 0)
    driver.prod, driver.cons, driver.entries = source.prod, source.cons, source.entries
    driver.completion_entries = source.completion_entries
    driver.write_config(0x04, 0, 2)
    return driver


def moved(make: Callable[..., Driver], source: Driver) -> Driver:
    state = saved(source)
    driver = other(make, source)
    function = driver.adapter.function
    assert stop(driver) is None
    function.restore(state)
    assert function.save() == state
    function.resume()
    driver.turn()
    return driver


def parts(state: bytes) -> Any:
    return json.loads(state[form._HEADER.size :])


def packed(content: object) -> bytes:
    body = json.dumps(content).encode()
    return form._HEADER.pack(form.MAGIC, form.VERSION, zlib.crc32(body), len(body)) + body


# -- what goes with it ------------------------------------------------------------------------------------------------


def test_the_driver_goes_on_with_its_rings(make: Callable[..., Driver], source: Driver) -> None:
    for context in range(40):  # more than the ring has, so that its indices differ from its slots
        source.put(context=context)
        source.kick()
        source.port.complete(source.port.srbs[0])
        source.turn()
    assert len(source.completions()) == 40
    driver = moved(make, source)
    driver.put(context=99)
    driver.kick()
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert [done[0] for done in driver.completions()] == [99]


def test_what_was_on_the_ring_is_taken_there_without_a_kick(make: Callable[..., Driver], source: Driver) -> None:
    source.put(context=5)
    driver = moved(make, source)
    assert source.port.srbs == []
    assert len(driver.port.srbs) == 1


def test_a_kick_while_it_is_stopped_is_refused_and_its_request_is_not_lost(source: Driver) -> None:
    assert stop(source) is None
    source.put(context=5)
    with pytest.raises(RequestError) as caught:
        source.kick()
    assert caught.value.errno == errno.EBUSY
    source.turn()
    assert source.port.srbs == []
    source.adapter.function.resume()
    source.turn()
    assert len(source.port.srbs) == 1


def test_messages_and_their_ring(make: Callable[..., Driver], source: Driver) -> None:
    assert source.setup_messages() == 0
    for target in range(1, 40):  # 32 fit, the others wait
        source.adapter.units.add("added", target, 0, False)
    driver = moved(make, source)
    assert len(driver.adapter.units.waiting) == 7
    driver.set_u32(0x1000 + st.MSG_CONS_IDX, 32)
    driver.clock.advance(20 * MS)
    driver.turn()
    assert driver.u32(0x1000 + st.MSG_PROD_IDX) == 39


def test_a_driver_is_given_time_for_its_messages_anew(make: Callable[..., Driver], source: Driver) -> None:
    """It was told of at once as one that had taken none since the host was started."""
    assert source.setup_messages() == 0
    for target in range(1, 40):
        source.adapter.units.add("added", target, 0, False)
    state = saved(source)
    driver = other(make, source)
    told: list[str] = []
    driver.adapter.on_untold = told.append
    driver.clock.advance(1000 * STALE)
    assert stop(driver) is None
    driver.adapter.function.restore(state)
    driver.adapter.function.resume()
    driver.clock.advance(STALE - 10 * MS)
    driver.turn()
    assert told == []
    driver.clock.advance(20 * MS)
    assert told == ["the guest has taken no message about its units for 10 s: 32 on its message ring, 7 behind"]


def test_completions_that_found_no_room(make: Callable[..., Driver], source: Driver) -> None:
    source.set_u32(0x1000 + st.CMP_CONS_IDX, 0)
    source.adapter.access.rings.completion_prod = 128  # type: ignore[union-attr]
    source.adapter.completions.wait([77, 0, 0, 0, 0])
    driver = moved(make, source)
    assert driver.adapter.completions.waiting == 1
    driver.set_u32(0x1000 + st.CMP_CONS_IDX, 128)
    driver.clock.advance(2 * MS)
    assert not driver.adapter.completions.waiting


def test_half_a_command_is_completed_there(make: Callable[..., Driver], source: Driver) -> None:
    source.write(0x0, r.CMD_SETUP_REQCALLTHRESHOLD)
    assert source.read(0x8) == 1
    driver = moved(make, source)
    assert driver.read(0x8) == 1
    driver.write(0x4, 1)
    assert driver.adapter.commands.threshold_enabled
    assert moved(make, driver).adapter.commands.threshold_enabled


def test_registers_and_causes(make: Callable[..., Driver], source: Driver) -> None:
    source.write(0x2010, 0xF)
    source.adapter.announce_units()
    driver = moved(make, source)
    assert (driver.read(0x2010), driver.read(0x100C)) == (0xF, r.INTR_MSG_0)
    assert driver.adapter.function.interrupts.asserted
    assert int.from_bytes(driver.adapter.function.region_read(7, 6, 2), "little") & 8  # STATUS: INTx


def test_an_interrupt_that_was_not_sent_is_sent_there(make: Callable[..., Driver], source: Driver) -> None:
    source.write_config(MSI_CONTROL, MSI_ENABLE, 2)
    source.write(0x2010, 0xF)
    source.adapter.announce_units()  # nobody has given an eventfd
    assert source.adapter.function.interrupts.mode == "msi"
    driver = moved(make, source)
    event = os.eventfd(0, os.EFD_NONBLOCK)
    flags = dev.IRQ_SET_DATA_EVENTFD | dev.IRQ_SET_ACTION_TRIGGER
    driver.adapter.function.set_irqs(MSI, flags, 0, 1, [os.dup(event)], b"")
    assert os.eventfd_read(event) == 1
    os.close(event)


def test_what_units_know(make: Callable[..., Driver], source: Driver) -> None:
    """The guest has stopped its disk there: it stands still here."""
    stopped = next(iter(source.bus))
    run(stopped, "000000000000")  # that it is new
    assert run(stopped, "1b0000000000").status == GOOD
    restored = next(iter(moved(make, source).bus))
    assert run(restored, "000000000000").condition == run(stopped, "000000000000").condition == 0x020402


def test_config_space(make: Callable[..., Driver], source: Driver) -> None:
    source.write_config(0x10, 0xFEB00000, 4)
    source.write_config(0x3C, 11, 1)
    driver = moved(make, source)
    assert driver.adapter.function.config.bar_address(0) == 0xFEB00000
    assert driver.adapter.function.region_read(7, 0x3C, 1) == b"\x0b"


def test_a_driver_that_has_not_set_up_anything(make: Callable[..., Driver]) -> None:
    driver = moved(make, keep(make(), None, unit()))
    assert driver.setup() == 0


def test_the_ring_that_was_stopped_stays_stopped(make: Callable[..., Driver], source: Driver) -> None:
    source.set_u32(0x1000 + st.REQ_PROD_IDX, 1000)
    source.kick()
    assert source.adapter.access.fault
    assert moved(make, source).adapter.access.fault == source.adapter.access.fault


def test_what_is_saved_of_the_adapter(source: Driver) -> None:
    """Rings by their pages and what only the device knows of them; of the last command as much as is taken again."""
    source.put()
    source.kick()
    source.port.complete(source.port.srbs[0])
    source.turn()
    source.adapter.commands.last = "x" * 1001
    rings = {
        "state": 0x1,
        "requests": [0x10],
        "completions": [0x40],
        "messages": None,
        "request_cons": 1,
        "completion_prod": 1,
        "message_prod": 0,
    }
    content = parts(saved(source))["adapter"]
    assert (content["rings"], content["last_command"]) == (rings, "x" * 1000)
    source.adapter.function.resume()
    assert source.setup_messages(2) == 0
    source.adapter.units.add("added", 1, 0, False)
    content = parts(saved(source))["adapter"]
    assert content["rings"] == {**rings, "messages": [0x80, 0x81], "message_prod": 1}


# -- rest -------------------------------------------------------------------------------------------------------------


def test_with_its_header_a_state_is_no_larger_than_anybody_takes(
    source: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = form.decode(saved(source))
    size = len(form.encode(whole))
    monkeypatch.setattr(form, "MAX_STATE", size)
    assert len(form.encode(whole)) == size
    monkeypatch.setattr(form, "MAX_STATE", size - 1)
    with pytest.raises(ValueError, match=f"the state has {size - 32} bytes, at most {size - 33} can be moved"):
        form.encode(whole)


def test_what_is_under_way_ends_first(source: Driver) -> None:
    answers: list[RequestError | None] = []
    source.put(context=1)
    source.kick()
    source.adapter.function.stop(answers.append)
    source.put(context=2)
    source.kick()
    source.clock.advance(100 * MS)
    source.turn()
    assert answers == [] and len(source.port.srbs) == 1  # the second is not taken
    source.port.complete(source.port.srbs[0])
    source.turn()
    source.clock.advance(2 * MS)
    assert answers == [None]
    assert [done[0] for done in source.completions()] == [1]


def test_what_does_not_end_in_time_is_ended_by_a_reset(source: Driver) -> None:
    answers: list[RequestError | None] = []
    source.put(context=1)
    source.kick()
    source.adapter.function.stop(answers.append)
    for _ in range(PATIENCE // MS + 10):
        source.clock.advance(MS)
        source.turn()
    assert answers == [None]
    assert [(done[0], done[3]) for done in source.completions()] == [(1, BTSTAT_BUSRESET)]
    assert source.port.resets == 1


def test_which_memory_is_in_use(source: Driver) -> None:
    function = source.adapter.function
    assert not function.uses(0, 1 << 64)
    source.put(bytes.fromhex("28000000000000000800"), address=0x100000, length=4096)
    source.kick()
    assert function.uses(0x100FFF, 1) and function.uses(0, 1 << 64)
    assert not function.uses(0x101000, 4096) and not function.uses(0, 0x100000)
    answers: list[RequestError | None] = []
    function.rest(answers.append)
    assert source.adapter.held and answers == []
    for _ in range(PATIENCE // MS + 2):  # it is waited for, and not ended
        source.clock.advance(MS)
    assert [error.errno for error in answers if error is not None] == [errno.EBUSY]
    function.release()
    assert source.port.resets == 0 and not source.adapter.held
    source.port.complete(source.port.srbs[0])
    source.turn()
    assert not function.uses(0, 1 << 64)


class Hanging(Disk):
    """Its store does not come back."""

    busy = True

    @property
    def idle(self) -> bool:
        return not self.busy

    @property
    def hangs(self) -> bool:
        return self.busy


def test_an_adapter_whose_store_hangs_stays_and_runs_on(make: Callable[..., Driver]) -> None:
    store = Hanging(Deferred(1 << 20, deferred=False), Identity(), VirtualClock())
    driver = keep(make(), None, store)
    assert driver.setup() == 0
    answers: list[RequestError | None] = []
    driver.put(context=1)
    driver.kick()
    driver.adapter.function.stop(answers.append)
    for _ in range(PATIENCE // MS + 10):
        driver.clock.advance(MS)
        driver.turn()
    (error,) = answers
    assert error is not None and error.errno == errno.EBUSY and "0:0" in str(error)
    driver.put(context=2)
    driver.kick()
    assert len(driver.port.srbs) == 1


def test_a_reset_ends_the_rest(source: Driver) -> None:
    answers: list[RequestError | None] = []
    source.put(context=1)
    source.kick()
    source.adapter.function.stop(answers.append)
    source.adapter.function.reset()
    source.clock.advance(PATIENCE * 2)
    assert answers == []
    assert not source.adapter.held and not source.adapter.function.stopped


def test_a_stopped_device_touches_nothing(source: Driver) -> None:
    assert source.setup_messages() == 0
    assert stop(source) is None
    before = source.peek(0, RAM)
    source.adapter.units.add("added", 3, 0, False)
    source.adapter.announce_completions()
    source.clock.advance(1000 * MS)
    source.turn()
    assert source.peek(0, RAM) == before
    source.adapter.function.resume()
    source.turn()
    assert source.u32(0x1000 + st.MSG_PROD_IDX) == 1


# -- what is refused --------------------------------------------------------------------------------------------------


def refusal(make: Callable[..., Driver], source: Driver, state: bytes, **options: Any) -> str:
    """Why another adapter does not take it; that one is then as after power on, and works."""
    driver = other(make, source, **options)
    function = driver.adapter.function
    assert stop(driver) is None
    with pytest.raises(RequestError) as caught:
        function.restore(state)
    assert caught.value.errno == errno.EINVAL
    driver.write_config(0x04, 6, 2)
    driver.poke(0x1000, bytes(4096))  # its driver's own indices
    assert driver.setup() == 0
    driver.put(context=3)
    driver.kick()
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert [done[0] for done in driver.completions()] == [3]
    return str(caught.value)


def test_it_is_cut_damaged_or_something_else(make: Callable[..., Driver], source: Driver) -> None:
    state = saved(source)
    assert "0 bytes" in refusal(make, source, b"")
    assert "does not begin" in refusal(make, source, b"\x7fELF".ljust(64, b"\0"))
    assert "of its" in refusal(make, source, state[:-1])
    assert "of its" in refusal(make, source, state + b"\0")
    assert "damaged" in refusal(make, source, state[:-1] + b"]")
    later = form._HEADER.pack(form.MAGIC, 2, 0, 0)
    assert "version 2" in refusal(make, source, later)


def change(state: bytes, path: tuple[Any, ...], value: object) -> bytes:
    content = parts(state)
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return packed(content)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("type",), "minimal", "type minimal"),
        (("options", "max_targets"), 8, "max_targets"),
        (("units",), [], "the state has none"),
        (("units", 0, "target"), 9, "9:0"),
        (("units", 0, "blocks"), 1, "same storage"),
        (("function", "config", "DEVICE_ID"), 1, "DEVICE_ID"),
        (("function", "config", "PM_CONTROL"), 0x9, "power state"),
        (("function", "blocks"), {}, "one side only"),
        (("function", "blocks", "0+0x0", "INTR_MASK"), 1 << 32, "INTR_MASK"),
        (("function", "interrupts", "pending"), {"msi": 2}, "msi"),
        (("adapter", "rings", "requests"), [1, 2, 3], "power of two"),
        (("adapter", "rings", "state"), 1 << 52, "state"),
        (("adapter", "rings", "request_cons"), -1, "request_cons"),
        (("adapter", "rings"), None, "no rings"),
        (("adapter", "command"), 99, "command 99"),
        (("adapter", "descriptor"), "AAAA", "descriptor"),
        (("adapter", "waiting", "completions"), [1 << 64, 0, 0, 0, 0], "completion that waits"),
        (("adapter", "waiting", "completions"), [1, 2, 3], "completion that waits"),
        (("adapter", "waiting", "units"), [["moved", 1, 0]], "moved"),
    ],
)
def test_what_does_not_fit_is_named(
    make: Callable[..., Driver], source: Driver, path: tuple[Any, ...], value: object, named: str
) -> None:
    source.adapter.units.waiting["added", 3, 0] = None
    state = saved(source)
    assert named in refusal(make, source, change(state, path, value))


def test_a_unit_twice(make: Callable[..., Driver], source: Driver) -> None:
    state = saved(source)
    assert "a unit twice" in refusal(make, source, change(state, ("units",), parts(state)["units"] * 2))


def test_other_options_are_named(make: Callable[..., Driver], source: Driver) -> None:
    why = refusal(make, source, saved(source), options=PvscsiOptions(max_targets=8))
    assert "max_targets" in why and "64" in why and "8" in why


def test_blocks_that_go_with_the_process_cannot_be_moved(make: Callable[..., Driver]) -> None:
    driver = keep(make(), None, disk())
    assert stop(driver) is None
    with pytest.raises(RequestError) as caught:
        driver.adapter.function.save()
    assert caught.value.errno == errno.EOPNOTSUPP and "0:0" in str(caught.value)


_VALUES = s.one_of(
    s.none(),
    s.booleans(),
    s.integers(-(1 << 70), 1 << 70),
    s.text(max_size=8),
    s.lists(s.integers(0, 1 << 64), max_size=40),
    s.dictionaries(s.text(max_size=4), s.integers(), max_size=3),
)


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a JSON document."""
    found = [path] if path else []
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        found += _places(value, (*path, key))
    return found


class Target:
    """One adapter that gets all of them, as one that lives through a hostile client does."""

    def __init__(self) -> None:
        source = keep(Driver(), None, unit())
        assert source.setup() == 0 and source.setup_messages() == 0
        source.adapter.completions.wait([1, 2, 3, 4, 5])
        source.adapter.units.waiting["added", 3, 0] = None
        source.write(0x0, r.CMD_SETUP_RINGS)
        self.state = saved(source)
        self.places = _places(parts(self.state))
        source.close()
        self.driver = keep(Driver(), None, unit())

    def take(self, state: bytes) -> None:
        """It is taken or refused; either way the device can be run, used and reset."""
        function = self.driver.adapter.function
        assert stop(self.driver) is None
        try:
            function.restore(state)
        except RequestError as error:
            assert error.errno == errno.EINVAL
        function.resume()
        self.driver.adapter.snapshot()
        function.snapshot()
        self.driver.turn()
        for offset in (0x0, 0x4, 0x100C, 0x2010, 0x3014, 0x4018):
            self.driver.write(offset, 1)
            self.driver.turn()
        self.driver.clock.advance(20 * MS)
        for srb in list(self.driver.port.srbs):
            self.driver.port.complete(srb)
        self.driver.turn()
        function.reset()
        self.driver.write_config(0x04, 6, 2)
        assert self.driver.setup() == 0


@pytest.fixture(scope="module")
def target() -> Target:
    return Target()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=s.data())
def test_any_value_anywhere(target: Target, data: s.DataObject) -> None:
    content = parts(target.state)
    for _ in range(data.draw(s.integers(1, 3))):
        path = data.draw(s.sampled_from(target.places))
        at = content
        try:
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = data.draw(_VALUES)
        except (KeyError, IndexError, TypeError):
            pass  # what an earlier change has taken away
    target.take(packed(content))


@settings(max_examples=200, deadline=None)
@given(cut=s.integers(0, 5000), junk=s.binary(max_size=64), keep_sum=s.booleans())
def test_any_bytes(target: Target, cut: int, junk: bytes, keep_sum: bool) -> None:
    state = target.state[:cut] + junk
    if keep_sum and len(state) > form._HEADER.size:
        body = state[form._HEADER.size :]
        state = form._HEADER.pack(form.MAGIC, form.VERSION, zlib.crc32(body), len(body)) + body
    target.take(state)


def test_depth_and_size_are_bounded(target: Target) -> None:
    target.take(packed([[[]]] * 10))
    for body in (b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000):
        target.take(form._HEADER.pack(form.MAGIC, form.VERSION, zlib.crc32(body), len(body)) + body)
    assert struct.calcsize("<16sIIQ") == form._HEADER.size
    assert msgspec.json.decode(target.state[form._HEADER.size :])["program"]
