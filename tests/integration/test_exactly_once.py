"""A write with a request id is done once, however often it is sent."""

import uuid
from typing import Any

import pytest

from messagehub.v1.storage_service_pb2 import ExecuteRequest
from tests.support.calls import (
    CALL_SECONDS,
    DATABASE,
    SERVICE,
    execute,
    execute_request,
    rows,
    run,
    statement,
)
from tests.support.refusals import refused


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def counter(grpc_stub: Any, table: str) -> str:
    """A table with a unique number, empty."""
    run(grpc_stub, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, n UNIQUE)")
    return table


def test_a_repeated_write_is_done_once_and_answered_twice(grpc_stub: Any, counter: str) -> None:
    query = f"INSERT INTO {counter} (n) VALUES (?), (?) RETURNING id, n, ? AS given"
    parameters = (1.5, b"\x00", "naïve ✓\x00")
    request_id = new_id()
    first = execute(
        grpc_stub, query, *parameters, request_id=request_id, correlation_id="the first"
    )
    run(grpc_stub, f"INSERT INTO {counter} (n) VALUES (7)")
    again = execute(
        grpc_stub, query, *parameters, request_id=request_id, correlation_id="the second"
    )
    assert (first.replayed, again.replayed) == (False, True)
    assert again.result == first.result
    assert rows(again.result) == [(1, 1.5, parameters[2]), (2, b"\x00", parameters[2])]
    assert (again.sequence, again.database) == (first.sequence, first.database)
    assert again.correlation_id == "the second"
    assert rows(run(grpc_stub, f"SELECT count(*) FROM {counter}")) == [(3,)]


def test_a_repeated_failure_fails_as_before(grpc_stub: Any, counter: str) -> None:
    run(grpc_stub, f"INSERT INTO {counter} (n) VALUES (1)")
    request_id = new_id()
    query = f"INSERT INTO {counter} (n) VALUES (?)"
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION") as first:
        execute(grpc_stub, query, 1, request_id=request_id)
    run(grpc_stub, f"DELETE FROM {counter}")
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION") as again:
        execute(grpc_stub, query, 1, request_id=request_id)
    assert again.message == first.message
    assert again.metadata == first.metadata
    assert rows(run(grpc_stub, f"SELECT count(*) FROM {counter}")) == [(0,)]


def test_one_request_id_in_two_forms_is_one(grpc_stub: Any, counter: str) -> None:
    request_id = new_id()
    query = f"INSERT INTO {counter} (n) VALUES (1)"
    assert not execute(grpc_stub, query, request_id=request_id).replayed
    assert execute(grpc_stub, query, request_id=request_id.upper()).replayed


def test_calls_without_request_id_are_never_the_same_call(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n)")
    for _ in range(2):
        assert not execute(grpc_stub, f"INSERT INTO {table} VALUES (1)").replayed
    assert rows(run(grpc_stub, f"SELECT count(*) FROM {table}")) == [(2,)]


def test_a_repetition_that_is_under_way_is_done_once(grpc_stub: Any, counter: str) -> None:
    request = execute_request(
        f"INSERT INTO {counter} (n) VALUES (1) RETURNING id", request_id=new_id()
    )
    calls = [grpc_stub.Execute.future(request, timeout=CALL_SECONDS) for _ in range(20)]
    answers = [call.result() for call in calls]
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 19
    assert {rows(answer.result)[0] for answer in answers} == {(1,)}
    assert len({answer.sequence for answer in answers}) == 1


OTHER_CONTENT = {
    "another text": {"query": "INSERT INTO {} (n) VALUES (?) ", "parameters": (1,)},
    "another value": {"query": "INSERT INTO {} (n) VALUES (?)", "parameters": (2,)},
    "another kind": {"query": "INSERT INTO {} (n) VALUES (?)", "parameters": (1.0,)},
    "another service": {
        "query": "INSERT INTO {} (n) VALUES (?)",
        "parameters": (1,),
        "service": "campaign",
        "database": DATABASE,
    },
}


@pytest.mark.parametrize("other", OTHER_CONTENT)
def test_a_request_id_with_other_content_is_refused(
    grpc_stub: Any, counter: str, other: str
) -> None:
    request_id = new_id()
    execute(grpc_stub, f"INSERT INTO {counter} (n) VALUES (?)", 1, request_id=request_id)
    changed = dict(OTHER_CONTENT[other])
    query = str(changed.pop("query")).format(counter)
    parameters: Any = changed.pop("parameters")
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED") as refusal:
        execute(grpc_stub, query, *parameters, request_id=request_id, **changed)
    assert list(refusal.fields) == ["request_id"]
    assert rows(run(grpc_stub, f"SELECT count(*) FROM {counter}")) == [(1,)]


def test_the_order_of_named_parameters_is_no_content(grpc_stub: Any, counter: str) -> None:
    names = [f"p{number}" for number in range(20)]
    query = f"INSERT INTO {counter} (n) VALUES ({' || '.join(':' + name for name in names)})"
    request_id = new_id()
    answers = []
    for order in (names, names[::-1]):
        named = statement(query, **dict.fromkeys(order, "x"))
        request = ExecuteRequest(source_service=SERVICE, request_id=request_id, statement=named)
        answers.append(grpc_stub.Execute(request, timeout=CALL_SECONDS))
    assert [answer.replayed for answer in answers] == [False, True]


def test_a_read_ignores_its_request_id(grpc_stub: Any, counter: str) -> None:
    request_id = new_id()
    for count in range(3):
        answer = execute(grpc_stub, f"SELECT count(*) FROM {counter}", request_id=request_id)
        assert rows(answer.result) == [(count,)]
        assert not answer.replayed
        run(grpc_stub, f"INSERT INTO {counter} (n) VALUES (?)", count)


@pytest.mark.parametrize("request_id", ["1", "not a uuid", "0" * 33, "g" * 32, "\x00"])
def test_a_request_id_that_is_no_uuid_is_refused(grpc_stub: Any, request_id: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        execute(grpc_stub, "SELECT 1", request_id=request_id)
    assert list(refusal.fields) == ["request_id"]
