"""Whether a failed read of a journal is tried again."""

from typing import Final

from hub.core.backoff import Backoff
from messagehub.errors import CursorEpochChanged, CursorExpired, HubError, Retry

# A connection that is cut can look like a refusal, so a refusal counts when it comes twice.
REFUSALS_MAX: Final = 2


class Retries:
    """Counts the failures of one piece of work until it succeeds."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._refusals = 0

    def delay(self, failure: HubError) -> float:
        """Gives the seconds before the next try, or raises the failure if none would help."""
        if isinstance(failure, CursorExpired | CursorEpochChanged):
            raise failure
        if failure.retry in (Retry.SAME_CALL, Retry.SLOWER):
            self._refusals = 0
        else:
            self._refusals += 1
            if self._refusals >= REFUSALS_MAX:
                raise failure
        seconds = self._backoff.next()
        if failure.retry is Retry.SLOWER and failure.retry_after is not None:
            seconds = max(seconds, failure.retry_after)
        return seconds

    def succeeded(self) -> None:
        """The next failure is the first again."""
        self._backoff.reset()
        self._refusals = 0
