"""pytest with one module imported from other source than is on the disk: PATH FAULTY-SOURCE arguments of pytest."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


class _Faulty(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    def __init__(self, path: Path, source: str) -> None:
        self._name = str(path.with_suffix("")).replace("/", ".").removesuffix(".__init__")
        self._path = path
        self._source = source

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> object:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path.absolute(), loader=self)

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)


if __name__ == "__main__":
    sys.meta_path.insert(0, _Faulty(Path(sys.argv[1]), Path(sys.argv[2]).read_text("utf-8")))
    raise SystemExit(pytest.main(sys.argv[3:]))
