"""What a method is: a name, its parameters as a Struct, the type of its result (`hba.control.results`), and the
function that runs it in the adapter's event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from hba.control.parts import Parts
    from hba.control.server import Connection


class NoParams(msgspec.Struct, forbid_unknown_fields=True):
    """A method that takes nothing."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a method gets beside its parameters."""

    parts: Parts
    connection: Connection


class Refused(Exception):
    """A method's way to say no: `message` is the cause, `next_step` what the user can do."""

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class Later:
    """What a method returns that cannot answer at once: `start(answer)` begins, and `answer(finish)` is called once.

    `finish()` is the rest of the method: it returns the result, or raises what the method may raise.
    """

    start: Callable[[Callable[[Callable[[], object]], None]], None]


@dataclass(frozen=True, slots=True)
class Method:
    """`run(call, params)` returns what JSON can say, or `Later`, quickly: the guest waits meanwhile.

    It may raise `Refused` or any `HbaError`; anything else is reported as a defect and harms nobody else.
    """

    name: str  # "lun.add"
    run: Callable[[Call, Any], object]
    doc: str
    params: type[msgspec.Struct] = NoParams
    result: Any = Any  # what `run` returns, as a type; told to clients, and held by tests/contract

    def describe(self) -> dict[str, object]:
        return {"name": self.name, "doc": self.doc, "params": msgspec.json.schema(self.params)}
