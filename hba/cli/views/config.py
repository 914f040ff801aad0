"""The configuration in force."""

from __future__ import annotations

from typing import Any

from hba.cli.output import generic


def view(value: Any) -> None:
    generic(value)
