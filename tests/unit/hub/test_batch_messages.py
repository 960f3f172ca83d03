"""The answer to a batch fits one message, whatever its operations gave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.api.batch_messages import batch_response
from hub.core.routing.router import Settled
from messagehub.errors import ConstraintViolation, HubError
from messagehub.storage.v1 import storage_service_pb2 as storage
from messagehub.v1.statement_pb2 import ResultSet

LIMIT = 100_000


def columns_only(size: int) -> Settled:
    """A result without rows may be large too: by the names of its columns."""
    result = ResultSet()
    result.columns.add(name="x" * size)
    return Settled("auth_db", storage.Outcome(sequence=7, result=result))


def rows(size: int) -> Settled:
    outcome = storage.Outcome(sequence=7)
    outcome.result.rows.add().values.add(blob=b"x" * size)
    return Settled("auth_db", outcome)


def failed(size: int) -> Settled:
    return Settled("auth_db", ConstraintViolation("x" * size))


@pytest.mark.parametrize("made", [columns_only, rows])
def test_results_that_do_not_fit_are_errors_of_their_operations(made: object) -> None:
    assert callable(made)
    settled = [made(30_000) for _ in range(5)]
    answer = batch_response("c", settled, LIMIT)
    kinds = [result.WhichOneof("outcome") for result in answer.results]
    assert kinds == ["result", "result", "result", "error", "error"]
    assert answer.ByteSize() <= LIMIT


def test_a_smaller_result_after_one_that_does_not_fit_still_has_its_place() -> None:
    answer = batch_response("c", [rows(90_000), rows(90_000), rows(10)], LIMIT)
    assert [r.WhichOneof("outcome") for r in answer.results] == ["result", "error", "result"]


def test_room_is_kept_for_the_errors_that_come_later() -> None:
    settled = [rows(60_000), *(failed(400) for _ in range(100))]
    answer = batch_response("c", settled, LIMIT)
    assert answer.ByteSize() <= LIMIT
    assert [r.WhichOneof("outcome") for r in answer.results[1:]] == ["error"] * 100


def test_everything_that_fits_is_given() -> None:
    settled = [rows(900) for _ in range(100)]
    answer = batch_response("c", settled, LIMIT)
    assert [r.WhichOneof("outcome") for r in answer.results] == ["result"] * 100


@given(
    st.lists(
        st.tuples(st.sampled_from([columns_only, rows, failed]), st.integers(0, 50_000)),
        max_size=40,
    )
)
def test_the_answer_never_grows_over_the_limit(parts: list[tuple[object, int]]) -> None:
    settled = []
    for made, size in parts:
        assert callable(made)
        settled.append(made(min(size, 400) if made is failed else size))
    answer = batch_response("correlation", settled, LIMIT)
    assert answer.ByteSize() <= LIMIT
    assert len(answer.results) == len(settled)
    for one, result in zip(settled, answer.results, strict=True):
        assert result.database == one.database
        if isinstance(one.outcome, HubError):
            assert result.error.message == one.outcome.message
