"""JSON schemas of what is asked and answered, from the Structs. For readers of replies, not for whoever makes them:

* a field that comes with every reply is required, whether or not its Struct has a default;
* objects may have more fields than are named: a later version adds some without a new `hba.contract.SCHEMA_VERSION`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

Schema = dict[str, Any]


def schema_of(kind: Any) -> Schema:
    """The schema of one type of reply, complete in itself."""
    schema: Schema = for_readers(msgspec.json.schema(kind))
    return schema


def schemas_of(kinds: Sequence[Any]) -> tuple[list[Schema], dict[str, Schema]]:
    """The schemas of several types of reply, and the definitions they refer to as `#/$defs/NAME`."""
    schemas, definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    return [for_readers(schema) for schema in schemas], {
        name: for_readers(schema) for name, schema in definitions.items()
    }


def for_readers(schema: Any) -> Any:
    """A schema that msgspec made for decoding, as the reader of a reply needs it."""
    if isinstance(schema, list):
        return [for_readers(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    read = {key: for_readers(item) for key, item in schema.items()}
    properties = read.get("properties")
    if schema.get("type") == "object" and isinstance(properties, dict):
        read.pop("additionalProperties", None)
        always = {name for name, item in properties.items() if "default" in item} | {*read.get("required", ())}
        read["required"] = [name for name in properties if name in always]
        for item in properties.values():
            item.pop("default", None)
    return read
