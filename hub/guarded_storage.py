"""The part of the composition root that puts circuits and retries before the storage servers."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence

from hub.adapters.circuit_breaker import PybreakerMachine
from hub.adapters.circuit_events import CircuitEvents
from hub.config import HubConfig
from hub.core.announcements import Announcements
from hub.core.circuits.breaker import BreakerLimits
from hub.core.circuits.circuits import Circuits, Transition
from hub.core.circuits.guard import Guard
from hub.core.circuits.guarded_journal import GuardedJournal
from hub.core.circuits.guarded_participants import GuardedParticipants
from hub.core.circuits.guarded_subscriptions import GuardedSubscriptions
from hub.core.circuits.retry import RetryLimits
from hub.core.events.journal import Journal
from hub.core.ports import Operations, Storage
from hub.core.status import StatusBoard
from hub.core.subscriptions.subscription_store import SubscriptionStore
from hub.core.transactions.ports import Participants


class GuardedStorage:
    """The storage servers as the rest of the hub calls them.

    `calls`, `journal`, `subscriptions` and `participants` are each behind the circuits.
    The circuits hear from the status board how the databases stand, and tell it how they do.
    """

    def __init__(
        self,
        config: HubConfig,
        *,
        databases: Iterable[str],
        operations_of: Callable[[str], Operations],
        storage: Storage,
        journal: Journal,
        subscriptions: SubscriptionStore,
        participants: Participants,
        status: StatusBoard,
    ) -> None:
        self._status = status
        self.circuits = Circuits(
            databases,
            _breaker_limits(config),
            make_machine=lambda: PybreakerMachine(
                failures_max=config.circuit_failures_max,
                trials_to_close=config.circuit_trials_to_close,
            ),
            storage=storage,
            trial_seconds=config.storage_answer_seconds,
            clock=time.monotonic,
            random=random.random,
            call_later=asyncio.get_running_loop().call_later,
        )
        self.calls = Guard(
            self.circuits,
            _retry_limits(config),
            operations_of=operations_of,
            storage=storage,
            answer_seconds=config.storage_answer_seconds,
            clock=time.monotonic,
            sleep=asyncio.sleep,
            random=random.random,
        )
        self.journal = GuardedJournal(journal, self.circuits)
        self.subscriptions = GuardedSubscriptions(subscriptions, self.calls)
        self.participants = GuardedParticipants(
            participants,
            self.circuits,
            answer_seconds=config.storage_answer_seconds,
            clock=time.monotonic,
        )
        status.listen(self.circuits.follow)
        self.circuits.listen(self._show)

    def announce_to(self, announcements: Announcements) -> None:
        """From now on, every change of a circuit becomes an event in its database's journal."""
        events = CircuitEvents(
            announcements, storage_server=lambda name: self._status.database(name).storage_server
        )
        self.circuits.listen(events.tell)

    async def stop(self) -> None:
        """The storage servers go because the hub does: from now on that changes no circuit."""
        await self.circuits.stop()

    def _show(self, transitions: Sequence[Transition]) -> None:
        self._status.circuits((one.database, one.state, one.cause) for one in transitions)


def _breaker_limits(config: HubConfig) -> BreakerLimits:
    return BreakerLimits(
        window_calls=config.circuit_window_calls,
        window_calls_min=config.circuit_window_calls_min,
        failure_rate_max=config.circuit_failure_rate_max,
        open_seconds_min=config.circuit_open_seconds_min,
        open_seconds_max=config.circuit_open_seconds_max,
        trials_max=config.circuit_trials_max,
        retry_seconds=config.reconnect_seconds_max,
    )


def _retry_limits(config: HubConfig) -> RetryLimits:
    return RetryLimits(
        attempts_max=config.retry_attempts_max,
        seconds_min=config.retry_seconds_min,
        seconds_max=config.retry_seconds_max,
        budget_share=config.retry_budget_share,
        budget_per_second=config.retry_budget_per_second,
        budget_max=config.retry_budget_max,
    )
