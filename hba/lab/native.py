"""The hot modules as machine code, before an adapter is started for a guest: what a user gets is what is fast."""

from __future__ import annotations

from hba import compiled
from hba.compiled import build
from hba.errors import HbaError
from hba.lab.progress import Progress

TITLE = f"compiling the hot modules, once for this source ({compiled.PURE}=1 runs it as it is)"


def compile_first(progress: Progress) -> None:
    """Have the servers that are started from now on run the compiled modules, unless the source is asked for.

    Where they cannot be made (no compiler, no room), that is said, and the source runs: it is slower, and nothing else.
    """
    if compiled.source_wanted():
        return
    try:
        if compiled.folder().is_dir():
            return
        build.check()
        with progress.step(TITLE):
            build.build()
    except HbaError as error:
        progress.say(f"hba runs as Python source: {error}")
    except OSError as error:
        progress.say(f"hba runs as Python source: {build.not_kept(error)}")
