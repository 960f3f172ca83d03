"""The one door to cronsim: the times that a cron expression means."""

from collections.abc import Callable
from datetime import datetime

from cronsim import CronSim, CronSimError


def check(expression: str) -> str:
    """Tells what is wrong with an expression; empty = nothing."""
    try:
        CronSim(expression, datetime(2000, 1, 1))  # noqa: DTZ001 - any time will do
    except CronSimError as failure:
        return str(failure)
    return ""


def last_due(expression: str) -> Callable[[datetime], datetime]:
    """Gives a function that tells the last time before a moment at which it was due."""

    def due(now: datetime) -> datetime:
        return next(CronSim(expression, now, reverse=True))

    return due
