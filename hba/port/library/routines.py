"""From a routine's name to the routine, by the table of all that are documented.

A family is an object whose methods are called as the routines are (`documented.spelled`). What is in no family is not
here, and a call says so with its documented name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hba.miniport.services import STOR_STATUS_INVALID_IRQL
from hba.port.context import IRQL_NAMES, START_IO
from hba.port.library.documented import GOES_ON, PREFIXES, ROUTINES, SCSIPORT, STORPORT, Routine
from hba.port.library.host import Caller

MODEL_NAMES = {STORPORT: "Storport", SCSIPORT: "SCSI Port"}
# Whose breach a call above its IRQL is, where it is not LB-01's. A half-duplex hw_start_io runs at DIRQL.
RULE_OF_IRQL = {"get_system_address": "MB-10"}
RULE_OF_IRQL_IN_START_IO = {"allocate_pool": "ST-08"}


class NotHere(Exception):
    """A miniport called a documented routine that this port does not have."""


class Routines:
    """The routines of one port, beyond those its services class has itself. `forget`: what a new hw_find_adapter begins
    without."""

    def __init__(
        self, model: str, caller: Caller, families: Sequence[object], forget: Sequence[Callable[[], None]] = ()
    ) -> None:
        self.model = model
        self._caller = caller
        self._families = families
        self._forget = forget
        self._found: dict[str, Callable[..., Any]] = {}

    def find(self, name: str) -> Callable[..., Any]:
        """The routine called `name`. Raises AttributeError when no routine of the model is documented by that name."""
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = self._make(name)
        return found

    def begin(self) -> None:
        """hw_find_adapter is about to be called: what an earlier one was given is gone."""
        for forget in self._forget:
            forget()

    def _make(self, name: str) -> Callable[..., Any]:
        routine = ROUTINES[self.model].get(name)
        method = next((getattr(family, name) for family in self._families if hasattr(family, name)), None)
        if routine is None:
            raise AttributeError(self._unknown(name))
        if method is None:
            return partial(_refuse, routine)
        if routine.most is None and not routine.least:
            return method  # type: ignore[no-any-return]
        return partial(self._limited, routine, method)

    def _unknown(self, name: str) -> str:
        other = STORPORT if self.model == SCSIPORT else SCSIPORT
        if name in ROUTINES[other]:
            documented = ROUTINES[other][name].documented
            return f"{documented} is {MODEL_NAMES[other]}'s, and this miniport is under {MODEL_NAMES[self.model]}"
        near = difflib.get_close_matches(name, ROUTINES[self.model], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{MODEL_NAMES[self.model]} has no routine {PREFIXES[self.model]}... that is spelled {name!r}{hint}"

    def _limited(self, routine: Routine, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """LB-01: a routine is called at the IRQL its page allows, or fails where the page says so."""
        irql = self._caller.irql
        above = routine.most is not None and irql > routine.most
        if above or irql < routine.least:
            limit = routine.most if above else routine.least
            name, rule = routine.name, ""
            if self._caller.callback == START_IO:
                rule = RULE_OF_IRQL_IN_START_IO.get(name, "")
            self._caller.offence(
                rule or RULE_OF_IRQL.get(name, "LB-01"),
                f"{routine.documented} {'above' if above else 'below'} {IRQL_NAMES[limit or 0]}, "
                f"at {IRQL_NAMES.get(irql, irql)}",
            )
            if routine.refused != GOES_ON:
                return _failed(routine.refused)
        return method(*arguments, **named)


def _failed(outputs: int) -> int | tuple[int | None, ...]:
    """STOR_STATUS_INVALID_IRQL, and NULL for each out parameter."""
    return (STOR_STATUS_INVALID_IRQL, *(None,) * outputs) if outputs else STOR_STATUS_INVALID_IRQL


def _refuse(routine: Routine, *_arguments: Any, **_named: Any) -> None:
    raise NotHere(f"{routine.documented} is documented, but not here: {routine.why_not or 'nobody has built it yet'}")
