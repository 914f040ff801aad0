"""What is registered is whole, and only its own folder and the registration name it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hba.adapters.registry import ADAPTERS
from hba.adapters.types import AdapterType
from hba.shapes import Result

ROOT = Path(__file__).parents[2]
FOLDERS = ("hba", "guest-tests", "qemu", "scripts")
# Where an adapter's name may be, and why.
NAMED = {
    "hba/adapters/registry.py": "the registration",
    "hba/config/schema.json": "made of the types",
    "hba/rules/guest.py": "the document a rule was found in, and the driver that is known to break one",
    "guest-tests/host-devices/pvscsi.py": "plays a driver for a server inside the guest, whichever adapter that has",
    "guest-tests/host-devices/server.py": "configures that server",
    "guest-tests/host-devices/test_1_passthrough.py": "uses that driver",
    "guest-tests/host-devices/test_2_host.py": "uses that driver",
    "guest-tests/sg3/suite.toml": "why its disks are targets",
}


def files() -> list[Path]:
    return [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    ]


@pytest.mark.parametrize("kind", [*ADAPTERS], ids=lambda kind: kind.name)
def test_nothing_else_names_a_type(kind: AdapterType[Any]) -> None:
    own = f"hba/adapters/{kind.name}/"
    names = re.compile(rf"{kind.name}|{kind.driver.name}|{kind.pci_id}", re.IGNORECASE)
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8", "replace") for path in files()}
    found = {name for name, text in texts.items() if not name.startswith(own) and names.search(text)}
    assert found - set(NAMED) == set()


def test_the_exceptions_are_needed() -> None:
    assert [name for name in NAMED if not re.search("pvscsi", (ROOT / name).read_text(), re.IGNORECASE)] == []


@pytest.mark.parametrize("kind", [*ADAPTERS], ids=lambda kind: kind.name)
def test_a_type_is_whole(kind: AdapterType[Any]) -> None:
    assert 1 <= kind.max_targets(kind.options()) <= 256
    for shape in (kind.queues, kind.counters):
        assert issubclass(shape, Result)
        assert (shape.__struct_config__.tag_field, shape.__struct_config__.tag) == ("type", kind.name)
    assert re.fullmatch("[0-9A-F]{4}:[0-9A-F]{4}", kind.pci_id)
    assert set(kind.driver.resets) <= {"device", "target", "bus", "host"}
    re.compile(kind.driver.log)
    assert msgspec.structs.fields(kind.options)
    assert all(rule.model == "guest" for rule in kind.rules)
