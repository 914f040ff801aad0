"""hba.config.check: any Struct against any TOML value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.config.check import FAILED, Checker, dotted
from hba.config.model import file_config
from hba.terminal.suggest import did_you_mean

FILE_CONFIG = file_config()


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    mode: Literal["slow", "fast"] = "slow"


class Cat(msgspec.Struct, tag_field="kind", tag="cat", forbid_unknown_fields=True):
    lives: int = 9


class Dog(msgspec.Struct, tag_field="kind", tag="dog", forbid_unknown_fields=True):
    name: str

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a dog needs a name")


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner | None = None
    pets: list[Cat | Dog] = []
    levels: dict[str, Literal["low", "high"]] = {}
    limits: tuple[int, ...] = ()


def problems(value: Any, kind: Any = Outer) -> dict[str, str]:
    checker = Checker()
    result = checker.convert(value, kind, ())
    assert (result is FAILED) == bool(checker.problems)
    return {dotted(item.path): item.message for item in checker.problems}


def test_a_good_value_becomes_the_struct() -> None:
    value = {
        "inner": {"size": 3, "mode": "fast"},
        "pets": [{"kind": "dog", "name": "Rex"}, {"kind": "cat"}],
        "levels": {"a": "low"},
        "limits": [1, 2],
    }
    assert Checker().convert(value, Outer, ()) == Outer(
        inner=Inner(3, "fast"), pets=[Dog("Rex"), Cat()], levels={"a": "low"}, limits=(1, 2)
    )


def test_all_problems_are_found_at_once_each_with_its_path() -> None:
    found = problems(
        {
            "inner": {"size": 0, "mode": "fats"},
            "pets": [{"kind": "dgo"}, {"kind": "dog", "name": ""}, {"lives": 3}, 7],
            "levels": {"a": "hihg"},
            "limits": [1, "x"],
            "innre": 1,
        }
    )
    assert found == {
        "inner.size": "expected a whole number >= 1, got 0",
        "inner.mode": 'expected one of "slow", "fast", got "fats"; did you mean "fast"?',
        "pets[0].kind": 'expected one of "cat", "dog", got "dgo"; did you mean "dog"?',
        "pets[1]": "a dog needs a name",
        "pets[2].kind": 'missing; expected one of "cat", "dog"',
        "pets[3]": "expected a table, got 7",
        "levels.a": 'expected one of "low", "high", got "hihg"; did you mean "high"?',
        "limits": "expected a whole number, got a list at $[1]",
        "innre": 'no such key; did you mean "inner"? (known here: inner, levels, limits, pets)',
    }


def test_a_missing_key_says_what_was_expected() -> None:
    assert problems({"inner": {}}) == {"inner.size": "missing; expected a whole number"}


def test_types_are_strict() -> None:
    assert problems({"inner": {"size": "3"}}) == {"inner.size": 'expected a whole number, got "3"'}
    assert problems({"inner": {"size": True}}) == {"inner.size": "expected a whole number, got true"}
    assert problems({"inner": 4}) == {"inner": "expected a table, got 4"}


def test_did_you_mean_says_nothing_when_nothing_is_near() -> None:
    assert did_you_mean("sise", ["size", "path"]) == '; did you mean "size"?'
    assert did_you_mean("zzz", ["size", "path"]) == ""


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["adapter", "lun", "storage", "kind", "type", "pci", "verifier", "rules", "size", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(PLAIN)
def test_any_value_is_converted_or_has_a_problem(value: Any) -> None:
    problems(value, FILE_CONFIG)
    problems({"adapter": [value]}, FILE_CONFIG)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_text_that_is_toml_is_checked(text: str) -> None:
    try:
        plain = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    problems(plain, FILE_CONFIG)
