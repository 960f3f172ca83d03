"""Which databases a transaction may use, and who may see it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hub.core.routing.routes import Routes
from hub.core.transactions.transaction import Header, PartOperation, Work


class OperationDraft(NamedTuple):
    """One operation as its caller wants it; an empty database is the service's own."""

    database: str
    schema_version: str
    statement: Any


class EventDraft(NamedTuple):
    """An event to publish; its database is resolved already."""

    database: str
    event: Any


def planned(
    routes: Routes,
    source_service: str,
    operations: Sequence[OperationDraft],
    events: Sequence[EventDraft] = (),
) -> Mapping[str, Work]:
    """Gives what a transaction does in each database, checked against routes and grants."""
    statements: dict[str, list[PartOperation]] = {}
    for place, draft in enumerate(operations):
        database, read_only = routes.resolve(source_service, draft.database)
        operation = PartOperation(place, "", read_only, draft.schema_version, draft.statement)
        statements.setdefault(database, []).append(operation)
    return with_events(
        {database: Work(tuple(these)) for database, these in statements.items()}, events
    )


def with_events(work: Mapping[str, Work], events: Sequence[EventDraft]) -> Mapping[str, Work]:
    """Adds the events of a transaction to what it does."""
    all_work = dict(work)
    for database, event in events:
        known = all_work.get(database, Work())
        all_work[database] = known._replace(events=(*known.events, event))
    return all_work


def may_see(routes: Routes, source_service: str, header: Header) -> bool:
    """True for the owner of a transaction, and for whoever may read all of its databases."""
    if header.source_service == source_service:
        return True
    return set(routes.readable(source_service)).issuperset(header.databases)
