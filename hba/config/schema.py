"""The JSON schema of a configuration file, for editors: from the same Structs that check it, so neither knows less.

Draft 7 of JSON Schema, which is what editors of TOML read. What only shows between keys of different tables (addresses
that are taken, targets beyond `max_targets`) only `hba check` says.

`build` makes it. What is printed is schema.json beside this file, made by `hba.config.document`, which also puts in
what docs/config.md says of each key. A test compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import msgspec

from hba.adapters.registry import ADAPTERS
from hba.adapters.types import Registry
from hba.config.model import PORT_MODELS, file_config
from hba.rules.rule import Rule

Schema = dict[str, Any]
FILE = "schema.json"


def text() -> str:
    """The schema as it is printed."""
    return resources.files(__package__).joinpath(FILE).read_text("utf-8")


def build(known: Registry = ADAPTERS) -> Schema:
    """The schema without what docs/config.md says."""
    made = msgspec.json.schema(file_config(known))
    tables: dict[str, Schema] = {name: _plain(table) for name, table in made["$defs"].items()}
    tables["FileConfig"]["properties"]["adapter"]["minItems"] = 1
    _name_rules(tables["VerifierOptions"]["properties"]["rules"], known.rules)
    tables["AdapterConfig"].update(_one_model(*PORT_MODELS))
    if len(known.names) > 1:
        tables["AdapterConfig"]["allOf"] = [_one_type(name, known.names) for name in known.names]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "hba configuration",
        **tables.pop("FileConfig"),
        "$defs": tables,
    }


def _plain(schema: Any) -> Any:
    """What msgspec made, in the words of draft 7, without what TOML cannot say, and without defaults that mean
    "derived" or are whole tables: an editor would write them out.
    """
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(item) for key, item in schema.items() if key != "discriminator"}
    if "default" in plain and (plain["default"] in (None, "", [], {}) or isinstance(plain["default"], dict)):
        del plain["default"]
    if "prefixItems" in plain:
        plain["items"] = plain.pop("prefixItems")
        plain["additionalItems"] = False
    if "anyOf" in plain:
        plain |= _one_of(plain.pop("anyOf"))
    return plain


def _one_of(choices: list[Schema]) -> Schema:
    """One of the choices, which may be choices themselves; null is none."""
    flat = [inner for choice in choices for inner in choice.get("anyOf", [choice]) if inner != {"type": "null"}]
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _name_rules(rules: Schema, known: Mapping[str, Rule]) -> None:
    """The rules there are, each with its title."""
    severity = rules["additionalProperties"]
    rules["properties"] = {rule.id: {"description": rule.title, **severity} for rule in known.values()}
    rules["additionalProperties"] = False


def _one_model(one: str, other: str) -> Schema:
    """Options of the port model that is not chosen are refused; without `port` it is the `other`."""
    return {
        "if": {"properties": {"port": {"const": one}}, "required": ["port"]},
        "then": {"properties": {other: False}},
        "else": {"properties": {one: False}},
    }


def _one_type(one: str, names: Sequence[str]) -> Schema:
    """Options of adapter types that are not the chosen one are refused."""
    return {
        "if": {"properties": {"type": {"const": one}}},
        "then": {"properties": {other: False for other in names if other != one}},
        "else": True,
    }
