"""Rules of the routines a miniport calls, beyond those of its requests, buffers and locks (LB)."""

from __future__ import annotations

from hba.rules.rule import ENFORCED, VERIFIED, VIOLATION, Rule

_BOTH = (ENFORCED, VERIFIED)


def _rule(
    id: str,
    title: str,
    text: str,
    source: str,
    check: str,
    held: tuple[str, ...] = _BOTH,
    counterpart: str = "",
    model: str = "both",
) -> Rule:
    return Rule(id, title, model, text, source, check, held, VIOLATION, counterpart)


LIBRARY_RULES: tuple[Rule, ...] = (
    _rule(
        "LB-01",
        "a routine at its IRQL",
        "Each routine of the port may be called up to the IRQL its page says; some fail above it with "
        "STOR_STATUS_INVALID_IRQL.",
        "the pages of the routines (storport.h); Irql rule set",
        "The table in hba/port/library/documented.py. A call above its limit is reported, and fails where its page "
        "says so, with the verifier and without.",
        _BOTH,
        "static rule StorPortIrql",
    ),
    _rule(
        "LB-02",
        "a routine where it may be called",
        "Some routines are for certain callbacks alone: bus data for HwFindAdapter and for ScsiSetRunningConfig and "
        "ScsiSetBootConfig, bus type, feature list and dump memory for HwFindAdapter, PoFx registration for the "
        "passive initialisation, and so on.",
        "the pages of the routines (storport.h, srb.h)",
        "A call from elsewhere fails, with the status its page has for it, and is reported.",
    ),
    _rule(
        "LB-03",
        "registers inside of what was mapped",
        "The Read and Write routines take addresses that GetDeviceBase returned, within the mapped range, and of the "
        "space (registers or ports) they are for.",
        "StorPortGetDeviceBase; ScsiPortGetDeviceBase; Bug Check 0xF1 SCSI_VERIFIER_DETECTED_VIOLATION",
        "Each access is checked. One outside reads all ones or goes nowhere, and is reported.",
        _BOTH,
        "0xF1 parameter 0x2005",
    ),
    _rule(
        "LB-04",
        "what the library handed out goes back to it once",
        "Timers, work items, pool, DMA and registry memory, memory descriptor lists and scatter/gather lists are freed "
        "once, with the arguments they were allocated with, and not used afterwards; an entry is on one list.",
        "the pages of the routines (storport.h)",
        "A handle or memory that is not the port's, or not any more, is refused with the status the page has for it, "
        "and reported.",
    ),
)
