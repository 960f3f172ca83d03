"""Which backups of a schedule are kept: the last ones, and the newest of each day and week."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from hub.core.backups.backup import Backup, BackupState

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Retention:
    """How many are kept: of the last ones, of days, and of weeks; all days are of UTC."""

    last: int
    daily: int
    weekly: int


def outlived(backups: Collection[Backup], retention: Retention) -> list[Backup]:
    """Gives the backups of one schedule that may go, the oldest first.

    Only verified ones count and only what is older than the newest verified one goes, so the last
    proven state is never touched. What is on its way stays.
    """
    newest_first = sorted(backups, key=lambda one: one.manifest.create_time_us, reverse=True)
    verified = [one for one in newest_first if one.state is BackupState.VERIFIED]
    if not verified:
        return []
    kept = {one.backup_id for one in verified[: max(1, retention.last)]}
    kept |= _newest_of_each(verified, retention.daily, "%Y-%m-%d")
    kept |= _newest_of_each(verified, retention.weekly, "%G-%V")
    horizon = verified[0].manifest.create_time_us
    return [
        one
        for one in reversed(newest_first)
        if one.backup_id not in kept
        and one.addresses
        and one.state is not BackupState.RUNNING
        and one.activity is None
        and one.manifest.create_time_us < horizon
    ]


def _newest_of_each(verified: Sequence[Backup], count: int, period: str) -> set[str]:
    newest: dict[str, str] = {}
    for one in verified:
        time = EPOCH + timedelta(microseconds=one.manifest.create_time_us)
        newest.setdefault(time.strftime(period), one.backup_id)
    return set(list(newest.values())[:count])
