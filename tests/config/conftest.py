"""Every configuration that these tests find to be good is good to an editor, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hba.config import load, schema, toml
from hba.config.model import Config
from tests.config.jsonschema import fits


@pytest.fixture(scope="session")
def editors() -> Any:
    """The schema that `hba check --schema` prints."""
    return json.loads(schema.text())


@pytest.fixture(autouse=True)
def good_to_editors(editors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: dict[str, Any] = {}
    read = toml.parse

    def parse(text: str, file: Path) -> dict[str, Any]:
        tables.clear()
        tables.update(read(text, file))
        return dict(tables)

    def good(**parts: Any) -> Config:
        assert fits(tables, editors, editors), tables
        return Config(**parts)

    monkeypatch.setattr(toml, "parse", parse)
    monkeypatch.setattr(load, "Config", good)
