"""Rules of the guest driver's side, from what only the device sees (GD), that hold for every adapter.

They follow from what a PCI function with registers and DMA is, not from a port model, so they hold for any guest and
either model. Those that follow from one adapter's interface are beside that adapter, in its `rules`.
"""

from __future__ import annotations

from hba.rules.rule import VERIFIED, VIOLATION, WARNING, Rule

_PVSCSI = "PVSCSI interface definition (rings, descriptors, registers)"  # where they were found first


def _rule(id: str, title: str, text: str, check: str, severity: str = VIOLATION, source: str = _PVSCSI) -> Rule:
    return Rule(id, title, "guest", text, source, check, (VERIFIED,), severity)


GUEST_RULES: tuple[Rule, ...] = (
    _rule(
        "GD-07",
        "DMA outside guest memory",
        "Every address given to the device (data, scatter list, sense buffer) lies in memory the device may reach.",
        "Checked against the DMA maps with the transfer's direction; the request fails with an adapter error.",
    ),
    _rule(
        "GD-10",
        "DMA memory removed in flight",
        "Memory stays mapped for DMA until the requests that use it have completed.",
        "Unmaps while requests are in flight are kept; a request whose memory is gone at its completion is reported.",
    ),
    _rule(
        "GD-11",
        "undefined register",
        "Only declared registers are accessed.",
        "Every access to an offset without a register is reported once per offset and direction.",
        WARNING,
    ),
    _rule(
        "GD-12",
        "wrong register width",
        "Registers are accessed with their own width (32 bits for PVSCSI), aligned.",
        "Every narrower, wider or unaligned access is reported once per register, direction and width.",
        WARNING,
    ),
    _rule(
        "GD-13",
        "wrong register direction",
        "A read-only register is not written, a write-only one not read.",
        "Reported once per register and direction.",
        WARNING,
    ),
    _rule(
        "GD-20",
        "DMA asked for with bus mastering off",
        "The driver sets the bus master bit before it asks the device to reach memory; until then the device must not.",
        "A kick, or a command with addresses, while the bit is clear. The command fails. Linux's vmw_pvscsi asks "
        "for its configuration page before it sets the bit, which shows when it is bound a second time.",
        WARNING,
        "PCI Local Bus Specification 3.0, section 6.2.2 (Command register)",
    ),
)
