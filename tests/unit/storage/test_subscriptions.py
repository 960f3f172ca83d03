"""The rules of named subscriptions, with a clock that the test sets; and what a database tells."""

import logging
import sqlite3
from dataclasses import replace

import pytest

from messagehub.errors import (
    DatabaseCorrupt,
    HubError,
    StorageFull,
    SubscriptionInUse,
    SubscriptionNotFound,
)
from storage.core.extent import Place
from storage.core.subscriptions import (
    Acknowledge,
    Change,
    Delete,
    Edge,
    Hold,
    Journal,
    LagLimits,
    Open,
    Standing,
    Subscription,
)
from storage.sqlite import journal as sqlite_journal
from storage.sqlite import subscriptions as sqlite_subscriptions
from storage.sqlite.subscriptions import Subscriptions
from tests.unit.storage.scripted_databases import Setting
from tests.unit.storage.scripted_engine import settle
from tests.unit.storage.sqlite_parts import EPOCH

HOUR = 3_600_000_000
NOW = 1_700_000_000_000_000
LEASE = 15_000_000
JOURNAL = Journal("items_db", "e1", 3, 10, NOW)
OPEN = Open("character", "billing", ("items_db",), Edge.LATEST, "stream", "", LEASE)
KEPT = OPEN.apply(None, JOURNAL)


def later(us: int) -> Journal:
    return replace(JOURNAL, now_us=NOW + us)


def other(consumer: str = "") -> Open:
    return replace(OPEN, holder="other", consumer=consumer)


def in_use(change: Change, journal: Journal, kept: Subscription = KEPT) -> bool:
    try:
        change.apply(kept, journal)
    except SubscriptionInUse:
        return True
    return False


def test_a_lease_ends_by_the_clock() -> None:
    assert in_use(other(), later(0))
    assert in_use(other(), later(LEASE - 1))
    assert not in_use(other(), later(LEASE))
    assert in_use(Delete("character", "billing"), later(LEASE - 1))
    assert not in_use(Delete("character", "billing"), later(LEASE))


def test_prolonging_moves_the_end() -> None:
    hold = Hold("character", "billing", "stream", LEASE)
    prolonged = hold.apply(KEPT, later(LEASE - 1))
    assert in_use(other(), later(2 * LEASE - 2), prolonged)
    assert not in_use(other(), later(2 * LEASE - 1), prolonged)
    late = hold.apply(KEPT, later(5 * LEASE))
    assert in_use(other(), later(5 * LEASE), late), "nobody had taken it in between"


def test_the_refusal_says_for_how_long() -> None:
    with pytest.raises(SubscriptionInUse) as caught:
        other().apply(KEPT, later(LEASE - 2_500_000))
    assert caught.value.retry_after == 2.5


def test_a_clock_that_was_set_back_does_not_make_a_lease_last() -> None:
    assert in_use(other(), later(-LEASE)), "a small step changes nothing"
    assert not in_use(other(), later(-LEASE - 1))
    assert not in_use(other(), later(-HOUR))
    assert not in_use(Hold("character", "billing", "stream", LEASE), later(-HOUR))


def test_a_consumer_without_a_name_is_nobody() -> None:
    assert KEPT.consumer == ""
    assert in_use(other(consumer=""), later(0))
    assert in_use(other(consumer="me"), later(0))
    mine = replace(OPEN, consumer="me").apply(None, JOURNAL)
    assert not in_use(other(consumer="me"), later(0), mine)


def test_an_opening_without_lease_leaves_the_one_that_is_there() -> None:
    again = replace(OPEN, lease_us=0).apply(KEPT, later(1))
    assert again == KEPT


def test_what_is_gone_cannot_be_held() -> None:
    for change in (
        Hold("character", "billing", "stream", LEASE),
        Acknowledge("character", "billing", Place("e1", 5)),
        Delete("character", "billing"),
    ):
        with pytest.raises(SubscriptionNotFound) as caught:
            change.apply(None, JOURNAL)
        assert caught.value.metadata == {"database": "items_db"}


def standing(sequence: int, lag_us: int) -> Standing:
    return Standing(replace(KEPT, place=Place("e1", sequence)), JOURNAL, lag_us)


def test_both_limits_count() -> None:
    limits = LagLimits(rows_max=4, us_max=100)
    assert limits.allow(standing(6, 100))
    assert not limits.allow(standing(5, 100))
    assert not limits.allow(standing(6, 101))


# The rows of SQLite.


@pytest.fixture
def raw() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None)
    sqlite_journal.set_up(made, EPOCH)
    sqlite_subscriptions.set_up(made)
    return made


def kept_in(raw: sqlite3.Connection, now_us: int = NOW) -> Subscriptions:
    return Subscriptions(raw, database="items_db", epoch=EPOCH, wall_clock_us=lambda: now_us)


def test_a_database_from_before_gets_the_table() -> None:
    made = sqlite3.connect(":memory:", isolation_level=None)
    sqlite_journal.set_up(made, EPOCH)
    for _ in range(2):
        sqlite_subscriptions.set_up(made)
    assert kept_in(made).standing("character", "") == []


REFUSING = (
    "CREATE TRIGGER no BEFORE INSERT ON _messagehub_subscription"
    " BEGIN SELECT raise(ABORT, 'no'); END"
)


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE _messagehub_subscription",
        "ALTER TABLE _messagehub_subscription DROP COLUMN holder",
        REFUSING,
    ],
)
def test_a_table_that_somebody_changed_is_told_of(raw: sqlite3.Connection, damage: str) -> None:
    raw.execute(damage)
    with pytest.raises(DatabaseCorrupt):
        kept_in(raw).change(OPEN, 0, count_max=5)


def test_a_full_disk_is_told_as_one(raw: sqlite3.Connection) -> None:
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull):
        kept_in(raw).change(replace(OPEN, consumer="x" * 100_000), 0, count_max=5)


def test_asking_leaves_no_transaction_open(raw: sqlite3.Connection) -> None:
    kept_in(raw).standing("character", "")
    assert not raw.in_transaction
    raw.execute("DROP TABLE _messagehub_subscription")
    with pytest.raises(DatabaseCorrupt):
        kept_in(raw).standing("character", "")
    assert not raw.in_transaction


# What a database tells.


async def test_who_is_cut_off_is_warned_of(
    setting: Setting,
    caplog: pytest.LogCaptureFixture,
) -> None:
    setting.write("1", "2")
    await settle()
    setting.disk.cut_off.append(standing(5, 2_000_000))
    with caplog.at_level(logging.WARNING):
        await setting.database.trim(older_than_us=0, keep_rows=0, at_most=10)
    (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    told = vars(record)
    assert (told["database"], told["source_service"], told["subscription"]) == (
        "items_db",
        "character",
        "billing",
    )
    assert (told["acknowledged_sequence"], told["newest_sequence"]) == (5, 10)
    assert told["lag_seconds"] == 2.0


async def test_a_change_comes_in_the_group_of_the_writes(
    setting: Setting,
) -> None:
    await setting.database.change(OPEN, correlation_id="why", seconds=10)
    ((operation,),) = setting.disk.groups
    assert operation.subscription == OPEN
    assert (operation.source_service, operation.correlation_id) == ("character", "why")
    assert await setting.database.subscriptions("character", "") == []


async def test_a_change_that_fails_is_raised(
    setting: Setting,
) -> None:
    await setting.database.open()
    setting.disk.apply_failures.append(StorageFull("no room"))
    with pytest.raises(HubError) as caught:
        await setting.database.change(OPEN, correlation_id="", seconds=10)
    assert isinstance(caught.value, StorageFull)
