"""What a database needs of a directory."""

from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from messagehub.errors import InvalidRequest, InvalidVersion, SchemaHistoryConflict
from messagehub.migrations import plan
from messagehub.migrations.migration import Migration
from messagehub.schema.versions import SemanticVersion
from messagehub.v1.schema_service_pb2 import GetSchemaResponse, SchemaChange


def migrations(*versions: str) -> list[Migration]:
    return [
        Migration(SemanticVersion.parse(v), v, f"SELECT '{v}'", "SELECT 0", Path(f"{v}.sql"))
        for v in versions
    ]


def known(*versions: str, back: tuple[str, ...] = (), stuck: bool = False) -> GetSchemaResponse:
    of = {str(one.version): one.checksum for one in migrations(*versions, *back)}
    history = [
        SchemaChange(version=v, checksum=of[v], reversible=not stuck) for v in (*versions, *back)
    ]
    for change in history[len(versions) :]:
        change.rollback_time.CopyFrom(Timestamp(seconds=1))
    version = versions[-1] if versions else ""
    return GetSchemaResponse(version=version, history=history)


def versions_of(found: object) -> list[str]:
    return [str(one.version) for one in found]  # type: ignore[attr-defined]


def test_what_is_missing_is_run_in_order() -> None:
    made = plan.make("db", migrations("1.0.0", "1.1.0", "1.10.0"), known("1.0.0"))
    assert versions_of(made.updates) == ["1.1.0", "1.10.0"]
    assert not made.empty
    assert plan.make("db", migrations("1.0.0"), known("1.0.0")).empty


def test_a_way_may_end_before_the_newest_or_lead_back() -> None:
    three = migrations("1.0.0", "2.0.0", "3.0.0")
    assert versions_of(plan.make("db", three, known(), to="2.0.0").updates) == ["1.0.0", "2.0.0"]
    assert versions_of(plan.make("db", three, known(), to="2").updates) == ["1.0.0", "2.0.0"]
    back = plan.make("db", three, known("1.0.0", "2.0.0", "3.0.0"), to="1.0.0")
    assert (versions_of(back.back), back.target) == (["3.0.0", "2.0.0"], "1.0.0")
    everything = plan.make("db", three, known("1.0.0", "2.0.0"), to="0.0.0")
    assert versions_of(everything.back) == ["2.0.0", "1.0.0"]
    with pytest.raises(InvalidVersion):
        plan.make("db", three, known("1.0.0", "2.0.0", stuck=True), to="1.0.0")
    with pytest.raises(InvalidRequest):
        plan.make("db", three, known(), to="2.5.0")


def test_what_was_taken_back_may_be_run_again() -> None:
    made = plan.make("db", migrations("1.0.0", "1.1.0"), known("1.0.0", back=("1.1.0",)))
    assert versions_of(made.updates) == ["1.1.0"]


def test_an_edited_script_and_a_version_that_comes_too_late_are_refused() -> None:
    edited = migrations("1.0.0")
    edited[0] = Migration(edited[0].version, "", "SELECT 'other'", "", Path("x.sql"))
    with pytest.raises(SchemaHistoryConflict):
        plan.make("db", edited, known("1.0.0"))
    with pytest.raises(InvalidVersion):
        plan.make("db", migrations("1.0.0", "1.5.0", "2.0.0"), known("1.0.0", "2.0.0"))


def test_a_baseline_is_recorded_once() -> None:
    three = migrations("1.0.0", "1.1.0", "2.0.0")
    made = plan.make("db", three, known(), baseline="1.1.0")
    assert versions_of(made.baseline) == ["1.0.0", "1.1.0"]
    assert versions_of(made.updates) == ["2.0.0"]
    again = plan.make("db", three, known("1.0.0", "1.1.0", "2.0.0"), baseline="1.1.0")
    assert again.empty
    with pytest.raises(InvalidRequest):
        plan.make("db", three, known(), baseline="9.9.9")
