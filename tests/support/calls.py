"""Requests and answers in few words, on the generated messages alone."""

from typing import Any, Final

from google.protobuf import struct_pb2

from messagehub.v1.statement_pb2 import ResultSet, Statement, Value
from messagehub.v1.storage_service_pb2 import (
    BatchOperation,
    ExecuteRequest,
    ExecuteResponse,
    QueryRequest,
)

SERVICE: Final = "character"
DATABASE: Final = "character_db"
CALL_SECONDS: Final = 20.0

# A Python value of one of these types says by its type which kind is meant.
Python = None | bool | int | float | str | bytes
_KINDS: Final[dict[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "real",
    str: "text",
    bytes: "blob",
}


def value(content: Python | Value) -> Value:
    """Gives the `Value` of a Python value; an int is an integer, never a real."""
    if isinstance(content, Value):
        return content
    if content is None:
        return Value(null=struct_pb2.NULL_VALUE)
    return Value(**{_KINDS[type(content)]: content})  # type: ignore[arg-type]


def content_of(kept: Value) -> Python:
    """Gives the Python value of a `Value`."""
    kind = kept.WhichOneof("kind")
    assert kind is not None, "a value without a kind came back"
    return None if kind == "null" else getattr(kept, kind)


def statement(query: str, *parameters: Python | Value, **named: Python | Value) -> Statement:
    """A statement with positional parameters, named ones, or none."""
    return Statement(
        query=query,
        parameters=[value(parameter) for parameter in parameters],
        named_parameters={name: value(parameter) for name, parameter in named.items()},
    )


def execute_request(
    query: str, *parameters: Python | Value, service: str = SERVICE, **envelope: Any
) -> ExecuteRequest:
    """An `Execute` of the service `character`, unless told otherwise."""
    return ExecuteRequest(
        source_service=service, statement=statement(query, *parameters), **envelope
    )


def query_request(
    query: str, *parameters: Python | Value, service: str = SERVICE, **envelope: Any
) -> QueryRequest:
    """A `Query` of the service `character`, unless told otherwise."""
    return QueryRequest(source_service=service, statement=statement(query, *parameters), **envelope)


def batch_operation(query: str, *parameters: Python | Value, **envelope: Any) -> BatchOperation:
    """One operation of an `ExecuteBatch`."""
    return BatchOperation(statement=statement(query, *parameters), **envelope)


def rows(result: ResultSet) -> list[tuple[Python, ...]]:
    """The rows of a result as Python tuples."""
    return [tuple(content_of(kept) for kept in row.values) for row in result.rows]


def execute(stub: Any, query: str, *parameters: Python | Value, **envelope: Any) -> ExecuteResponse:
    """Executes through a synchronous stub and gives the whole answer."""
    request = execute_request(query, *parameters, **envelope)
    return stub.Execute(request, timeout=CALL_SECONDS)


def run(stub: Any, query: str, *parameters: Python | Value, **envelope: Any) -> ResultSet:
    """Executes through a synchronous stub and gives the result."""
    return execute(stub, query, *parameters, **envelope).result


async def run_async(
    stub: Any, query: str, *parameters: Python | Value, **envelope: Any
) -> ResultSet:
    """Executes through a `grpc.aio` stub and gives the result."""
    request = execute_request(query, *parameters, **envelope)
    return (await stub.Execute(request, timeout=CALL_SECONDS)).result
