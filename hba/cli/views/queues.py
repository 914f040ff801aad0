"""The adapter's rings, the port's queues, and every request in them."""

from __future__ import annotations

from typing import Any

from hba.cli.output import duration, hexadecimal, line, pairs, table


def view(value: dict[str, Any]) -> None:
    adapter = dict(value.get("adapter") or {})
    rings(adapter.pop("rings", None))
    messages(adapter.pop("messages", None) or {})
    seen = adapter.pop("traffic", None) or []
    pairs([(key.replace("_", " "), item) for key, item in adapter.items() if key != "type"])
    port(value.get("port") or {})
    class_driver(value.get("class_driver") or {})
    traffic(seen)


def rings(value: Any) -> None:
    if not isinstance(value, dict):
        line("rings: not set up")
        return
    rows = [
        (
            name,
            ring["entries"],
            ring.get("prod"),
            ring.get("cons"),
            _waiting(ring),
            ring.get("most_pending"),
            ", ".join(hexadecimal(page) for page in ring.get("pages", [])[:4])
            + (" ..." if len(ring.get("pages", [])) > 4 else ""),
        )
        for name, ring in value.items()
        if isinstance(ring, dict) and "entries" in ring
    ]
    table(("ring", "entries", "producer", "consumer", "waiting", "most", "pages"), rows)
    pairs(
        [
            (name.replace("_", " "), hexadecimal(item) if isinstance(item, int) else item)
            for name, item in value.items()
            if not isinstance(item, dict)
        ]
    )


def messages(value: dict[str, Any]) -> None:
    """What the guest has yet to be told of its units."""
    if value.get("waiting"):
        more = ", ..." if value["waiting"] > len(value["next"]) else ""
        line(f"{value['waiting']} messages wait for the message ring: {', '.join(value['next'])}{more}")
    if value.get("stuck"):
        line(f"stuck: {value['stuck']}")


def traffic(units: list[dict[str, Any]]) -> None:
    """What the guest sees of each unit, from a request's being taken from the ring to its answer."""
    if units:
        line("requests, from the ring and back to it (50 % and 99 %: in at most that time):")
    table(
        ("unit", "requests", "per second", "outstanding", "highest", "mean", "50 %", "99 %", "longest"),
        [
            (
                unit["unit"],
                unit["requests"],
                f"{unit['per_second']:.1f}",
                unit["outstanding"],
                unit["highest"],
                *(duration((unit["latency"] or {}).get(key)) for key in ("mean", "p50", "p99", "max")),
            )
            for unit in units
        ],
        4,
    )


def _waiting(ring: dict[str, Any]) -> object:
    if isinstance(ring.get("prod"), int) and isinstance(ring.get("cons"), int):
        return (ring["prod"] - ring["cons"]) & 0xFFFFFFFF
    return None


def port(value: dict[str, Any]) -> None:
    """The port's own state first, then the units, then the requests."""
    started = "started" if value.get("started") else "not started"
    line(f"{value.get('model', 'port')}: {started}, {value.get('outstanding', 0)} outstanding")
    for message in value.get("stuck") or []:
        line(f"stuck: {message}", 4)
    if value.get("last_crash"):
        line(f"last crash of the miniport: {value['last_crash']}", 4)
    state = value.get("adapter")
    if isinstance(state, dict):
        pairs([(key.replace("_", " "), item) for key, item in state.items()], 4)
    units = value.get("units") or []
    table(
        ("unit", "depth", "outstanding", "queued", "started", "completed", "time left", "blocked by"),
        [
            (
                unit.get("address"),
                unit.get("depth"),
                _count(unit.get("outstanding")),
                _count(unit.get("queued")),
                unit.get("started"),
                unit.get("completed"),
                f"{unit['timeout_left']} s" if unit.get("timeout_left", -1) >= 0 else "-",
                "; ".join(reasons(unit)) or "-",
            )
            for unit in units
        ],
        4,
    )
    requests(units)


def class_driver(value: dict[str, Any]) -> None:
    """The layer between the adapter and the port, where there is one."""
    if not value:
        return
    line(
        f"class driver: {value['outstanding']} outstanding, {value['waiting']} wait for their next try, "
        f"TimeOutValue {value['time_out_value']} s, {value['enumerations']} enumerations"
    )
    pairs(value["counters"].items(), 4)
    table(
        ("unit", "type", "vendor", "product", "errors"),
        [
            (unit["address"], unit["device_type"], unit["vendor"], unit["product"], unit["errors"])
            for unit in value["units"]
        ],
        4,
    )


def reasons(unit: dict[str, Any]) -> list[str]:
    """Why nothing is started at this unit, in the port's own words."""
    found: list[str] = []
    for key in ("blocked", "blocked_by"):
        value = unit.get(key)
        if isinstance(value, list):
            found += map(str, value)
        elif value:
            found.append(str(value))
    if unit.get("frozen"):
        found.append(f"frozen by {unit.get('frozen_by') or '?'} for {unit.get('frozen_ms')} ms")
    if unit.get("retrying"):
        found.append(f"retrying {unit['retrying']}")
    if unit.get("locked") and not any("lock" in reason.lower() for reason in found):
        found.append("locked")
    if unit.get("powered") is False:
        found.append("not powered")
    return found


def _count(value: Any) -> object:
    return len(value) if isinstance(value, list) else value


def requests(units: list[dict[str, Any]]) -> None:
    rows = [
        (
            unit.get("address"),
            request.get("number") or "-",
            request.get("where"),
            "-" if request.get("age_ms") is None else f"{request['age_ms']} ms",
            what(request),
            request.get("length"),
            "-" if request.get("tag") == 0xFF else request.get("tag"),
        )
        for unit in units
        for queue in ("outstanding", "queue", "queued")
        for request in _listed(unit.get(queue))
    ]
    table(("unit", "srb", "where", "age", "what", "bytes", "tag"), rows, 4)


def _listed(value: Any) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else []


def what(request: dict[str, Any]) -> str:
    if request.get("function"):
        return str(request.get("command") or f"function {hexadecimal(request['function'], 2)}")
    cdb = str(request.get("cdb", ""))
    name = request.get("command") or (f"operation {cdb[:2].upper()}h" if cdb else "no CDB")
    return f"{name} {cdb}".rstrip()
