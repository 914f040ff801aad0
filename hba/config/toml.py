"""A TOML file read and parsed, whoever it comes from: bounded, and the same language whatever is installed.

The language is TOML 1.1 (tables in braces over several lines, trailing commas in them), which tomli reads since 2.4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli

from hba.errors import ConfigError

LARGEST = 4 << 20  # bytes of a configuration file; anything larger is not one
_NEW = "a = {\n}"  # no TOML before 1.1


def read(file: Path) -> str:
    """The text of `file`; of one that has no end (a device, a pipe) no more than may be. Raises `ConfigError`."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise ConfigError(f"{file}: larger than {LARGEST >> 20} MiB, this is no configuration file")
        return raw.decode()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give the path of a TOML file (docs/examples has some)") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text at byte {error.start}; a configuration is a TOML file") from error


def parse(text: str, file: Path) -> dict[str, Any]:
    """The tables in the text of `file`. Raises `ConfigError`."""
    try:
        return tomli.loads(text)
    except (tomli.TOMLDecodeError, RecursionError) as error:
        old = "" if _reads_new() else "; tomli here reads no TOML 1.1: install tomli 2.4 or later"
        raise ConfigError(f"{file}: not valid TOML: {error}{old}") from error


def _reads_new() -> bool:
    try:
        tomli.loads(_NEW)
    except tomli.TOMLDecodeError:
        return False
    return True
