"""As much of JSON Schema, draft 7, as our schema uses; a word that is not known here fails."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
}  # fmt: skip
_ABOUT = {"$schema", "$defs", "title", "description", "default"}


def fits(value: Any, schema: Any, root: Any) -> bool:
    """Whether `value` is what `schema` says; `root` is where its references lead."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return fits(value, root["$defs"][name], root)
    return all(_holds(word, schema, value, root) for word in schema if word not in _ABOUT)


def _holds(word: str, schema: dict[str, Any], value: Any, root: Any) -> bool:
    said = schema[word]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    table = value if isinstance(value, dict) else {}
    items = value if isinstance(value, list) else []
    match word:
        case "type":
            return isinstance(value, _TYPES[said]) and (said == "boolean" or not isinstance(value, bool))
        case "enum":
            return any(value == item and type(value) is type(item) for item in said)
        case "const":
            return bool(value == said)
        case "allOf":
            return all(fits(value, part, root) for part in said)
        case "anyOf":
            return any(fits(value, choice, root) for choice in said)
        case "if":
            return fits(value, schema["then" if fits(value, said, root) else "else"], root)
        case "then" | "else" | "additionalItems":
            return True  # with "if", with "items"
        case "required":
            return not isinstance(value, dict) or set(said) <= set(table)
        case "properties":
            return all(fits(table[key], inner, root) for key, inner in said.items() if key in table)
        case "additionalProperties":
            return all(fits(item, said, root) for key, item in table.items() if key not in schema.get("properties", {}))
        case "items" if isinstance(said, list):
            rest = [schema.get("additionalItems", True)] * (len(items) - len(said))
            return all(fits(item, inner, root) for item, inner in zip(items, said + rest, strict=False))
        case "items":
            return all(fits(item, said, root) for item in items)
        case "minItems":
            return not isinstance(value, list) or len(items) >= said
        case "maxItems":
            return not isinstance(value, list) or len(items) <= said
        case "minimum":
            return not number or value >= said
        case "maximum":
            return not number or value <= said
        case "exclusiveMinimum":
            return not number or value > said
        case "pattern":
            return not isinstance(value, str) or re.search(said, value) is not None
        case "maxLength":
            return not isinstance(value, str) or len(value) <= said
    raise AssertionError(f"a schema has {word!r}, which this test does not know")
