"""What `messagehub adopt` copies, and what it refuses to take for a database."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from messagehub.cli.adopt import copy_database
from messagehub.errors import InvalidRequest

# Both end without closing the database, as a process does that is killed.
IN_THE_LOG = """
import os, sqlite3, sys
raw = sqlite3.connect(sys.argv[1], isolation_level=None)
raw.execute("PRAGMA journal_mode = WAL")
raw.execute("PRAGMA wal_autocheckpoint = 0")
raw.execute("CREATE TABLE heroes (name)")
raw.execute("INSERT INTO heroes VALUES ('Ada')")
os._exit(0)
"""
BROKEN_OFF = """
import os, sqlite3, sys
raw = sqlite3.connect(sys.argv[1], isolation_level=None)
raw.execute("CREATE TABLE heroes (name)")
raw.execute("INSERT INTO heroes VALUES ('Ada')")
raw.execute("PRAGMA cache_size = 1")
raw.execute("BEGIN")
raw.execute("UPDATE heroes SET name = 'nobody'")
raw.execute("CREATE TABLE filler (content)")
raw.executemany("INSERT INTO filler VALUES (?)", [("x" * 1000,) for _ in range(1000)])
os._exit(0)
"""


def left_by(code: str, file: Path) -> Path:
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    return file


def heroes(file: Path, directory: Path) -> list[tuple[str]]:
    directory.mkdir()
    copy = copy_database(file, directory, lambda _done, _total: None)
    assert copy.size_bytes == copy.path.stat().st_size
    with closing(sqlite3.connect(copy.path)) as raw:
        return raw.execute("SELECT name FROM heroes").fetchall()


def refusal(file: Path, directory: Path) -> str:
    with pytest.raises(InvalidRequest) as caught:
        copy_database(file, directory, lambda _done, _total: None)
    return caught.value.message


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_database(device: str, tmp_path: Path) -> None:
    assert refusal(Path(device), tmp_path) == f"{device} cannot be copied: it is no regular file"


def test_neither_a_pipe_nor_a_directory_is_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "nowhere"):
        assert "no regular file" in refusal(tmp_path / name, tmp_path)


def test_a_file_without_tables_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert "holds no tables" in refusal(tmp_path / "empty", tmp_path)
    with closing(sqlite3.connect(tmp_path / "bare")) as raw:
        raw.execute("PRAGMA user_version = 7")
    (tmp_path / "copy.sqlite3").unlink()
    assert "holds no tables" in refusal(tmp_path / "bare", tmp_path)


@pytest.mark.parametrize("through", ["", "link"])
def test_what_is_committed_only_in_the_log_is_copied(tmp_path: Path, through: str) -> None:
    file = left_by(IN_THE_LOG, tmp_path / "heroes.db")
    assert (tmp_path / "heroes.db-wal").stat().st_size
    if through:
        (tmp_path / through).symlink_to(file)
    assert heroes(tmp_path / through if through else file, tmp_path / "copy") == [("Ada",)]


def test_a_log_that_cannot_be_used_is_not_left_out(tmp_path: Path) -> None:
    """As where the shared memory beside the file cannot be made: a read-only medium."""
    file = left_by(IN_THE_LOG, tmp_path / "heroes.db")
    (tmp_path / "heroes.db-shm").unlink()
    (tmp_path / "heroes.db-shm").symlink_to(tmp_path / "nowhere" / "shm")
    said = refusal(file, tmp_path)
    assert "heroes.db-wal beside it may hold committed changes" in said
    assert "adopt it again" in said


def test_a_change_that_was_broken_off_is_not_copied_half(tmp_path: Path) -> None:
    file = left_by(BROKEN_OFF, tmp_path / "heroes.db")
    assert (tmp_path / "heroes.db-journal").stat().st_size
    said = refusal(file, tmp_path)
    assert "heroes.db-journal beside it may hold a broken-off change" in said
    # What the message says helps.
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("SELECT 1 FROM sqlite_master").fetchall()
    assert heroes(file, tmp_path / "copy") == [("Ada",)]
