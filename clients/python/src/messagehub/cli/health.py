"""`messagehub health`: the standard health probe, for people and for scripts."""

import asyncio
from typing import Any, Final

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from messagehub.channel import decode
from messagehub.cli.connection import as_json_option, open_hub, target_options
from messagehub.cli.printable import json_text
from messagehub.cli.tables import aligned
from messagehub.client import TIMEOUT_SECONDS, Hub
from messagehub.errors import NotBuiltYet
from messagehub.v1 import (
    backup_service_pb2,
    event_service_pb2,
    hub_service_pb2,
    schema_service_pb2,
    storage_service_pb2,
    transaction_service_pb2,
)

READY: Final = ""
LIVENESS: Final = "liveness"
SERVING: Final = "SERVING"
UNKNOWN: Final = "SERVICE_UNKNOWN"
SERVICES: Final = tuple(
    service.full_name
    for contract in (
        storage_service_pb2,
        transaction_service_pb2,
        schema_service_pb2,
        event_service_pb2,
        backup_service_pb2,
        hub_service_pb2,
    )
    for service in contract.DESCRIPTOR.services_by_name.values()
)


@click.command()
@click.argument("name", required=False)
@as_json_option
@target_options
@click.pass_context
def health(
    context: click.Context,
    name: str | None,
    *,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Probe NAME, or every name: "" (ready), liveness, the services, storage.DATABASE.

    Exits with 0 if NAME is serving, else with 1; without NAME, "" decides.
    """

    async def ask() -> dict[str, str]:
        async with open_hub(target, timeout=timeout) as hub:
            names = [name] if name is not None else await _names(hub)
            return {each: await _check(hub, each, timeout or TIMEOUT_SECONDS) for each in names}

    found = asyncio.run(ask())
    if as_json:
        click.echo(json_text(found))
    else:
        click.echo(aligned(["NAME", "STATUS"], [(f'"{k}"', v) for k, v in found.items()]))
    if found[name or READY] != SERVING:
        context.exit(1)


async def _names(hub: Hub) -> list[str]:
    try:
        databases = (await hub.status()).databases
    except NotBuiltYet:  # a storage server: it has the standard names only
        return [READY, LIVENESS]
    return [READY, LIVENESS, *SERVICES, *(f"storage.{each.database}" for each in databases)]


async def _check(hub: Hub, name: str, timeout: float) -> str:
    stub: Any = health_pb2_grpc.HealthStub(hub.channel)
    request = health_pb2.HealthCheckRequest(service=name)
    try:
        answer = await stub.Check(request, timeout=timeout)
    except grpc.aio.AioRpcError as failure:
        if failure.code() is grpc.StatusCode.NOT_FOUND:
            return UNKNOWN
        raise decode(failure, hub.target) from failure
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
