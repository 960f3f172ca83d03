"""`messagehub circuits`: open and close the circuit of a database by hand."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable

import click
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

from messagehub.cli.connection import as_json_option, open_hub, service_of, target_options
from messagehub.client import Hub
from messagehub.v1.hub_service_pb2 import (
    CircuitState,
    CloseCircuitRequest,
    DatabaseStatus,
    OpenCircuitRequest,
)
from messagehub.v1.hub_service_pb2_grpc import HubServiceStub

MILLISECONDS = 1000

Operate = Callable[[Hub, float], Awaitable[DatabaseStatus]]


@click.group()
def circuits() -> None:
    """Open or close the circuit of a database by hand; `messagehub status` shows them all."""


service_option = click.option(
    "--service",
    help="Who asks, and may write to the database; the service that owns it by default.",
)


@circuits.command("open")
@click.argument("database")
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long; without it, until it is closed by hand.",
)
@service_option
@as_json_option
@target_options
def open_circuit(
    *,
    database: str,
    seconds: float | None,
    service: str | None,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Refuse every call for DATABASE at once; what is submitted waits in the inbox."""
    duration = None
    if seconds is not None:
        if not math.isfinite(seconds):
            raise click.BadParameter("must be a number of seconds", param_hint="--for")
        duration = Duration()
        duration.FromMilliseconds(max(1, round(seconds * MILLISECONDS)))

    async def operate(hub: Hub, seconds: float) -> DatabaseStatus:
        request = OpenCircuitRequest(
            source_service=hub.service, database=database, duration=duration
        )
        return (await HubServiceStub(hub.channel).OpenCircuit(request, timeout=seconds)).database

    _operate(operate, database, service, target, timeout, as_json=as_json)


@circuits.command("close")
@click.argument("database")
@service_option
@as_json_option
@target_options
def close_circuit(
    *, database: str, service: str | None, as_json: bool, target: str, timeout: float | None
) -> None:
    """Let the calls for DATABASE pass again, whatever is known against it."""

    async def operate(hub: Hub, seconds: float) -> DatabaseStatus:
        request = CloseCircuitRequest(source_service=hub.service, database=database)
        return (await HubServiceStub(hub.channel).CloseCircuit(request, timeout=seconds)).database

    _operate(operate, database, service, target, timeout, as_json=as_json)


def _operate(
    operate: Operate,
    database: str,
    service: str | None,
    target: str,
    timeout: float | None,
    *,
    as_json: bool,
) -> None:
    async def ask() -> DatabaseStatus:
        async with open_hub(target, timeout=timeout) as hub:
            hub.service = service or await service_of(hub, database)
            return await hub.call(lambda seconds: operate(hub, seconds))

    found = asyncio.run(ask())
    if as_json:
        fields = MessageToDict(
            found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        click.echo(json.dumps(fields, ensure_ascii=False))
        return
    state = CircuitState.Name(found.circuit).removeprefix("CIRCUIT_STATE_").lower()
    click.echo(f"the circuit of {found.database} is {state.replace('_', ' ')}")
    if found.detail:
        click.echo(found.detail)
