"""Parts of transactions as the core asks an engine for them."""

import math
import time
import uuid
from typing import Any, Final

from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantOperation,
    PreparedParticipant,
    TransactionDecision,
    TransactionHeader,
)
from messagehub.v1.event_pb2 import Event
from storage.core.engine import Engine
from storage.core.operation import Operation
from storage.core.transactions.engine_part import Advance, Advanced, Step
from tests.conformance.engines import DATABASE
from tests.conformance.operations import SERVICE
from tests.support.calls import Python, statement

HOME: Final = "other_db"
CLOCK_US: Final = 1_700_000_000_123_456
SEED: Final = b"seed"


def header(*, home: str = HOME, **more: Any) -> TransactionHeader:
    """A new transaction of this database and another, which is its home by default."""
    return TransactionHeader(
        transaction_id=f"{home}/{uuid.uuid4()}",
        source_service=SERVICE,
        correlation_id="c",
        databases=sorted({DATABASE, home}),
        home=home,
        create_time_us=more.pop("create_time_us", time.time_ns() // 1000),
        seed=more.pop("seed", SEED),
        **more,
    )


def of(*queries: str | tuple[str, Python]) -> list[ParticipantOperation]:
    """Operations of these statements, with their parameter if there is one."""
    pairs = [(one, ()) if isinstance(one, str) else (one[0], one[1:]) for one in queries]
    return [
        ParticipantOperation(index=index, statement=statement(query, *parameters))
        for index, (query, parameters) in enumerate(pairs)
    ]


def control(**more: Any) -> Operation:
    """What bounds a step."""
    return Operation(SERVICE, "c", "", more.pop("deadline", math.inf), lambda _: None, **more)


async def advance(
    engine: Engine,
    to: TransactionHeader,
    *queries: str | tuple[str, Python],
    step: Step = Step.PREPARE,
    begins: bool = True,
    events: tuple[Event, ...] = (),
    decision: TransactionDecision | None = None,
    within: Operation | None = None,
) -> Advanced:
    """Takes a part on."""
    return await engine.transactions.advance(
        Advance(to, begins, of(*queries), step, within or control(), events, decision)
    )


def decision(*prepared: str, request_id: str = "") -> TransactionDecision:
    """A decision that rests on these participants."""
    return TransactionDecision(
        request_id=request_id,
        fingerprint=b"what it was",
        participants=[PreparedParticipant(database=name, sequence=1) for name in prepared],
    )
