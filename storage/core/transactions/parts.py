"""The parts that write in one database: who is there, until when, and who hears of it.

At most one of them holds the write lane; others may wait for it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from messagehub.storage.v1.participant_service_pb2 import TransactionHeader, TransactionRecord
from storage.core.operation import Applied
from storage.core.transactions.answers import Answers
from storage.core.transactions.commit_gate import CommitGate
from storage.core.transactions.engine_part import Advanced
from storage.core.transactions.limits import TransactionLimits
from storage.core.transactions.part import Part
from storage.core.transactions.states import State
from storage.core.write_lane import WriteLane

# How long what was prepared before a start waits for a lane that nobody else has yet.
TAKE_OVER_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)


class Parts:
    """The parts of one open database. Everything runs on the loop.

    `committed` hears of every commit, `told` when a part comes to be in doubt or is resolved.
    `wall_clock_us` gives microseconds since 1970 UTC; `reached` is called with the names of the
    steps. `expire` has to be set: it rolls back a part whose time is over.
    """

    def __init__(
        self,
        name: str,
        lane: WriteLane,
        gate: CommitGate,
        limits: TransactionLimits,
        *,
        committed: Callable[[Applied], None],
        told: Callable[[], None],
        wall_clock_us: Callable[[], int],
        reached: Callable[[str], None],
    ) -> None:
        self.name = name
        self.lane = lane
        self.gate = gate
        self.limits = limits
        self.wall_clock_us = wall_clock_us
        self.reached = reached
        self.expire: Callable[[Part], None] = _nobody_expires
        self._committed = committed
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._parts: dict[str, Part] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, transaction_id: str) -> bool:
        return transaction_id in self._parts

    @property
    def in_doubt(self) -> TransactionRecord | None:
        """The transaction that somebody should ask its home about."""
        return next((part.record() for part in self._parts.values() if part.in_doubt), None)

    def get(self, transaction_id: str) -> Part | None:
        """Gives the part of a transaction."""
        return self._parts.get(transaction_id)

    def all(self) -> list[Part]:
        """Gives all of them."""
        return list(self._parts.values())

    def has(self, part: Part) -> bool:
        """True as long as this very part has not ended."""
        return self._parts.get(part.header.transaction_id) is part

    def add(self, header: TransactionHeader) -> Part:
        """Makes a part, which does not hold the lane yet."""
        part = Part(
            header,
            self._loop.time(),
            self.wall_clock_us(),
            Answers(self.limits.answers_bytes_max),
        )
        self._parts[header.transaction_id] = part
        return part

    async def take_over(self, header: TransactionHeader, advanced: Advanced, since_us: int) -> None:
        """Takes what was prepared before the start, ahead of everybody who may write."""
        part = self.add(header)
        part.state, part.advanced, part.since_us = State.PREPARED, advanced, since_us
        until = self._loop.time() + TAKE_OVER_SECONDS
        await self.lane.hold(until)
        await self.gate.enter(until)
        self.doubt(part)

    async def join(self, part: Part, until: float) -> None:
        """Waits for the lane. Who gives up is no part any more."""
        part.waiting = asyncio.current_task()
        try:
            await self.lane.hold(until)
        except asyncio.CancelledError:
            self._parts.pop(part.header.transaction_id, None)
            if part.doomed is None:
                raise
            raise part.doomed from None
        except BaseException:
            self._parts.pop(part.header.transaction_id, None)
            raise
        finally:
            part.waiting = None
        self.reached("participant.begun")

    def stay_open(self, part: Part) -> None:
        """The part waits for more, and not for ever."""
        part.state = State.OPEN
        when = self.limits.expiry(part.header, part.began_at, self._loop.time())
        part.timer = self._loop.call_at(when, lambda: self.expire(part))

    def stay_prepared(self, part: Part, advanced: Advanced) -> None:
        """The part waits for the home's decision; after a while somebody should ask for it."""
        part.state = State.PREPARED
        part.advanced = advanced
        part.since_us = self.wall_clock_us()
        part.timer = self._loop.call_later(self.limits.in_doubt_seconds, self.doubt, part)
        self.reached("participant.prepared")

    def doubt(self, part: Part) -> None:
        """Nobody resolved it in time, or it could not be: whoever watches hears of it."""
        part.in_doubt = True
        _log.warning("a transaction is in doubt", extra=self.named(part))
        self._told()

    def leave(self, part: Part, state: State, applied: Applied | None = None) -> None:
        """The part has ended: what was committed is told, and the lane is free."""
        part.state = state
        part.disarm()
        if self._parts.pop(part.header.transaction_id, None) is None:
            return
        if applied is not None:
            self._committed(applied)
        self.lane.release()
        if part.in_doubt:
            part.in_doubt = False
            self._told()

    def could_not_end(self, part: Part, why: str) -> None:
        """Says that something prevents an end."""
        _log.warning("could not end", extra={**self.named(part), "detail": why})

    def named(self, part: Part) -> dict[str, str]:
        """What a log line says of a part."""
        return {
            "database": self.name,
            "transaction_id": part.header.transaction_id,
            "correlation_id": part.header.correlation_id,
        }


def _nobody_expires(part: Part) -> None:
    raise RuntimeError(f"nobody ends {part.header.transaction_id} when its time is over")
