"""Transactions as a hub drives them, on the private contract alone."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from messagehub.request_ids import new_request_id
from messagehub.storage.v1 import participant_service_pb2 as wire
from messagehub.storage.v1.participant_service_pb2_grpc import ParticipantServiceStub
from tests.support.calls import Python, statement

CALL_SECONDS = 20.0
OPEN = wire.TRANSACTION_STEP_STAY_OPEN
PREPARE = wire.TRANSACTION_STEP_PREPARE
COMMIT = wire.TRANSACTION_STEP_COMMIT
COMMITTED = wire.PARTICIPANT_STATE_COMMITTED
ROLLED_BACK = wire.PARTICIPANT_STATE_ROLLED_BACK
PREPARED = wire.PARTICIPANT_STATE_PREPARED


class Attempt:
    """One attempt of a transaction over some databases; the last of them is the home."""

    def __init__(self, channel: Any, databases: Sequence[str], **header: Any) -> None:
        self.databases = sorted(databases)
        self.home = self.databases[-1]
        self.header = wire.TransactionHeader(
            **{
                "transaction_id": f"{self.home}/{new_request_id()}",
                "source_service": "s",
                "correlation_id": "c-1",
                "databases": self.databases,
                "home": self.home,
                "create_time_us": time.time_ns() // 1000,
                "seed": b"0123456789abcdef",
                "idle_timeout_ms": 20_000,
                "timeout_ms": 30_000,
            }
            | header
        )
        self.stub = ParticipantServiceStub(channel)
        self.prepared: list[wire.PreparedParticipant] = []

    @property
    def id(self) -> str:
        return self.header.transaction_id

    async def advance(
        self,
        database: str,
        step: wire.TransactionStep.ValueType,
        *queries: str | tuple[str, Sequence[Python]],
        wait_ms: int = 5_000,
        begin: bool = True,
        request_id: str = "",
    ) -> wire.AdvanceTransactionResponse:
        """Runs statements in a part and takes it a step on."""
        decision = None
        if step == COMMIT:
            decision = wire.TransactionDecision(
                request_id=request_id, fingerprint=b"f", participants=self.prepared
            )
        answer: wire.AdvanceTransactionResponse = await self.stub.AdvanceTransaction(
            wire.AdvanceTransactionRequest(
                database=database,
                transaction_id=self.id,
                correlation_id="c-1",
                header=self.header if begin else None,
                operations=list(_operations(queries)),
                step=step,
                wait_timeout_ms=wait_ms,
                decision=decision,
            ),
            timeout=CALL_SECONDS,
        )
        if step == PREPARE:
            self.prepared.append(
                wire.PreparedParticipant(
                    database=database, epoch=answer.epoch, sequence=answer.sequence
                )
            )
        return answer

    async def resolve(
        self, database: str, *, commit: bool, **fields: Any
    ) -> wire.ResolveTransactionResponse:
        """Ends a part, or asks the home how the transaction ended."""
        request = wire.ResolveTransactionRequest(
            database=database, commit=commit, header=self.header, **fields
        )
        answer: wire.ResolveTransactionResponse = await self.stub.ResolveTransaction(
            request, timeout=CALL_SECONDS
        )
        return answer

    async def look_up(self, database: str) -> wire.LookUpTransactionResponse:
        """Asks what a database knows."""
        request = wire.LookUpTransactionRequest(database=database, transaction_id=self.id)
        answer: wire.LookUpTransactionResponse = await self.stub.LookUpTransaction(
            request, timeout=CALL_SECONDS
        )
        return answer


def _operations(
    queries: Iterable[str | tuple[str, Sequence[Python]]],
) -> Iterable[wire.ParticipantOperation]:
    for index, query in enumerate(queries):
        text, parameters = (query, ()) if isinstance(query, str) else query
        yield wire.ParticipantOperation(index=index, statement=statement(text, *parameters))
