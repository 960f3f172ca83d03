"""An operation that is sent again in a transaction is answered, never run again."""

import pytest

from messagehub.errors import ConstraintViolation, DeadlineExceeded, RequestIdReused, ResultTooLarge
from messagehub.storage.v1.participant_service_pb2 import ParticipantOperation, ParticipantResult
from messagehub.v1.statement_pb2 import Column, ResultSet, Statement
from storage.core.transactions.answers import Answers


def operation(name: str, query: str = "SELECT 1") -> ParticipantOperation:
    return ParticipantOperation(request_id=name, statement=Statement(query=query))


def answer(size: int) -> ParticipantResult:
    return ParticipantResult(result=ResultSet(columns=[Column(name="x" * size)]))


def test_it_gives_what_was_given() -> None:
    answers = Answers(1000)
    assert answers.find(operation("a")) is None
    answers.keep([operation("a"), operation("")], [answer(5), answer(6)])
    assert answers.find(operation("a")) == answer(5)
    assert answers.find(operation("")) is None


def test_a_failure_is_given_again_unless_it_passes() -> None:
    answers = Answers(10_000)
    answers.keep_failure(operation("a"), ConstraintViolation("no"))
    answers.keep_failure(operation("b"), DeadlineExceeded("late"))
    with pytest.raises(ConstraintViolation):
        answers.find(operation("a"))
    assert answers.find(operation("b")) is None


def test_another_operation_under_the_same_name_is_refused() -> None:
    answers = Answers(1000)
    answers.keep([operation("a")], [answer(5)])
    with pytest.raises(RequestIdReused):
        answers.find(operation("a", "SELECT 2"))


def test_the_oldest_are_dropped_but_never_forgotten() -> None:
    answers = Answers(1000)
    for name in ("a", "b", "c"):
        answers.keep([operation(name)], [answer(400)])
    answers.keep([operation("large")], [answer(2000)])
    for name in ("a", "large"):
        with pytest.raises(ResultTooLarge):
            answers.find(operation(name))
    assert answers.find(operation("c")) == answer(400)
