"""Makes hba/config/schema.json, from the Structs and docs/config.md: `python -m hba.config.document docs/config.md`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from hba.adapters.registry import ADAPTERS
from hba.config import schema

# Heading of docs/config.md, or the line before a table there -> the definitions whose keys the table explains.
TABLES = {
    "## `[[adapter]]`": ("", "AdapterConfig"),
    "## `[adapter.pci]`": ("PciOptions",),
    "## `[adapter.poll]`": ("PollOptions",),
    "## `[adapter.interrupts]`": ("InterruptOptions",),
    **{f"## `[adapter.{kind.name}]`": (kind.options.__name__,) for kind in ADAPTERS},
    "Both:": ("ScsiPortConfig", "StorPortConfig"),
    "SCSI Port only:": ("ScsiPortConfig",),
    "Storport only:": ("StorPortConfig",),
    "## `[adapter.class_driver]`": ("ClassDriverOptions",),
    "## `[adapter.verifier]`": ("VerifierOptions",),
    "## `[adapter.trace]`": ("TraceOptions",),
    "## `[[adapter.lun]]`": ("LunConfig",),
    '`"memory"`': ("MemoryStorage",),
    '`"file"`': ("FileStorage",),
    '`"nbd"`': ("NbdStorage",),
    '`"host"`': ("HostStorage",),
    '`"scsi"`': ("ScsiStorage",),
    '`"overlay"`': ("OverlayStorage",),
}
_ROW = re.compile(r"\| (`.*?) \| (.*?) ?\| (.*) \|")
_KEY = re.compile(r"`([a-z_]+)`")


def explained(text: str) -> dict[tuple[str, str], str]:
    """(definition, key) -> what docs/config.md says of it."""
    found: dict[tuple[str, str], str] = {}
    tables: tuple[str, ...] = ()
    for line in text.splitlines():
        for start, names in TABLES.items():
            if line.startswith(start):
                tables = names
        if (row := _ROW.fullmatch(line)) is not None:
            keys, default, meaning = row.groups()
            said = meaning + (f" (default: {default})" if meaning and default and default != "required" else "")
            found |= {(table, key): said for table in tables for key in _KEY.findall(keys)}
    return found


def render(text: str) -> str:
    """The schema, with what `text` (docs/config.md) says of the keys."""
    made = schema.build()
    known = {"": made, **made["$defs"]}
    for (name, key), meaning in explained(text).items():
        item = known[name]["properties"].get(key)
        if item is not None and meaning and "$ref" not in item:  # draft 7 reads nothing beside a reference
            known[name]["properties"][key] = {"description": meaning, **item}
    return json.dumps(made, indent=1) + "\n"


if __name__ == "__main__":
    target = Path(schema.__file__).with_name(schema.FILE)
    target.write_text(render(Path(sys.argv[1]).read_text("utf-8")), "utf-8")
