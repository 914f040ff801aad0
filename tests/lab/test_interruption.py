"""A signal during a step: the step is named, what it was making goes, and the exit code says which signal it was."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hba.lab import interruption
from hba.lab.interruption import Interrupted
from hba.lab.progress import Progress

# Makes something below the folder it is given, for as long as it takes, in one step within another.
MAKING = """
import signal, sys
from pathlib import Path
from hba.lab import interruption
from hba.lab.cache import Cache
from hba.lab.progress import Progress

def build(folder, step):
    (folder / "half").write_text("made")
    print("ready", flush=True)
    while True:
        signal.pause()

interruption.listen()
try:
    progress = Progress()
    with progress.step("preparing"):
        Cache(progress, Path(sys.argv[1])).entry("thing", "making the thing", build)
except interruption.Interrupted as interrupted:
    sys.exit(interruption.told(interrupted))
"""


@pytest.mark.parametrize("number", interruption.ENDING)
def test_what_was_being_made_is_named_and_gone(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", MAKING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        assert (tmp_path / ".thing.building" / "half").exists()
        process.send_signal(number)
        said = process.stderr.read().splitlines()
        assert process.wait() == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == [".thing.lock"]
    assert [line.partition(" (")[0] for line in said[2:4]] == [
        "making the thing: interrupted",
        "preparing: interrupted",
    ]
    assert said[4:] == [f"interrupted by {number.name} while making the thing; everything is cleaned up"]


def test_a_step_that_fails_is_not_one_that_was_interrupted() -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError) as caught, Progress(stream).step("making it"):
        raise RuntimeError("no")
    assert "making it: failed (" in stream.getvalue() and not hasattr(caught.value, "__notes__")


def test_between_two_steps_there_is_none_to_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert interruption.told(Interrupted(signal.SIGTERM)) == 143
    assert capsys.readouterr().err == "interrupted by SIGTERM; everything is cleaned up\n"
