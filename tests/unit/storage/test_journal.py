"""The journal's tables: made once, read as left, refused when somebody changed them."""

import sqlite3
import uuid
from pathlib import Path

import pytest

from messagehub.errors import (
    ConstraintViolation,
    CursorExpired,
    DatabaseCorrupt,
    HubError,
    InvalidRequest,
)
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet
from storage.core.engine import Trimmed
from storage.core.operation import Operation, Outcome
from storage.sqlite import journal
from storage.sqlite.journal import Entry
from tests.conformance.operations import operation, publish
from tests.unit.storage.sqlite_parts import EPOCH

ENOUGH = 1_000_000

ID = "0190a000-0000-7000-8000-000000000001"


@pytest.fixture
def raw() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None)
    journal.set_up(made, EPOCH)
    return made


def line(sequence: int, asked: Operation | None = None, error: HubError | None = None) -> Entry:
    outcome = Outcome(error=error) if error else Outcome(result=ResultSet(rows_affected=1))
    return journal.entry(asked or operation("UPDATE"), outcome, sequence, sequence * 1000)


def test_a_journal_is_made_once_and_keeps_its_epoch(raw: sqlite3.Connection) -> None:
    journal.append(raw, [line(1), line(2)])
    before = list(raw.iterdump())
    journal.set_up(raw, "another")
    assert list(raw.iterdump()) == before
    position = journal.position(raw)
    assert (position.epoch, position.sequence, position.oldest_sequence) == (EPOCH, 2, 0)


def test_entries_come_back_as_they_were_written(raw: sqlite3.Connection) -> None:
    made = line(7, operation("UPDATE", 5, request_id=ID))
    journal.append(raw, [made, line(8)])
    assert journal.find(raw, uuid.UUID(ID).bytes) == made
    assert journal.find(raw, uuid.uuid4().bytes) is None


@pytest.mark.parametrize(
    "other",
    [
        operation("UPDATE", 6, request_id=ID),
        operation("UPDATE", 5.0, request_id=ID),
        operation("UPDATE", "5", request_id=ID),
        operation("UPDATE", 5, 5, request_id=ID),
        operation("UPDATE ", 5, request_id=ID),
        operation("UPDATE", 5, request_id=ID, service="campaign"),
        operation("UPDATE", request_id=ID),
        publish("UPDATE", request_id=ID),
    ],
)
def test_other_content_has_another_fingerprint(other: Operation) -> None:
    mine = operation("UPDATE", 5, request_id=ID)
    again = operation("UPDATE", 5, request_id=ID, correlation_id="other", deadline=1.0)
    assert journal.fingerprint(mine) == journal.fingerprint(again)
    assert journal.fingerprint(mine) != journal.fingerprint(other)


def test_the_order_of_named_parameters_is_not_content() -> None:
    def asking(*names: str) -> Operation:
        made = operation("UPDATE")
        assert made.statement is not None
        for name in names:
            made.statement.named_parameters[name].integer = len(name)
        return made

    names = [f"{'n' * length}" for length in range(1, 20)]
    assert journal.fingerprint(asking(*names)) == journal.fingerprint(asking(*names[::-1]))


@pytest.mark.parametrize("text", ["no", "0190a000", "0190a000-0000-7000-8000-00000000000g"])
def test_a_request_id_that_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        journal.id_bytes(text)
    assert journal.id_bytes("") is None


def test_a_recorded_failure_is_an_event_with_the_same_error(raw: sqlite3.Connection) -> None:
    error = ConstraintViolation("no", fields={"statement": "no"}, metadata={"constraint": "check"})
    journal.append(raw, [line(1, operation("UPDATE", request_id=ID), error)])
    (told,) = journal.after(raw, 0, 10, ENOUGH, EPOCH, "items_db")
    assert told.type == "storage.operation_failed"
    assert told.operation_failed.request_id == ID
    found = journal.recorded(raw, ID)
    assert found is not None
    assert found.outcome.error is not None
    assert found.outcome.error.metadata == error.metadata


def test_a_published_event_keeps_its_own_content_and_nothing_forged(
    raw: sqlite3.Connection,
) -> None:
    asked = publish("campaign.made", b"x", service="campaign")
    asked.event = Event(
        type="campaign.made", custom=b"x", id="forged", source="forged", sequence=99
    )
    journal.append(raw, [journal.entry(asked, Outcome(result=ResultSet()), 1, 1)])
    (told,) = journal.after(raw, 0, 10, ENOUGH, EPOCH, "items_db")
    assert (told.type, told.custom) == ("campaign.made", b"x")
    assert told.id == f"items_db/{EPOCH}/1"
    assert (told.source, told.sequence, told.subject) == ("campaign", 1, "items_db")


def trim(raw: sqlite3.Connection) -> Trimmed:
    """Forgets what is old; nobody holds it back."""
    return journal.trim(raw, 5000, 100, 100, lambda end, _: (end, []))


def test_a_position_that_was_forgotten_is_refused(raw: sqlite3.Connection) -> None:
    journal.append(raw, [line(number) for number in range(1, 11)])
    trim(raw)
    with pytest.raises(CursorExpired):
        journal.after(raw, 3, 1, ENOUGH, EPOCH, "items_db")
    assert [e.sequence for e in journal.after(raw, 4, 2, ENOUGH, EPOCH, "items_db")] == [5, 6]


def test_a_trim_that_fails_leaves_no_transaction_open(raw: sqlite3.Connection) -> None:
    journal.append(raw, [line(number) for number in range(1, 11)])
    raw.execute(
        "CREATE TRIGGER no BEFORE DELETE ON _messagehub_journal BEGIN SELECT raise(FAIL, 'no'); END"
    )
    with pytest.raises(sqlite3.Error):
        trim(raw)
    assert not raw.in_transaction
    raw.execute("DROP TRIGGER no")
    assert trim(raw).rows == 4


DAMAGE = [
    "DROP TABLE _messagehub_journal",
    "DROP TABLE _messagehub_meta",
    "ALTER TABLE _messagehub_journal RENAME COLUMN record TO x",
    "ALTER TABLE _messagehub_journal ADD COLUMN x",
    "ALTER TABLE _messagehub_meta RENAME COLUMN value TO x",
    "DELETE FROM _messagehub_meta",
    "DELETE FROM _messagehub_meta WHERE key = 'epoch'",
    "UPDATE _messagehub_meta SET value = 99 WHERE key = 'format'",
    "UPDATE _messagehub_meta SET value = x'00' WHERE key = 'epoch'",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_tables_that_somebody_changed_are_refused_at_the_opening(
    tmp_path: Path, damage: str
) -> None:
    raw = sqlite3.connect(tmp_path / "items.db", isolation_level=None)
    journal.set_up(raw, EPOCH)
    journal.append(raw, [line(1)])
    raw.execute(damage)
    before = list(raw.iterdump())
    with pytest.raises(DatabaseCorrupt) as caught:
        open_journal(raw)
    assert "_messagehub_" in caught.value.message or "own tables" in caught.value.message
    assert "backup" in caught.value.message, "it says what to do"
    assert list(raw.iterdump()) == before, "nothing is made up in their place"
    assert not raw.in_transaction
    raw.close()


def open_journal(raw: sqlite3.Connection) -> None:
    journal.set_up(raw, "another")
    journal.position(raw)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE _messagehub_journal SET record = x'ffffff'",
        "UPDATE _messagehub_journal SET record = 'text'",
        "UPDATE _messagehub_journal SET record = 5",
        "UPDATE _messagehub_journal SET request_id = x'00'",
    ],
)
def test_entries_that_somebody_changed_are_told_as_such(
    raw: sqlite3.Connection, damage: str
) -> None:
    journal.append(raw, [line(1, operation("UPDATE", request_id=ID))])
    raw.execute(damage)
    with pytest.raises(DatabaseCorrupt):
        journal.after(raw, 0, 10, ENOUGH, EPOCH, "items_db")
    if "record" in damage:
        with pytest.raises(DatabaseCorrupt):
            journal.find(raw, uuid.UUID(ID).bytes)


def test_a_sequence_that_somebody_used_is_told_as_such(raw: sqlite3.Connection) -> None:
    journal.append(raw, [line(1)])
    with pytest.raises(DatabaseCorrupt):
        journal.append(raw, [line(1)])
