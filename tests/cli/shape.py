"""What every error looks like."""

from __future__ import annotations

import json
import re

from hba.errors import EXITS

PROGRAMS = ("hba", "scripts/launch", "python -m hba.lab.prepare")


def check_error(err: str, code: int, words: tuple[str, ...], as_json: bool = False) -> str:
    """Fails unless `err` is one error of the shape for `code`, told to who ran `words`; the message."""
    lines = err.splitlines()
    assert lines and "Traceback" not in err, err
    if as_json:
        (line,) = lines
        error = json.loads(line)["error"]
        kinds = {known.code: known.kind for known in EXITS}
        assert (error["code"], error["kind"]) == (code, kinds[code]), err
        message: str = error["message"]
    else:
        assert all(line.startswith("error: ") for line in lines), err
        message = "\n".join(line.removeprefix("error: ") for line in lines)
    assert message and not message.endswith(".") and not re.search(r"[a-z]\. [A-Z]", message), err
    command = " ".join(word for word in words if word != "--json")
    assert not any(f"`{program} {command}`" in message for program in PROGRAMS), err  # advises what was just run
    return message
