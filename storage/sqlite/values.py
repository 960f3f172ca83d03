"""Values in and out, exactly.

SQLite keeps NULL, 64-bit integers, doubles, text and blobs as they are, with two exceptions that
are made good here. It turns NaN into NULL (sqlite.org/floatingpoint.html), so a NaN is kept as a
blob of its own, which sorts above every number, as PostgreSQL sorts NaN; a caller's blob that
begins like it is kept with a mark in front. And it has no booleans: they are kept as the integers
1 and 0, and come back as booleans from columns that are declared so.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from google.protobuf.struct_pb2 import NULL_VALUE

from messagehub.errors import InvalidRequest, ResultTooLarge
from messagehub.v1.statement_pb2 import ResultSet, Statement, Value

SqlValue = None | int | float | str | bytes

_MARK: Final = b"\x00messagehub:"
_NAN: Final = _MARK + b"nan"
_BLOB: Final = _MARK + b"blob:"
_NUMBER_BYTES: Final = 9
# What a value takes on the wire besides its content, at least: two tags and two lengths.
_VALUE_BYTES: Final = 4
# What a column takes besides its names: a tag and a length.
_COLUMN_BYTES: Final = 4
SHORTER_NAMES: Final = "give its columns shorter names, or select fewer"


def to_sql(value: Value) -> SqlValue:
    """Gives what SQLite binds for a value."""
    match value.WhichOneof("kind"):
        case "integer":
            return value.integer
        case "text":
            return value.text
        case "real":
            return _NAN if math.isnan(value.real) else value.real
        case "blob":
            return _BLOB + value.blob if value.blob.startswith(_MARK) else value.blob
        case "boolean":
            return int(value.boolean)
        case "null":
            return None
        case _:
            raise InvalidRequest(
                "a parameter has no kind: set exactly one, `null` for SQL NULL",
                fields={"statement.parameters": "a value without a kind"},
            )


def parameters(statement: Statement) -> list[SqlValue] | dict[str, SqlValue]:
    """Gives what SQLite binds for a statement."""
    if statement.named_parameters:
        return {name: to_sql(value) for name, value in statement.named_parameters.items()}
    return [to_sql(value) for value in statement.parameters]


def append_rows(result: ResultSet, rows: Iterable[Sequence[Any]], booleans: frozenset[int]) -> int:
    """Appends rows to a result and gives about how many bytes they are."""
    size = 0
    for row in rows:
        values = result.rows.add().values
        size += _VALUE_BYTES * len(row)
        for place, value in enumerate(row):
            kind = type(value)
            if kind is int:
                if place in booleans and value in (0, 1):
                    values.add(boolean=value == 1)
                else:
                    values.add(integer=value)
                size += _NUMBER_BYTES
            elif kind is str:
                values.add(text=value)
                size += len(value) if value.isascii() else len(value.encode())
            elif value is None:
                values.add(null=NULL_VALUE)
            elif kind is float:
                values.add(real=value)
                size += _NUMBER_BYTES
            else:
                size += _append_blob(values.add(), value)
    return size


def _append_blob(target: Value, blob: bytes) -> int:
    if not blob.startswith(_MARK):
        target.blob = blob
    elif blob == _NAN:
        target.real = math.nan
    else:
        target.blob = blob.removeprefix(_BLOB)
    return len(blob)


def names_bytes(result: ResultSet) -> int:
    """The bytes of a result's columns, without its rows."""
    return sum(column.ByteSize() + _COLUMN_BYTES for column in result.columns)


def check_size(size: int, limit: int, remedy: str) -> None:
    """Refuses a result that is too large for one message; `remedy` says what to do."""
    if size > limit:
        raise ResultTooLarge(
            f"the result is over {limit} bytes (result_bytes_max): {remedy}",
            metadata={"limit_bytes": str(limit)},
        )
