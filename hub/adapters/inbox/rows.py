"""Operations of the inbox as rows of its table, and back.

The table holds public messages only (`messagehub.v1`), never the private contract, which may
change from one release to the next.
"""

import uuid
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final

from google.rpc import status_pb2

from hub.core.delivery.entries import Entry, Queue, State, Submission
from messagehub.errors import HubError
from messagehub.status import from_status, to_status
from messagehub.v1.event_pb2 import Event, OperationFailed, OperationRequest
from messagehub.v1.statement_pb2 import ResultSet, Statement

STATEMENT: Final = 1
EVENT: Final = 2
# A statement with the schema versions that it is written for.
REQUEST: Final = 3
_CONTENTS: Final[Mapping[int, type[Any]]] = MappingProxyType(
    {STATEMENT: Statement, EVENT: Event, REQUEST: OperationRequest}
)
FINGERPRINT_BYTES: Final = 16
QUERY_CHARACTERS_MAX: Final = 1024
PROTOBUF: Final = "application/protobuf"
FAILED: Final = "storage.operation_failed"
# Without the content, which only the delivery needs.
COLUMNS: Final = (
    "position, owner, database, source_service, correlation_id, request_id, size, state, attempts,"
    " setbacks, sequence, result, error, create_time_us, update_time_us"
)
COLUMNS_WITH_CONTENT: Final = f"{COLUMNS}, kind, content"


def id_bytes(request_id: str) -> bytes:
    """The request id as the table keeps it."""
    return uuid.UUID(request_id).bytes


def encode_content(content: Any) -> tuple[int, bytes]:
    """Gives the kind of a statement or an event, and its bytes, always the same for the same."""
    kind = next(kind for kind, of in _CONTENTS.items() if isinstance(content, of))
    return kind, content.SerializeToString(deterministic=True)


def fingerprint(submission: Submission, kind: int, content: bytes) -> bytes:
    """Tells operations of one owner with the same request id apart."""
    digest = blake2b(submission.queue.database.encode(), digest_size=FINGERPRINT_BYTES)
    digest.update(bytes((0, kind)) + content)
    return digest.digest()


def encode_error(error: HubError | None) -> bytes | None:
    """Gives the bytes of an error."""
    return None if error is None else to_status(error).SerializeToString()


def entry(row: Sequence[Any]) -> Entry:
    """Makes an entry of a row of `COLUMNS` or `COLUMNS_WITH_CONTENT`."""
    result, error = row[11], row[12]
    content = None
    if len(row) > COLUMNS.count(",") + 1 and row[16] is not None:
        content = _CONTENTS[row[15]].FromString(row[16])
    return Entry(
        position=row[0],
        queue=Queue(row[1], row[2]),
        source_service=row[3],
        correlation_id=row[4],
        request_id=str(uuid.UUID(bytes=row[5])),
        content=content,
        size=row[6],
        state=State(row[7]),
        attempts=row[8],
        setbacks=row[9],
        sequence=row[10],
        result=None if result is None else ResultSet.FromString(result),
        error=None if error is None else from_status(status_pb2.Status.FromString(error)),
        create_time_us=row[13],
        update_time_us=row[14],
    )


def failure_event(failed: Entry, error: HubError) -> Event:
    """Makes the event that announces a failure of which no journal tells."""
    content = failed.content
    if isinstance(content, OperationRequest):
        content = content.statement
    query = content.query if isinstance(content, Statement) else ""
    return Event(
        type=FAILED,
        data_content_type=PROTOBUF,
        operation_failed=OperationFailed(
            request_id=failed.request_id,
            query=query[:QUERY_CHARACTERS_MAX],
            error=to_status(error),
        ),
    )
