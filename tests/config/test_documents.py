"""The examples are good configurations, and docs/config.md tells of every key."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest

from hba.config.load import load
from hba.config.model import file_config

FILE_CONFIG = file_config()

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_good_configuration(path: Path) -> None:
    assert load(path).adapters


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_what_an_example_has_commented_out_is_good_too(path: Path, tmp_path: Path) -> None:
    text = re.sub(r"^# ([a-z_]+ = )", r"\1", path.read_text(), flags=re.MULTILINE)
    copy = tmp_path / path.name
    copy.write_text(text)
    assert load(copy).adapters


def structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Every Struct that can be reached from an annotation."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
        for item in msgspec.structs.fields(kind):
            if item.type is not kind and item.name != "base":
                yield from structs(item.type)
    elif get_origin(kind) in (Union, types.UnionType, list, tuple):
        for inner in get_args(kind):
            yield from structs(inner)


KEYS = sorted(
    {(cls.__name__, item.encode_name) for cls in structs(FILE_CONFIG) for item in msgspec.structs.fields(cls)}
)


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_every_key_is_documented(table: str, key: str) -> None:
    assert f"`{key}`" in (DOCS / "config.md").read_text()


def test_every_method_topic_and_command_is_documented() -> None:
    from hba.cli.main import COMMANDS
    from hba.control.events import TOPICS
    from hba.control.methods import METHODS

    control, cli = (DOCS / "control.md").read_text(), (DOCS / "cli.md").read_text()
    missing = [method.name for method in METHODS if f"`{method.name}`" not in control]
    missing += [topic for topic in TOPICS if f"| `{topic}` |" not in control]
    missing += [command for command in COMMANDS if f"`hba {command}" not in cli]
    assert missing == []
