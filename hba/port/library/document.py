"""Makes the tables of docs/miniports.md, "Every documented routine". `hba.cli.document` writes them."""

from __future__ import annotations

from collections.abc import Sequence

from hba.miniport.services import ScsiPortServices, StorPortServices
from hba.port.context import IRQL_NAMES
from hba.port.library.documented import CALLBACKS, GOES_ON, SCSIPORT_ROUTINES, STORPORT_ROUTINES, Routine

BEGIN = "<!-- From here to the end: generated from hba/port/library by `python -m hba.cli.document docs`. -->"
HEAD = """\
## Every documented routine

Here are {storport}, {scsiport},
{macros}, and {callbacks}. A call of a routine that is not here raises
an exception with its documented name.

IRQL: the highest a routine may be called at. *fails*: above it, with STOR_STATUS_INVALID_IRQL; elsewhere such a call is
a finding (LB-01). What a routine does, its status codes and its source are in hba/port/library, signatures in
hba/miniport/routines.py and services.py.
"""
SERVICES: dict[str, type] = {"scsiport": ScsiPortServices, "storport": StorPortServices}


def rendered(document: str) -> str:
    """`document` with its generated end made anew. Raises ValueError when the mark is not in it."""
    return document[: document.index(BEGIN)] + BEGIN + "\n\n" + tables()


def is_here(routine: Routine) -> bool:
    return routine.name == "initialize" or hasattr(SERVICES[routine.model], routine.name)


def tables() -> str:
    """Everything Microsoft documents for a miniport, and what it is here."""
    stor, stor_macros = _split(STORPORT_ROUTINES)
    scsi, scsi_macros = _split(SCSIPORT_ROUTINES)
    parts = [
        HEAD.format(
            storport=f"{_counted(stor)} of the {len(stor)} StorPort functions",
            scsiport=f"{_counted(scsi)} of the {len(scsi)} SCSI Port functions",
            macros=f"{_counted(stor_macros)} and {_counted(scsi_macros)} of "
            f"{len(stor_macros)} and {len(scsi_macros)} register macros",
            callbacks=f"{sum(bool(one.here) for one in CALLBACKS)} of {len(CALLBACKS)} callbacks",
        ),
        "### Storport\n",
        _table(stor),
        "### SCSI Port\n",
        _table(scsi),
        "### Register macros\n",
        "At any IRQL, of both models unless it says otherwise.\n",
        _macros(),
        "### Callbacks\n",
        "| documented | here |",
        "|---|---|",
        *(f"| {one.documented} | {one.here or 'not here: ' + one.why_not} |" for one in CALLBACKS),
    ]
    return "\n".join(parts) + "\n"


def _split(routines: Sequence[Routine]) -> tuple[list[Routine], list[Routine]]:
    """Functions and macros."""
    return [one for one in routines if not one.macro], [one for one in routines if one.macro]


def _counted(routines: Sequence[Routine]) -> int:
    return sum(is_here(routine) for routine in routines)


def _table(routines: Sequence[Routine]) -> str:
    lines = ["| documented | here | IRQL |", "|---|---|---|"]
    for routine in routines:
        lines.append(f"| {routine.documented} | {_what(routine)} | {_irql(routine) if is_here(routine) else ''} |")
    return "\n".join(lines) + "\n"


def _what(routine: Routine) -> str:
    if routine.name == "initialize":
        return "`hba.miniport.driver_entry.initialize`"
    return f"`{routine.name}`" if is_here(routine) else f"not here: {routine.why_not or 'nobody has built it yet'}"


def _irql(routine: Routine) -> str:
    if routine.most is None:
        return f"from {IRQL_NAMES[routine.least]}" if routine.least else ""
    limit = IRQL_NAMES[routine.most]
    only = "at " if routine.least == routine.most and routine.most else ""
    return only + limit + (", fails" if routine.refused != GOES_ON else "")


def _macros() -> str:
    scsi = {routine.name: routine.documented for routine in SCSIPORT_ROUTINES if routine.macro}
    lines = ["| Storport | SCSI Port | here |", "|---|---|---|"]
    for routine in STORPORT_ROUTINES:
        if routine.macro:
            lines.append(f"| {routine.documented} | {scsi.get(routine.name, '-')} | {_what(routine)} |")
    return "\n".join(lines) + "\n"
