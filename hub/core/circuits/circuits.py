"""The circuits of all databases: what drives them beside the calls, and who learns of it.

A circuit that is open comes back by itself: the hub makes a trial of its own as soon as one is
due, so that recovery waits for no caller. While the storage server says that a database is not
available nothing is due; as soon as it is available again, a trial is due at once.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Final, NamedTuple, Protocol

from hub.core.circuits.breaker import (
    Breaker,
    BreakerLimits,
    CircuitState,
    Machine,
    Passage,
)
from hub.core.ports import Storage
from hub.core.status import HubState
from messagehub.errors import CircuitOpen, HubError
from messagehub.request_ids import new_request_id

_log = logging.getLogger(__name__)

_LEVELS: Final = {
    CircuitState.OPEN: logging.WARNING,
    CircuitState.HALF_OPEN: logging.INFO,
    CircuitState.CLOSED: logging.INFO,
}


class Transition(NamedTuple):
    """A circuit changed; `failures` is how many of the last calls failed before that."""

    database: str
    state: CircuitState
    cause: str
    failures: int


class Timer(Protocol):
    """Something that will be called later."""

    def cancel(self) -> None:
        """It will not."""


class CallLater(Protocol):
    """Calls something after some seconds, as `loop.call_later` does."""

    def __call__(
        self, seconds: float, callback: Callable[[Breaker], None], breaker: Breaker, /
    ) -> Timer:
        """Gives what stops it."""


class Circuits:
    """The circuits by database, between the first call and `stop`.

    `storage` is what the hub's own trials are made of: one look into the journal, which may take
    `trial_seconds`. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        databases: Iterable[str],
        limits: BreakerLimits,
        *,
        make_machine: Callable[[], Machine],
        storage: Storage,
        trial_seconds: float,
        clock: Callable[[], float],
        random: Callable[[], float],
        call_later: CallLater,
    ) -> None:
        self._limits = limits
        self._storage = storage
        self._trial_seconds = trial_seconds
        self._call_later = call_later
        self.by_database: Mapping[str, Breaker] = {
            name: Breaker(
                name, make_machine(), limits, clock=clock, random=random, moved=self._moved
            )
            for name in databases
        }
        self._listeners: list[Callable[[Sequence[Transition]], None]] = []
        # While several circuits change for one reason, what to tell of them together.
        self._gathering: list[Transition] | None = None
        self._timers: dict[Breaker, Timer] = {}
        self._trying: dict[Breaker, asyncio.Task[None]] = {}
        self._stopped = False

    def listen(self, listener: Callable[[Sequence[Transition]], None]) -> None:
        """Calls the listener at once with the circuits that changed; it must not block."""
        self._listeners.append(listener)

    def follow(self, state: HubState) -> None:
        """Hears how the databases stand, of every change.

        Of one that nobody has had yet the last word is not spoken before every storage server is
        connected: a hub that starts must not open circuits because a standby was quicker.
        """
        if self._stopped:
            return
        servers = state.storage_servers
        complete = bool(servers) and all(server.connected for server in servers)
        gathered: list[Transition] = []
        self._gathering = gathered
        for one in state.databases:
            breaker = self.by_database[one.database]
            if breaker.healthy is None and not (one.available or complete):
                continue
            if breaker.hear(one.storage_server, available=one.available, detail=one.detail):
                self._plan(breaker)
        self._gathering = None
        self._tell(gathered)

    def open(self, database: str, *, by: str, seconds: float | None) -> None:
        """Opens a circuit by hand, for a while or, with None, until `close`."""
        breaker = self.by_database[database]
        was_open = breaker.state is CircuitState.OPEN
        breaker.hold_open(f"opened by hand, by {by}", seconds)
        if was_open:
            self._moved(breaker)

    def close(self, database: str, *, by: str) -> None:
        """Closes a circuit by hand, whatever is known against the database."""
        self.by_database[database].close(f"closed by hand, by {by}")

    async def stop(self) -> None:
        """Ends the hub's own trials; from now on nothing changes a circuit but calls."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        trying = list(self._trying.values())
        for task in trying:
            task.cancel()
        await asyncio.gather(*trying, return_exceptions=True)

    def _moved(self, breaker: Breaker) -> None:
        transition = Transition(breaker.database, breaker.state, breaker.cause, breaker.failures)
        _log.log(
            _LEVELS[transition.state],
            "circuit %s",
            transition.state.value,
            extra={
                "database": transition.database,
                "cause": transition.cause,
                "failures": transition.failures,
            },
        )
        self._plan(breaker)
        if self._gathering is not None:
            self._gathering.append(transition)
        else:
            self._tell([transition])

    def _tell(self, transitions: Sequence[Transition]) -> None:
        if transitions:
            for listener in self._listeners:
                listener(transitions)

    def _plan(self, breaker: Breaker) -> None:
        """Sees to it that a circuit that is not closed is tried again."""
        if timer := self._timers.pop(breaker, None):
            timer.cancel()
        if breaker.state is CircuitState.CLOSED or breaker in self._trying or self._stopped:
            return
        seconds = breaker.seconds_to_trial
        if breaker.state is CircuitState.HALF_OPEN:
            # Trials of callers are under way; they may all end without a result.
            seconds = self._limits.retry_seconds
        if seconds < math.inf:
            self._timers[breaker] = self._call_later(seconds, self._try, breaker)

    def _try(self, breaker: Breaker) -> None:
        self._timers.pop(breaker, None)
        if breaker.state is CircuitState.CLOSED or self._stopped:
            return
        task = asyncio.get_running_loop().create_task(
            self._make_trial(breaker), name=f"circuit-trial-{breaker.database}", context=Context()
        )
        self._trying[breaker] = task

    async def _make_trial(self, breaker: Breaker) -> None:
        try:
            with suppress(CircuitOpen):
                await self._look(breaker.database, breaker.admit())
        finally:
            del self._trying[breaker]
            self._plan(breaker)

    async def _look(self, database: str, passage: Passage) -> None:
        try:
            # Nothing has this request id; that the journal can say so is what counts.
            await self._storage.look_up(
                database,
                new_request_id(),
                correlation_id=new_request_id(),
                seconds=self._trial_seconds,
            )
        except HubError as error:
            passage.failed(error, silent=True)
        else:
            passage.succeeded()
        finally:
            passage.withdraw()
