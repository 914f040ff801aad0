"""The user's folders, by environment. None is created here."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """For what can be made anew: `$HBA_CACHE`, else `$XDG_CACHE_HOME/hba`, else `~/.cache/hba`."""
    if explicit := os.environ.get("HBA_CACHE"):
        return Path(explicit).absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "hba"
    return Path.home() / ".cache" / "hba"


def state_root() -> Path:
    """For what users may want to look at later: `$XDG_STATE_HOME/hba`, else `~/.local/state/hba`."""
    if xdg := os.environ.get("XDG_STATE_HOME"):
        return Path(xdg).absolute() / "hba"
    return Path.home() / ".local" / "state" / "hba"
