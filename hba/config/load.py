"""A TOML file to a `Config`: read, check every key, fill in defaults, and check what only shows between keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hba.adapters.registry import ADAPTERS
from hba.adapters.types import Registry
from hba.config import toml
from hba.config.check import FAILED, Checker, Problem, dotted
from hba.config.check import Path as KeyPath
from hba.config.lines import line_of, locate
from hba.config.model import ENGINES, PORT_MODELS, AdapterConfig, Config, file_config
from hba.errors import ConfigError
from hba.rules.rule import Rule
from hba.runtime import runtime_dir
from hba.terminal.suggest import did_you_mean


def load(path: str | Path, known: Registry = ADAPTERS) -> Config:
    """Read and check the file at `path`; `known`: the types of adapters there are.

    Raises `ConfigError` that lists everything that is wrong with it.
    """
    file = Path(path)
    return parse(toml.read(file), file, known)


def parse(text: str, file: Path, known: Registry = ADAPTERS) -> Config:
    """Check the text of the file `file` (which is not read; its folder is what relative paths are relative to)."""
    plain = toml.parse(text, file)
    checker = Checker()
    converted = checker.convert(plain, file_config(known), ())
    adapters: list[AdapterConfig] = []
    if converted is not FAILED:
        adapters = _with_defaults(converted.adapter, file.absolute().parent)
        if not adapters:
            checker.note(("adapter",), "empty; expected at least one [[adapter]] table")
    _cross_check(plain, adapters, known, checker)
    if checker.problems:
        raise ConfigError(_report(file, text, checker.problems))
    return Config(path=file, directory=file.absolute().parent, adapters=tuple(adapters))


def _with_defaults(adapters: list[AdapterConfig], directory: Path) -> list[AdapterConfig]:
    """Names (type and number), absolute paths, and sockets: by default in the runtime folder."""
    numbers: Counter[str] = Counter()
    result = []
    for adapter in adapters:
        name = adapter.name or f"{adapter.type}{numbers[adapter.type]}"
        numbers[adapter.type] += 1
        socket = directory / Path(adapter.socket).expanduser() if adapter.socket else runtime_dir() / f"{name}.sock"
        library = str(directory / Path(adapter.engine_library).expanduser()) if adapter.engine_library else ""
        result.append(msgspec.structs.replace(adapter, name=name, socket=str(socket), engine_library=library))
    return result


# -- what only shows between keys ---------------------------------------------------------------------------------


def _cross_check(plain: Mapping[str, Any], adapters: list[AdapterConfig], known: Registry, checker: Checker) -> None:
    """Work on the plain values where possible, so that these errors show up together with those of single keys."""
    tables = plain.get("adapter")
    if not isinstance(tables, list):
        return
    for index, table in enumerate(tables):
        if isinstance(table, dict):
            here: KeyPath = ("adapter", index)
            _check_sections(table, here, known, checker)
            _check_rules(table, here, known.rules, checker)
            _check_addresses(table, here, checker)
    _check_unique([adapter.name for adapter in adapters], "name", checker)
    _check_unique([adapter.socket for adapter in adapters], "socket", checker)
    for index, adapter in enumerate(adapters):
        _check_limits(adapter, ("adapter", index), known, checker)


def _check_sections(table: Mapping[str, Any], here: KeyPath, known: Registry, checker: Checker) -> None:
    """Options of a port model, an adapter type or an engine that is not the chosen one would be silently without
    effect."""
    port = table.get("port", "storport")
    for model in PORT_MODELS:
        if model in table and port in PORT_MODELS and model != port:
            checker.note((*here, model), f'options of {model}, but port = "{port}"; change `port` or remove this table')
    engine = table.get("engine", "native")
    if "engine_library" in table and engine in ENGINES and engine != "libvfio-user":
        checker.note(
            (*here, "engine_library"),
            f'only for engine = "libvfio-user", but engine = "{engine}"; change `engine` or remove this key',
        )
    kind = table.get("type")
    for other in known.names:
        if other in table and kind in known.names and other != kind:
            checker.note((*here, other), f'options of {other}, but type = "{kind}"; change `type` or remove this table')


def _check_rules(table: Mapping[str, Any], here: KeyPath, known: Mapping[str, Rule], checker: Checker) -> None:
    verifier = table.get("verifier")
    rules = verifier.get("rules") if isinstance(verifier, dict) else None
    for rule in rules if isinstance(rules, dict) else ():
        if rule not in known:
            near = did_you_mean(rule, known)
            checker.note((*here, "verifier", "rules", rule), f"no such rule{near} (`hba explain` lists them)")


def _check_addresses(table: Mapping[str, Any], here: KeyPath, checker: Checker) -> None:
    luns = table.get("lun")
    seen: dict[tuple[int, int], int] = {}
    for index, lun in enumerate(luns if isinstance(luns, list) else ()):
        if not isinstance(lun, dict):
            continue
        address = (lun.get("target", 0), lun.get("lun", 0))
        if not all(isinstance(part, int) for part in address):
            continue
        first = seen.setdefault(address, index)
        if first != index:
            checker.note(
                (*here, "lun", index),
                f"target {address[0]} lun {address[1]} is taken by {dotted((*here, 'lun', first))}; "
                "give each unit its own address",
            )


def _check_unique(values: list[str], key: str, checker: Checker) -> None:
    for index, value in enumerate(values):
        first = values.index(value)
        if first != index:
            checker.note(("adapter", index, key), f'"{value}" is taken by {dotted(("adapter", first))}; choose another')


def _check_limits(adapter: AdapterConfig, here: KeyPath, known: Registry, checker: Checker) -> None:
    """Units beyond what the adapter lets its driver address."""
    kind = known[adapter.type]
    targets = kind.max_targets(adapter.options)
    option = dotted((*here, kind.name, "max_targets"))
    most = f"{option} = {targets}" if "max_targets" in kind.options.__struct_fields__ else f"{targets} ({kind.title})"
    for index, lun in enumerate(adapter.lun):
        if lun.target >= targets:
            checker.note(
                (*here, "lun", index, "target"),
                f"expected a target below {most}, got {lun.target}",
            )


# -- telling it -----------------------------------------------------------------------------------------------------


def _report(file: Path, text: str, problems: list[Problem]) -> str:
    lines = locate(text)
    found = [(line_of(lines, problem.path) or 0, problem) for problem in problems]
    parts = []
    for line, problem in sorted(found, key=lambda item: item[0]):
        place = f"{file}:{line}" if line else f"{file}"
        where = dotted(problem.path)
        parts.append(f"{place}: {where}: {problem.message}" if where else f"{place}: {problem.message}")
    return "\n".join(parts)
