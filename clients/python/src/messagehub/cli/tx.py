"""`messagehub tx`: the transactions that hold databases, and ending one by hand."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import click

from messagehub.cli.connection import as_json_option, each_service, open_hub, target_options
from messagehub.cli.groups import ListByDefault
from messagehub.cli.printable import json_text
from messagehub.cli.tables import aligned
from messagehub.client import Hub
from messagehub.errors import AccessDenied, HubError, InvalidRequest, TransactionNotFound
from messagehub.transaction_records import TransactionRecord, TransactionState

STATES: Final = [state.name.lower() for state in TransactionState if state.value]
LISTED: Final = 50
HEADING: Final = ("TRANSACTION", "STATE", "SERVICE", "DATABASES", "WAITING FOR", "SINCE")


@click.group(cls=ListByDefault)
def tx() -> None:
    """Show transactions, or end one that is in doubt; `list` is the default."""


@tx.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="Only in this state; repeatable. The default is what is open or in doubt.",
)
@click.option("--limit", type=click.IntRange(min=1), default=LISTED, show_default=True)
@click.option("--service", help="Who asks; the default is every service in turn.")
@as_json_option
@target_options
def list_transactions(
    *,
    states: tuple[str, ...],
    limit: int,
    service: str | None,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """List transactions; the first of a transaction's databases is the one that decides."""
    wanted = [TransactionState[state.upper()] for state in states]

    unavailable: set[str] = set()

    async def read() -> list[TransactionRecord]:
        found: dict[str, TransactionRecord] = {}
        async with open_hub(target, timeout=timeout) as hub:
            async for asking in each_service(hub, service):
                listed = asking.transactions(states=wanted)
                try:
                    async for record in listed:
                        # Every service that may read a database sees what holds it.
                        found.setdefault(record.id, record)
                        if len(found) == limit:
                            return list(found.values())
                except AccessDenied:
                    if service is not None:
                        raise
                unavailable.update(listed.unavailable_databases)
        return sorted(found.values(), key=lambda record: record.created)

    found = asyncio.run(read())
    if as_json:
        for record in found:
            click.echo(json_line(record))
    else:
        click.echo(table(found))
    if unavailable:
        names = ", ".join(sorted(unavailable))
        click.echo(f"cannot be asked at the moment, so more may be there: {names}", err=True)


@tx.command()
@click.argument("transaction_id", metavar="ID")
@click.option("--commit", "decision", flag_value="commit", help="Commit what is prepared.")
@click.option("--rollback", "decision", flag_value="rollback", help="Roll back what is prepared.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--service", help="Whose it is; the default is to ask every service in turn.")
@as_json_option
@target_options
def resolve(
    transaction_id: str,
    *,
    decision: str | None,
    yes: bool,
    service: str | None,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """End the in-doubt transaction ID by hand.

    The hub ends every transaction by itself as soon as the database that decides answers. This is
    for one that never will again. What was decided here is recorded and published as an event.
    """
    if decision is None:
        raise click.UsageError("say --commit or --rollback")

    async def look() -> TransactionRecord:
        async with open_hub(target, timeout=timeout) as hub:
            return await _found(hub, transaction_id, service)

    async def end(record: TransactionRecord) -> TransactionRecord:
        async with open_hub(target, service=service or record.service, timeout=timeout) as hub:
            return await hub.resolve_transaction(record.id, commit=decision == "commit")

    record = asyncio.run(look())
    if record.state is not TransactionState.IN_DOUBT:
        raise InvalidRequest(
            f"{record.id} is {record.state.name}: only one that is IN_DOUBT can be ended by hand"
        )
    click.echo(table([record]), err=True)
    click.echo(warning(record, decision), err=True)
    if not yes:
        click.confirm(f"{decision.capitalize()} it nevertheless?", abort=True, err=True)
    record = asyncio.run(end(record))
    click.echo(json_line(record) if as_json else table([record]))


async def _found(hub: Hub, transaction_id: str, service: str | None) -> TransactionRecord:
    unanswered: HubError | None = None
    async for asking in each_service(hub, service):
        try:
            return await asking.get_transaction(transaction_id)
        except (TransactionNotFound, AccessDenied) as refusal:
            unanswered = unanswered or refusal
    raise unanswered or InvalidRequest("the hub has no routes: say with --service whose it is")


def warning(record: TransactionRecord, decision: str) -> str:
    """Gives what may break."""
    home, *others = record.databases or ("its home",)
    done = "rolled back" if decision == "commit" else "committed"
    return (
        f"WARNING: {home} decides this transaction. If it was {done} there, "
        f"{', '.join(others) or 'the others'} will disagree with {home} for good: one "
        "part of the transaction holds and the other does not, and nothing repairs that by itself. "
        f"Bring {home} back instead if you can; the hub does the rest."
    )


def table(found: Iterable[TransactionRecord]) -> str:
    """Gives transactions for people."""
    return aligned(
        HEADING,
        [
            [
                record.id,
                record.state.name,
                record.service,
                ", ".join(record.databases),
                ", ".join(record.waiting_for) or "-",
                record.created.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            ]
            for record in found
        ],
    )


def json_line(record: TransactionRecord) -> str:
    """Gives a transaction as a JSON object on one line."""
    fields: dict[str, Any] = {
        "transaction_id": record.id,
        "state": record.state.name,
        "service": record.service,
        "correlation_id": record.correlation_id,
        "databases": list(record.databases),
        "waiting_for": list(record.waiting_for),
        "created": record.created.isoformat(),
        "updated": record.updated.isoformat(),
    }
    if record.error is not None:
        fields["error"] = {
            "reason": record.error.reason,
            "message": record.error.message,
            "metadata": record.error.metadata,
        }
    return json_text(fields)
