"""Python values to `messagehub.v1.Value` and back.

    None   null          int                             integer (64 bits, signed)
    bool   boolean       float                           real
    str    text          bytes, bytearray, memoryview    blob (comes back as bytes)

Nothing is converted silently: what has no kind here is refused with `InvalidRequest`, whose
`fields` names the parameter.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from google.protobuf.struct_pb2 import NULL_VALUE

from messagehub.errors import InternalError, InvalidRequest
from messagehub.v1.statement_pb2 import ResultSet, Statement, Value

__all__ = ["Parameters", "SqlValue", "from_value", "row_tuples", "to_statement", "to_value"]

SqlValue: TypeAlias = bool | int | float | str | bytes | bytearray | memoryview | None
Parameters: TypeAlias = Sequence[SqlValue] | Mapping[str, SqlValue]

_INTEGER_MIN: Final = -(2**63)
_INTEGER_MAX: Final = 2**63 - 1


def to_value(value: SqlValue, field: str = "value") -> Value:
    """Gives the `Value` of a Python value.

    Raises `InvalidRequest`, naming `field`, for a type that has no kind, an integer beyond 64
    bits, and text that is not Unicode (a lone surrogate).
    """
    match value:
        case None:
            return Value(null=NULL_VALUE)
        case bool():
            return Value(boolean=value)
        case int():
            if not _INTEGER_MIN <= value <= _INTEGER_MAX:
                raise _refusal(field, "is an integer beyond 64 bits: pass it as text")
            return Value(integer=value)
        case float():
            return Value(real=value)
        case str():
            return Value(text=_unicode(value, field))
        case bytes():
            return Value(blob=value)
        case bytearray() | memoryview():
            return Value(blob=bytes(value))
    raise _refusal(
        field,
        f"has the type {type(value).__name__}, which is not a SQL value: convert it to None, "
        "bool, int, float, str or bytes",
    )


def from_value(value: Value) -> SqlValue:
    """Gives the Python value of a `Value`."""
    kind = value.WhichOneof("kind")
    if kind is not None:
        return None if kind == "null" else getattr(value, kind)
    raise InternalError(
        "the hub sent a value of a kind that this client does not know: update the client"
    )


def to_statement(query: str, parameters: Parameters = ()) -> Statement:
    """Gives the statement; a sequence holds positional parameters, a mapping named ones.

    Raises `InvalidRequest` as `to_value` does.
    """
    field = "statement.query"
    if not isinstance(query, str):
        raise _refusal(field, f"has the type {type(query).__name__}: it must be a str")
    statement = Statement(query=_unicode(query, field))
    if isinstance(parameters, Mapping):
        for name, value in parameters.items():
            path = f"statement.named_parameters[{name!r}]"
            if not isinstance(name, str):
                raise _refusal(path, "has a name that is not a str")
            statement.named_parameters[_unicode(name, path)].CopyFrom(to_value(value, path))
    elif isinstance(parameters, Sequence) and not isinstance(
        parameters, str | bytes | bytearray | memoryview
    ):
        statement.parameters.extend(
            to_value(value, f"statement.parameters[{position}]")
            for position, value in enumerate(parameters)
        )
    else:
        raise _refusal(
            "statement.parameters",
            f"has the type {type(parameters).__name__}: pass a list or tuple for `?`, a dict for "
            "`:name`; a single value needs a list too",
        )
    return statement


def row_tuples(result: ResultSet) -> list[tuple[SqlValue, ...]]:
    """Gives the rows of a result as tuples of Python values."""
    return [tuple([from_value(value) for value in row.values]) for row in result.rows]


def _unicode(text: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as failure:
        raise _refusal(
            field, f"is not Unicode text at character {failure.start}: pass bytes instead"
        ) from failure
    return text


def _refusal(field: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {problem}", fields={field: problem})
