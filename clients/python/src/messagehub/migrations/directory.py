"""Reading a directory of migrations, in whichever layout it is."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from messagehub.errors import InvalidRequest
from messagehub.migrations import annotated, paired
from messagehub.migrations.migration import Migration, read_text, refusal

__all__ = ["load"]


def load(directory: Path) -> list[Migration]:
    """Gives the migrations of a directory, by version.

    Raises `InvalidRequest`, which names the file, for what is not of one layout, for a version
    that is there twice, and for what could not run in a transaction.
    """
    if not directory.is_dir():
        raise InvalidRequest(f"{directory} is no directory", fields={str(directory): "is none"})
    programs = sorted(directory.glob("*.go"))
    if programs:
        raise refusal(programs[0], "is a program, not SQL: it cannot be run here")
    paths = sorted(path for path in directory.glob("*.sql") if path.is_file())
    migrations = sorted(_read(paths), key=lambda migration: migration.version)
    for before, after in pairwise(migrations):
        if before.version == after.version:
            raise refusal(after.path, f"has the version of {before.path.name}")
    return migrations


def _read(paths: Sequence[Path]) -> list[Migration]:
    if not paths:
        return []
    if any(paired.OWN.fullmatch(path.name) for path in paths):
        return paired.read_own(paths)
    if any(paired.GOLANG.fullmatch(path.name) for path in paths):
        return paired.read_golang(paths)
    return [_annotated(path) for path in paths]


def _annotated(path: Path) -> Migration:
    found = annotated.NAME.fullmatch(path.name)
    if found is None:
        raise refusal(
            path,
            "is of no known layout: 1.2.0__name.sql, or goose's, dbmate's or golang-migrate's "
            "7_name.sql",
        )
    text = read_text(path)
    if annotated.is_goose(text):
        return annotated.read_goose(path, found[1], found[2])
    if annotated.is_dbmate(text):
        return annotated.read_dbmate(path, found[1], found[2])
    raise refusal(path, "has neither `-- +goose Up` nor `-- migrate:up`: which layout is it?")
