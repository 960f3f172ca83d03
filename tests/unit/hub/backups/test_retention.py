"""Which backups of a schedule go."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hub.core.backups.backup import Backup, BackupState, Manifest
from hub.core.backups.retention import EPOCH, Retention, outlived

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday


def backup(hours_ago: float, state: BackupState = BackupState.VERIFIED) -> Backup:
    time_us = (NOON - timedelta(hours=hours_ago) - EPOCH) // timedelta(microseconds=1)
    return Backup(Manifest(f"{hours_ago}", "hub", "", time_us), state, addresses=("here",))


def gone(backups: list[Backup], last: int, daily: int = 0, weekly: int = 0) -> list[str]:
    return [one.backup_id for one in outlived(backups, Retention(last, daily, weekly))]


def test_the_last_ones_stay() -> None:
    assert gone([backup(hours) for hours in (1, 2, 3, 4)], last=2) == ["4", "3"]


def test_the_newest_of_each_day_and_week_stays() -> None:
    hours = (1, 2, 25, 26, 24 * 8, 24 * 9, 24 * 15)
    assert gone([backup(one) for one in hours], last=1, daily=2) == ["360", "216", "192", "26", "2"]
    kept = set(hours) - {int(one) for one in gone([backup(h) for h in hours], last=1, weekly=3)}
    assert kept == {1, 25, 24 * 8}, "the newest of this week, of last week, and of the one before"


def test_the_last_verified_one_stays_whatever_came_after_it() -> None:
    failed = [backup(hours, BackupState.FAILED) for hours in (1, 2, 3)]
    assert gone([*failed, backup(4)], last=1) == []
    assert gone([*failed, backup(4), backup(5)], last=1) == ["5"]


def test_without_a_verified_one_nothing_goes() -> None:
    assert gone([backup(1, BackupState.COMPLETED), backup(2, BackupState.FAILED)], last=1) == []


def test_what_failed_before_a_verified_one_goes_and_what_is_on_its_way_stays() -> None:
    running = replace(backup(3), state=BackupState.RUNNING)
    assert gone([backup(1), backup(2, BackupState.FAILED), running], last=1) == ["2"]
