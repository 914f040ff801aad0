"""What the harnesses have in common: one body, whoever chooses the bytes.

`Target.run` is called with the inputs of the corpus (every run of pytest), with those hypothesis makes up (likewise),
and with those a coverage-guided fuzzer breeds (`scripts/fuzz`). It raises for what must not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"  # minimised; one folder a target
MOST = 4096  # bytes of an input


@dataclass(frozen=True)
class Target:
    """`run(data)`: one life of what is attacked, from power on to power off; nothing is left of it.

    `seeds`   inputs to begin with where there is no corpus yet.
    `tokens`  words that have a meaning in the input.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Iterable[bytes] = ()
    tokens: Iterable[bytes] = ()

    @property
    def corpus(self) -> Path:
        return CORPUS / self.name

    def inputs(self) -> list[Path]:
        """The corpus."""
        return sorted(path for path in self.corpus.glob("*") if path.is_file())
