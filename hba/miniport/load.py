"""From the configuration's `miniport = "..."` to a miniport: "dma" (the default), or "module:Class" of your own.

The class may also be a routine, "module:driver_entry", that fills in a table of routines (hba.miniport.driver_entry).
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from types import FunctionType
from typing import Any

import hba.miniport.driver_entry
from hba.errors import ConfigError
from hba.miniport.base import Miniport
from hba.miniport.chip import Chip
from hba.miniport.driver_entry import STATUS_SUCCESS, DriverObject, enter

BUILT_IN = {"dma": "hba.miniport.dma:DmaMiniport"}
EXPECTED = (
    'expected "dma", or "module:Class" or "module:driver_entry" of an importable module, such as '
    '"hba.miniport.examples.good:GoodMiniport"'
)
OURS = (__file__, importlib.__file__, hba.miniport.driver_entry.__file__)  # whose frames are no place in the miniport
REGISTRY_PATH = r"\Registry\Machine\System\CurrentControlSet\Services\{name}"
DriverEntry = Callable[[DriverObject, str], int]


def miniport_class(name: str) -> type[Miniport] | DriverEntry:
    """The class, or the DriverEntry routine, behind a name. Raises `ConfigError` that says what is wrong with it."""
    module_name, colon, class_name = BUILT_IN.get(name, name).partition(":")
    if not colon or not module_name or not class_name:
        raise ConfigError(f"miniport = {name!r}: {EXPECTED}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise ConfigError(
                f"miniport = {name!r}: there is no module {module_name!r} on the Python path; "
                "install it, or set PYTHONPATH to its folder"
            ) from error
        raise ConfigError(
            f"miniport = {name!r}: {_place(error, module_name)}: module {module_name!r} needs {error.name!r}; "
            "install it"
        ) from error
    except (Exception, SystemExit) as error:  # somebody else's module may fail in any way while it is imported
        raise ConfigError(
            f"miniport = {name!r}: {_place(error, module_name)}: importing {module_name!r} failed with {_said(error)}; "
            "mend it there"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        raise ConfigError(f"miniport = {name!r}: module {module_name!r} has no class {class_name!r}")
    if isinstance(found, FunctionType):
        return found
    if not (isinstance(found, type) and issubclass(found, Miniport)):
        raise ConfigError(
            f"miniport = {name!r}: {class_name!r} is not a class derived from hba.miniport.base.Miniport, nor a "
            "driver_entry routine"
        )
    return found


def load_miniport(
    name: str, chip: Chip, options: dict[str, Any] | None = None, model: str = "storport", dump: bool = False
) -> Miniport:
    """Make the miniport called `name` for `chip`. Its `port` is set by the port driver it is given to.

    `model`: the port driver a DriverEntry routine finds itself linked to; `dump`: it is loaded to write a dump. Raises
    `ConfigError` for a bad name, a class that cannot be made without arguments, a DriverEntry that does not succeed.
    """
    kind = miniport_class(name)
    miniport = _made(name, kind) if isinstance(kind, type) else _entered(name, kind, model, dump)
    miniport.chip = chip
    miniport.options = dict(options or {})
    return miniport


def _made(name: str, kind: type[Miniport]) -> Miniport:
    try:
        return kind()
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"miniport = {name!r}: {_place(error, kind.__module__)}: {kind.__name__}() failed with {_said(error)}; "
            "a miniport's constructor takes no arguments"
        ) from error


def _entered(name: str, driver_entry: DriverEntry, model: str, dump: bool) -> Miniport:
    module_name = driver_entry.__module__
    driver_object = DriverObject(model)
    try:
        registry_path = REGISTRY_PATH.format(name=module_name.rpartition(".")[2])
        status = enter(driver_entry, driver_object, registry_path, dump)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"miniport = {name!r}: {_place(error, module_name)}: DriverEntry failed with {_said(error)}; mend it there"
        ) from error
    if not isinstance(status, int) or status != STATUS_SUCCESS or not driver_object.accepted:
        why = driver_object.refused or "it did not call initialize"
        said = f"{status:#010x}" if isinstance(status, int) else repr(status)
        raise ConfigError(
            f"miniport = {name!r}: DriverEntry returned {said}: {why}; a driver entry returns what "
            "hba.miniport.driver_entry.initialize does, STATUS_SUCCESS (0) when all is well"
        )
    return driver_object.accepted[0]


def _said(error: BaseException) -> str:
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {what}"


def _place(error: BaseException, module_name: str) -> str:
    """`file:line` of the module's own code that the error came from; its name when none of it was run."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen importlib") and frame.filename not in OURS
    ]
    if not frames:
        return f"module {module_name!r}"
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f"{own[-1].filename}:{own[-1].lineno}"
