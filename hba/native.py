"""For the compiler: what modules that are compiled (`hba.compiled`) have to say about their classes.

    @mypyc_attr(allow_interpreted_subclasses=True)    Python classes may be derived from it, those of tests too

Run as source it means nothing, and nothing but the compiler has to be installed for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

Kind = TypeVar("Kind")

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_attributes: object) -> Callable[[Kind], Kind]:
        return lambda kind: kind
