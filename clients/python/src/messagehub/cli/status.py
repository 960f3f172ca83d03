"""`messagehub status`: how the hub stands, on one screen."""

import asyncio
from contextlib import aclosing
from typing import Final

import click
from google.protobuf.json_format import MessageToDict

from messagehub.cli.connection import as_json_option, open_hub, target_options
from messagehub.cli.printable import json_text, printable
from messagehub.cli.status_watch import follow_status
from messagehub.cli.tables import aligned
from messagehub.client import Hub
from messagehub.errors import HubError
from messagehub.retries import may_retry
from messagehub.v1.hub_service_pb2 import CircuitState, DatabaseStatus, HubStatus

OPEN_ACCESS: Final = (
    "Access is open to everyone: callers are not authenticated, every service may reach every "
    "database."
)
HEADING: Final = (
    "DATABASE",
    "STATE",
    "SERVICES",
    "SEQUENCE",
    "SCHEMA",
    "CIRCUIT",
    "INBOX",
    "STORAGE SERVER",
)
POLL_SECONDS: Final = 0.1
NOT_READY: Final = 1


@click.command()
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for the hub to be ready, at most so long; exit with 1 if it is not by then.",
)
@click.option("--watch", is_flag=True, help="Go on showing it as it changes, until Ctrl-C.")
@as_json_option
@target_options
@click.pass_context
def status(
    context: click.Context,
    *,
    wait: float,
    watch: bool,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Show the hub, its storage servers, routes and databases."""
    if watch:
        asyncio.run(_show_live(target, timeout, as_json=as_json))
        return

    async def ask() -> HubStatus:
        async with open_hub(target, timeout=timeout) as hub:
            return await _when_ready(hub, wait) if wait else await hub.status()

    found = asyncio.run(ask())
    click.echo(_json(found) if as_json else screen(found, target))
    if wait and not found.ready:
        context.exit(NOT_READY)


async def _show_live(target: str, timeout: float | None, *, as_json: bool) -> None:
    """Shows every change: a fresh screen on a terminal, else one text or line after the other."""
    async with (
        open_hub(target, timeout=timeout) as hub,
        aclosing(follow_status(hub)) as statuses,
    ):
        async for found in statuses:
            if isinstance(found, HubError):
                click.echo(printable(f"the hub is lost, waiting for it: {found.message}"), err=True)
                continue
            if as_json:
                click.echo(_json(found))
                continue
            click.clear()
            click.echo(screen(found, target) + "\n")


def _json(found: HubStatus) -> str:
    fields = MessageToDict(
        found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json_text(fields)


async def _when_ready(hub: Hub, seconds: float) -> HubStatus:
    """Gives the status once it is ready, else the last one when the time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        over = loop.time() + POLL_SECONDS >= deadline
        try:
            found = await hub.status()
        except HubError as error:
            if over or not may_retry(error):
                raise
        else:
            if over or found.ready:
                return found
        await asyncio.sleep(POLL_SECONDS)


def screen(found: HubStatus, target: str) -> str:
    """Gives the status for people."""
    started = found.start_time.ToDatetime().replace(microsecond=0)
    services: dict[str, list[str]] = {}
    for route in found.routes:
        services.setdefault(route.database, []).append(route.service)
    state = "ready" if found.ready else "NOT READY"
    parts = [
        f"Message Hub {found.version} at {target}: {state}, running since {started} UTC",
        OPEN_ACCESS if found.open_access else "Access is by grant.",
        "",
        aligned(
            HEADING,
            [_database(each, services.get(each.database, [])) for each in found.databases],
        ),
        "",
        aligned(
            ["STORAGE SERVER", "STATE", "VERSION", "ENGINE"],
            [
                [
                    server.address,
                    "connected" if server.connected else "NOT CONNECTED",
                    server.version or "-",
                    server.engine or "-",
                ]
                for server in found.storage_servers
            ],
        ),
    ]
    if found.inbox_detail:
        parts.append(f"\ninbox: {found.inbox_detail}")
    parts += [
        f"\n{each.database}: {each.detail}"
        for each in found.databases
        if each.detail and not each.available
    ]
    return printable("\n".join(parts))


def _database(found: DatabaseStatus, services: list[str]) -> list[str]:
    return [
        found.database,
        "available" if found.available else "UNAVAILABLE",
        ", ".join(services) or "-",
        str(found.sequence),
        found.schema_version or "-",
        CircuitState.Name(found.circuit).removeprefix("CIRCUIT_STATE_").lower(),
        _inbox(found),
        found.storage_server or "-",
    ]


def _inbox(found: DatabaseStatus) -> str:
    """What waits to be delivered: how many, how much, since when."""
    if not found.inbox_operations:
        return "-"
    seconds = found.inbox_oldest_age.ToMilliseconds() / 1000
    return f"{found.inbox_operations} ({found.inbox_bytes:,} bytes, {seconds:.1f} s)"
