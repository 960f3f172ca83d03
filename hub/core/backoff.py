"""How long to wait before the next try."""

from collections.abc import Callable


class Backoff:
    """Delays that double from one failure to the next, with jitter.

    Each delay is in seconds, between half of the doubled value and all of it, and never above
    `seconds_max`. `random` gives numbers in [0, 1).
    """

    def __init__(
        self, *, seconds_min: float, seconds_max: float, random: Callable[[], float]
    ) -> None:
        self._seconds_min = seconds_min
        self._seconds_max = seconds_max
        self._random = random
        self._seconds = seconds_min

    def next(self) -> float:
        """Counts a failure and gives the delay after it."""
        seconds = self._seconds
        self._seconds = min(seconds * 2, self._seconds_max)
        return seconds * (0.5 + self._random() / 2)

    def reset(self) -> None:
        """The try succeeded."""
        self._seconds = self._seconds_min
