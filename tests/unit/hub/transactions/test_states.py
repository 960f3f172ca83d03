"""The states of an attempt: only the home's word ends what it was told to decide."""

import pytest

from hub.core.transactions.states import TRANSITIONS, Happening, Phase, after
from messagehub.errors import InternalError

ENDS = {Phase.COMMITTED, Phase.ROLLED_BACK}


def test_nothing_follows_an_end():
    assert not [phase for phase, _ in TRANSITIONS if phase in ENDS]


def test_only_the_home_ends_what_it_may_have_decided():
    leading_on = {happening for phase, happening in TRANSITIONS if phase is Phase.DECIDING}
    assert leading_on == {
        Happening.NOT_DECIDED,
        Happening.HOME_COMMITTED,
        Happening.HOME_ROLLED_BACK,
    }


def test_every_way_to_a_commit_is_the_homes_word():
    ways = {happening for (_, happening), to in TRANSITIONS.items() if to is Phase.COMMITTED}
    assert ways == {Happening.HOME_COMMITTED}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("happening", Happening)
def test_what_is_not_in_the_table_is_a_defect(phase, happening):
    if (phase, happening) in TRANSITIONS:
        assert after(phase, happening) in Phase
    else:
        with pytest.raises(InternalError):
            after(phase, happening)
