"""Rules of dump mode: a miniport that writes the memory of a system which has crashed, or hibernates (DM)."""

from __future__ import annotations

from hba.rules.rule import ENFORCED, VERIFIED, VIOLATION, WARNING, Rule

RESTRICTIONS = "Restrictions on Miniport Drivers that Manage the Boot Drive"


def _rule(
    id: str,
    title: str,
    text: str,
    source: str,
    check: str,
    held: tuple[str, ...] = (VERIFIED,),
    severity: str = VIOLATION,
    model: str = "both",
) -> Rule:
    return Rule(id, title, model, text, source, check, held, severity, "")


DUMP_RULES: tuple[Rule, ...] = (
    _rule(
        "DM-01",
        "a dump is written by polling",
        "In dump mode a second miniport of the same kind has the adapter; DumpMode, dump=1 in ArgumentString and NULL "
        "arguments of DriverEntry tell it. Its routines run above PASSIVE_LEVEL, HwFindAdapter at HIGH_LEVEL; one "
        "request at a time is sent to a unit, which is accessible as soon as HwInitialize has returned.",
        f"{RESTRICTIONS}; HW_FIND_ADAPTER, PORT_CONFIGURATION_INFORMATION (storport.h)",
        "All callbacks run at HIGH_LEVEL (LB-01), there are no interrupts, messages or passive initialisation; "
        "hw_interrupt is called each millisecond. A command that has not ended after 10 s is reported.",
        (ENFORCED, VERIFIED),
    ),
    _rule(
        "DM-02",
        "memory is scarce in a dump",
        "In dump mode a miniport does not allocate more than 32 KiB.",
        f"{RESTRICTIONS}; RequestedDumpBufferSize of PORT_CONFIGURATION_INFORMATION (storport.h)",
        "Uncached extension and DMA memory count; RequestedDumpBufferSize, when Windows ran, may have asked for more.",
    ),
    _rule(
        "DM-03",
        "no DPCs and no time of day in a dump",
        "In dump mode StorPortInitializeDpc is not called, and the system's time is not relied on.",
        RESTRICTIONS,
        "Both calls are reported. They do their work.",
    ),
    _rule(
        "DM-04",
        "memory of a hibernation is marked",
        "With DUMP_MODE_MARK_MEMORY and DUMP_MODE_HIBER a miniport calls StorPortMarkDumpMemory for what it uses, in "
        "HwFindAdapter.",
        "StorPortMarkDumpMemory (storport.h)",
        "hw_find_adapter that has allocated memory, and returns without one such call, is reported.",
        (VERIFIED,),
        WARNING,
        "storport",
    ),
    _rule(
        "DM-05",
        "the adapter is taken over",
        "What the crashed system has sent to the adapter is no business of the miniport in dump mode: it resets the "
        "adapter before it uses it (inferred).",
        RESTRICTIONS,
        "Commands that are still with the adapter, or whose ends it still tells, when hw_initialize has returned are "
        "reported.",
        (VERIFIED,),
        WARNING,
    ),
)
