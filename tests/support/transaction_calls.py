"""Transactions in few words, through the generated stubs alone."""

from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from messagehub.v1 import transaction_service_pb2 as messages
from messagehub.v1.event_pb2 import EventDraft
from messagehub.v1.storage_service_pb2 import ExecuteRequest
from tests.support.calls import CALL_SECONDS, SERVICE, Python, statement

COMMITTED: Final = messages.TRANSACTION_STATE_COMMITTED
ROLLED_BACK: Final = messages.TRANSACTION_STATE_ROLLED_BACK
ACTIVE: Final = messages.TRANSACTION_STATE_ACTIVE


def operation(database: str, query: str, *parameters: Python) -> messages.TransactionOperation:
    """One operation of a transaction in one call."""
    return messages.TransactionOperation(database=database, statement=statement(query, *parameters))


def event(database: str, kind: str, custom: bytes = b"") -> EventDraft:
    """An event that goes with a transaction."""
    return EventDraft(type=kind, database=database, custom=custom)


class TransactionCalls:
    """The calls of one service to one hub."""

    def __init__(self, transactions: Any, storage: Any, service: str = SERVICE) -> None:
        self._transactions = transactions
        self._storage = storage
        self._service = service

    async def execute(
        self, *operations: messages.TransactionOperation, **fields: Any
    ) -> messages.ExecuteTransactionResponse:
        request = messages.ExecuteTransactionRequest(
            source_service=self._service, operations=operations, **fields
        )
        return await self._transactions.ExecuteTransaction(request, timeout=CALL_SECONDS)

    async def begin(self, *databases: str, idle_seconds: float | None = None, **fields: Any) -> str:
        request = messages.BeginTransactionRequest(
            source_service=self._service, databases=databases, **fields
        )
        if idle_seconds is not None:
            request.idle_timeout.CopyFrom(
                Duration(seconds=int(idle_seconds), nanos=int(idle_seconds % 1 * 1e9))
            )
        answer = await self._transactions.BeginTransaction(request, timeout=CALL_SECONDS)
        return str(answer.transaction_id)

    async def join(
        self, transaction_id: str, database: str, query: str, *parameters: Python, **fields: Any
    ) -> Any:
        request = ExecuteRequest(
            source_service=self._service,
            database=database,
            transaction_id=transaction_id,
            statement=statement(query, *parameters),
            **fields,
        )
        return (await self._storage.Execute(request, timeout=CALL_SECONDS)).result

    async def commit(self, transaction_id: str, **fields: Any) -> messages.Transaction:
        request = messages.CommitTransactionRequest(
            source_service=self._service, transaction_id=transaction_id, **fields
        )
        answer = await self._transactions.CommitTransaction(request, timeout=CALL_SECONDS)
        return answer.transaction

    async def roll_back(self, transaction_id: str) -> messages.Transaction:
        request = messages.RollbackTransactionRequest(
            source_service=self._service, transaction_id=transaction_id
        )
        answer = await self._transactions.RollbackTransaction(request, timeout=CALL_SECONDS)
        return answer.transaction

    async def get(self, transaction_id: str) -> messages.Transaction:
        request = messages.GetTransactionRequest(
            source_service=self._service, transaction_id=transaction_id
        )
        answer = await self._transactions.GetTransaction(request, timeout=CALL_SECONDS)
        return answer.transaction

    async def list(self, *states: Any, **fields: Any) -> messages.ListTransactionsResponse:
        request = messages.ListTransactionsRequest(
            source_service=self._service, states=states, **fields
        )
        return await self._transactions.ListTransactions(request, timeout=CALL_SECONDS)

    async def resolve(self, transaction_id: str, *, commit: bool) -> messages.Transaction:
        request = messages.ResolveTransactionRequest(
            source_service=self._service, transaction_id=transaction_id, commit=commit
        )
        answer = await self._transactions.ResolveTransaction(request, timeout=CALL_SECONDS)
        return answer.transaction
