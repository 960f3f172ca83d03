"""How contenders are compared, and what a reader is told."""

import json
from itertools import count

import pytest

from benchmarks.harness import Contender, Figures, Hope, Outcome, Subject, compare
from benchmarks.report import Report, as_json, markdown


def contender(name: str, *rounds: Figures, hope: Hope | None = None) -> Contender:
    left = iter(rounds)

    async def measure() -> Figures:
        return next(left)

    return Contender(name, "on disk", measure, hope)


def rates(*values: float) -> list[Figures]:
    return [{"per_second": value} for value in values]


async def outcome_of(*contenders: Contender, rounds: int = 3) -> Outcome:
    return await compare(Subject("s", "A subject", "per_second", contenders), rounds)


def report_of(*outcomes: Outcome, not_run: tuple[str, ...] = ()) -> Report:
    return Report(3, 1.0, outcomes, not_run, load_before=(0.0, 0.0, 0.0))


async def test_contenders_take_turns() -> None:
    order = count()
    taken: dict[str, list[float]] = {"a": [], "b": []}

    def one(name: str) -> Contender:
        async def measure() -> Figures:
            taken[name].append(next(order))
            return {"per_second": 1.0}

        return Contender(name, "", measure)

    await outcome_of(one("a"), one("b"))
    assert taken == {"a": [0, 2, 4], "b": [1, 3, 5]}


async def test_a_ratio_is_of_figures_of_the_same_round() -> None:
    outcome = await outcome_of(
        contender("base", *rates(100, 1000, 10)), contender("other", *rates(200, 3000, 10))
    )
    other = outcome.rows[1]
    assert other.ratios == [2.0, 3.0, 1.0]
    assert other.ratio == 2.0
    assert other.median("per_second") == 200
    assert other.spread("per_second") == (10, 3000)


@pytest.mark.parametrize(
    ("hope", "ratio", "met"),
    [
        (Hope("per_second", 2.0, at_least=True, reason=""), 2.0, True),
        (Hope("per_second", 2.0, at_least=True, reason=""), 1.9, False),
        (Hope("p50_ms", 1.3, at_least=False, reason=""), 1.3, True),
        (Hope("p50_ms", 1.3, at_least=False, reason=""), 1.4, False),
    ],
)
def test_a_hope_has_a_side(*, hope: Hope, ratio: float, met: bool) -> None:
    assert hope.met(ratio) is met


async def test_what_is_slower_than_hoped_is_said_with_the_reason() -> None:
    hope = Hope("per_second", 3.0, at_least=True, reason="Two hops.")
    outcome = await outcome_of(
        contender("base", *rates(100, 100, 100)),
        contender("hub", *rates(200, 200, 200), hope=hope),
    )
    text = markdown(report_of(outcome, not_run=("etcd (there is none)",)))
    assert "2.00 (**not** at least 3.0)" in text
    assert "- hub: 2.00, hoped for at least 3.0. Two hops." in text
    assert "Not run: etcd (there is none)." in text
    assert "on disk" in text


async def test_what_is_as_fast_as_hoped_needs_no_reason() -> None:
    hope = Hope("per_second", 3.0, at_least=True, reason="Two hops.")
    outcome = await outcome_of(
        contender("base", *rates(100, 100, 100)),
        contender("hub", *rates(400, 400, 400), hope=hope),
    )
    text = markdown(report_of(outcome))
    assert "4.00 (at least 3.0)" in text
    assert "Two hops." not in text


async def test_the_figures_of_every_round_are_kept() -> None:
    outcome = await outcome_of(contender("base", *rates(1, 2, 3)))
    (subject,) = json.loads(as_json(report_of(outcome)))["subjects"]
    (base,) = subject["contenders"]
    assert [one["per_second"] for one in base["rounds"]] == [1, 2, 3]
    assert base["median"] == {"per_second": 2}
