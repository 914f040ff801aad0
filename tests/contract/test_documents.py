"""docs/schemas.json and docs/schemas.md are what the types say, and are complete in themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hba.cli import document
from hba.cli.results import OUTPUTS
from hba.contract import SCHEMA_VERSION
from hba.control.methods import METHODS
from hba.port.library import document as routines

DOCS = Path(__file__).parents[2] / "docs"
WRITTEN = json.loads((DOCS / "schemas.json").read_text("utf-8"))


def test_the_documents_are_current() -> None:
    made = document.schema()
    assert (DOCS / "schemas.json").read_text("utf-8") == document.as_json(made), f"run: {document.COMMAND}"
    assert (DOCS / "schemas.md").read_text("utf-8") == document.as_text(made), f"run: {document.COMMAND}"


def test_the_tables_of_routines_are_current() -> None:
    written = (DOCS / "miniports.md").read_text("utf-8")
    assert written == routines.rendered(written), f"run: {document.COMMAND}"


def test_everything_is_in_them() -> None:
    assert WRITTEN["schema_version"] == SCHEMA_VERSION
    assert set(WRITTEN["commands"]) == set(OUTPUTS)
    assert set(WRITTEN["methods"]) == {method.name for method in METHODS}


def inner(schema: Any) -> list[Any]:
    """The schema and all that are in it."""
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return [schema, *(found for part in parts for found in inner(part))]


def test_every_reference_leads_somewhere() -> None:
    references = {
        part["$ref"] for part in inner(WRITTEN) if isinstance(part, dict) and isinstance(part.get("$ref"), str)
    }
    assert {reference.removeprefix("#/$defs/") for reference in references} <= set(WRITTEN["$defs"])
    assert len(references) > 50


def test_every_type_is_explained() -> None:
    assert [name for name, made in WRITTEN["$defs"].items() if not made.get("description")] == []


def test_replies_may_grow_and_requests_may_not() -> None:
    refused = {name for name, made in WRITTEN["$defs"].items() if made.get("additionalProperties") is False}
    asked = {method["params"]["$ref"].rpartition("/")[2] for method in WRITTEN["methods"].values()}
    assert refused == asked
