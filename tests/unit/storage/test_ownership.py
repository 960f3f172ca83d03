"""One process per database file."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from messagehub.errors import DatabaseUnavailable
from storage.sqlite.ownership import Ownership


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first, second = Ownership(tmp_path / "a.db"), Ownership(tmp_path / "a.db")
    first.take()
    with pytest.raises(DatabaseUnavailable) as caught:
        second.take()
    assert f"pid {os.getpid()}" in caught.value.message
    other = Ownership(tmp_path / "b.db")
    other.take()
    other.give_up()
    first.give_up()
    first.give_up()
    second.take()
    second.give_up()


def test_a_process_that_is_gone_owns_nothing(tmp_path: Path) -> None:
    code = (
        "import pathlib, os, storage.sqlite.ownership as o\n"
        f"o.Ownership(pathlib.Path({str(tmp_path / 'a.db')!r})).take()\n"
        "print('taken', flush=True)\n"
        "os.read(0, 1)\n"
    )
    root = Path(sys.modules["storage"].__file__ or "").parents[1]
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    mine = Ownership(tmp_path / "a.db")
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"taken\n"
        with pytest.raises(DatabaseUnavailable) as caught:
            mine.take()
        assert f"pid {child.pid}" in caught.value.message
    finally:
        child.kill()
        child.communicate()
    mine.take()
    mine.give_up()


def test_a_lock_that_cannot_be_written_is_not_kept(tmp_path: Path) -> None:
    """A full disk must not leave this process as an owner that it does not know of."""
    mine = Ownership(tmp_path / "a.db")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            mine.take()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    mine.give_up()
    other = Ownership(tmp_path / "a.db")
    other.take()
    other.give_up()
