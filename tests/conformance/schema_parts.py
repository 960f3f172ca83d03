"""Changes of a schema as parts of transactions, put together by hand."""

import asyncio
import math
import time
from typing import Any

from messagehub.request_ids import new_request_id
from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantOperation,
    TransactionDecision,
    TransactionHeader,
)
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaReport, SchemaRollback
from messagehub.v1.schema_pb2 import SchemaUpdate
from storage.core.engine import Engine
from storage.core.operation import Operation
from storage.core.transactions.engine_part import Advance, Advanced, Step
from tests.conformance.engines import DATABASE


def update(version: str, script: str = "", rollback: str = "", **more: Any) -> SchemaOperation:
    """Leads to a version."""
    timeout_ms = more.pop("timeout_ms", 0)
    change = SchemaUpdate(version=version, script=script, rollback_script=rollback, **more)
    return SchemaOperation(update=change, timeout_ms=timeout_ms)


def rollback(to_version: str) -> SchemaOperation:
    """Leads back."""
    return SchemaOperation(rollback=SchemaRollback(to_version=to_version))


def control(seconds: float = math.inf) -> Operation:
    """Bounds nothing, unless it is given seconds."""
    deadline = asyncio.get_running_loop().time() + seconds if seconds < math.inf else 1e12
    return Operation("items", "corr", "", deadline, lambda _: None)


def part(*operations: SchemaOperation | ParticipantOperation, step: Step = Step.COMMIT) -> Advance:
    """A part that begins, does this, and takes a step."""
    listed = [
        operation
        if isinstance(operation, ParticipantOperation)
        else ParticipantOperation(index=index, schema=operation)
        for index, operation in enumerate(operations)
    ]
    header = TransactionHeader(
        transaction_id=f"{DATABASE}/{new_request_id()}",
        source_service="items",
        correlation_id="corr",
        databases=[DATABASE],
        home=DATABASE,
        create_time_us=time.time_ns() // 1000,
        seed=b"seed",
    )
    decision = TransactionDecision() if step is Step.COMMIT else None
    return Advance(header, True, listed, step, control(), decision=decision)


async def change(engine: Engine, *operations: SchemaOperation) -> list[SchemaReport]:
    """Commits changes and gives their reports."""
    advanced: Advanced = await engine.transactions.advance(part(*operations))
    assert advanced.applied is not None
    return [result.schema for result in advanced.results]
