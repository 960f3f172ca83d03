"""The error classes carry what a caller needs, apart from their text."""

import pytest

from messagehub import errors
from messagehub.errors import BY_REASON, TABLE, HubError, Retry


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_an_error_knows_its_row(kind: type[HubError]) -> None:
    error = kind("what happened")
    assert (error.reason, error.code, error.retry) == TABLE[kind]
    assert BY_REASON[error.reason] is kind
    assert str(error) == error.message == "what happened"
    assert (error.retry_after, error.fields, error.metadata) == (None, {}, {})


def test_facts_are_copied_so_that_a_caller_cannot_change_an_error_later() -> None:
    fields = {"statement.query": "is empty"}
    metadata = {"limit_bytes": "10"}
    error = errors.InvalidRequest("no", retry_after=1.5, fields=fields, metadata=metadata)
    fields.clear()
    metadata.clear()
    assert error.fields == {"statement.query": "is empty"}
    assert error.metadata == {"limit_bytes": "10"}
    assert error.retry_after == 1.5


def test_what_to_retry_follows_the_code() -> None:
    for row in TABLE.values():
        assert (row.code == "ABORTED") == (row.retry is Retry.WHOLE_TRANSACTION), row
        if row.code == "UNAVAILABLE":
            assert row.retry is Retry.SAME_CALL, row
        if row.code == "INVALID_ARGUMENT":
            assert row.retry is Retry.NEVER, row
