"""The checker of list histories finds every kind of fault that is planted, and nothing else."""

import random

import pytest

from tests.support.histories import Append, History, ListTransaction, Outcome, Read
from tests.support.list_append_checker import anomalies

ABORTED, UNKNOWN = Outcome.ABORTED, Outcome.UNKNOWN
X, Y, Z = "x", "y", "z"


def transaction(
    name: str, *operations: Append | Read, outcome: Outcome = Outcome.COMMITTED
) -> ListTransaction:
    return ListTransaction(name, list(operations), outcome)


def history(*transactions: ListTransaction, **final: tuple[int, ...]) -> History:
    return History(list(transactions), dict(final))


def kinds(checked: History) -> set[str]:
    return {one.partition(":")[0] for one in anomalies(checked)}


def test_a_serial_history() -> None:
    checked = history(
        transaction("t1", Append(X, 1), Append(Y, 2)),
        transaction("t2", Read(X, (1,)), Append(X, 3), Read(X, (1, 3))),
        transaction("t3", Append(Y, 4), Append(Y, 5), outcome=ABORTED),
        transaction("t4", Read(X, (1, 3)), Read(Y, (2,)), Read(Z, ())),
        transaction("t5", Append(Z, 6), outcome=UNKNOWN),
        x=(1, 3),
        y=(2,),
    )
    assert anomalies(checked) == []


def test_what_was_unknown_and_is_there_is_no_fault() -> None:
    checked = history(
        transaction("t1", Append(X, 1), Append(Y, 2), outcome=UNKNOWN),
        transaction("t2", Read(X, (1,)), Read(Y, (2,))),
        x=(1,),
        y=(2,),
    )
    assert anomalies(checked) == []


def test_a_lost_append() -> None:
    checked = history(transaction("t1", Append(X, 1)), transaction("t2", Append(X, 2)), x=(2,))
    assert anomalies(checked) == ["lost: Append(key='x', value=1) of t1 is not there at the end"]


def test_an_append_done_twice() -> None:
    checked = history(transaction("t1", Append(X, 1)), x=(1, 1))
    assert "duplicate" in kinds(checked)


def test_a_value_from_nowhere() -> None:
    assert kinds(history(transaction("t1", Read(X, (7,))))) == {"garbage"}


def test_a_value_in_the_wrong_list() -> None:
    checked = history(transaction("t1", Append(X, 1)), transaction("t2", Read(Y, (1,))), x=(1,))
    assert kinds(checked) == {"garbage"}


def test_an_aborted_read() -> None:
    aborted = transaction("t1", Append(X, 1), outcome=ABORTED)
    assert kinds(history(aborted, transaction("t2", Read(X, (1,))))) == {"G1a"}
    assert kinds(history(aborted, x=(1,))) == {"G1a"}


def test_an_intermediate_read() -> None:
    checked = history(
        transaction("t1", Append(X, 1), Append(X, 2)), transaction("t2", Read(X, (1,))), x=(1, 2)
    )
    assert "G1b" in kinds(checked)


@pytest.mark.parametrize("seen", [(1,), (3,), (3, 1)])
def test_a_transaction_that_does_not_see_itself(seen: tuple[int, ...]) -> None:
    checked = history(
        transaction("t1", Append(X, 1)),
        transaction("t2", Read(X, (1,)), Append(X, 3), Read(X, seen)),
        x=(1, 3),
    )
    assert "internal" in kinds(checked)


def test_a_read_that_cannot_be_repeated() -> None:
    checked = history(
        transaction("t1", Append(X, 1)), transaction("t2", Read(X, ()), Read(X, (1,))), x=(1,)
    )
    assert "internal" in kinds(checked)


def test_a_fractured_read() -> None:
    checked = history(
        transaction("t1", Append(X, 1), Append(Y, 2)),
        transaction("t2", Read(X, (1,)), Read(Y, ())),
        x=(1,),
        y=(2,),
    )
    assert kinds(checked) == {"fractured", "G-single"}


def test_orders_that_diverge() -> None:
    checked = history(
        transaction("t1", Append(X, 1)),
        transaction("t2", Append(X, 2)),
        transaction("t3", Read(X, (2,))),
        x=(1, 2),
    )
    assert kinds(checked) == {"diverging"}


def test_a_cycle_of_writes() -> None:
    checked = history(
        transaction("t1", Append(X, 1), Append(Y, 4)),
        transaction("t2", Append(X, 2), Append(Y, 3)),
        x=(1, 2),
        y=(3, 4),
    )
    assert anomalies(checked) in (["G0: t1 -> t2 -> t1"], ["G0: t2 -> t1 -> t2"])


def test_a_cycle_of_information() -> None:
    checked = history(
        transaction("t1", Append(X, 1), Read(Y, (2,))),
        transaction("t2", Append(Y, 2), Read(X, (1,))),
        x=(1,),
        y=(2,),
    )
    assert kinds(checked) == {"G1c"}


def test_a_cycle_with_one_overtaking() -> None:
    """It saw the later of two transactions, but not the earlier one."""
    checked = history(
        transaction("t1", Append(X, 1), Append(Z, 9)),
        transaction("t2", Read(Z, (9,)), Append(Y, 2)),
        transaction("t3", Read(Y, (2,)), Read(X, ())),
        x=(1,),
        y=(2,),
        z=(9,),
    )
    assert kinds(checked) == {"G-single"}


def test_a_write_skew() -> None:
    checked = history(
        transaction("t1", Read(X, ()), Append(Y, 1)),
        transaction("t2", Read(Y, ()), Append(X, 2)),
        x=(2,),
        y=(1,),
    )
    assert kinds(checked) == {"G2"}


def serial(dice: random.Random, count: int) -> History:
    """A history as a database would make it that does one transaction after the other."""
    made = History()
    lists: dict[str, tuple[int, ...]] = dict.fromkeys("abcdef", ())
    value = 0
    for number in range(count):
        before = dict(lists)
        done = transaction(f"t{number}", outcome=dice.choice(list(Outcome)))
        for _ in range(dice.randint(1, 5)):
            key = dice.choice("abcdef")
            if dice.random() < 0.5:
                value += 1
                done.operations.append(Append(key, value))
                lists[key] += (value,)
            else:
                done.operations.append(Read(key, lists[key]))
        if done.outcome is ABORTED or (done.outcome is UNKNOWN and dice.random() < 0.5):
            lists = before
        made.transactions.append(done)
    made.final = dict(lists)
    return made


@pytest.mark.parametrize("seed", range(20))
def test_what_was_done_serially_is_right(seed: int) -> None:
    assert anomalies(serial(random.Random(seed), 300)) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_stale_read_among_many_is_found(seed: int) -> None:
    dice = random.Random(seed)
    checked = serial(dice, 300)
    # It read everything as it is now, but for one list that ends one transaction earlier.
    full = {key: values for key, values in checked.final.items() if len(values) > 1}
    stale = dice.choice(sorted(full))
    writers = {a.value: t for t in checked.transactions for a in t.appends()}
    last = writers[full[stale][-1]]
    old = tuple(value for value in full[stale] if writers[value] is not last)
    after = transaction("after", Append("g", 10_000), Read(stale, full[stale]))
    late = transaction("late", Read("g", (10_000,)), Read(stale, old))
    checked.transactions += [after, late]
    checked.final["g"] = (10_000,)
    assert "G-single" in kinds(checked)
