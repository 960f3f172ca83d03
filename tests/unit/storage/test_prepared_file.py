"""The file of a prepared part holds the whole of it or nothing."""

import os
from pathlib import Path

import pytest

from storage.core.engine import EngineLost
from storage.sqlite.transactions import prepared_file
from storage.sqlite.transactions.prepared_file import HEADER_BYTES, KEPT_BYTES_MAX, PreparedFile

CONTENT = b"what is prepared" * 100


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "items.db"


def file_of(database: Path) -> Path:
    return database.with_name("items.db-prepared")


def test_it_is_there_for_the_next_process(database: Path) -> None:
    first = PreparedFile(database)
    assert first.read() is None
    assert not file_of(database).exists()
    first.write(CONTENT)
    first.close()
    assert PreparedFile(database).read() == CONTENT


def test_a_shorter_one_takes_the_place_of_a_longer_one(database: Path) -> None:
    file = PreparedFile(database)
    file.write(CONTENT)
    file.write(b"short")
    assert file.read() == b"short"
    file.clear()
    assert file.read() is None


@pytest.mark.parametrize("kept", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 50])
def test_a_torn_one_is_none(database: Path, kept: int) -> None:
    PreparedFile(database).write(CONTENT)
    os.truncate(file_of(database), kept)
    assert PreparedFile(database).read() is None


@pytest.mark.parametrize("place", [0, 10, 20, HEADER_BYTES, HEADER_BYTES + 99])
def test_a_flipped_bit_makes_it_none(database: Path, place: int) -> None:
    PreparedFile(database).write(CONTENT)
    content = bytearray(file_of(database).read_bytes())
    content[place] ^= 1
    file_of(database).write_bytes(content)
    assert PreparedFile(database).read() is None


def test_a_large_one_is_not_kept(database: Path) -> None:
    file = PreparedFile(database)
    file.write(bytes(KEPT_BYTES_MAX))
    file.clear()
    assert file_of(database).stat().st_size == 0


def test_a_failed_fsync_is_never_taken_for_a_refusal(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(prepared_file, "_flush", fail)
    with pytest.raises(EngineLost):
        PreparedFile(database).write(CONTENT)
