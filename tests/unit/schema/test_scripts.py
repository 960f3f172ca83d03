"""Splitting scripts and their checksums."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagehub.schema import scripts

TRIGGER = """CREATE TRIGGER t AFTER INSERT ON a BEGIN
  UPDATE b SET x = CASE WHEN new.x THEN 1 ELSE 2 END;
  DELETE FROM c WHERE name = ';END;';
END"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        (" ;; -- nothing;\n /* ; */ ;", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;", ["SELECT 1"]),
        ("SELECT ';'; SELECT \";\";", ["SELECT ';'", 'SELECT ";"']),
        ("SELECT 1; -- a comment; with a semicolon\nSELECT 2", None),
        (f"{TRIGGER};SELECT 1;", [TRIGGER, "SELECT 1"]),
        (f"{TRIGGER} ;\n{TRIGGER};", [TRIGGER, TRIGGER]),
        ("CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;END;SELECT 2", None),
        ("SELECT 'open; SELECT 2;", ["SELECT 'open; SELECT 2;"]),
        ("SELECT [a;b] FROM `c;d`;SELECT 2", ["SELECT [a;b] FROM `c;d`", "SELECT 2"]),
    ],
)
def test_statements(script: str, expected: list[str] | None) -> None:
    found = list(scripts.statements(script))
    if expected is None:
        assert len(found) == 2
    else:
        assert found == expected


@given(st.text(alphabet="';\"-/*\n ab[]`\ufeff", max_size=60))
def test_every_statement_is_complete_by_the_rules_of_sqlite(script: str) -> None:
    found = list(scripts.statements(script))
    assert all(sqlite3.complete_statement(f"{statement};") for statement in found[:-1])
    assert "".join("".join(found).split()) in "".join(script.split()) or len(found) > 1


@pytest.mark.parametrize(
    "text",
    [
        "SELECT '" + ";" * 500_000,
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN " + "SELECT 1;" * 60_000,
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN " + "SELECT CASE 1 WHEN 1 THEN 2 END;" * 20_000,
        "/*" * 250_000,
        "[" * 500_000,
    ],
)
def test_hostile_texts_are_split_in_one_pass(text: str) -> None:
    # A quadratic one takes minutes, longer than a test may.
    assert len(list(scripts.statements(text))) <= 1


def test_the_checksum_ignores_what_editors_do() -> None:
    script = "CREATE TABLE a (x);\nCREATE TABLE b (x);"
    edited = "\ufeff\r\nCREATE TABLE a (x);  \r\nCREATE TABLE b (x);\t\r\n\r\n"
    assert scripts.checksum(script) == scripts.checksum(edited)
    assert scripts.checksum(script) != scripts.checksum(script.replace("x", "y"))
    assert len(scripts.checksum("")) == 64
