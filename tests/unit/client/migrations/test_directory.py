"""Directories of every layout, the examples among them."""

import sqlite3
from pathlib import Path

import pytest

from messagehub.errors import InvalidRequest
from messagehub.migrations import directory
from messagehub.schema import scripts

EXAMPLES = Path(__file__).parents[4] / "examples" / "migrations"
EXPECTED = {
    "auth": ["20240101120000.0.0", "20240215093000.0.0"],
    "campaign": ["1.0.0", "2.0.0"],
    "catalog": ["1.0.0", "1.1.0"],
    "character": ["1.0.0", "1.1.0"],
    "metrics": ["1.0.0", "2.0.0"],
}


def test_there_is_an_example_for_each_database() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_examples_lead_up_and_back(name: str) -> None:
    migrations = directory.load(EXAMPLES / name)
    assert [str(one.version) for one in migrations] == EXPECTED[name]
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("PRAGMA foreign_keys = ON")

    def shape() -> list[str]:
        return sorted(row[0] or "" for row in database.execute("SELECT sql FROM sqlite_master"))

    shapes = [shape()]
    for one in migrations:
        for statement in scripts.statements(one.script):
            database.execute(statement)
        shapes.append(shape())
    assert len({tuple(one) for one in shapes}) == len(shapes)
    for one in reversed(migrations):
        shapes.pop()
        for statement in scripts.statements(one.rollback_script):
            database.execute(statement)
        assert [" ".join(sql.split()) for sql in shape()] == [
            " ".join(sql.split()) for sql in shapes[-1]
        ]
    database.close()


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"1_a.sql": "SELECT 1"}, "which layout"),
        ({"a.sql": "SELECT 1"}, "no known layout"),
        ({"1.0.0__a.sql": "", "2_b.up.sql": ""}, "not named as the others"),
        ({"1_a.up.sql": "", "b.sql": ""}, "not named as the others"),
        ({"1.0.0__a.undo.sql": ""}, "nothing leads up"),
        ({"1.0.0__a.sql": "", "1.0.0__b.sql": ""}, "has the version of"),
        ({"1_a.sql": "-- +goose Up\n-- +goose NO TRANSACTION\nSELECT 1"}, "NO TRANSACTION"),
        ({"1_a.sql": "-- +goose ENVSUB ON\n-- +goose Up\nSELECT 1"}, "ENVSUB"),
        ({"1_a.sql": "-- migrate:up transaction:false\nSELECT 1"}, "transaction:false"),
        ({"1_a.sql": "SELECT 1;\n-- +goose Up\nSELECT 2"}, "before its first mark"),
        ({"1_a.go": "package x"}, "is a program"),
    ],
)
def test_what_cannot_be_run_is_refused_by_file(
    tmp_path: Path, files: dict[str, str], problem: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidRequest, match=problem):
        directory.load(tmp_path)


def test_a_file_that_is_no_text_and_no_directory(tmp_path: Path) -> None:
    (tmp_path / "1.0.0__a.sql").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        directory.load(tmp_path)
    with pytest.raises(InvalidRequest, match="no directory"):
        directory.load(tmp_path / "1.0.0__a.sql")
    assert directory.load(tmp_path.parent / tmp_path.name / "..") is not None


def test_what_is_empty_has_no_way_back(tmp_path: Path) -> None:
    (tmp_path / "1_a.sql").write_text("-- migrate:up\nSELECT 1;\n-- migrate:down\n-- none\n")
    (migration,) = directory.load(tmp_path)
    assert migration.rollback_script == ""
    assert migration.script == "SELECT 1;"
