"""`messagehub operations`: what was submitted for later delivery, and what became of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import click

from messagehub.cli.connection import (
    ATTEMPTS_MAX,
    as_json_option,
    each_service,
    open_hub,
    target_options,
)
from messagehub.cli.groups import ListByDefault
from messagehub.cli.printable import json_text, printable
from messagehub.cli.tables import aligned, json_value
from messagehub.client import Hub
from messagehub.errors import AccessDenied, HubError, InvalidRoute, OperationNotFound
from messagehub.operations import OperationState, SubmittedOperation
from messagehub.retries import may_retry

STATES: Final = [state.name.lower() for state in OperationState if state.value]
LISTED: Final = 50
HEADING: Final = ("REQUEST ID", "STATE", "DATABASE", "SERVICE", "ATTEMPTS", "ACCEPTED")

Ask = Callable[[Hub], Awaitable[SubmittedOperation]]

_service_option = click.option("--service", help="Who asks; the default is every service in turn.")


@click.group(cls=ListByDefault)
def operations() -> None:
    """Show operations that were submitted for later delivery; `list` is the default."""


@operations.command("list")
@click.option("--database", default="", help="Only for this database.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="Only in this state; repeatable.",
)
@click.option("--limit", type=click.IntRange(min=1), default=LISTED, show_default=True)
@_service_option
@as_json_option
@target_options
def list_operations(
    *,
    database: str,
    states: tuple[str, ...],
    limit: int,
    service: str | None,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """List operations, of each service the newest first."""
    wanted = [OperationState[state.upper()] for state in states]

    async def read() -> list[SubmittedOperation]:
        found: list[SubmittedOperation] = []
        async with open_hub(target, timeout=timeout) as hub:
            async for asking in each_service(hub, service):
                try:
                    async for operation in asking.operations(database=database, states=wanted):
                        found.append(operation)
                        if len(found) == limit:
                            return found
                except AccessDenied:
                    if service is not None:
                        raise
        return found

    found = asyncio.run(read())
    if as_json:
        for operation in found:
            click.echo(json_line(operation))
    else:
        click.echo(table(found))


@operations.command()
@click.argument("request_id")
@click.option("--database", default="", help="Where it was executed, if it was not submitted.")
@_service_option
@as_json_option
@target_options
def get(
    request_id: str,
    *,
    database: str,
    service: str | None,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Tell what became of the operation REQUEST_ID."""

    async def ask(hub: Hub) -> SubmittedOperation:
        return await hub.operation(request_id, database=database)

    _show(asyncio.run(_ask_each(target, service, timeout, ask)), as_json=as_json)


@operations.command()
@click.argument("request_id")
@_service_option
@as_json_option
@target_options
def cancel(
    request_id: str, *, service: str | None, as_json: bool, target: str, timeout: float | None
) -> None:
    """Take the operation REQUEST_ID back, as long as it is queued."""

    async def ask(hub: Hub) -> SubmittedOperation:
        return await hub.cancel_operation(request_id)

    _show(asyncio.run(_ask_each(target, service, timeout, ask)), as_json=as_json)


async def _ask_each(
    target: str, service: str | None, timeout: float | None, ask: Ask
) -> SubmittedOperation:
    """Gives the answer of the service that the operation belongs to."""
    unanswered: HubError | None = None
    # Asking all in turn, none is asked twice: it may be another one that knows.
    attempts_max = 1 if service is None else ATTEMPTS_MAX
    async with open_hub(target, timeout=timeout, attempts_max=attempts_max) as hub:
        async for asking in each_service(hub, service):
            try:
                return await ask(asking)
            except (OperationNotFound, AccessDenied) as refusal:
                unanswered = unanswered or refusal
            except HubError as failure:
                # The inbox may know another service's operation although a database is away.
                if not may_retry(failure):
                    raise
                unanswered = failure
    raise unanswered or InvalidRoute("the hub has no routes: say with --service who asks")


def _show(operation: SubmittedOperation, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_line(operation))
        return
    click.echo(table([operation]))
    if told := outcome(operation):
        click.echo(told)


def table(found: Iterable[SubmittedOperation]) -> str:
    """Gives operations for people."""
    return aligned(
        HEADING,
        [
            [
                one.request_id,
                one.state.name,
                one.database,
                one.service,
                str(one.attempts),
                one.created.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            ]
            for one in found
        ],
    )


def outcome(operation: SubmittedOperation) -> str:
    """Gives what an operation gave, for people; empty while it has given nothing."""
    if operation.error is not None:
        return f"{operation.error.reason}: {printable(operation.error.message)}"
    if operation.state is not OperationState.COMPLETED:
        return ""
    if operation.columns:
        rows = [[_cell(value) for value in row] for row in operation.rows]
        return aligned(operation.columns, rows)
    rows_affected = operation.rows_affected
    rows_text = "1 row" if rows_affected == 1 else f"{rows_affected} rows"
    return f"{rows_text} affected; {operation.database} is at {operation.sequence}"


def json_line(operation: SubmittedOperation) -> str:
    """Gives an operation as a JSON object on one line."""
    fields: dict[str, Any] = {
        "request_id": operation.request_id,
        "state": operation.state.name,
        "database": operation.database,
        "service": operation.service,
        "correlation_id": operation.correlation_id,
        "attempts": operation.attempts,
        "sequence": operation.sequence,
        "created": operation.created.isoformat(),
        "updated": operation.updated.isoformat(),
        "replayed": operation.replayed,
    }
    if operation.error is not None:
        fields["error"] = {
            "reason": operation.error.reason,
            "message": operation.error.message,
            "metadata": operation.error.metadata,
        }
    elif operation.state is OperationState.COMPLETED:
        fields["rows_affected"] = operation.rows_affected
        fields["last_insert_id"] = operation.last_insert_id
        fields["columns"] = list(operation.columns)
        fields["rows"] = [[json_value(value) for value in row] for row in operation.rows]
    return json_text(fields)


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return str(value)
