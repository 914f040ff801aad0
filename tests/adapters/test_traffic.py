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


def test_a_unit_that_is_asked_for_again_is_the_same_and_nobody_else() -> None:
    clock, traffic = made()
    traffic.taking(0, 1)  # which was refused then: nothing has been taken
    work(clock, traffic, 2, 0, target=1)
    work(clock, traffic, 3, 0, target=1)
    assert [(unit["unit"], unit["requests"], unit["highest"]) for unit in traffic.snapshot()] == [
        ("0:0:1", 0, 0),
        ("0:1:0", 5, 3),
    ]


def answer(traffic: Traffic, count: int) -> None:
    run = traffic.taking(0, 0)
    run[0].taken += count
    traffic.answered([run] * count)


def test_a_second_begins_with_its_first_nanosecond() -> None:
    """What is answered then is of that second, for whoever looks at the last ones, and no longer than for five more."""
    for begin in (13 * S, 13 * S + S // 10):
        clock, traffic = made(12 * S + S // 4)
        traffic.taking(0, 0)
        clock.advance(begin - clock.now())
        answer(traffic, 100)
        clock.advance(19 * S - 1 - clock.now())
        assert only(traffic)["per_second"] == round(100 * S / (6 * S - 1), 1)
        clock.advance(1)
        assert only(traffic)["per_second"] == 0.0


def test_what_the_first_second_had_is_forgotten_with_it() -> None:
    clock, traffic = made(12 * S + S // 4)
    answer(traffic, 100)
    clock.advance(18 * S - 1 - clock.now())
    assert only(traffic)["per_second"] > 0
    clock.advance(1)
    assert only(traffic)["per_second"] == 0.0
    clock, traffic = made(12 * S + S // 4)
    answer(traffic, 100)
    clock.advance(18 * S + S // 2 - clock.now())  # nobody has looked in between
    assert only(traffic)["per_second"] == 0.0


def test_half_of_the_requests_and_all_but_one_of_a_hundred() -> None:
    """A bound holds for as many as it says, not for one less."""
    fast, slow = 100, 100_000  # ns: below 2**7 and 2**17
    for quick, of, p50, p99 in (
        (50, 100, 128, slow),
        (49, 100, slow, slow),
        (99, 100, 128, 128),
        (199, 400, slow, slow),
    ):
        clock, traffic = made()
        work(clock, traffic, quick, fast)
        work(clock, traffic, of - quick, slow)
        latency = only(traffic)["latency"]
        assert latency is not None
        assert (latency["p50"], latency["p99"]) == (p50, p99), (quick, of)
