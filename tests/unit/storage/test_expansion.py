"""How large a statement becomes, and what is refused for it."""

import sqlite3

import pytest

from messagehub.errors import InvalidStatement
from storage.sqlite import expansion
from storage.sqlite.schema_texts import SchemaTexts
from storage.sqlite.statements import first_word

WORDS_MAX = 10_000


def chain(length: int, join: str = ", ", name: str = "c{}") -> str:
    """Expressions of which each names the one before twice."""
    parts = [f"{name.format(0)}(x) AS (SELECT 1)"]
    for n in range(1, length):
        before = name.format(n - 1)
        parts.append(f"{name.format(n)}(x) AS (SELECT a.x FROM {before} a{join}{before} b)")
    return f"WITH {', '.join(parts)} SELECT * FROM {name.format(length - 1)}"


def words(text: str) -> int:
    return expansion.expanded_words(expansion.read(text), {})


def test_each_link_of_a_chain_doubles() -> None:
    assert words(chain(12)) > 1.9 * words(chain(11)) > 3.6 * words(chain(10))


@pytest.mark.parametrize(
    "text",
    [
        chain(20),
        chain(20, join=" JOIN "),
        chain(20, join="/* , */ CROSS JOIN\n"),
        chain(20, name='"A c{}"'),
        chain(20, name="[c{}]").replace("AS (", "AS NOT MATERIALIZED ("),
        chain(20).replace(" AS (", " AS MATERIALIZED ("),
        chain(20).replace("(x) AS", "(x)AS"),
        chain(20).replace("FROM c", "FROM (c", -1).replace(" a, ", ") a, "),
        f"INSERT INTO t SELECT * FROM ({chain(20)})",
        f"{chain(20)} WHERE 1 IN c19",
        "WITH o AS (" + chain(20) + ") SELECT * FROM o",
    ],
)
def test_a_chain_is_found_however_it_is_written(text: str) -> None:
    schema = SchemaTexts()
    with pytest.raises(InvalidStatement) as refusal:
        schema.check(text, first_word(text), WORDS_MAX)
    assert refusal.value.metadata == {"limit_words": str(WORDS_MAX)}


@pytest.mark.parametrize(
    "text",
    [
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT * FROM c",
        "WITH "
        + ", ".join(
            f"c{n} AS (SELECT c{n - 1}.id, c{n - 1}.x, c{n - 1}.y FROM c{n - 1})"
            for n in range(1, 20)
        )
        + " SELECT * FROM c19",
        "WITH a AS (SELECT * FROM t), b AS (SELECT * FROM a) SELECT 1 FROM a, b, a c, b d",
        "SELECT 'WITH' FROM t WHERE x IN (" + ", ".join("?" * 30_000) + ")",
        "WITH a AS (SELECT b FROM b), b AS (SELECT a FROM a) SELECT * FROM a",
    ],
    ids=["recursive", "a chain of single names", "a small graph", "many parameters", "a circle"],
)
def test_ordinary_statements_pass(text: str) -> None:
    SchemaTexts().check(text, first_word(text), WORDS_MAX)


def view(number: int, below: str) -> str:
    return f'CREATE VIEW IF NOT EXISTS main."v{number}" (x) AS SELECT a.x FROM {below} a, {below} b'


def define(schema: SchemaTexts, text: str) -> None:
    schema.check(text, first_word(text), WORDS_MAX)


def define_all(schema: SchemaTexts, texts: list[str]) -> None:
    for text in texts:
        define(schema, text)


def test_views_count_like_expressions_whatever_their_order() -> None:
    for numbers in (range(1, 30), range(30, 1, -1)):
        schema = SchemaTexts()
        with pytest.raises(InvalidStatement):
            define_all(schema, [view(number, f"main.v{number - 1}") for number in numbers])


def test_views_and_expressions_multiply() -> None:
    schema = SchemaTexts()
    for number in range(1, 8):
        define(schema, view(number, f"v{number - 1}"))
    text = chain(7).replace("SELECT 1)", "SELECT x FROM v7)")
    with pytest.raises(InvalidStatement):
        schema.check(text, first_word(text), WORDS_MAX)
    SchemaTexts().check(text, first_word(text), WORDS_MAX)


def test_what_a_file_holds_is_known_from_the_beginning() -> None:
    raw = sqlite3.connect(":memory:")
    raw.execute("CREATE TABLE v0 (x, CHECK (trim(x) <> ''))")
    for number in range(1, 13):
        raw.execute(view(number, f"v{number - 1}"))
    schema = SchemaTexts()
    schema.load(raw)
    assert schema.functions == {"trim"}
    schema.check("SELECT * FROM v2", "SELECT", WORDS_MAX)
    with pytest.raises(InvalidStatement):
        schema.check("SELECT * FROM v12", "SELECT", WORDS_MAX)
    raw.close()
