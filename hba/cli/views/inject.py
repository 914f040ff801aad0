"""What `hba inject` prints: how a request has ended, the steps of a sequence, units that were found."""

from __future__ import annotations

from typing import Any

from hba.cli.output import duration, hexadecimal, line, pairs, say, table

MOST_ROWS = 32  # lines of a hexadecimal dump


def request(value: dict[str, Any]) -> None:
    """One request: its end in a line, then what came with it."""
    what = f"{value['function']} {value['unit'] or 'adapter'}"
    if not value["completed"]:
        why = "; ".join(map(str, value["blocked"]))
        say(f"{what}: not completed yet, {value['where'] or 'on its way'}{f' ({why})' if why else ''}")
        line(f"its end comes as an event: hba events --topic inject (id {value['id']})")
        return
    said = [f"{value['status']} ({hexadecimal(value['srb_status'], 2)})"]
    if value["frozen"]:
        said.append("the queue is frozen")
    said.append(duration(value["took"]))
    say(f"{what}: {', '.join(said)}")
    pairs(
        [
            ("scsi status", hexadecimal(value["scsi_status"], 2) if value["scsi_status"] else None),
            ("sense", f"{value['sense_text']} {value['sense']}".strip() or None),
            ("return code", None if value["return_code"] is None else hexadecimal(value["return_code"], 8)),
            ("length", value["length"] or None),
        ]
    )
    dump(str(value["data"]))


def in_a_line(event: dict[str, Any]) -> str:
    """The end of what was injected, for `hba events`."""
    ended = event["request"]
    if ended is not None:
        return f"{ended['function']} {ended['unit'] or 'adapter'}: {ended['status']} (id {ended['id']})"
    ended = event["sequence"]
    return f"{ended['what']}: the adapter is {ended['state']} (id {ended['id']})"


def dump(digits: str) -> None:
    """Bytes with their offsets and as text; the first of many."""
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        line(f"data that are not hexadecimal: {digits[:80]}")
        return
    for at in range(0, min(len(data), MOST_ROWS * 16), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        line(f"{at:04x}  {row.hex(' '):<47}  {text}")
    if len(data) > MOST_ROWS * 16:
        line(f"... {len(data)} bytes in all; --json has them")


def sequence(value: dict[str, Any]) -> None:
    """The steps, and what the adapter is then."""
    if not value["completed"]:
        say(f"{value['what']}: not over yet, it waits for {value['pending']}")
        line(f"its end comes as an event: hba events --topic inject (id {value['id']})")
        return
    say(f"{value['what']}: the adapter is {value['state']}")
    table(("step", "unit", "outcome"), [(step["what"], step["unit"], step["outcome"]) for step in value["steps"]], 2)
    if not value["steps"]:
        line("the miniport was told nothing")


def units(value: dict[str, Any]) -> None:
    found = value["units"]
    if not found:
        say("no unit answers")
    table(
        ("unit", "type", "vendor", "product", "revision", "serial", "pages"),
        [
            (
                unit["unit"],
                unit["device_type"],
                unit["vendor"],
                unit["product"],
                unit["revision"],
                unit["serial"],
                " ".join(f"{page:02x}" for page in unit["pages"]),
            )
            for unit in found
        ],
        0,
    )


def tracing(value: dict[str, Any]) -> None:
    if value["called"]:
        say(f"hw_tracing_enabled({value['enabled']}) was called ({value['model']})")
    else:
        say(f"nothing was called: {value['model']} has no such routine")
