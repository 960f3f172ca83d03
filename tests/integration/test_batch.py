"""`ExecuteBatch`: independent operations, each with a result or an error of its own."""

import uuid
from collections.abc import Sequence
from typing import Any

from google.rpc import status_pb2

from messagehub.v1.storage_service_pb2 import (
    BatchOperation,
    BatchResult,
    ExecuteBatchRequest,
    ExecuteBatchResponse,
)
from tests.support.calls import CALL_SECONDS, SERVICE, batch_operation, execute_request, rows, run
from tests.support.refusals import Refusal, refusal_of, refused


def batch(
    stub: Any, operations: Sequence[BatchOperation], service: str = SERVICE, **envelope: Any
) -> ExecuteBatchResponse:
    request = ExecuteBatchRequest(source_service=service, operations=operations, **envelope)
    return stub.ExecuteBatch(request, timeout=CALL_SECONDS)


def results(stub: Any, *operations: BatchOperation) -> list[BatchResult]:
    answer = batch(stub, operations)
    assert len(answer.results) == len(operations)
    return list(answer.results)


def error_of(result: BatchResult) -> Refusal:
    assert result.WhichOneof("outcome") == "error"
    return refusal_of(status_pb2.Status.FromString(result.error.SerializeToString()))


def reasons(found: Sequence[BatchResult]) -> list[str]:
    """The reason of each operation; empty for one that succeeded."""
    return ["" if r.WhichOneof("outcome") == "result" else error_of(r).reason for r in found]


def test_results_come_in_the_order_of_the_request(grpc_stub: Any) -> None:
    found = results(grpc_stub, *(batch_operation("SELECT ?", n) for n in range(200)))
    assert [rows(result.result) for result in found] == [[(n,)] for n in range(200)]


def test_operations_of_one_database_run_in_order(grpc_stub: Any, table: str) -> None:
    found = results(
        grpc_stub,
        batch_operation(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, n)"),
        *(batch_operation(f"INSERT INTO {table} (n) VALUES (?)", n) for n in range(50)),
        batch_operation(f"UPDATE {table} SET n = n + 100 WHERE id = 1"),
    )
    assert reasons(found) == [""] * 52
    assert [result.result.last_insert_id for result in found[1:-1]] == list(range(1, 51))
    sequences = [result.sequence for result in found]
    assert sequences == sorted(set(sequences))
    assert rows(run(grpc_stub, f"SELECT n FROM {table} ORDER BY id LIMIT 2")) == [(100,), (1,)]


def test_an_operation_goes_to_its_own_database(grpc_stub: Any, table: str) -> None:
    create = f"CREATE TABLE {table} (a)"
    found = results(
        grpc_stub,
        batch_operation(create),
        batch_operation(create, database="metrics_db"),
        batch_operation(create, database="character_db"),
        batch_operation(create, database="nowhere_db"),
    )
    assert reasons(found) == ["", "", "INVALID_STATEMENT", "INVALID_ROUTE"]
    assert [result.database for result in found] == [
        "character_db",
        "metrics_db",
        "character_db",
        "nowhere_db",
    ]


def test_a_failure_leaves_the_others_alone(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    insert = f"INSERT INTO {table} VALUES (?)"
    found = results(
        grpc_stub,
        batch_operation(insert, 1),
        batch_operation(insert, 1),
        batch_operation("SELEC 1"),
        batch_operation(""),
        batch_operation("COMMIT"),
        batch_operation(insert, 2),
        batch_operation(insert, 3, request_id="no uuid"),
        batch_operation(insert, 4, schema_version=">=1"),
        batch_operation(insert, 5, 6),
        batch_operation(insert, 7),
    )
    assert reasons(found) == [
        "",
        "CONSTRAINT_VIOLATION",
        "INVALID_STATEMENT",
        "INVALID_REQUEST",
        "STATEMENT_FORBIDDEN",
        "",
        "INVALID_REQUEST",
        "SCHEMA_MISMATCH",
        "INVALID_STATEMENT",
        "",
    ]
    assert error_of(found[3]).fields.keys() == {"statement.query"}
    assert error_of(found[1]).metadata["constraint"] == "primary_key"
    assert rows(run(grpc_stub, f"SELECT n FROM {table} ORDER BY n")) == [(1,), (2,), (7,)]


def test_a_statement_that_ends_the_transaction_takes_no_neighbour_along(
    grpc_stub: Any, table: str
) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    run(
        grpc_stub,
        f"CREATE TRIGGER {table}_t BEFORE INSERT ON {table} WHEN new.n = 13 BEGIN "
        "SELECT raise(ROLLBACK, 'not thirteen'); END",
    )
    insert = f"INSERT INTO {table} VALUES (?)"
    found = results(
        grpc_stub,
        batch_operation(insert, 1),
        batch_operation(f"INSERT OR ROLLBACK INTO {table} VALUES (1)"),
        batch_operation(insert, 2),
        batch_operation(insert, 13),
        batch_operation(insert, 3),
    )
    lost = "CONSTRAINT_VIOLATION"
    assert reasons(found) == ["", lost, "", lost, ""]
    assert rows(run(grpc_stub, f"SELECT n FROM {table} ORDER BY n")) == [(1,), (2,), (3,)]
    sequences = [result.sequence for result in found if result.sequence]
    assert len(sequences) == len(set(sequences))


def test_a_constraint_that_is_checked_at_the_commit_takes_no_neighbour_along(
    grpc_stub: Any, table: str
) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    run(
        grpc_stub,
        f"CREATE TABLE {table}_child (n REFERENCES {table} (n) DEFERRABLE INITIALLY DEFERRED)",
    )
    insert = f"INSERT INTO {table}_child VALUES (?)"
    found = results(
        grpc_stub,
        batch_operation(f"INSERT INTO {table} VALUES (1)"),
        batch_operation(insert, 1),
        batch_operation(insert, 404),
        batch_operation(insert, None),
    )
    assert reasons(found) == ["", "", "CONSTRAINT_VIOLATION", ""]
    assert rows(run(grpc_stub, f"SELECT n FROM {table}_child ORDER BY n")) == [(None,), (1,)]


def test_a_repeated_batch_is_done_once(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    operations = [
        batch_operation(
            f"INSERT INTO {table} VALUES (?) RETURNING n", n, request_id=str(uuid.uuid4())
        )
        for n in (1, 1, 2)
    ]
    first, again = batch(grpc_stub, operations), batch(grpc_stub, operations)
    assert reasons(first.results) == reasons(again.results) == ["", "CONSTRAINT_VIOLATION", ""]
    assert [result.result for result in again.results] == [r.result for r in first.results]
    assert [first.results[place].replayed for place in (0, 2)] == [False, False]
    assert [again.results[place].replayed for place in (0, 2)] == [True, True]
    assert rows(run(grpc_stub, f"SELECT n FROM {table}")) == [(1,), (2,)]


def test_one_request_id_twice_in_a_batch_is_one_operation(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n)")
    request_id = str(uuid.uuid4())
    insert = f"INSERT INTO {table} VALUES (?)"
    found = results(
        grpc_stub,
        batch_operation(insert, 1, request_id=request_id),
        batch_operation(insert, 1, request_id=request_id),
        batch_operation(insert, 2, request_id=request_id),
    )
    assert reasons(found) == ["", "", "REQUEST_ID_REUSED"]
    assert [result.replayed for result in found[:2]] == [False, True]
    assert rows(run(grpc_stub, f"SELECT n FROM {table}")) == [(1,)]


def test_a_batch_and_a_single_call_share_the_request_id(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n)")
    request_id, insert = str(uuid.uuid4()), f"INSERT INTO {table} VALUES (1)"
    single = grpc_stub.Execute(execute_request(insert, request_id=request_id), timeout=CALL_SECONDS)
    (result,) = results(grpc_stub, batch_operation(insert, request_id=request_id))
    assert result.replayed
    assert result.sequence == single.sequence


def test_the_correlation_id_comes_back(grpc_stub: Any) -> None:
    one = batch_operation("SELECT 1")
    assert batch(grpc_stub, [one], correlation_id="mine").correlation_id == "mine"
    assert batch(grpc_stub, [one]).correlation_id


def test_an_empty_batch_is_refused(grpc_stub: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        batch(grpc_stub, [])
    assert list(refusal.fields) == ["operations"]


def test_a_batch_over_the_limit_is_refused(grpc_stub: Any) -> None:
    one = batch_operation("SELECT 1")
    assert len(batch(grpc_stub, [one] * 1000).results) == 1000
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        batch(grpc_stub, [one] * 1001)
    assert list(refusal.fields) == ["operations"]
    assert "1000" in refusal.message


def test_an_unknown_service_is_refused_as_a_whole(grpc_stub: Any) -> None:
    with refused("NOT_FOUND", "INVALID_ROUTE") as refusal:
        batch(grpc_stub, [batch_operation("SELECT 1")], service="nobody")
    assert list(refusal.fields) == ["source_service"]


def test_rows_that_do_not_fit_one_answer_are_an_error_of_their_operation(grpc_stub: Any) -> None:
    large = batch_operation("SELECT zeroblob(9 * 1024 * 1024)")
    found = results(grpc_stub, large, batch_operation("SELECT 1"), large)
    # Reads end in any order, so either of the two may be the one that came first.
    assert reasons(found) in (["", "", "RESULT_TOO_LARGE"], ["RESULT_TOO_LARGE", "", ""])
    assert rows(found[1].result) == [(1,)]


def test_a_failure_that_is_recorded_says_where_and_whether_it_was_before(
    grpc_stub: Any, table: str
) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    run(grpc_stub, f"INSERT INTO {table} VALUES (1)")
    twice = batch_operation(f"INSERT INTO {table} VALUES (1)", request_id=str(uuid.uuid4()))
    unrecorded = batch_operation("SELECT nonsense")
    first, reading = results(grpc_stub, twice, unrecorded)
    again, after = results(grpc_stub, twice, batch_operation(f"DELETE FROM {table}"))
    assert reasons([first, reading, again]) == [
        "CONSTRAINT_VIOLATION",
        "INVALID_STATEMENT",
        "CONSTRAINT_VIOLATION",
    ]
    assert (first.replayed, again.replayed) == (False, True)
    assert 0 < first.sequence == again.sequence == after.sequence - 1
    assert (reading.sequence, reading.replayed) == (0, False)
