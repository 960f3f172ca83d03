"""The checks of requests: what is refused, and the field that each refusal names."""

import uuid

import pytest

from hub.api.checks import RequestChecks, given_request_id, request_id_or_new, written_for
from hub.config import HubConfig
from messagehub.errors import InvalidRequest
from messagehub.v1.hub_service_pb2 import AdoptDatabaseRequest
from messagehub.v1.statement_pb2 import Statement, Value
from messagehub.v1.storage_service_pb2 import ExecuteRequest
from tests.support.calls import statement

CHECKS = RequestChecks(
    HubConfig(
        query_bytes_max=100,
        parameters_max=3,
        batch_operations_max=2,
        query_page_rows_max=50,
        adopt_chunk_bytes_max=8,
    )
)


def refused_field(check, *arguments):
    with pytest.raises(InvalidRequest) as caught:
        check(*arguments)
    (field,) = caught.value.fields
    assert field in caught.value.message
    return field


@pytest.mark.parametrize("query", ["", " ", "\n\t  \n", " \u2003"])
def test_a_blank_query_is_refused(query):
    assert refused_field(CHECKS.statement, Statement(query=query)) == "statement.query"


def test_a_missing_statement_is_a_missing_query():
    assert refused_field(CHECKS.statement, ExecuteRequest().statement) == "statement.query"


@pytest.mark.parametrize("character", ["a", "é", "€", "🐉"])
def test_the_length_of_a_query_counts_in_bytes(character):
    size = len(character.encode())
    CHECKS.statement(Statement(query=character * (100 // size)))
    too_long = Statement(query=character * (100 // size + 1))
    assert refused_field(CHECKS.statement, too_long) == "statement.query"


def test_a_value_without_a_kind_is_named_by_its_index():
    values = [Value(integer=1), Value(), Value(text="x")]
    field = refused_field(CHECKS.statement, Statement(query="SELECT ?", parameters=values))
    assert field == "statement.parameters[1]"


def test_a_named_value_without_a_kind_is_named_by_its_name():
    bad = Statement(query="SELECT :a", named_parameters={"a": Value(integer=1), "level": Value()})
    assert refused_field(CHECKS.statement, bad) == "statement.named_parameters[level]"


def test_every_kind_passes_the_empty_ones_included():
    for values in ([None, False, 0], [0.0, "", b""]):
        CHECKS.statement(statement("SELECT ?, ?, ?", *values))
        CHECKS.statement(statement("SELECT :a, :b, :c", **dict(zip("abc", values, strict=True))))


def test_positional_and_named_parameters_do_not_mix():
    both = statement("SELECT ?, :a", 1, a=2)
    assert refused_field(CHECKS.statement, both) == "statement.named_parameters"


def test_parameters_are_bounded():
    CHECKS.statement(statement("SELECT ?", 1, 2, 3))
    assert refused_field(CHECKS.statement, statement("SELECT ?", 1, 2, 3, 4)) == (
        "statement.parameters"
    )
    assert refused_field(CHECKS.statement, statement("SELECT ?", a=1, b=2, c=3, d=4)) == (
        "statement.named_parameters"
    )


@pytest.mark.parametrize(
    "form",
    [
        "6b29fc40-ca47-1067-b31d-00dd010662da",
        "6B29FC40-CA47-1067-B31D-00DD010662DA",
        "6b29fc40ca471067b31d00dd010662da",
        "{6b29fc40-ca47-1067-b31d-00dd010662da}",
        "urn:uuid:6B29FC40-ca47-1067-b31d-00dd010662da",
    ],
)
def test_every_form_of_a_request_id_is_the_same_request_id(form):
    assert given_request_id(form) == "6b29fc40-ca47-1067-b31d-00dd010662da"
    assert request_id_or_new(form) == "6b29fc40-ca47-1067-b31d-00dd010662da"


@pytest.mark.parametrize("form", ["x", "1", "6b29fc40-ca47-1067-b31d-00dd010662d", "{}", " "])
def test_what_is_not_a_uuid_is_refused(form):
    assert refused_field(given_request_id, form) == "request_id"


def test_a_missing_request_id_is_made_up_where_it_is_needed():
    assert given_request_id("") == ""
    made = request_id_or_new("")
    assert str(uuid.UUID(made)) == made
    assert made != request_id_or_new("")


def test_a_statement_goes_with_the_range_that_it_is_written_for():
    assert written_for(statement("X"), "") == statement("X")
    request = written_for(statement("X"), ">=1")
    assert (request.statement, request.schema_version) == (statement("X"), ">=1")
    with pytest.raises(InvalidRequest, match="schema_version") as caught:
        written_for(statement("X"), "nonsense")
    assert list(caught.value.fields) == ["schema_version"]


def test_a_batch_has_at_least_one_operation_and_not_too_many():
    CHECKS.batch_size(1)
    CHECKS.batch_size(2)
    assert refused_field(CHECKS.batch_size, 0) == "operations"
    assert refused_field(CHECKS.batch_size, 3) == "operations"


def test_a_page_has_the_default_size_or_one_within_the_limit():
    CHECKS.page_size(0)
    CHECKS.page_size(50)
    assert refused_field(CHECKS.page_size, -1) == "page_size"
    assert refused_field(CHECKS.page_size, 51) == "page_size"


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"size_bytes": 0, "checksum": "0" * 64}, "size_bytes"),
        ({"size_bytes": -1, "checksum": "0" * 64}, "size_bytes"),
        ({"size_bytes": 1, "checksum": ""}, "checksum"),
        ({"size_bytes": 1, "checksum": "g" * 64}, "checksum"),
        ({"size_bytes": 1, "checksum": "0" * 65}, "checksum"),
    ],
)
def test_a_file_says_its_size_and_checksum_first(header, field):
    assert refused_field(CHECKS.file_header, AdoptDatabaseRequest(**header)) == field
    CHECKS.file_header(AdoptDatabaseRequest(size_bytes=1, checksum="aF" * 32))


def test_a_piece_of_a_file_is_bounded():
    CHECKS.chunk(b"12345678")
    assert refused_field(CHECKS.chunk, b"123456789") == "chunk"
