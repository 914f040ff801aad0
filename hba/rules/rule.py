"""What a rule is. The catalogues beside this file hold all of them; `hba explain ID` prints one."""

from __future__ import annotations

from dataclasses import dataclass

# How a rule is held
ENFORCED = "enforced"  # the port or the device keeps it itself; breaking it would be our defect
VERIFIED = "verified"  # the other side (miniport, guest driver) must keep it; breaking it is a finding
NOT_APPLICABLE = "not applicable"

# How bad a finding is
NOTE = "note"  # worth knowing, nothing is broken
WARNING = "warning"  # legal, but asks for trouble; or the documents disagree
VIOLATION = "violation"  # the rule is broken


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of SCSI Port, Storport or of the guest driver's side of an adapter."""

    id: str  # "SP-02", "GD-01"; stable
    title: str  # a few words
    model: str  # "scsiport", "storport", "both", "guest"
    text: str  # the rule, in our words
    source: str  # title of the document(s)
    check: str  # what is enforced or checked here, and how
    held: tuple[str, ...]  # ENFORCED and/or VERIFIED, or NOT_APPLICABLE alone
    severity: str = VIOLATION  # of a finding
    counterpart: str = ""  # what Windows reports: "0xF1 parameter 0x1003", "static rule SpDuplex"
    why_not: str = ""  # reason, when not applicable
