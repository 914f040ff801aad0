"""Every number a configuration may hold has a range, and what is outside is refused with its key."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from hba.config.check import Checker, dotted
from hba.config.load import parse
from hba.config.model import file_config
from hba.errors import ConfigError
from hba.storage.config import LARGEST, parse_size
from hba.storage.open import parse_storage

FILE_CONFIG = file_config()

FREE = {
    "miniport_options",  # the miniport's own: it checks them
    "rules",
}


class Number:
    """A place for a number: the tables that lead there, the key, its bounds."""

    def __init__(self, path: tuple[str, ...], kind: type, low: float | None, high: float | None) -> None:
        self.path, self.kind, self.low, self.high = path, kind, low, high

    def __repr__(self) -> str:
        return ".".join(self.path)


def numbers(kind: Any, path: tuple[str, ...] = (), bounds: Any = None, seen: tuple[Any, ...] = ()) -> Iterator[Number]:
    """All numbers that an annotation has room for."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *extra = get_args(kind)
        (bounds,) = [item for item in extra if isinstance(item, msgspec.Meta)]
        yield from numbers(inner, path, bounds, seen)
    elif kind in (int, float):
        low = None if bounds is None else bounds.ge if bounds.ge is not None else bounds.gt
        high = None if bounds is None else bounds.le if bounds.le is not None else bounds.lt
        yield Number(path, kind, low, high)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind in seen:
            return  # an overlay's base: a storage table again
        tag = kind.__struct_config__.tag
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if name not in FREE and not name.startswith("__"):
                yield from numbers(hint, (*path, *([f"<{tag}>"] if tag else []), name), None, (*seen, kind))
    elif origin in (Union, types.UnionType, list, tuple, dict):
        for inner in get_args(kind):
            if inner is not Ellipsis:
                yield from numbers(inner, path, None, seen)
    elif kind is Any:
        raise AssertionError(f"{path}: anything goes there")
    else:
        assert origin is Literal or kind in (str, bool, type(None)), (path, kind)


FOUND = list(numbers(FILE_CONFIG))


def test_the_walk_finds_them() -> None:
    found = {repr(number) for number in FOUND}
    assert {
        "adapter.lun.target",
        "adapter.lun.storage.<nbd>.hold",
        "adapter.lun.storage.<file>.size",
        "adapter.lun.storage.<overlay>.base.<memory>.size",
        "adapter.lun.physical_block_size",
        "adapter.storport.windows_version",
        "adapter.storport.rw_opcodes",
        "adapter.storport.busy_retry",
        "adapter.scsiport.default_timeout",
        "adapter.pvscsi.max_targets",
        "adapter.trace.keep",
    } <= found
    assert len(FOUND) > 40


@pytest.mark.parametrize("number", FOUND, ids=repr)
def test_every_number_has_a_range(number: Number) -> None:
    assert number.low is not None and number.high is not None, f"{number} has no range"
    assert number.low <= number.high < math.inf


def table(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """The configuration that says this there and nothing else."""
    key, *rest = path
    inner: Any = value
    if rest:
        if rest[0].startswith("<"):
            inner = {"kind": rest[0].strip("<>"), **table(tuple(rest[1:]), value)}
        else:
            inner = table(tuple(rest), value)
    return {key: [inner] if key in ("adapter", "lun") and rest else inner}


ABSURD = [math.nan, math.inf, -math.inf, -1e308, 1e308, 10**30, -(10**30), 2**63, 2**64, -(2**63) - 1, -1]


@pytest.mark.parametrize("value", ABSURD, ids=str)
@pytest.mark.parametrize("number", FOUND, ids=repr)
def test_what_is_outside_is_refused_with_its_key(number: Number, value: float) -> None:
    checker = Checker()
    checker.convert(table(number.path, value), FILE_CONFIG, ())
    words = [word for word in number.path if not word.startswith("<")]
    lists = [f"{word}[0]" if word in ("adapter", "lun") else word for word in words[:-1]]
    key = ".".join([*lists, words[-1]])
    found = {dotted(problem.path): problem.message for problem in checker.problems}
    assert key in found, found
    assert "expected" in found[key]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "-0.1", "1e300", "86401", str(10**30)])
@pytest.mark.parametrize("key", ["hold", "connect_timeout"])
def test_a_file_that_says_so(key: str, value: str, tmp_path: Any) -> None:
    store = f'{{ kind = "nbd", uri = "nbd://x", {key} = {value} }}'
    text = f'[[adapter]]\ntype = "pvscsi"\n[[adapter.lun]]\nstorage = {store}\n'
    with pytest.raises(ConfigError, match=rf"hba.toml:4: adapter\[0\].lun\[0\].storage.{key}: expected a number"):
        parse(text, tmp_path / "hba.toml")
    with pytest.raises(ConfigError, match=key):
        parse_storage({"kind": "nbd", "uri": "nbd://x", key: float(value)})


def test_no_size_is_larger_than_a_file_can_be() -> None:
    assert parse_size("4096P") == LARGEST == parse_size(LARGEST)
    for size in ("4097P", "999999999999999999P", LARGEST + 1):
        with pytest.raises(ValueError, match="larger than 4096P"):
            parse_size(size)
