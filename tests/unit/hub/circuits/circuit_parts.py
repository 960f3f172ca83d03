"""What tests of circuits are made of: a clock that is set by hand, a small breaker."""

from collections.abc import Callable
from typing import Any

from hub.adapters.circuit_breaker import PybreakerMachine
from hub.core.circuits.breaker import Breaker, BreakerLimits, CircuitState
from messagehub.errors import CircuitOpen

FAILURES_MAX = 3
LIMITS = BreakerLimits(
    window_calls=20,
    window_calls_min=10,
    failure_rate_max=0.5,
    open_seconds_min=1.0,
    open_seconds_max=8.0,
    trials_max=2,
    retry_seconds=0.3,
)
DATABASE = "character_db"
SERVER = "127.0.0.1:50052"


class Clock:
    """Monotonic seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def machine(trials_to_close: int = 1) -> PybreakerMachine:
    return PybreakerMachine(failures_max=FAILURES_MAX, trials_to_close=trials_to_close)


def breaker(
    clock: Clock,
    *,
    limits: BreakerLimits = LIMITS,
    trials_to_close: int = 1,
    moved: Callable[[Breaker], Any] = lambda _: None,
    healthy: bool = True,
) -> Breaker:
    """A breaker of a database that is available; a pause is as long as it may be."""
    made = Breaker(
        DATABASE,
        machine(trials_to_close),
        limits,
        clock=clock,
        random=lambda: 1.0,
        moved=moved,
    )
    if healthy:
        made.hear(SERVER, available=True, detail="")
    return made


def refusal_of(made: Breaker) -> CircuitOpen | None:
    """Asks for a passage, and gives the refusal; a passage is left unused."""
    try:
        made.admit().withdraw()
    except CircuitOpen as refusal:
        return refusal
    return None


def is_open(made: Breaker) -> bool:
    return made.state is CircuitState.OPEN
