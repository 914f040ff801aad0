"""Something in several steps (hba.port.script): in their order, whenever each of them ends."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from hba.port.script import Step, run

Ended = Callable[[Any], None]


class Steps:
    """Steps that end at once, with their name, or when the test says so."""

    def __init__(self, *waits: str) -> None:
        self.waits = waits
        self.begun: list[str] = []
        self.waiting: dict[str, Ended] = {}
        self.got: list[Any] = []
        self.done: list[Any] = []

    def step(self, name: str) -> Step:
        def begin(ended: Ended) -> None:
            self.begun.append(name)
            if name in self.waits:
                self.waiting[name] = ended
            else:
                ended(f"{name} at once")

        return begin

    def script(self, *names: str) -> Generator[Step, Any, str]:
        for name in names:
            self.got.append((yield self.step(name)))
        return "over"

    def run(self, *names: str) -> None:
        run(self.script(*names), self.done.append)


def test_steps_that_end_at_once() -> None:
    steps = Steps()
    steps.run("a", "b")
    assert steps.got == ["a at once", "b at once"] and steps.done == ["over"]


def test_without_a_step_it_ends_at_once() -> None:
    steps = Steps()
    steps.run()
    assert steps.done == ["over"]


def test_a_step_that_waits_holds_up_those_behind_it() -> None:
    """Also behind one that has ended at once: its end is not taken for that of the next."""
    steps = Steps("b", "c")
    steps.run("a", "b", "c", "d")
    assert steps.begun == ["a", "b"] and steps.done == []
    steps.waiting["b"](2)
    assert steps.begun == ["a", "b", "c"] and steps.got == ["a at once", 2] and steps.done == []
    steps.waiting["c"](3)
    assert steps.begun == ["a", "b", "c", "d"]
    assert steps.got == ["a at once", 2, 3, "d at once"] and steps.done == ["over"]


def test_steps_that_end_at_once_do_not_nest() -> None:
    steps = Steps("first")
    names = [str(number) for number in range(5000)]
    steps.run("first", *names)
    steps.waiting["first"](None)
    assert steps.begun == ["first", *names] and steps.done == ["over"]
