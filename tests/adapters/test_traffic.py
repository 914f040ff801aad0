from __future__ import annotations

from hba.adapters.traffic import Traffic, UnitTraffic
from hba.clock import US, S, VirtualClock


def made(start: int = 0) -> tuple[VirtualClock, Traffic]:
    clock = VirtualClock(start)
    return clock, Traffic(clock, lambda target, lun: target < 2)


def work(clock: VirtualClock, traffic: Traffic, count: int, latency: int, target: int = 0) -> None:
    run = traffic.taking(target, 0)
    run[0].taken += count
    clock.advance(latency)
    traffic.answered([run] * count)


def only(traffic: Traffic) -> UnitTraffic:
    (unit,) = traffic.snapshot()
    return unit


def test_what_completes_at_once_is_seen_as_having_been_outstanding() -> None:
    clock, traffic = made()
    work(clock, traffic, 16, 0)
    work(clock, traffic, 3, 0)
    unit = only(traffic)
    assert (unit["unit"], unit["requests"], unit["outstanding"], unit["highest"]) == ("0:0:0", 19, 0, 16)


def test_what_never_completes_counts_as_outstanding_and_has_no_latency() -> None:
    _, traffic = made()
    traffic.taking(1, 3)[0].taken += 5
    unit = only(traffic)
    assert (unit["unit"], unit["outstanding"], unit["highest"], unit["latency"]) == ("0:1:3", 5, 5, None)


def test_latencies_have_a_mean_a_longest_and_bounds() -> None:
    clock, traffic = made()
    work(clock, traffic, 98, 100 * US)  # 100 000 ns: below 2**17
    work(clock, traffic, 2, 3000 * US)  # below 2**22
    latency = only(traffic)["latency"]
    assert latency is not None
    assert latency["mean"] == (98 * 100 + 2 * 3000) * US // 100
    assert (latency["p50"], latency["p99"], latency["max"]) == (1 << 17, 3000 * US, 3000 * US)
    assert latency["histogram"] == {str(1 << 17): 98, str(1 << 22): 2}


def test_no_time_at_all_is_a_latency() -> None:
    clock, traffic = made()
    work(clock, traffic, 1, 0)
    latency = only(traffic)["latency"]
    assert latency == {"mean": 0, "p50": 0, "p99": 0, "max": 0, "histogram": {"1": 1}}


def test_requests_answered_together_go_each_to_its_own_unit_and_time() -> None:
    clock, traffic = made()
    early = traffic.taking(0, 0)
    early[0].taken += 1
    clock.advance(10)
    late, other = traffic.taking(0, 0), traffic.taking(1, 0)
    late[0].taken += 1
    other[0].taken += 1
    clock.advance(10)
    runs = [late, other, early]
    traffic.answered(runs)
    assert runs == []
    first, second = traffic.snapshot()
    assert first["latency"] is not None and second["latency"] is not None
    assert (first["requests"], first["latency"]["mean"], first["latency"]["max"]) == (2, 15, 20)
    assert (second["requests"], second["latency"]["max"]) == (1, 10)


def test_the_rate_is_of_the_last_seconds() -> None:
    clock, traffic = made(12 * S + S // 4)
    for _ in range(20):
        work(clock, traffic, 50, S // 2)
    clock.advance(S // 4)
    assert only(traffic)["per_second"] == 100.0
    clock.advance(3 * S)
    assert only(traffic)["per_second"] == round(250 / 5.5, 1)  # the last five seconds, and the half of this one
    clock.advance(3 * S)
    assert only(traffic)["per_second"] == 0.0
    work(clock, traffic, 11, 0)
    assert only(traffic)["per_second"] == 2.0
    assert only(traffic)["requests"] == 1011
    clock.advance(3600 * S)
    assert only(traffic)["per_second"] == 0.0


def test_the_rate_of_a_unit_that_has_just_begun_is_over_its_own_time() -> None:
    clock, traffic = made(12 * S + S // 4)
    work(clock, traffic, 100, S // 2)
    assert only(traffic)["per_second"] == 200.0


def test_units_that_do_not_exist_cost_nothing_however_many_are_asked() -> None:
    clock, traffic = made()
    for target in range(2, 256):
        work(clock, traffic, 1, 0, target)
    assert traffic.snapshot() == []
