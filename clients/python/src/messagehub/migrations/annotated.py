"""Files that hold both directions, marked by comments: goose and dbmate.

goose (pressly.github.io/goose): `-- +goose Up`, `-- +goose Down`; `StatementBegin` and
`StatementEnd` are not needed, because statements end where SQLite says so.
dbmate (github.com/amacneil/dbmate): `-- migrate:up`, `-- migrate:down`.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from messagehub.migrations.migration import Migration, read_text, refusal, version_of_number
from messagehub.schema import scripts

NAME: Final = re.compile(r"(\d+)_(.+)\.sql")
_GOOSE: Final = re.compile(r"\s*--\s*\+goose\s+(.+?)\s*$", re.IGNORECASE)
_DBMATE: Final = re.compile(r"\s*--\s*migrate:(up|down)\b(.*)$", re.IGNORECASE)
_IN_TRANSACTION: Final = (
    "every update runs in one transaction: take the option away, and leave out what SQLite only "
    "does outside of one"
)
UP: Final = "up"
DOWN: Final = "down"


def is_goose(text: str) -> bool:
    """True if a file has goose's marks."""
    return any(_GOOSE.match(line) for line in text.splitlines())


def is_dbmate(text: str) -> bool:
    """True if a file has dbmate's marks."""
    return any(_DBMATE.match(line) for line in text.splitlines())


def read_goose(path: Path, number: str, description: str) -> Migration:
    """Reads a file of goose."""

    def mark(line: str) -> str | None:
        found = _GOOSE.match(line)
        if found is None:
            return None
        word = found[1].upper()
        if word.startswith("NO TRANSACTION"):
            raise refusal(path, f"says NO TRANSACTION; {_IN_TRANSACTION}")
        if word.startswith("ENVSUB ON"):
            raise refusal(path, "says ENVSUB ON; a script must be the same everywhere")
        return word.lower() if word in ("UP", "DOWN") else ""

    return _read(path, number, description, mark)


def read_dbmate(path: Path, number: str, description: str) -> Migration:
    """Reads a file of dbmate."""

    def mark(line: str) -> str | None:
        found = _DBMATE.match(line)
        if found is None:
            return None
        if "transaction:false" in found[2].replace(" ", "").lower():
            raise refusal(path, f"says transaction:false; {_IN_TRANSACTION}")
        return found[1].lower()

    return _read(path, number, description, mark)


def _read(
    path: Path, number: str, description: str, mark: Callable[[str], str | None]
) -> Migration:
    """Puts lines where the marks say; `mark` gives "" where one says nothing, None for none."""
    parts: dict[str, list[str]] = {UP: [], DOWN: []}
    current = ""
    for line in read_text(path).splitlines():
        found = mark(line)
        if found is not None and found in parts:
            current = found
        elif found is None and current:
            parts[current].append(line)
        elif found is None and not scripts.is_empty(line):
            raise refusal(path, "holds a statement before its first mark")
    if not current:
        raise refusal(path, "does not say where the way up begins")
    up, down = ("\n".join(parts[way]).strip() for way in (UP, DOWN))
    return Migration(
        version_of_number(number),
        description.replace("_", " "),
        up,
        "" if scripts.is_empty(down) else down,
        path,
    )
