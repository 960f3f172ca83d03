"""What became of transactions: the home's word first, then what its participants prove.

Nothing is told that nobody said. Where the home cannot be asked, a part that is prepared is in
doubt, and one that nobody can find is not declared unknown before every database was asked.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from hub.core.transactions import standings
from hub.core.transactions.live_attempts import LiveAttempts
from hub.core.transactions.remembered import Remembered
from hub.core.transactions.states import Phase
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.together import each
from hub.core.transactions.transaction import PartState, Record, Standing, State, home_of
from messagehub.errors import HubError, StorageUnavailable, TransactionNotFound

RECORDS_MAX: Final = 1000
# Who is asked after one another shares the caller's time.
STEPS: Final = 2


class Selection(NamedTuple):
    """Which transactions somebody wants to see: in these states, after this one, so many."""

    states: frozenset[State]
    after: tuple[int, str]
    standings_max: int


class Page(NamedTuple):
    """Some of them, oldest first; `more` = there are others after these."""

    standings: Sequence[Standing]
    more: bool
    unavailable: Sequence[str]


class Inquiries:
    """Asks databases; `databases` are all of the hub's, `is_stuck` is the resolver's word."""

    def __init__(
        self,
        surroundings: Surroundings,
        live: LiveAttempts,
        remembered: Remembered,
        *,
        databases: Collection[str],
        is_stuck: Callable[[str], bool],
    ) -> None:
        self._around = surroundings
        self._live = live
        self._remembered = remembered
        self._databases = databases
        self._is_stuck = is_stuck

    async def get(self, transaction_id: str, seconds: float) -> Standing:
        """Tells where a transaction stands; raises `TransactionNotFound`."""
        # A home that is silent must leave time to ask the others.
        seconds /= STEPS
        home = home_of(transaction_id)
        if home not in self._databases:
            raise _not_found(transaction_id)
        known = self._remembered.get(transaction_id)
        if known is not None:
            return known
        records = await self._ask(transaction_id, [home], seconds)
        answer = records[home]
        if isinstance(answer, Record) and (ended := standings.end(answer)) is not None:
            return ended
        others = _others(answer) or [name for name in self._databases if name != home]
        records |= await self._ask(transaction_id, others, seconds)
        found = self._judge(transaction_id, home, records)
        if found is not None:
            return found
        failures = [one for one in records.values() if isinstance(one, HubError)]
        if failures:
            raise StorageUnavailable(
                f"nobody who could be asked knows the transaction {transaction_id}, and others "
                f"could not be asked ({failures[0].message}): ask again later"
            ) from failures[0]
        raise _not_found(transaction_id)

    async def page(self, readable: Iterable[str], selection: Selection, seconds: float) -> Page:
        """Gives the transactions of databases that are in some states, oldest first."""
        seconds /= STEPS
        databases = list(readable)
        ended = bool(selection.states & {State.COMMITTED, State.ROLLED_BACK})
        answers = await each(
            self._around.participants.list(
                database, ended=ended, limit=RECORDS_MAX, seconds=seconds
            )
            for database in databases
        )
        by_transaction: dict[str, dict[str, Record | HubError | None]] = {}
        unavailable = []
        for database, answer in zip(databases, answers, strict=True):
            if isinstance(answer, HubError):
                unavailable.append(database)
                continue
            for record in answer:
                parts = by_transaction.setdefault(record.header.transaction_id, {})
                parts[database] = record
        found = await self._stand(by_transaction, seconds)
        wanted = sorted(
            (one for one in found if one.state in selection.states and _key(one) > selection.after),
            key=_key,
        )
        count = selection.standings_max
        return Page(wanted[:count], len(wanted) > count, unavailable)

    async def _stand(
        self, by_transaction: Mapping[str, dict[str, Record | HubError | None]], seconds: float
    ) -> list[Standing]:
        """Asks homes that have not spoken about what has not ended."""
        silent = [name for name, parts in by_transaction.items() if not _home_spoke(name, parts)]
        answers = await each(
            self._around.participants.look_up(home_of(name), name, seconds=seconds)
            for name in silent
        )
        for name, answer in zip(silent, answers, strict=True):
            by_transaction[name][home_of(name)] = answer
        found = (self._judge(name, home_of(name), parts) for name, parts in by_transaction.items())
        return [one for one in found if one is not None]

    def _judge(
        self,
        transaction_id: str,
        home: str,
        records: Mapping[str, Record | HubError | None],
    ) -> Standing | None:
        at_home = records.get(home)
        if isinstance(at_home, Record) and (ended := standings.end(at_home)) is not None:
            return ended
        parts = [one for name, one in records.items() if name != home and isinstance(one, Record)]
        home_silent = isinstance(at_home, HubError) or self._is_stuck(transaction_id)
        found = standings.of_parts(parts, home_silent=home_silent)
        if isinstance(at_home, Record) and (found is None or found.state is State.ACTIVE):
            found = standings.standing(at_home, State.ACTIVE)
        attempt = self._live.get(transaction_id)
        if attempt is None or attempt.phase not in (Phase.OPEN, Phase.PREPARING):
            return found
        # Nobody was told to commit yet, so that is how it stands, whatever they could say.
        state = State.PREPARING if attempt.phase is Phase.PREPARING else State.ACTIVE
        return Standing(attempt.header, state, attempt.header.create_time_us)

    async def _ask(
        self, transaction_id: str, databases: Iterable[str], seconds: float
    ) -> dict[str, Record | HubError | None]:
        names = list(databases)
        answers = await each(
            self._around.participants.look_up(name, transaction_id, seconds=seconds)
            for name in names
        )
        return dict(zip(names, answers, strict=True))


def _others(answer: Record | HubError | None) -> list[str]:
    return list(answer.header.others) if isinstance(answer, Record) else []


def _home_spoke(name: str, parts: Mapping[str, Record | HubError | None]) -> bool:
    """True if nobody needs to ask the home: it is among them, or somebody has seen the end."""
    if home_of(name) in parts:
        return True
    return any(
        isinstance(one, Record) and one.state in (PartState.COMMITTED, PartState.ROLLED_BACK)
        for one in parts.values()
    )


def _key(one: Standing) -> tuple[int, str]:
    return one.header.create_time_us, one.header.transaction_id


def _not_found(transaction_id: str) -> TransactionNotFound:
    return TransactionNotFound(
        f"no database knows the transaction {transaction_id}: it never was, or it is older than "
        "what is kept",
        metadata={"transaction_id": transaction_id},
    )
