"""Files in pairs, one for each direction: our own layout, and that of golang-migrate.

our own: `1.2.0__description.sql`, `1.2.0__description.undo.sql`
golang-migrate (github.com/golang-migrate/migrate): `7_description.up.sql`, `7_description.down.sql`
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from messagehub.migrations.migration import Migration, read_text, refusal, version_of_number
from messagehub.schema import scripts
from messagehub.schema.versions import SemanticVersion

OWN: Final = re.compile(r"v?(\d+\.\d+\.\d+[^_]*)__(.+?)(\.undo)?\.sql")
GOLANG: Final = re.compile(r"(\d+)_(.+)\.(up|down)\.sql")


def read_own(paths: Sequence[Path]) -> list[Migration]:
    """Reads files of our own layout."""
    pairs: dict[tuple[str, str], dict[bool, Path]] = {}
    for path in paths:
        found = OWN.fullmatch(path.name)
        if found is None:
            raise refusal(path, "is not named as the others: 1.2.0__description[.undo].sql")
        pairs.setdefault((found[1], found[2]), {})[bool(found[3])] = path
    return [
        _pair(SemanticVersion.parse(version), description, pair)
        for (version, description), pair in pairs.items()
    ]


def read_golang(paths: Sequence[Path]) -> list[Migration]:
    """Reads files of golang-migrate."""
    pairs: dict[tuple[str, str], dict[bool, Path]] = {}
    for path in paths:
        found = GOLANG.fullmatch(path.name)
        if found is None:
            raise refusal(path, "is not named as the others: 7_description.up.sql or .down.sql")
        pairs.setdefault((found[1], found[2]), {})[found[3] == "down"] = path
    return [
        _pair(version_of_number(number), description, pair)
        for (number, description), pair in pairs.items()
    ]


def _pair(version: SemanticVersion, description: str, pair: dict[bool, Path]) -> Migration:
    if False not in pair:
        raise refusal(pair[True], "leads back, but nothing leads up to its version")
    down = read_text(pair[True]) if True in pair else ""
    return Migration(
        version,
        description.replace("_", " "),
        read_text(pair[False]),
        "" if scripts.is_empty(down) else down,
        pair[False],
    )
