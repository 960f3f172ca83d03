import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagehub.errors import InvalidRequest
from messagehub.v1.statement_pb2 import Value
from messagehub.values import from_value, to_statement, to_value

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)


@given(VALUES)
def test_every_value_comes_back_with_its_type(value: object) -> None:
    back = from_value(Value.FromString(to_value(value).SerializeToString()))
    assert back == value
    assert type(back) is type(value)


def test_a_nan_keeps_its_bits() -> None:
    back = from_value(to_value(math.nan))
    assert struct.pack("<d", back) == struct.pack("<d", math.nan)


@pytest.mark.parametrize("value", [bytearray(b"\0\1"), memoryview(b"\0\1")])
def test_every_buffer_is_a_blob(value: bytearray | memoryview) -> None:
    assert to_value(value) == Value(blob=b"\0\1")


def test_a_truth_value_is_not_an_integer() -> None:
    assert to_value(True).WhichOneof("kind") == "boolean"
    assert to_value(1).WhichOneof("kind") == "integer"


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**40])
def test_an_integer_beyond_64_bits_is_refused_by_name(value: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_statement("SELECT ?, ?", [1, value])
    assert list(caught.value.fields) == ["statement.parameters[1]"]
    assert "64 bits" in caught.value.message


@pytest.mark.parametrize("value", [object(), [1], {"a": 1}, 1j, {1}])
def test_another_type_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_statement("SELECT :hero", {"hero": value})
    assert list(caught.value.fields) == ["statement.named_parameters['hero']"]
    assert type(value).__name__ in caught.value.message


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="Unicode"):
        to_value("\ud800")
    with pytest.raises(InvalidRequest) as caught:
        to_statement("SELECT '\udfff'")
    assert list(caught.value.fields) == ["statement.query"]


@pytest.mark.parametrize("parameters", ["Ada", b"Ada", 7, None, {1, 2}])
def test_a_single_value_is_not_a_list_of_parameters(parameters: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_statement("SELECT ?", parameters)
    assert list(caught.value.fields) == ["statement.parameters"]


def test_a_sequence_is_positional_and_a_mapping_is_named() -> None:
    assert list(to_statement("?", (1, "a")).parameters) == [Value(integer=1), Value(text="a")]
    assert dict(to_statement(":a", {"a": None}).named_parameters) == {"a": to_value(None)}


def test_a_name_that_is_not_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="name"):
        to_statement(":a", {1: 1})
