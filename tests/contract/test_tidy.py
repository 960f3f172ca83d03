"""Rules of the code that no linter of ours knows."""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
GENERATED = ("clients/python/src/messagehub/v1/", "clients/python/src/messagehub/storage/")
THIRD_PARTY = ("protos/third_party/", "LICENSE")
BINARY = (".binpb", ".png", ".svg")
LOCKS = ("requirements.lock", "requirements-bench.lock", "protos/generator.lock")

# Words that stand here in pieces, so that this file passes its own test.
UNFINISHED = re.compile("FIX" + r"ME|TO" + r"DO|XX" + "X")
# An absolute path of somebody's machine.
MACHINE_PATH = re.compile(r"(?<![\w./*])/(?:work|home|root|Users|opt|mnt)/[\w.-]+")
HOST = re.compile(r"https?://")


def listed() -> list[str]:
    """The files that git keeps or would keep."""
    answer = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - from PATH
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in answer.stdout.splitlines() if (REPOSITORY / name).is_file()]


def written(*suffixes: str) -> list[str]:
    """The files that people write, of these kinds."""
    return [
        name
        for name in listed()
        if name.endswith(suffixes) and not name.startswith((*GENERATED, *THIRD_PARTY))
    ]


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text("utf-8")


def test_nothing_is_left_for_later_in_a_comment() -> None:
    names = written(".py", ".proto", ".toml")
    assert names
    assert not [name for name in names if UNFINISHED.search(text_of(name))]


@pytest.mark.parametrize(
    "pattern", [r"\.details\(\) *[!=]=", r" in str\(\w+\)", r"\bin \w+\.details\(\)"]
)
def test_nobody_matches_on_the_text_of_an_error(pattern: str) -> None:
    sources = [name for name in written(".py") if not name.startswith("tests/")]
    assert sources
    assert not [name for name in sources if re.search(pattern, text_of(name))]


def test_no_file_names_a_place_of_one_machine() -> None:
    found = {
        name: places
        for name in listed()
        if not name.endswith(BINARY) and (places := MACHINE_PATH.findall(text_of(name)))
    }
    assert not found


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_pin_by_hash_and_name_no_registry(name: str) -> None:
    lines = [line for line in text_of(name).splitlines() if line and not line.startswith("#")]
    assert lines
    assert not [line for line in lines if HOST.search(line) or "index-url" in line]
    pins = [line for line in lines if not line.startswith(" ")]
    assert all(re.match(r"[a-zA-Z0-9._\[\]-]+==[^ ]+", pin) for pin in pins)
    assert len(re.findall("--hash=sha256:", "\n".join(lines))) >= len(pins)
