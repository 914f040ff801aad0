"""What a unit must remember over a power loss: saved mode pages, reservations with APTPL.

One small JSON file per unit, replaced atomically and synced before the command that changed it ends. Without a path
nothing can be saved, and the unit says so: PS=0 in mode pages, PTPL_C=0 in REPORT CAPABILITIES.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hba.errors import StorageError


class SavedState:
    """Sections of JSON data by name ("mode_pages", "reservations")."""

    def __init__(self, path: Path | None) -> None:
        """Raises `StorageError` when the file is there and is not ours to read."""
        self.path = path
        self._sections: dict[str, Any] = {}
        if path is not None and path.exists():
            try:
                loaded = json.loads(path.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise StorageError(
                    f"{path}: the unit's saved state cannot be read ({error}); repair or remove the file"
                ) from error
            if not isinstance(loaded, dict):
                raise StorageError(f"{path}: this is not a unit's saved state; choose another `state_file`")
            self._sections = loaded

    @property
    def available(self) -> bool:
        return self.path is not None

    def get(self, section: str) -> Any:
        """What was saved under this name, or None."""
        return self._sections.get(section)

    def put(self, section: str, value: Any) -> None:
        """Save durably. Raises `StorageError` when that does not work."""
        path = self.path
        if path is None:
            return
        sections = {**self._sections, section: value}
        temporary = path.with_name(path.name + ".new")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(sections, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StorageError(
                f"{path}: the unit's state cannot be saved: {error.strerror}", error.errno or 0
            ) from error
        self._sections = sections
