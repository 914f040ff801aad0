"""The number of all shapes that other programs read: what `--json` prints, and what the control socket answers.

It rises when a program that reads them could break: a field goes, gets another name, type or unit, or another meaning;
a list or object becomes something else. What comes on top (a field, a method, a value of a word) does not raise it, so
a reader passes over what it does not know. docs/schemas.md tells this for users, and has all the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

SCHEMA_VERSION = 1


def versioned(value: Mapping[str, object]) -> dict[str, object]:
    """`value`, with the version first."""
    return {"schema_version": SCHEMA_VERSION, **value}
