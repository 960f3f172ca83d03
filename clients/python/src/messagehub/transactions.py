"""Transactions over one or several databases: all of it, or nothing.

All statements in one call:

    done = await hub.execute_transaction([
        Operation("INSERT INTO quests (title) VALUES (?)", ["Dragon"], database="campaign_db"),
        Operation("UPDATE heroes SET busy = true WHERE id = ?", [1], database="character_db"),
    ])
    print(done.transaction_id, done.results[0].last_insert_id)

or one after the other, with what the ones before gave:

    async with hub.transaction("campaign_db", "character_db") as transaction:
        quest = await transaction.execute("INSERT ...", database="campaign_db")
        await transaction.execute("UPDATE ...", [quest.last_insert_id], database="character_db")

With `read_only` both see one state of all databases: of every transaction all of it or nothing.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from messagehub.caller import Caller
from messagehub.errors import HubError, InvalidRequest
from messagehub.lost_answers import LostAnswers
from messagehub.open_transaction import EventDraft, Transaction
from messagehub.pages import Pages
from messagehub.request_ids import new_request_id
from messagehub.results import Operation, Result
from messagehub.transaction_records import TransactionRecord, TransactionState, record_of
from messagehub.v1 import transaction_service_pb2 as messages
from messagehub.v1.transaction_service_pb2_grpc import TransactionServiceStub
from messagehub.values import Parameters, row_tuples, to_statement

__all__ = [
    "CommittedTransaction",
    "EventDraft",
    "ListedTransactions",
    "Transaction",
    "TransactionRecord",
    "TransactionState",
    "Transactions",
]


@dataclass(frozen=True, slots=True)
class CommittedTransaction:
    """What a transaction gave: one result for each operation, in order.

    `sequence` of a result is the position of the transaction in the journal of its database.
    `replayed` says that it had been committed by an earlier call with the same request id.
    """

    transaction_id: str
    results: list[Result]
    replayed: bool
    correlation_id: str


class ListedTransactions(Pages[TransactionRecord]):
    """Transactions, one page of them in memory; made by `Hub.transactions`.

        async for record in hub.transactions():
            ...

    `unavailable_databases` could not be asked, so transactions of theirs may be missing.
    """

    def __init__(self, ask: Callable[[str], Awaitable[messages.ListTransactionsResponse]]) -> None:
        super().__init__(self._records)
        self._ask = ask
        self.unavailable_databases: set[str] = set()

    async def _records(self, token: str) -> tuple[Iterable[TransactionRecord], str]:
        page = await self._ask(token)
        self.unavailable_databases.update(page.unavailable_databases)
        return map(record_of, page.transactions), page.next_page_token


class Transactions:
    """The part of `Hub` that is about transactions."""

    def transaction(
        self: Caller,
        *databases: str,
        read_only: bool = False,
        idle_timeout: float | None = None,
        correlation_id: str = "",
        timeout: float | None = None,
    ) -> Transaction:
        """Opens a transaction with `async with`; see `Transaction`.

        `databases` are all that it will use; none = the service's own. `idle_timeout` is after
        how many seconds without a call the hub rolls it back; None = the hub's default. `timeout`
        bounds each call, the begin and the commit too.
        """
        begin = messages.BeginTransactionRequest(
            source_service=self.service,
            correlation_id=correlation_id,
            databases=databases,
            read_only=read_only,
            idle_timeout=None if idle_timeout is None else _duration(idle_timeout, "idle_timeout"),
        )
        return Transaction(self, begin, timeout)

    async def execute_transaction(
        self: Caller,
        operations: Sequence[Operation | tuple[str, Parameters]],
        *,
        events: Sequence[EventDraft] = (),
        read_only: bool = False,
        request_id: str | None = None,
        correlation_id: str = "",
        timeout: float | None = None,
    ) -> CommittedTransaction:
        """Runs all operations in one transaction; it is on disk everywhere when this returns.

        `events` are published if, and only if, it commits. If it loses against another it is run
        again, within the time.

        An error other than UNAVAILABLE and DEADLINE_EXCEEDED says that nothing was done; its
        `metadata["operation"]` is the index of the operation that failed, if it was one. After
        those two, the same call with the `request_id` of the error's `metadata` tells what became
        of it.
        """
        name = request_id or new_request_id()
        request = messages.ExecuteTransactionRequest(
            source_service=self.service,
            correlation_id=correlation_id,
            request_id=name,
            operations=[_operation(*numbered) for numbered in enumerate(operations)],
            events=[event.message() for event in events],
            read_only=read_only,
        )
        stub = TransactionServiceStub(self.channel)
        lost = LostAnswers(whole_transaction=True)
        try:
            response = await self.call(
                lambda seconds: stub.ExecuteTransaction(request, timeout=seconds),
                timeout=timeout,
                again=lost.again,
            )
        except HubError as error:
            conclusion = lost.conclusion(error)
            conclusion.metadata.setdefault("request_id", name)
            if conclusion is error:
                raise
            raise conclusion from error
        return _committed(response)

    async def get_transaction(
        self: Caller, transaction_id: str, *, timeout: float | None = None
    ) -> TransactionRecord:
        """Tells where a transaction of this service stands.

        Raises `TransactionNotFound` if its databases know nothing of it.
        """
        request = messages.GetTransactionRequest(
            source_service=self.service, transaction_id=transaction_id
        )
        stub = TransactionServiceStub(self.channel)
        response = await self.call(
            lambda seconds: stub.GetTransaction(request, timeout=seconds), timeout=timeout
        )
        return record_of(response.transaction)

    def transactions(
        self: Caller,
        *,
        states: Sequence[TransactionState] = (),
        page_size: int = 0,
        timeout: float | None = None,
    ) -> ListedTransactions:
        """Gives the transactions in some states, oldest first; none = open and in doubt.

        Of all databases that the service may read. `timeout` bounds each page.
        """
        if TransactionState.UNKNOWN in states:
            raise InvalidRequest(
                "states: UNKNOWN is no state to ask for", fields={"states": "has UNKNOWN"}
            )
        request = messages.ListTransactionsRequest(
            source_service=self.service,
            states=[messages.TransactionState.ValueType(state.value) for state in states],
            page_size=page_size,
        )
        stub = TransactionServiceStub(self.channel)

        async def ask(token: str) -> messages.ListTransactionsResponse:
            request.page_token = token
            page: messages.ListTransactionsResponse = await self.call(
                lambda seconds: stub.ListTransactions(request, timeout=seconds), timeout=timeout
            )
            return page

        return ListedTransactions(ask)

    async def resolve_transaction(
        self: Caller, transaction_id: str, *, commit: bool, timeout: float | None = None
    ) -> TransactionRecord:
        """Ends an in-doubt transaction by an operator's decision, which is recorded.

        Only for one whose home will never answer again: if that decided otherwise, its databases
        disagree for good. Gives the transaction as it stands then.
        """
        request = messages.ResolveTransactionRequest(
            source_service=self.service, transaction_id=transaction_id, commit=commit
        )
        stub = TransactionServiceStub(self.channel)
        response = await self.call(
            lambda seconds: stub.ResolveTransaction(request, timeout=seconds), timeout=timeout
        )
        return record_of(response.transaction)


def _operation(
    index: int, operation: Operation | tuple[str, Parameters]
) -> messages.TransactionOperation:
    if isinstance(operation, tuple):
        operation = Operation(*operation)
    if operation.request_id is not None:
        field = f"operations[{index}].request_id"
        problem = "is not for one operation of a transaction: give one to the whole transaction"
        raise InvalidRequest(f"{field} {problem}", fields={field: problem})
    return messages.TransactionOperation(
        database=operation.database,
        schema_version=operation.schema_version,
        statement=to_statement(operation.query, operation.parameters),
    )


def _committed(response: messages.ExecuteTransactionResponse) -> CommittedTransaction:
    results = [
        Result(
            columns=tuple(column.name for column in each.result.columns),
            rows=row_tuples(each.result),
            rows_affected=each.result.rows_affected,
            last_insert_id=each.result.last_insert_id,
            database=each.database,
            sequence=each.sequence,
            schema_version="",
            replayed=response.replayed,
            correlation_id=response.correlation_id,
        )
        for each in response.results
    ]
    return CommittedTransaction(
        transaction_id=response.transaction_id,
        results=results,
        replayed=response.replayed,
        correlation_id=response.correlation_id,
    )


def _duration(seconds: float, field: str) -> Duration:
    if seconds <= 0:
        raise InvalidRequest(
            f"{field} is {seconds} seconds: it must be above 0", fields={field: "must be above 0"}
        )
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1_000_000_000))
    return duration
