"""Files that the user names."""

from __future__ import annotations

from pathlib import Path


def is_file(path: str | Path) -> bool:
    """Whether there is a file (not a folder). A name that no file can have is none, not an error."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def exists(path: Path) -> bool:
    """Whether there is anything of that name."""
    try:
        return path.exists()
    except OSError:
        return False
