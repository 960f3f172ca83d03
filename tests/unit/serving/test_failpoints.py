"""Failpoints: what they do, when, and that a wrong one is refused."""

import pytest

from messagehub.serving import failpoints
from messagehub.serving.failpoints import VARIABLE, from_environment


class Faults:
    def __init__(self, text: str | None) -> None:
        self.kills = 0
        self.slept: list[float] = []
        environment = {} if text is None else {VARIABLE: text}
        self.reached = from_environment(environment, kill=self._kill, sleep=self.slept.append)

    def _kill(self) -> None:
        self.kills += 1


@pytest.mark.parametrize("text", [None, ""])
def test_nothing_happens_unless_it_is_asked_for(text):
    faults = Faults(text)
    faults.reached("home.committed")
    assert (faults.kills, faults.slept) == (0, [])


def test_this_process_has_none():
    failpoints.reached("coordinator.decided")


def test_a_place_kills():
    faults = Faults("home.committed=kill")
    faults.reached("home.before_commit")
    assert faults.kills == 0
    faults.reached("home.committed")
    assert faults.kills == 1


def test_a_place_kills_at_its_time():
    faults = Faults("home.committed=kill@3")
    for kills in (0, 0, 1, 1):
        faults.reached("home.committed")
        assert faults.kills == kills


def test_a_place_sleeps_each_time_and_several_are_joined():
    faults = Faults("a.b=sleep:0.25, c.d=kill")
    faults.reached("a.b")
    faults.reached("a.b")
    faults.reached("c.d")
    assert (faults.slept, faults.kills) == ([0.25, 0.25], 1)


@pytest.mark.parametrize(
    "text",
    [
        "a.b",
        "=kill",
        "a.b=die",
        "a.b=kill@",
        "a.b=kill@x",
        "a.b=kill@0",
        "a.b=sleep",
        "a.b=sleep:x",
        "a.b=kill,",
    ],
)
def test_what_says_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        Faults(text)
