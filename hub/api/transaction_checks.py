"""What is checked in a transaction before anything leaves the hub."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from hub.api.checks import RequestChecks, positive_seconds, written_for
from hub.api.event_checks import check_draft
from hub.config import HubConfig
from hub.core.routing.routes import Routes
from hub.core.transactions.access import EventDraft, OperationDraft
from hub.core.transactions.transaction import Work
from messagehub.errors import HubError, InvalidRequest, MessageTooLarge
from messagehub.v1 import event_pb2
from messagehub.v1 import transaction_service_pb2 as messages
from messagehub.v1.event_pb2 import Event


class TransactionChecks:
    """Makes drafts of what a transaction may do; each refusal names its field."""

    def __init__(self, limits: HubConfig, *, routes: Routes, checks: RequestChecks) -> None:
        self._limits = limits
        self._routes = routes
        self._checks = checks

    def size(self, request: messages.ExecuteTransactionRequest) -> None:
        """Checks how much one call holds."""
        if not request.operations and not request.events:
            raise _invalid("operations", "is empty: send at least one operation or event")
        operations_max = self._limits.transaction_operations_max
        if len(request.operations) > operations_max:
            what = f"has {len(request.operations)} operations, the limit is {operations_max}"
            raise _invalid("operations", what)
        size, bytes_max = request.ByteSize(), self._limits.transaction_bytes_max
        if size > bytes_max:
            raise MessageTooLarge(
                f"the transaction has {size} bytes, the limit is {bytes_max}: do less in one "
                "transaction",
                metadata={"limit_bytes": str(bytes_max)},
            )
        if request.read_only and request.events:
            raise _invalid("events", "must be empty where read_only is set")

    def operations(
        self, source_service: str, operations: Iterable[messages.TransactionOperation]
    ) -> Sequence[OperationDraft]:
        """Checks operations, their routes included."""
        drafts = []
        for index, operation in enumerate(operations):
            with _below(f"operations[{index}]"):
                self._checks.statement(operation.statement)
                written_for(operation.statement, operation.schema_version)
                route = self._routes.resolve(source_service, operation.database)
            version = operation.schema_version
            drafts.append(OperationDraft(route.database, version, operation.statement))
        return drafts

    def databases(self, source_service: str, databases: Sequence[str]) -> Sequence[str]:
        """Checks the databases that a transaction will use; none is the service's own."""
        names = []
        for index, name in enumerate(databases or [""]):
            with _in_place_of("database", f"databases[{index}]"):
                names.append(self._routes.resolve(source_service, name).database)
        return names

    def idle_seconds(self, request: messages.BeginTransactionRequest) -> float:
        """Checks how long a transaction may be without a call."""
        if not request.HasField("idle_timeout"):
            return self._limits.transaction_idle_seconds
        seconds = positive_seconds(request.idle_timeout, "idle_timeout")
        if seconds > self._limits.transaction_idle_seconds_max:
            raise _invalid(
                "idle_timeout",
                f"must not be above {self._limits.transaction_idle_seconds_max} s",
            )
        return seconds

    def events(
        self, source_service: str, drafts: Sequence[event_pb2.EventDraft]
    ) -> Sequence[EventDraft]:
        """Checks events to publish; the service must be able to write where they go."""
        events_max = self._limits.transaction_events_max
        if len(drafts) > events_max:
            raise _invalid("events", f"has {len(drafts)} events, the limit is {events_max}")
        events = []
        for index, draft in enumerate(drafts):
            with _in_place_of("event", f"events[{index}]"):
                check_draft(draft, event_bytes_max=self._limits.event_bytes_max)
            with _below(f"events[{index}]"):
                route = self._routes.resolve_writable(source_service, draft.database)
            event = Event(type=draft.type, data_content_type=draft.data_content_type)
            if draft.WhichOneof("data") is not None:
                event.custom = draft.custom
            events.append(EventDraft(route.database, event))
        return events


def fingerprint(source_service: str, work: Mapping[str, Work]) -> bytes:
    """Tells transactions with the same request id apart: what they do, and for whom."""
    digest = hashlib.sha256(source_service.encode())
    for database in sorted(work):
        operations, events = work[database]
        _add(digest, database.encode())
        for operation in operations:
            _add(digest, operation.place.to_bytes(4, "big"))
            _add(digest, operation.schema_version.encode())
            _add(digest, operation.statement.SerializeToString(deterministic=True))
        _add(digest, b"events")
        for event in events:
            _add(digest, event.SerializeToString(deterministic=True))
    return digest.digest()


def _add(digest: "hashlib._Hash", part: bytes) -> None:
    # With its length, so that no two lists of parts read the same.
    digest.update(len(part).to_bytes(8, "big"))
    digest.update(part)


@contextmanager
def _below(path: str) -> Iterator[None]:
    """Names the fields of a refusal as they stand in the request."""
    try:
        yield
    except HubError as refusal:
        refusal.fields = {
            field if field == "source_service" else f"{path}.{field}": what
            for field, what in refusal.fields.items()
        }
        raise


@contextmanager
def _in_place_of(path: str, given: str) -> Iterator[None]:
    try:
        yield
    except HubError as refusal:
        refusal.fields = {
            given + field.removeprefix(path): what for field, what in refusal.fields.items()
        }
        raise


def _invalid(field: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {what}", fields={field: what})
