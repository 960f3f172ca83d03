"""Which events are told when, and what a rehearsal gives, with a coordinator that does as told."""

import asyncio
from typing import Any

import pytest

from hub.core.background import Background
from hub.core.schema.changes import Change, Wanted, check_rising, work_of
from hub.core.schema.migrations import Migrations
from hub.core.schema.standings import Standings
from hub.core.transactions.coordinator import Call, Done
from hub.core.transactions.transaction import PartResult
from messagehub.errors import (
    DatabaseUnavailable,
    HubError,
    InvalidRequest,
    InvalidVersion,
    StorageUnavailable,
)


def change(database: str, version: str) -> Change:
    return Change(database, version, "", "", f"{database} {version}")


def wanted(*changes: Change) -> Wanted:
    return Wanted("auth", "c", "r", True, b"f", changes)


BOTH = wanted(change("b_db", "1.0.0"), change("a_db", "1.0.0"), change("b_db", "1.1.0"))


class Scene:
    """Everything that `Migrations` calls, in one place; `told` is what it called."""

    def __init__(self, failure: HubError | None = None, beginning: HubError | None = None) -> None:
        self.told: list[str] = []
        self.failure = failure
        self.beginning = beginning
        self.migrations = Migrations(
            coordinator=self,  # type: ignore[arg-type]
            storage=self,  # type: ignore[arg-type]
            journals=self,
            background=Background(),
            seconds_max=10.0,
            announce_seconds=1.0,
        )

    async def begin(self, wanted: Wanted, *, seconds: float) -> None:
        self.told.append("begin")
        if self.beginning is not None:
            raise self.beginning

    async def fail(self, wanted: Wanted, failure: HubError, *, seconds: float) -> None:
        self.told.append(f"fail {failure.reason}")

    async def execute(self, call: Call, seconds: float) -> Done:
        self.told.append(f"execute {seconds}")
        if self.failure is not None:
            raise self.failure
        results = [
            PartResult(one.place, database, 7, one.statement)
            for database, work in reversed(call.work.items())
            for one in work.operations
        ]
        return Done("home/1", replayed=False, results=results)

    async def rehearse_schema(self, rehearsal: Any, seconds: float) -> list[str]:
        self.told.append(f"rehearse {rehearsal.database}")
        return rehearsal.operations[:1] if rehearsal.database == "b_db" else rehearsal.operations

    async def describe_schema(self, database: str, *, correlation_id: str, seconds: float) -> Any:
        if database == "away_db":
            raise DatabaseUnavailable("away")
        return type("Found", (), {"version": "1.2.0", "drifted": False})()


async def test_reports_come_in_the_order_of_the_call() -> None:
    scene = Scene()
    outcome = await scene.migrations.run(BOTH, 99.0)
    assert outcome.reports == ["b_db 1.0.0", "a_db 1.0.0", "b_db 1.1.0"]
    assert scene.told == ["begin", "execute 10.0"]


async def test_a_failure_is_told_once_it_is_certain() -> None:
    scene = Scene(failure=InvalidVersion("no"))
    with pytest.raises(InvalidVersion):
        await scene.migrations.run(BOTH, 1.0)
    assert scene.told[-1] == "fail INVALID_VERSION"
    scene = Scene(failure=StorageUnavailable("nobody knows"))
    with pytest.raises(StorageUnavailable):
        await scene.migrations.run(BOTH, 1.0)
    assert scene.told == ["begin", "execute 1.0"]


async def test_nothing_runs_that_was_not_told_of() -> None:
    scene = Scene(beginning=DatabaseUnavailable("away"))
    with pytest.raises(DatabaseUnavailable):
        await scene.migrations.run(BOTH, 1.0)
    assert scene.told == ["begin", "fail DATABASE_UNAVAILABLE"]


async def test_a_rehearsal_asks_each_database_once_and_ends_where_one_failed() -> None:
    scene = Scene()
    outcome = await scene.migrations.rehearse(BOTH, 1.0)
    assert sorted(scene.told) == ["rehearse a_db", "rehearse b_db"]
    assert outcome.reports == ["b_db 1.0.0", "a_db 1.0.0"]


def test_versions_rise_within_a_call() -> None:
    check_rising(BOTH.changes)
    for versions in (("1.1.0", "1.1.0"), ("1.10.0", "1.9.0")):
        with pytest.raises(InvalidVersion) as refusal:
            check_rising([change("a_db", version) for version in versions])
        assert list(refusal.value.fields) == ["updates[1].version"]
    with pytest.raises(InvalidRequest):
        check_rising([change("a_db", "1")])


def test_the_work_keeps_the_order_and_the_places() -> None:
    work = work_of(BOTH.changes)
    assert [one.place for one in work["b_db"].operations] == [0, 2]
    assert BOTH.databases == ("a_db", "b_db")


async def test_standings_compare_with_what_is_required() -> None:
    standings = Standings(Scene(), required={"a_db": ">=2", "b_db": "1"}, seconds=1.0)  # type: ignore[arg-type]
    found = await standings.of(
        ["a_db", "away_db", "b_db", "c_db"], {"b_db": ">=1.2"}, correlation_id="", seconds=9.0
    )
    assert [(one.database, one.required, one.compatible) for one in found] == [
        ("a_db", ">=2", False),
        ("away_db", "", True),
        ("b_db", ">=1.2", True),
        ("c_db", "", True),
    ]
    assert isinstance(found[1].found, DatabaseUnavailable)
    await asyncio.sleep(0)
