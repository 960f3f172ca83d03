"""`messagehub events`: what happens, as it happens."""

import asyncio
from typing import Any, Final

import click
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from messagehub.cli.connection import as_json_option, open_hub, service_of, target_options
from messagehub.cli.printable import json_text, printable
from messagehub.client import Hub
from messagehub.cloudevents import to_cloudevent
from messagehub.errors import InvalidRoute
from messagehub.events import LATEST, Event
from messagehub.status import from_status
from messagehub.v1.event_pb2 import OperationCompleted, OperationFailed

ALL: Final = "*"


@click.command()
@click.option("--database", "databases", multiple=True, help="Only of this database; repeatable.")
@click.option("--type", "types", multiple=True, help="Only types such as 'storage.*'; repeatable.")
@click.option("--source", "sources", multiple=True, help="Only caused by this service; repeatable.")
@click.option("--correlation-id", default="", help="Only caused by calls with this id.")
@click.option(
    "--from",
    "start",
    default=LATEST,
    show_default=True,
    metavar="CURSOR|earliest|latest",
    help="Where to begin; every event printed with --json has its cursor.",
)
@click.option("--service", help="Who asks; the default is a service with a route to the database.")
@click.option(
    "--subscription",
    default="",
    metavar="NAME",
    help="Go on where the service's subscription NAME was acknowledged; it is made if it is new.",
)
@click.option("--acknowledge", is_flag=True, help="Acknowledge what was printed.")
@as_json_option
@target_options
def events(
    *,
    databases: tuple[str, ...],
    types: tuple[str, ...],
    sources: tuple[str, ...],
    correlation_id: str,
    start: str,
    service: str | None,
    subscription: str,
    acknowledge: bool,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Print events as they are committed, one on a line, until Ctrl-C.

    With --json, each is a CloudEvent with the additional field `cursor`.
    """
    if acknowledge and not subscription:
        raise click.UsageError("--acknowledge goes with --subscription NAME")

    async def watch() -> None:
        async with open_hub(target, service=service or "", timeout=timeout) as hub:
            hub.service = service or await _reader(hub, databases)
            async with hub.subscribe(
                types=types,
                databases=databases or ALL,
                sources=sources,
                correlation_id=correlation_id,
                start=start,
                subscription=subscription,
                acknowledge=acknowledge,
            ) as stream:
                async for event in stream:
                    click.echo(json_line(event) if as_json else line(event))

    try:
        asyncio.run(watch())
    except KeyboardInterrupt:
        return


async def _reader(hub: Hub, databases: tuple[str, ...]) -> str:
    if len(databases) == 1 and databases[0] != ALL:
        return await service_of(hub, databases[0])
    for route in (await hub.status()).routes:
        return route.service
    raise InvalidRoute("the hub has no routes: say with --service who asks")


def line(event: Event) -> str:
    """Gives an event as one line for people."""
    moment = event.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    parts = [
        click.style(moment, dim=True),
        click.style(_one_line(f"{event.subject} {event.sequence}"), bold=True),
        click.style(_one_line(event.type), fg="red" if event.type.endswith("failed") else "green"),
        _one_line(event.source),
        _summary(event.data),
        click.style(_one_line(event.correlation_id), dim=True),
    ]
    return "  ".join(part for part in parts if part)


def _summary(data: Any) -> str:
    match data:
        case OperationCompleted():
            rows = "1 row" if data.rows_affected == 1 else f"{data.rows_affected} rows"
            return f"{_one_line(data.query)} ({rows})"
        case OperationFailed():
            error = from_status(data.error)
            return f"{_one_line(data.query)} ({error.reason}: {_one_line(error.message)})"
        case Message():
            return _one_line(MessageToJson(data, indent=None, ensure_ascii=False))
        case bytes():
            return _one_line(data.decode("utf-8", "backslashreplace"))
    return ""


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def json_line(event: Event) -> str:
    """Gives an event as a CloudEvent in JSON, with its cursor."""
    fields = {**to_cloudevent(event.message), "cursor": event.cursor}
    return json_text(fields)
