"""Places for files that arrive, and what killed processes left of theirs."""

import subprocess
import sys
from pathlib import Path

import pytest

from storage.core.scratch import ADOPTING, remove_leftovers, scratch

HOLDER = (
    "import sys, pathlib, storage.core.scratch as s\n"
    "with s.scratch(pathlib.Path(sys.argv[1]), s.ADOPTING) as place:\n"
    "    (place / 'file').write_text('x')\n"
    "    print(place, flush=True)\n"
    "    sys.stdin.read()\n"
)


def places(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{ADOPTING}*"))


def test_a_place_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    with scratch(tmp_path, ADOPTING) as place:
        (place / "file").write_text("x")
        (place / "file-journal").write_text("x")
        assert places(tmp_path) == [place]
    assert places(tmp_path) == []


def test_a_place_goes_when_the_work_in_it_fails(tmp_path: Path) -> None:
    def work() -> None:
        with scratch(tmp_path, ADOPTING) as place:
            (place / "file").write_text("x")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        work()
    assert places(tmp_path) == []


def test_what_was_moved_away_stays(tmp_path: Path) -> None:
    with scratch(tmp_path, ADOPTING) as place:
        (place / "file").write_text("x")
        (place / "file").replace(tmp_path / "kept")
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_a_place_in_use_is_no_leftover(tmp_path: Path) -> None:
    with scratch(tmp_path, ADOPTING) as first, scratch(tmp_path, ADOPTING) as second:
        remove_leftovers(tmp_path, ADOPTING)
        assert places(tmp_path) == sorted([first, second])


def test_only_what_the_killed_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "items_db.db").write_text("x")
    with scratch(tmp_path, ADOPTING) as own:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        other = Path(process.stdout.readline().strip())
        remove_leftovers(tmp_path, ADOPTING)
        assert places(tmp_path) == sorted([own, other]), "another process is at work there"
        process.kill()
        process.communicate()
        assert (other / "file").exists()
        remove_leftovers(tmp_path, ADOPTING)
        assert places(tmp_path) == [own]
    assert [each.name for each in tmp_path.iterdir()] == ["items_db.db"]


def test_a_file_of_that_name_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / f"{ADOPTING}notes").write_text("x")
    remove_leftovers(tmp_path, ADOPTING)
    remove_leftovers(tmp_path / "nowhere", ADOPTING)
    assert len(places(tmp_path)) == 1
