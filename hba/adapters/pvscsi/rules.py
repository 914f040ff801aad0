"""Rules of PVSCSI's drivers (GD), from what only the device sees. Those of any adapter's are in `hba.rules.guest`."""

from __future__ import annotations

from hba.rules.rule import NOTE, VERIFIED, VIOLATION, WARNING, Rule

_SOURCE = "PVSCSI interface definition (rings, descriptors, registers)"


def _rule(id: str, title: str, text: str, check: str, severity: str = VIOLATION) -> Rule:
    return Rule(id, title, "guest", text, _SOURCE, check, (VERIFIED,), severity)


PVSCSI_RULES: tuple[Rule, ...] = (
    _rule(
        "GD-01",
        "request descriptor rewritten",
        "From the moment reqProdIdx passes a request descriptor until reqConsIdx does, it is the device's.",
        "The descriptors of a batch are copied when it is first seen; each is compared with its copy when it is taken.",
    ),
    _rule(
        "GD-02",
        "scatter list rewritten",
        "A request's scatter/gather list is the device's until the request has completed.",
        "A digest of the list is taken with the request and compared when it completes.",
    ),
    _rule(
        "GD-03",
        "completions not consumed",
        "The driver takes completions from the ring and advances cmpConsIdx.",
        "Completions that stay on the ring for 10 s while cmpConsIdx does not move are reported once, with a count.",
        WARNING,
    ),
    _rule(
        "GD-04",
        "cmpConsIdx makes no sense",
        "cmpConsIdx only moves forward, and never beyond cmpProdIdx.",
        "Compared with the device's own index and its last value at every batch and completion check.",
    ),
    _rule(
        "GD-05",
        "reqProdIdx jumped",
        "reqProdIdx is never more than the ring's entries ahead of reqConsIdx.",
        "The device stops looking at the request ring until it is reset, and says why.",
    ),
    _rule(
        "GD-06",
        "context reused in flight",
        "A context names one request until its completion has been posted.",
        "Contexts of the requests in flight are kept; a second request with one of them is reported.",
    ),
    _rule(
        "GD-08",
        "scatter entries overlap",
        "The pieces of a buffer the device is to write do not overlap: which bytes win would be undefined.",
        "The scatter list of each transfer towards the guest is checked for pieces that overlap.",
    ),
    _rule(
        "GD-09",
        "malformed scatter list",
        "A scatter list describes at least dataLen bytes, in at most 128 segments that each lie in one page.",
        "Read with those bounds; the request fails with DATARUN.",
    ),
    _rule(
        "GD-14",
        "kick without work",
        "A kick announces at least one request.",
        "A kick that finds no request on the ring, with no abort or reset after it: drivers kick before those to drain "
        "the ring.",
        NOTE,
    ),
    _rule(
        "GD-15",
        "work without kick",
        "Requests put on the ring are announced by a kick, but for those of a driver that has asked for "
        "reqCallThreshold while they are fewer than that.",
        "Requests that lie on the ring for a second with no kick or look since are reported, and those a look has "
        "taken without a kick for a second from a driver that has not asked for the threshold.",
    ),
    _rule(
        "GD-16",
        "reset with requests outstanding",
        "A driver that resets the adapter or sets up its rings anew ends its requests first, or expects to lose them.",
        "ADAPTER_RESET, SETUP_RINGS or a device reset while requests are outstanding. Error recovery does this.",
        NOTE,
    ),
    _rule(
        "GD-17",
        "interrupt not acknowledged",
        "With INTx the driver clears the cause in INTR_STATUS, or the line stays up.",
        "A line that is up for 10 s without a write to INTR_STATUS. Does not apply to MSI and MSI-X.",
        WARNING,
    ),
    _rule(
        "GD-18",
        "malformed request",
        "bus is 0, cdbLen is 1 to 16, reserved flags are clear, at most one direction is set and one is with data.",
        "Each descriptor is checked as it is taken.",
        WARNING,
    ),
    _rule(
        "GD-19",
        "kick before the rings are set up",
        "SETUP_RINGS comes before the first kick, and again after every ADAPTER_RESET.",
        "A kick without rings. Error recovery kicks before it resets, so only kicks after a reset count.",
        WARNING,
    ),
)
