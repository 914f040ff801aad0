"""Makes documents: `python -m hba.cli.document docs`.

docs/schemas.json and docs/schemas.md from the types of all outputs, docs/rules.md from the catalogue of rules, the
tables at the end of docs/miniports.md from the one of documented routines.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from hba.adapters.registry import ADAPTERS
from hba.cli.results import OUTPUTS, ErrorLine
from hba.contract import SCHEMA_VERSION
from hba.control.methods import METHODS
from hba.control.results import lines
from hba.control.results.events import TOPIC_DATA
from hba.control.schema import Schema, schemas_of
from hba.port.library import document as routines
from hba.rules import document as rules

COMMAND = "python -m hba.cli.document docs"
LINES = {"greeting": lines.Greeting, "reply": lines.Reply, "error": lines.ErrorReply, "event": lines.EventLine}

HEAD = f"""# What programs read

<!-- Generated from hba/cli/results.py, hba/control/results and the shapes of adapters by `{COMMAND}`. Do not edit. -->

What commands print with `--json`, and what the [control socket](control.md) answers. [schemas.json](schemas.json) says
the same as JSON Schema (2020-12) for programs: `#/commands/hba ls`, `#/methods/show.queues/result`, `#/events/hotplug`.
The method `schema` of a running adapter has those of its own version.

## Version

`schema_version` is {SCHEMA_VERSION}. It is one whole number for all shapes, and is to be found

- in each object that `--json` prints, which is always an object: lists are in one (`units`, `ranges`, `rules`);
- in each line of a command that prints lines (`hba serve`, `events`, `trace`), and in each error on standard error;
- on the control socket in the greeting and in each reply, beside `result` or `error`. Events are of the greeting's.

It rises when a program that reads them could break: when a field goes, gets another name, type, unit or meaning, or can
be null where it could not. It does not rise for what comes on top: a field, a method, a command, a topic, an adapter
type, a kind of unit or storage, another word where a field has words. So a reader passes over fields and words that it
does not know, and refuses a `schema_version` that it was not written for. The CHANGELOG names every change. What is
text for people (`message`, `why`, reasons in lists of text, names of counters) may change its words at any time.

A field is there in every object of its type unless it says "not always". Whole numbers can have up to 64 bits.
"""


def schema() -> Schema:
    """All schemas in one document, which refer to each other by `#/$defs/NAME`."""
    outputs = [output.kind for output in OUTPUTS.values()]
    results = [method.result for method in METHODS]
    replies = [*LINES.values(), *TOPIC_DATA.values(), ErrorLine]
    made, definitions = schemas_of([*outputs, *results, *replies])
    params, parameters = msgspec.json.schema_components(
        [method.params for method in METHODS], ref_template="#/$defs/{name}"
    )
    rest = iter(made)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hba: what commands print with --json, and what the control socket answers",
        "schema_version": SCHEMA_VERSION,
        "commands": {
            name: {"description": "a line" if output.lines else "the output", "allOf": [_VERSIONED, next(rest)]}
            for name, output in OUTPUTS.items()
        },
        "methods": {
            method.name: {"description": method.doc, "params": asked, "result": next(rest)}
            for method, asked in zip(METHODS, params, strict=True)
        },
        "lines": {name: next(rest) for name in LINES},
        "events": {topic: next(rest) for topic in TOPIC_DATA},
        "error": {"description": "a line on standard error", "allOf": [_VERSIONED, next(rest)]},
        "$defs": {"Versioned": _VERSION, **dict(sorted((definitions | parameters).items()))},
    }


_VERSIONED = {"$ref": "#/$defs/Versioned"}
_VERSION = {
    "title": "Versioned",
    "description": "The version of the shape, in every output.",
    "type": "object",
    "properties": {"schema_version": {"const": SCHEMA_VERSION}},
    "required": ["schema_version"],
}


def as_json(made: Schema) -> str:
    """docs/schemas.json."""
    return json.dumps(made, indent=1) + "\n"


def as_text(made: Schema) -> str:
    """docs/schemas.md."""
    parts = [HEAD, "## Commands\n\n| command | prints |\n|---|---|"]
    parts += [
        f"| `{name} --json` | {'lines: ' if item['description'] == 'a line' else ''}{_words(item['allOf'][1])} |"
        for name, item in made["commands"].items()
    ]
    parts.append(f"\nErrors, on standard error: {_words(made['error']['allOf'][1])}.\n")
    parts.append("## Methods\n\n| method | parameters | result |\n|---|---|---|")
    parts += [
        f"| `{name}` | {_words(item['params'])} | {_words(item['result'])} |" for name, item in made["methods"].items()
    ]
    parts.append("\n## Lines of the control socket, and events\n\n| line | is |\n|---|---|")
    parts += [f"| {name} | {_words(item)} |" for name, item in made["lines"].items()]
    parts += [f"| event `{topic}` | {_words(item)} |" for topic, item in made["events"].items()]
    parts.append("\n## Types")
    parts += [_type(name, item) for name, item in made["$defs"].items()]
    return "\n".join(parts) + "\n"


def _type(name: str, item: Schema) -> str:
    """The section of a type."""
    told = " ".join(item.get("description", "").split())
    always = item.get("required", ())
    rows = [
        f"- `{field}`: {_words(kind)}{'' if field in always else _absent(kind)}"
        for field, kind in item.get("properties", {}).items()
    ]
    return "\n".join([f"\n### {name}\n", told, *(["", *rows] if rows else [])])


def _absent(kind: Schema) -> str:
    """Of a field that need not be there: what is taken instead, for parameters and configurations."""
    return f"; default {json.dumps(kind['default'])}" if "default" in kind else "; not always"


_NAMES = {"integer": "whole number", "string": "text", "boolean": "true or false", "null": "null"}


def _words(kind: Schema) -> str:
    """A schema in a few words."""
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(_words(item) for item in kind["anyOf"])
    if "const" in kind or "enum" in kind:
        return ", ".join(f"`{json.dumps(word)}`" for word in kind.get("enum", [kind.get("const")]))
    form = kind.get("type")
    if form == "array" and "prefixItems" in kind:
        return "list [" + ", ".join(_words(item) for item in kind["prefixItems"]) + "]"
    if form == "array":
        return f"list of {_words(kind.get('items', {}))}"
    if form == "object":
        inner = kind.get("additionalProperties")
        return "object" + (f" of {_words(inner)}" if isinstance(inner, dict) and inner else "")
    told = kind.get("description")
    return _NAMES.get(str(form), str(form or "anything")) + (f" ({told})" if told else "")


def main(arguments: list[str]) -> Any:
    """Write all files into a folder."""
    (folder,) = map(Path, arguments)
    made = schema()
    (folder / "schemas.json").write_text(as_json(made), "utf-8")
    (folder / "schemas.md").write_text(as_text(made), "utf-8")
    (folder / "rules.md").write_text(rules.render(ADAPTERS.rules), "utf-8")
    miniports = folder / "miniports.md"
    miniports.write_text(routines.rendered(miniports.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
