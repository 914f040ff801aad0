"""Configurations for the server: the one the lab makes, and a user's with another port model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hba.adapters.registry import ADAPTERS
from hba.config import toml


def one_disk(
    folder: Path, disk: Path, port_model: str, kind: str = ADAPTERS.default.name, engine: str = "native"
) -> str:
    """The text of a configuration with one adapter of a type and one disk; its socket is in `folder`."""
    return one_adapter(folder, [{"storage": {"kind": "file", "path": str(disk.absolute())}}], port_model, kind, engine)


def one_adapter(
    folder: Path,
    luns: Sequence[dict[str, Any]],
    port_model: str,
    kind: str = ADAPTERS.default.name,
    engine: str = "native",
) -> str:
    """The text of a configuration with one adapter of a type, written to `folder`: its socket is there, and the files
    that the `luns` name by relative paths.
    """
    lines = {
        "type": kind,
        # The control socket goes where `hba ls` looks, under this name; several labs may run at once.
        "name": f"lab-{os.getpid()}",
        "socket": str(folder / "adapter.sock"),
        "port": port_model,
        "engine": engine,
        "lun": list(luns),
    }
    return "[[adapter]]\n" + "".join(f"{key} = {to_toml(value)}\n" for key, value in lines.items())


def to_toml(value: Any) -> str:
    """A value as TOML, tables inline. For values that came from TOML or are plain Python."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml_key(key)} = {to_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_string(value)
    return str(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_string(key)


def _toml_string(text: str) -> str:
    """JSON's escapes are TOML's, but for surrogates, which TOML has not, and DEL, which it wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def with_other(config: Path, *, port_model: str = "", engine: str = "") -> str:
    """The text of `config` with another port model or engine for every adapter.

    Options of what it had are dropped, and relative paths are made absolute, since the text will be read from another
    folder.
    """
    plain = toml.parse(toml.read(config), config)
    lines = []
    for adapter in plain.get("adapter", []):
        if port_model:
            adapter["port"] = port_model
            for other in {"scsiport", "storport"} - {port_model}:
                adapter.pop(other, None)
        if engine:
            adapter["engine"] = engine
        if engine == "native":
            adapter.pop("engine_library", None)
        elif library := adapter.get("engine_library"):
            adapter["engine_library"] = str(config.absolute().parent / library)
        for unit in adapter.get("lun", []):
            _make_absolute(unit.get("storage"), config.absolute().parent)
        lines.append("[[adapter]]")
        lines += [f"{_toml_key(key)} = {to_toml(value)}" for key, value in adapter.items()]
    changes = [f"{key} = {value}" for key, value in (("port", port_model), ("engine", engine)) if value]
    return "\n".join([f"# {config} with {', '.join(changes)}", *lines, ""])


def _make_absolute(storage: Any, folder: Path) -> None:
    if isinstance(storage, dict):
        for key in ("path", "directory"):
            if isinstance(storage.get(key), str):
                storage[key] = str(folder / Path(storage[key]).expanduser())
        _make_absolute(storage.get("base"), folder)
