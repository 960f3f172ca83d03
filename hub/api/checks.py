"""What is checked in a request before anything leaves the hub; each refusal names its field."""

import re
import uuid
from typing import Final, Protocol

from google.protobuf.duration_pb2 import Duration

from hub.config import HubConfig
from messagehub.errors import HubError, InvalidRequest
from messagehub.request_ids import new_request_id
from messagehub.schema.ranges import parse_range
from messagehub.v1.event_pb2 import OperationRequest
from messagehub.v1.statement_pb2 import Statement

_CANONICAL_UUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
).fullmatch
_CHECKSUM: Final = re.compile(r"[0-9a-fA-F]{64}").fullmatch
# The most bytes that one character takes in UTF-8.
_UTF8_BYTES_MAX: Final = 4
NANOSECONDS: Final = 1_000_000_000


class FileHeader(Protocol):
    """What the first message of a file says about all of it."""

    size_bytes: int
    checksum: str


def given_request_id(request_id: str) -> str:
    """Gives a request id in its canonical form, or the empty string for an empty one."""
    if not request_id or _CANONICAL_UUID(request_id):
        return request_id
    try:
        return str(uuid.UUID(request_id))
    except ValueError:
        raise _invalid(
            "request_id", "must be a UUID, such as 01890a5d-ac96-774b-bcce-b302099a8057"
        ) from None


def request_id_or_new(request_id: str) -> str:
    """Gives a request id in its canonical form, a new one for an empty one."""
    return given_request_id(request_id) or new_request_id()


def required_request_id(request_id: str) -> str:
    """Gives a request id in its canonical form; raises `InvalidRequest` for an empty one."""
    if not request_id:
        raise _invalid("request_id", "is required: the request id of the operation")
    return given_request_id(request_id)


def required_database(database: str) -> str:
    """Gives the name of a database; raises `InvalidRequest` for an empty one."""
    if not database:
        raise _invalid("database", "is required: here nobody's own is meant")
    return database


def positive_seconds(duration: Duration, field: str) -> float:
    """Gives a duration in seconds; raises `InvalidRequest` unless it is longer than nothing."""
    nanoseconds = duration.ToNanoseconds()
    if nanoseconds <= 0:
        raise _invalid(field, "must be longer than nothing, or left out")
    return nanoseconds / NANOSECONDS


def written_for(statement: Statement, schema_version: str) -> Statement | OperationRequest:
    """Gives a statement together with the range of schema versions that it is written for.

    Raises `InvalidRequest` for what is no range; an empty one is any version.
    """
    if not schema_version:
        return statement
    parse_range(schema_version)
    return OperationRequest(statement=statement, schema_version=schema_version)


class RequestChecks:
    """The checks whose bounds are settings."""

    def __init__(self, limits: HubConfig) -> None:
        self._limits = limits

    def statement(self, statement: Statement) -> None:
        """Checks one statement; one that was not sent has no query."""
        query = statement.query
        if not query or query.isspace():
            raise _invalid("statement.query", "is required: exactly one SQL statement")
        bytes_max = self._limits.query_bytes_max
        if len(query) * _UTF8_BYTES_MAX > bytes_max and len(query.encode()) > bytes_max:
            raise _invalid(
                "statement.query",
                f"is longer than {bytes_max} bytes: pass data as parameters, not in the text",
            )
        positional = statement.parameters
        named = statement.named_parameters
        if positional or named:
            self._parameters(statement)

    def batch_size(self, operations: int) -> None:
        """Checks how many operations a batch has."""
        if not operations:
            raise _invalid("operations", "is empty: send at least one operation")
        if operations > self._limits.batch_operations_max:
            raise _invalid(
                "operations",
                f"has {operations} operations, the limit is "
                f"{self._limits.batch_operations_max}: send several batches",
            )

    def page_size(self, page_size: int) -> None:
        """Checks the size of a page; 0 is the server's default."""
        if not 0 <= page_size <= self._limits.query_page_rows_max:
            raise _invalid(
                "page_size", f"must be from 0 (the default) to {self._limits.query_page_rows_max}"
            )

    def file_header(self, header: FileHeader) -> None:
        """Checks what the first message says about the file."""
        if header.size_bytes <= 0:
            raise _invalid("size_bytes", "must be the size of the whole file")
        if not _CHECKSUM(header.checksum):
            raise _invalid("checksum", "must be the sha256 of the whole file in hexadecimal")

    def chunk(self, chunk: bytes) -> None:
        """Checks the size of one piece of a file."""
        if len(chunk) > self._limits.adopt_chunk_bytes_max:
            raise _invalid(
                "chunk",
                f"has {len(chunk)} bytes, the limit is {self._limits.adopt_chunk_bytes_max}: "
                "send smaller pieces",
            )

    def _parameters(self, statement: Statement) -> None:
        positional, named = statement.parameters, statement.named_parameters
        if positional and named:
            raise _invalid(
                "statement.named_parameters", "must be empty where parameters are given as well"
            )
        count = len(positional) or len(named)
        if count > self._limits.parameters_max:
            raise _invalid(
                "statement.parameters" if positional else "statement.named_parameters",
                f"has {count} values, the limit is {self._limits.parameters_max}: "
                "send several statements",
            )
        for index, value in enumerate(positional):
            if value.WhichOneof("kind") is None:
                raise _kindless(f"statement.parameters[{index}]")
        for name, value in named.items():
            if value.WhichOneof("kind") is None:
                raise _kindless(f"statement.named_parameters[{name}]")


def _kindless(field: str) -> HubError:
    return _invalid(field, "has no kind: a NULL is said with `null`, not omitted")


def _invalid(field: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {what}", fields={field: what})
