"""Something that takes several steps, each of which may end later: a generator of them, run on.

    def steps() -> Generator[Step, object, str]:
        srb = yield send(flush)      # what the step ended with
        ...

A step is a function that begins it and is given what to call, once, when it has ended. Steps that end at once do not
nest, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

Step = Callable[[Callable[[Any], None]], None]
Steps = Generator[Step, Any, Any]


def run(steps: Steps, done: Callable[[Any], None]) -> None:
    """Run `steps` to their end; `done` gets what they return, and may be called before this returns."""
    _Run(steps, done).go_on(None)


class _Run:
    def __init__(self, steps: Steps, done: Callable[[Any], None]) -> None:
        self._steps = steps
        self._done = done
        self._beginning = False  # `go_on` is on the stack
        self._ended = False  # the step it has begun has ended
        self._result: Any = None

    def go_on(self, result: Any) -> None:
        self._beginning = True
        while True:
            try:
                step: Step = self._steps.send(result)
            except StopIteration as end:
                self._done(end.value)
                return
            self._ended = False
            step(self._step_ended)
            if not self._ended:
                self._beginning = False
                return
            result = self._result

    def _step_ended(self, result: Any) -> None:
        if self._beginning:
            self._ended, self._result = True, result
        else:
            self.go_on(result)
