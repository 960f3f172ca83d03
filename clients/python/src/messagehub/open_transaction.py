"""A transaction that is open while its caller works."""

from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from messagehub.caller import Caller
from messagehub.errors import (
    HubError,
    Retry,
    StorageUnavailable,
    TransactionConflict,
    TransactionExpired,
    TransactionNotFound,
)
from messagehub.lost_answers import LostAnswers
from messagehub.request_ids import new_request_id
from messagehub.results import Result, result_of
from messagehub.transaction_records import TransactionRecord, TransactionState, record_of
from messagehub.v1 import event_pb2
from messagehub.v1 import transaction_service_pb2 as messages
from messagehub.v1.storage_service_pb2 import ExecuteRequest
from messagehub.v1.storage_service_pb2_grpc import StorageServiceStub
from messagehub.v1.transaction_service_pb2_grpc import TransactionServiceStub
from messagehub.values import Parameters, to_statement

__all__ = ["EventDraft", "Transaction"]

# The caller has an error to look at already; the hub ends what it does not hear of by itself.
ROLLBACK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event to publish: its type, such as `character.levelled_up`, and its bytes.

    It joins the journal of `database`; empty = the service's own.
    """

    type: str
    data: bytes = b""
    database: str = ""
    data_content_type: str = ""

    def message(self) -> event_pb2.EventDraft:
        """Gives it as it is sent."""
        return event_pb2.EventDraft(
            type=self.type,
            custom=self.data,
            database=self.database,
            data_content_type=self.data_content_type,
        )


class Transaction:
    """Statements in some databases, committed together; made by `Hub.transaction`.

        async with hub.transaction("campaign_db", "character_db") as transaction:
            await transaction.execute("INSERT ...", database="campaign_db")
            await transaction.execute("UPDATE ...", database="character_db")

    It begins with the block, is committed when the block ends, and rolled back when an exception
    leaves it; that exception goes on. Nobody else writes to its databases meanwhile, so keep it
    short; the hub rolls it back when it hears nothing for the idle timeout, or at `expires`, and
    the next call raises `TransactionExpired`.

    A statement that fails undoes only itself: catch its error, and the transaction goes on.

    `state` is COMMITTED or ROLLED_BACK once that is known. It is UNKNOWN after a commit that
    raised `StorageUnavailable` or `DeadlineExceeded`: then `Hub.get_transaction` with the `id`
    tells, as soon as the hub can.
    """

    def __init__(
        self, caller: Caller, begin: messages.BeginTransactionRequest, timeout: float | None
    ) -> None:
        self._caller = caller
        self._begin = begin
        self._timeout = timeout
        self._events: list[EventDraft] = []
        self._open = False
        self.id = ""
        self.state = TransactionState.UNKNOWN
        self.expires = datetime.max.replace(tzinfo=UTC)
        self.databases = tuple(begin.databases)
        self.correlation_id = begin.correlation_id

    async def __aenter__(self) -> Self:
        """Opens it; raises `TransactionConflict` if its databases are not free in time."""
        if self.id:
            raise RuntimeError("this transaction was begun before: make a new one")
        stub = TransactionServiceStub(self._caller.channel)
        response: messages.BeginTransactionResponse = await self._caller.call(
            lambda seconds: stub.BeginTransaction(self._begin, timeout=seconds),
            timeout=self._timeout,
            again=LostAnswers(whole_transaction=True).again,
        )
        self.id = response.transaction_id
        self.correlation_id = response.correlation_id
        if response.HasField("expire_time"):
            self.expires = response.expire_time.ToDatetime(tzinfo=UTC)
        self.state = TransactionState.ACTIVE
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._open:
            return
        if error is None:
            await self.commit()
            return
        try:
            await self.rollback()
        except HubError as failure:
            # What the caller has to see is the error in its block.
            error.add_note(
                f"the rollback of {self.id} is not confirmed ({failure.reason}); the hub does it "
                "at the latest when the idle timeout is over"
            )

    async def execute(
        self,
        query: str,
        parameters: Parameters = (),
        *,
        database: str = "",
        schema_version: str = "",
        timeout: float | None = None,
    ) -> Result:
        """Runs one statement in the transaction; it holds once the transaction is committed.

        `database` is one of those that the transaction was opened for; empty = the service's own.
        """
        self._check_open()
        request = ExecuteRequest(
            source_service=self._caller.service,
            database=database,
            correlation_id=self.correlation_id,
            request_id=new_request_id(),
            schema_version=schema_version,
            transaction_id=self.id,
            statement=to_statement(query, parameters),
        )
        stub = StorageServiceStub(self._caller.channel)
        try:
            response = await self._caller.call(
                lambda seconds: stub.Execute(request, timeout=seconds),
                timeout=self._timeout if timeout is None else timeout,
            )
        except (TransactionConflict, TransactionExpired):
            self._end(TransactionState.ROLLED_BACK)
            raise
        return result_of(response, response.result, response.correlation_id)

    def publish(
        self,
        type: str,  # noqa: A002 - the name that CloudEvents gives it
        data: bytes = b"",
        *,
        database: str = "",
        data_content_type: str = "",
    ) -> None:
        """Has an event published if, and only if, the transaction commits."""
        self._check_open()
        self._events.append(EventDraft(type, data, database, data_content_type))

    async def commit(self) -> None:
        """Commits; what was done is on disk in all databases when this returns.

        An answer that was lost is asked for again until the time is over. Raises the error for
        which the transaction was rolled back, if it was. The end of an `async with` block does
        this by itself.
        """
        self._check_open()
        request = messages.CommitTransactionRequest(
            source_service=self._caller.service,
            correlation_id=self.correlation_id,
            transaction_id=self.id,
            events=[event.message() for event in self._events],
        )
        stub = TransactionServiceStub(self._caller.channel)

        async def decided(seconds: float) -> TransactionRecord:
            response = await stub.CommitTransaction(request, timeout=seconds)
            return self._decided(response.transaction)

        lost = LostAnswers()
        self._end(TransactionState.UNKNOWN)
        try:
            record = await self._caller.call(decided, timeout=self._timeout, again=lost.again)
        except HubError as error:
            record = await self._after_refusal(error, answer_lost=bool(lost))
        self._finish(record)

    async def rollback(self) -> None:
        """Rolls back: nothing of it holds. An exception in the block does this by itself."""
        self._check_open()
        self._end(TransactionState.UNKNOWN)
        self.state = (await self._roll_back()).state

    async def _after_refusal(self, error: HubError, *, answer_lost: bool) -> TransactionRecord:
        """Finds out how a transaction ended whose commit was answered with an error."""
        error.metadata.setdefault("transaction_id", self.id)
        if error.retry is Retry.SAME_CALL:
            raise error
        if error.retry is Retry.WHOLE_TRANSACTION and not answer_lost:
            self.state = TransactionState.ROLLED_BACK
            raise error
        # Refused for what is in it, or for an unknown id after a lost answer. Asking for the
        # rollback ends it in any case, and tells the truth if it was committed before.
        try:
            record = await self._roll_back()
        except TransactionNotFound:
            raise error from None
        except HubError as failure:
            error.add_note(f"how {self.id} ended could not be asked: {failure.reason}")
            raise error from failure
        if record.state is TransactionState.COMMITTED:
            return record
        self.state = record.state
        raise error

    async def _roll_back(self) -> TransactionRecord:
        request = messages.RollbackTransactionRequest(
            source_service=self._caller.service,
            correlation_id=self.correlation_id,
            transaction_id=self.id,
        )
        stub = TransactionServiceStub(self._caller.channel)

        async def decided(seconds: float) -> TransactionRecord:
            response = await stub.RollbackTransaction(request, timeout=seconds)
            return self._decided(response.transaction)

        record: TransactionRecord = await self._caller.call(decided, timeout=ROLLBACK_SECONDS)
        return record

    def _decided(self, transaction: messages.Transaction) -> TransactionRecord:
        record = record_of(transaction)
        if record.state.final:
            return record
        raise StorageUnavailable(
            f"the transaction {self.id} is {record.state.name}: its end is not known yet",
            metadata={"transaction_id": self.id},
        )

    def _finish(self, record: TransactionRecord) -> None:
        self.state = record.state
        # Of a transaction that only read, nothing is there to be committed.
        if record.state is TransactionState.ROLLED_BACK and not self._begin.read_only:
            raise record.error or TransactionConflict(
                f"the transaction {self.id} was rolled back", metadata={"transaction_id": self.id}
            )

    def _end(self, state: TransactionState) -> None:
        self._open = False
        self.state = state

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError(
                f"the transaction is not open (its state is {self.state.name}): begin a new one "
                "with `async with hub.transaction(...)`"
            )
