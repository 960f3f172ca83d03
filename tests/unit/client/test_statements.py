import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagehub.cli.statements import Piece, leading_keyword, parse_parameters, split


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("select 1", "SELECT"),
        ("  -- why\n /* how */ With x AS (SELECT 1) SELECT 1", "WITH"),
        ("/* never closed", ""),
        ("-- only a comment", ""),
        ("(SELECT 1)", ""),
        ("", ""),
    ],
)
def test_the_leading_keyword(text: str, keyword: str) -> None:
    assert leading_keyword(text) == keyword


def test_statements_are_told_apart_with_their_lines() -> None:
    text = "SELECT 1; SELECT 2;\n-- a comment;\n\nSELECT\n  3;\nSELECT 4"
    assert list(split(text.splitlines(keepends=True))) == [
        Piece("SELECT 1;", 1),
        Piece("SELECT 2;", 1),
        Piece("-- a comment;\n\nSELECT\n  3;", 4),
        Piece("SELECT 4", 6),
    ]


def test_a_semicolon_in_a_text_or_a_trigger_ends_nothing() -> None:
    trigger = (
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  UPDATE b SET c = ';';\n  DELETE FROM d;\nEND;"
    )
    text = f"INSERT INTO a VALUES ('x;y');\n{trigger}\n"
    assert [piece.text for piece in split(text.splitlines(keepends=True))] == [
        "INSERT INTO a VALUES ('x;y');",
        trigger,
    ]


@pytest.mark.parametrize("text", ["", "\n\n", ";", " ; ;\n", "-- nothing", "/* nothing */ ;"])
def test_blanks_and_comments_are_no_statements(text: str) -> None:
    assert list(split(text.splitlines(keepends=True))) == []


@given(st.lists(st.sampled_from(["SELECT 1", "SELECT ';'", "DELETE FROM a", 'SELECT "x\ny"'])))
def test_statements_written_after_each_other_come_back(statements: list[str]) -> None:
    text = ";\n".join(statements)
    found = [piece.text.rstrip(";") for piece in split(text.splitlines(keepends=True))]
    assert found == statements


def test_a_statement_comes_as_soon_as_it_is_complete() -> None:
    def lines() -> object:
        yield "SELECT 1;\n"
        raise AssertionError("was read before the first statement was given")

    assert next(split(lines())) == Piece("SELECT 1;", 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("null", None),
        ('"7"', "7"),
        ("Ada", "Ada"),
        ("007", "007"),
        ("NaN", "NaN"),
        ('{"a": 1}', '{"a": 1}'),
        ("[1]", "[1]"),
        ("", ""),
    ],
)
def test_what_a_parameter_stands_for(text: str, value: object) -> None:
    [parsed] = parse_parameters([text])
    assert parsed == value
    assert type(parsed) is type(value)


def test_named_parameters() -> None:
    assert parse_parameters([":name=Ada", "@level=3"]) == {"name": "Ada", "level": 3}
    assert parse_parameters(["a=b"]) == ["a=b"]


@pytest.mark.parametrize("given_", [[":a=1", "2"], [":a=1", ":a=2"]])
def test_a_mixture_of_parameters_is_refused(given_: list[str]) -> None:
    with pytest.raises(click.UsageError, match="--param"):
        parse_parameters(given_)
