"""The bounds of transactions."""

from dataclasses import dataclass
from typing import Final

# Which part of a caller's time the hub works in, and when it answers at the latest; the rest is for
# the answer to arrive.
WORKING_SHARE: Final = 0.95
ANSWER_SHARE: Final = 0.98


@dataclass(frozen=True, slots=True)
class TransactionLimits:
    """See `HubConfig` for defaults; all times are in seconds.

    `running_max` transactions in one call and `open_max` interactive ones are under way at once;
    whoever comes later is told to wait `busy_seconds`. `wait_seconds` is how long one step may wait
    for a database, `visible_seconds` how long an answer waits until every database shows what was
    committed. An interactive transaction lives for at most `seconds_max`, and without a call
    for at most `idle_seconds_max`. `passing_attempts_max` bounds the attempts of one call that end
    because somebody was away. `settle_seconds` is how long a participant is told of an end again
    and again before the resolver takes over, `abandoned_seconds` how long a transaction that nobody
    here knows may stay undecided. `lease_seconds` bounds how long a read holds commits back.
    The results of one transaction have at most `results_bytes_max`; what ended is remembered for up
    to `kept_max` transactions.
    """

    running_max: int
    open_max: int
    kept_max: int
    results_bytes_max: int
    wait_seconds: float
    visible_seconds: float
    idle_seconds_max: float
    seconds_max: float
    answer_seconds: float
    settle_seconds: float
    abandoned_seconds: float
    lease_seconds: float
    busy_seconds: float
    passing_attempts_max: int
    retry_seconds_min: float
    retry_seconds_max: float
