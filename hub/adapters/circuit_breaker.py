"""pybreaker as the state machine of a circuit; the one door to that library.

Only its states, counters and listeners are used. Its `call` would hold a lock while an `await` goes
on, its clock is the wall's, and half-open it lets everybody pass: when a call may begin, and what
its end means, `hub.core.circuits.breaker` decides. What is reported here is a finished call, never
one that is under way.
"""

from contextlib import suppress
from typing import NoReturn

from pybreaker import (
    STATE_CLOSED,
    CircuitBreaker,
    CircuitBreakerListener,
    CircuitBreakerState,
    CircuitMemoryStorage,
)

from hub.core.circuits.breaker import CircuitState


class _FailedError(Exception):
    """Stands for what a call failed with."""


class PybreakerMachine(CircuitBreakerListener):
    """The port `hub.core.circuits.breaker.Machine`.

    It opens after `failures_max` failures in a row, and closes after `trials_to_close` successes.
    """

    def __init__(self, *, failures_max: int, trials_to_close: int) -> None:
        self.state = CircuitState.CLOSED
        self._breaker = CircuitBreaker(
            fail_max=failures_max,
            success_threshold=trials_to_close,
            state_storage=CircuitMemoryStorage(STATE_CLOSED),
            listeners=[self],
            # Otherwise the library raises an error of its own when it opens.
            throw_new_error_on_trip=False,
        )

    @property
    def failures_in_a_row(self) -> int:
        """See the port."""
        return self._breaker.fail_counter

    def succeeded(self) -> None:
        """See the port."""
        self._breaker.call(_return)

    def failed(self) -> None:
        """See the port."""
        with suppress(_FailedError):
            self._breaker.call(_fail)

    def open(self) -> None:
        """See the port."""
        self._breaker.open()

    def half_open(self) -> None:
        """See the port."""
        self._breaker.half_open()

    def close(self) -> None:
        """See the port."""
        self._breaker.close()

    def state_change(
        self,
        cb: CircuitBreaker,  # noqa: ARG002 - the signature of the library
        old_state: CircuitBreakerState | None,  # noqa: ARG002 - the signature of the library
        new_state: CircuitBreakerState,
    ) -> None:
        """Hears of a change from the library."""
        self.state = CircuitState(new_state.name)


def _return() -> None:
    """A call that succeeded."""


def _fail() -> NoReturn:
    """A call that failed."""
    raise _FailedError
