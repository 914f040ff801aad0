"""`hba check --schema`: an editor and `hba check` find the same good, as far as a schema can say it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli

from hba.config import document, schema
from hba.config.load import parse
from hba.config.model import file_config
from hba.errors import ConfigError
from tests.config.jsonschema import fits
from tests.config.test_documents import DOCS, EXAMPLES, structs

FILE_CONFIG = file_config()

ONE = '[[adapter]]\ntype = "pvscsi"\n'
UNIT = ONE + "[[adapter.lun]]\n"
FILE = Path("hba.toml")


def test_the_schema_is_current() -> None:
    told = "run: python -m hba.config.document docs/config.md"
    assert schema.text() == document.render((DOCS / "config.md").read_text("utf-8")), told


BLOCKS = [
    (f"{path.name}:{number}", block)
    for path in sorted([*DOCS.glob("*.md"), DOCS.parent / "README.md"])
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", path.read_text("utf-8"), re.DOTALL))
    if "[[adapter]]" in block
]


@pytest.mark.parametrize("text", [block for _, block in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_what_the_documents_show_is_good(text: str) -> None:
    """To both: see good_to_editors."""
    assert parse(text, FILE).adapters


def test_every_table_and_key_is_explained(editors: Any) -> None:
    tables = {"": editors, **editors["$defs"]}
    assert [name for name, table in tables.items() if not table.get("description")] == []
    silent = [
        f"{name}.{key}"
        for name, table in tables.items()
        for key, item in table["properties"].items()
        if "description" not in item and "$ref" not in item  # what it leads to is explained
    ]
    assert silent == []


def test_every_table_refuses_what_it_does_not_know(editors: Any) -> None:
    names = {kind.__name__ for kind in structs(FILE_CONFIG)} - {"FileConfig"}
    assert set(editors["$defs"]) == names
    assert all(table["additionalProperties"] is False for table in (editors, *editors["$defs"].values()))


def test_defaults_are_those_of_the_program(editors: Any) -> None:
    for kind in structs(FILE_CONFIG):
        table = editors["$defs"].get(kind.__name__, editors)
        for field in msgspec.structs.fields(kind):
            said = table["properties"][field.encode_name]
            if "default" in said:
                assert said["default"] == msgspec.to_builtins(field.default, builtin_types=()) or isinstance(
                    field.default, tuple
                )
                assert fits(said["default"], said, editors)


# What is refused by both.
WRONG = [
    "",
    "adapter = []",
    "[adapter]\ntype = 'pvscsi'",
    "[[adapter]]\n",
    '[[adapter]]\ntype = "pvscsy"',
    ONE + "prot = 'storport'",
    ONE + "port = 'stor'",
    ONE + "name = 'a/b'",
    ONE + "miniport = 'mine'",
    ONE + "pci = { msi = 1 }",
    ONE + "pci = { msii = true }",
    ONE + "pvscsi = { max_targets = 256 }",
    ONE + "pvscsi = { max_targets = true }",
    ONE + "port = 'scsiport'\nstorport = { busy_retry = 1 }",
    ONE + "scsiport = { busy_retries = 1 }",
    ONE + "port = 'scsiport'\nscsiport = { number_of_requests = 15 }",
    ONE + "storport = { windows_version = [10] }",
    ONE + "storport = { windows_version = [10, 0, 0] }",
    ONE + "storport = { windows_version = [10, -1] }",
    ONE + "storport = { map_buffers = 4 }",
    ONE + "storport = { rw_opcodes = [256] }",
    ONE + "storport = { busy_retry = 'never' }",
    ONE + "verifier = { rules = { MB-5 = 'off' } }",
    ONE + "verifier = { rules = { MB-05 = 'of' } }",
    ONE + "trace = { keep = 0 }",
    UNIT + "type = 'disc'",
    UNIT + "target = 256\nstorage = { kind = 'memory', size = '1M' }",
    UNIT + "naa = 'x'\nstorage = { kind = 'memory', size = '1M' }",
    UNIT + "vendor = 'too long a name'\nstorage = { kind = 'memory', size = '1M' }",
    UNIT + "storage = { kind = 'floppy' }",
    UNIT + "storage = { size = '1M' }",
    UNIT + "storage = { kind = 'memory' }",
    UNIT + "storage = { kind = 'memory', size = '1X' }",
    UNIT + "storage = { kind = 'memory', size = -512 }",
    UNIT + "storage = { kind = 'memory', size = '1M', path = 'x' }",
    UNIT + "storage = { kind = 'nbd', uri = 'nbd://a', connect_timeout = 0 }",
    UNIT + "storage = { kind = 'nbd', uri = 'nbd://a', hold = 90000 }",
    UNIT + "storage = { kind = 'overlay', base = { kind = 'file', paht = 'x' } }",
    UNIT + "storage = { kind = 'file', path = 'x', inline_writes = 'sometimes' }",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_wrong_to_both(text: str, editors: Any) -> None:
    with pytest.raises(ConfigError):
        parse(text, FILE)
    assert not fits(tomli.loads(text), editors, editors)


def tables_of(value: Any) -> list[dict[str, Any]]:
    """All tables in a configuration."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [table for part in inner for table in tables_of(part)]
    return [value, *found] if isinstance(value, dict) else found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_a_slip_in_any_key_of_an_example_is_seen(path: Path, editors: Any) -> None:
    text = re.sub(r"^# ([a-z_]+ = )", r"\1", path.read_text(), flags=re.MULTILINE)
    plain = tomli.loads(text)
    slips = 0
    for table in tables_of(plain):
        if table is plain["adapter"][0].get("miniport_options"):
            continue  # the miniport's own
        for key in list(table):
            table[f"{key}_"] = table.pop(key)
            assert not fits(plain, editors, editors), key
            table[key] = table.pop(f"{key}_")
            slips += 1
    assert slips and fits(plain, editors, editors)
