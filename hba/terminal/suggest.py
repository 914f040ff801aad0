"""The word that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearest to `word`, whatever its case; None when none is near."""
    folded = {item.lower(): item for item in known}
    near = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "size"?`, or nothing when no known word is near."""
    near = nearest(word, known)
    return "" if near is None else f'; did you mean "{near}"?'
