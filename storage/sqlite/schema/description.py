"""The schema of one file as it is, and how it came to be."""

import sqlite3

from messagehub.storage.v1.storage_service_pb2 import DescribeSchemaResponse
from storage.sqlite.schema import history, shape


def described(raw: sqlite3.Connection) -> DescribeSchemaResponse:
    """Everything of one snapshot; no transaction is open on the connection."""
    raw.execute("BEGIN")
    try:
        recorded = history.recorded_shape(raw)
        return DescribeSchemaResponse(
            version=history.current(raw),
            history=[change.message() for change in history.changes(raw)],
            tables=shape.tables(raw),
            drifted=bool(recorded) and recorded != shape.fingerprint(raw),
        )
    finally:
        raw.execute("ROLLBACK")
