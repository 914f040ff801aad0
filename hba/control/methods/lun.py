"""Logical units of a running adapter: what there is, and changing it while the guest looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeVar, cast

import msgspec

from hba.config.check import FAILED, Checker, dotted
from hba.control.method import Call, Later, Method, NoParams, Refused
from hba.control.methods.show import luns
from hba.control.results.units import EjectedUnit, Removed, Unit
from hba.errors import HbaError, StorageError
from hba.scsi.address import placed, unit_name
from hba.scsi.config import LunConfig
from hba.scsi.medium import Ended
from hba.scsi.unit import LogicalUnit
from hba.storage.backend import Backend
from hba.storage.config import MemoryStorage, Size, StorageConfig, parse_size
from hba.storage.opener import Store

T = TypeVar("T", bound=Store)
Number = Annotated[int, msgspec.Meta(ge=0, le=255)]


class Changeable(Protocol):
    """A unit whose medium the host may change (disks, CD-ROM drives)."""

    def eject(self, force: bool = False) -> Backend | None: ...
    def insert(self, backend: Backend) -> None: ...
    def resize(self, size: int, ended: Ended) -> None: ...
    def set_read_only(self, read_only: bool, ended: Ended) -> None: ...


class Address(msgspec.Struct, forbid_unknown_fields=True):
    """One unit."""

    target: Number
    lun: Number = 0


class NewUnit(msgspec.Struct, forbid_unknown_fields=True):
    """`unit` is what an [[adapter.lun]] table of the configuration says. Relative paths: relative to that file."""

    unit: dict[str, Any]


class Eject(Address):
    """`force`: also when the guest has locked the medium."""

    force: bool = False


class Insert(Address, kw_only=True):
    """`storage` is what a storage table of the configuration says."""

    storage: dict[str, Any]


class Resize(Address, kw_only=True):
    """`size`: bytes, or a text such as "64M"."""

    size: Size


class ReadOnly(Address):
    """Write-protect it, or no longer."""

    read_only: bool = True


def _find(call: Call, address: Address) -> LogicalUnit:
    unit = call.parts.bus.units.get(address.target, {}).get(address.lun)
    if unit is None:
        there = ", ".join(unit_name(*unit.address) for unit in call.parts.bus) or "none"
        raise Refused(f"there is no unit at {unit_name(address.target, address.lun)}", f"units: {there}")
    return unit


def _changeable(call: Call, address: Address) -> Changeable:
    unit = _find(call, address)
    if not all(hasattr(unit, name) for name in ("eject", "insert", "resize", "set_read_only")):
        raise Refused(
            f"the unit at {unit_name(address.target, address.lun)} has no medium", "choose a disk or a CD-ROM drive"
        )
    return cast(Changeable, unit)


def _checked(value: object, kind: Any) -> Any:
    checker = Checker()
    converted = checker.convert(value, kind, ())
    if converted is FAILED:
        found = (f"{dotted(item.path)}: {item.message}".removeprefix(": ") for item in checker.problems)
        raise Refused("; ".join(found))
    return converted


def _told(call: Call, address: Address, change: str) -> object:
    """Tell the subscribers; the answer is the unit as it is now."""
    call.parts.events.publish("hotplug", {"change": change, **placed(address.target, address.lun)})
    return {**placed(address.target, address.lun), **_find(call, address).describe()}


def ls(call: Call, params: NoParams) -> object:
    return luns(call.parts)


def _announced(call: Call, target: int, lun: int) -> dict[str, object]:
    """The address of a unit that was added or removed, and whether the guest was told of that."""
    return {**placed(target, lun), "announcement": call.parts.adapter.announcement(target, lun)}


def _check_free(call: Call, config: LunConfig) -> None:
    if config.lun in call.parts.bus.units.get(config.target, {}):
        where = unit_name(config.target, config.lun)
        raise Refused(f"there is a unit at {where} already", "remove it first, or use another address")


def add(call: Call, params: NewUnit) -> object:
    config = _checked(params.unit, LunConfig)
    bus = call.parts.bus
    _check_free(call, config)
    limit = call.parts.max_targets
    if config.target >= limit:
        raise Refused(f"target {config.target} is beyond max_targets = {limit}", "use a lower one")

    def attach(store: Store | None) -> object:
        try:
            _check_free(call, config)  # one whose device had gone may have come back there meanwhile
        except Refused:
            if store is not None:
                store.close()
            raise
        unit = call.parts.make_unit(config, store)
        bus.attach(config.target, config.lun, unit)
        return {**unit.describe(), **_announced(call, config.target, config.lun)}

    return _opened(call, (config.target, config.lun), config.storage, call.parts.open_store, attach)


def _opened(
    call: Call,
    address: tuple[int, int],
    storage: StorageConfig | None,
    make: Callable[[StorageConfig], T],
    then: Callable[[Any], object],
) -> object:
    """`then(make(storage))`, which takes its time to open; until then nothing else comes to the address."""
    parts = call.parts
    if address in parts.opening:
        raise Refused(
            f"a store is being opened for {unit_name(*address)} already", "wait for it, or use another address"
        )
    if storage is None or isinstance(storage, MemoryStorage):
        return then(None if storage is None else make(storage))  # nothing to wait for

    def start(answer: Callable[[Callable[[], object]], None]) -> None:
        def opened(result: Callable[[], T]) -> None:
            parts.opening.discard(address)
            answer(lambda: then(result()))

        parts.opener.open(lambda: make(storage), opened)
        parts.opening.add(address)

    return Later(start)


def _flushed(store: Backend | None, what: str, then: Callable[[], object]) -> object:
    """`then()` after everything written to `store` is stable, so that closing it does not hold up the guest.

    `what` has been done already: a flush that fails is an error that says so.
    """
    if store is None or not store.unstable:
        return then()

    def finish(error: StorageError | None) -> object:
        result = then()
        if error is not None:
            raise Refused(
                f"{what}, but what the guest wrote last may be lost: {error}", "compare its data with what it should be"
            )
        return result

    def start(answer: Callable[[Callable[[], object]], None]) -> None:
        try:
            if store.flush(lambda error: answer(lambda: finish(error))):
                answer(lambda: finish(None))
        except StorageError as problem:
            failed = problem
            answer(lambda: finish(failed))

    return Later(start)


def _in_turn(begin: Callable[[Ended], None], then: Callable[[], object]) -> object:
    """`then()` when what `begin` has the unit do in its turn has gone well."""

    def start(answer: Callable[[Callable[[], object]], None]) -> None:
        def finish(error: StorageError | None) -> object:
            if error is not None:
                raise error
            return then()

        try:
            begin(lambda error: answer(lambda: finish(error)))
        except ValueError as error:
            refused = Refused(str(error))
            answer(lambda: _refuse(refused))

    return Later(start)


def _refuse(error: Refused) -> object:
    raise error


def remove(call: Call, params: Address) -> object:
    _find(call, params)
    unit = call.parts.bus.detach(params.target, params.lun)
    answer = _announced(call, params.target, params.lun)

    def close() -> object:
        unit.close()
        return answer

    where = f"the unit at {unit_name(params.target, params.lun)} is removed"
    return _flushed(getattr(unit, "backend", None), where, close)


def eject(call: Call, params: Eject) -> object:
    try:
        medium = _changeable(call, params).eject(params.force)
    except ValueError as error:
        raise Refused(str(error)) from error

    def close() -> object:
        if medium is not None:
            medium.close()
        try:
            return _told(call, params, "ejected")
        except Refused:  # the unit was removed meanwhile
            return {"type": "removed", **placed(params.target, params.lun)}

    return _flushed(medium, f"the medium of {unit_name(params.target, params.lun)} is out", close)


def insert(call: Call, params: Insert) -> object:
    _changeable(call, params)

    def put_in(medium: Backend) -> object:
        try:
            _changeable(call, params).insert(medium)  # looked for again: it may have gone meanwhile
        except (Refused, HbaError, ValueError) as error:
            medium.close()
            if isinstance(error, ValueError):
                raise Refused(str(error)) from error
            raise
        return _told(call, params, "inserted")

    storage = _checked(params.storage, StorageConfig)
    return _opened(call, (params.target, params.lun), storage, call.parts.open_medium, put_in)


def resize(call: Call, params: Resize) -> object:
    unit = _changeable(call, params)
    return _in_turn(lambda ended: unit.resize(parse_size(params.size), ended), lambda: _told(call, params, "resized"))


def read_only(call: Call, params: ReadOnly) -> object:
    unit = _changeable(call, params)
    return _in_turn(
        lambda ended: unit.set_read_only(params.read_only, ended),
        lambda: _told(call, params, "read-only" if params.read_only else "writable"),
    )


METHODS = (
    Method("lun.ls", ls, "Logical units with their storage.", result=list[Unit]),
    Method("lun.add", add, "Add a unit; the guest is told as the adapter can.", NewUnit, Unit),
    Method(
        "lun.remove", remove, "Remove a unit; its requests end, its storage is flushed and closed.", Address, Removed
    ),
    Method("lun.eject", eject, "Take the medium out of a removable unit and close its storage.", Eject, EjectedUnit),
    Method("lun.insert", insert, "Put a medium into a removable unit that has none.", Insert, Unit),
    Method("lun.resize", resize, "Give the medium another size; the guest is told by a unit attention.", Resize, Unit),
    Method("lun.read_only", read_only, "Write-protect a unit, or no longer.", ReadOnly, Unit),
)
