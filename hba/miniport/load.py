"""From the configuration's `miniport = "..."` to a miniport: "dma" (the default), or "module:Class" of your own."""

from __future__ import annotations

import importlib
import traceback
from typing import Any

from hba.errors import ConfigError
from hba.miniport.base import Miniport
from hba.miniport.chip import Chip

BUILT_IN = {"dma": "hba.miniport.dma:DmaMiniport"}
EXPECTED = 'expected "dma" or "module:Class" of an importable module, such as "hba.miniport.examples.good:GoodMiniport"'


def miniport_class(name: str) -> type[Miniport]:
    """The class behind a name. Raises `ConfigError` that says what is wrong with it."""
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
    if not (isinstance(found, type) and issubclass(found, Miniport)):
        raise ConfigError(f"miniport = {name!r}: {class_name!r} is not a class derived from hba.miniport.base.Miniport")
    return found


def load_miniport(name: str, chip: Chip, options: dict[str, Any] | None = None) -> Miniport:
    """Make the miniport called `name` for `chip`. Its `port` is set by the port driver it is given to.

    Raises `ConfigError` for a bad name or a class that cannot be made without arguments.
    """
    kind = miniport_class(name)
    try:
        miniport = kind()
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"miniport = {name!r}: {_place(error, kind.__module__)}: {kind.__name__}() failed with {_said(error)}; "
            "a miniport's constructor takes no arguments"
        ) from error
    miniport.chip = chip
    miniport.options = dict(options or {})
    return miniport


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
        if not frame.filename.startswith("<frozen importlib") and frame.filename not in (__file__, importlib.__file__)
    ]
    if not frames:
        return f"module {module_name!r}"
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f"{own[-1].filename}:{own[-1].lineno}"
