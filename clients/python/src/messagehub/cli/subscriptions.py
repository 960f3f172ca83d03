"""`messagehub subscriptions`: the names that the hub remembers, and how far behind they are."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import click
from google.protobuf.json_format import MessageToDict

from messagehub.cli.connection import as_json_option, open_hub, target_options
from messagehub.cli.groups import ListByDefault
from messagehub.cli.printable import json_text, printable
from messagehub.cli.tables import aligned
from messagehub.client import Hub
from messagehub.errors import InvalidRequest, SubscriptionNotFound
from messagehub.v1.event_service_pb2 import Subscription

HEADING: Final = (
    "SUBSCRIPTION",
    "SERVICE",
    "STATE",
    "LAG",
    "WAITING",
    "DATABASES",
    "ACKNOWLEDGED",
)


@click.group(cls=ListByDefault)
def subscriptions() -> None:
    """Show or delete named subscriptions; without a command, show them."""


@subscriptions.command("list")
@click.option("--service", help="Only those of this service.")
@as_json_option
@target_options
def show(
    *,
    service: str | None,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Show the named subscriptions: who reads, and how far behind they are."""

    async def ask() -> tuple[list[Subscription], set[str]]:
        async with open_hub(target, timeout=timeout) as hub:
            return await _all(hub, service)

    found, unavailable = asyncio.run(ask())
    if as_json:
        for each in found:
            fields = MessageToDict(
                each, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            click.echo(json_text(fields))
    else:
        click.echo(aligned(HEADING, map(_line, found)))
    if unavailable:
        names = ", ".join(sorted(unavailable))
        click.echo(f"cannot be asked at the moment, so more may be there: {names}", err=True)


@subscriptions.command()
@click.argument("name")
@click.option("--service", help="Whose it is; needed where several services have that name.")
@target_options
def delete(*, name: str, service: str | None, target: str, timeout: float | None) -> None:
    """Forget the subscription NAME, which nobody may be reading for."""

    async def forget() -> str:
        async with open_hub(target, timeout=timeout) as hub:
            hub.service = service or await _owner(hub, name)
            await hub.delete_subscription(name)
            return hub.service

    owner = asyncio.run(forget())
    click.echo(printable(f"{name} of {owner} is deleted"))


async def _all(hub: Hub, service: str | None) -> tuple[list[Subscription], set[str]]:
    services = [service] if service else [route.service for route in (await hub.status()).routes]
    found: list[Subscription] = []
    unavailable: set[str] = set()
    for hub.service in services:
        answer = await hub.subscriptions()
        found += answer.subscriptions
        unavailable.update(answer.unavailable_databases)
    return found, unavailable


async def _owner(hub: Hub, name: str) -> str:
    found, _ = await _all(hub, None)
    owners = [each.source_service for each in found if each.subscription == name]
    if not owners:
        raise SubscriptionNotFound(f"no service has a subscription {name}")
    if len(owners) > 1:
        raise InvalidRequest(
            f"{', '.join(owners)} each have a subscription {name}: say with --service whose"
        )
    return owners[0]


def _line(each: Subscription) -> list[str]:
    if each.HasField("cut_off_time"):
        state = f"CUT OFF at {_moment(each.cut_off_time.ToDatetime(tzinfo=UTC))}"
    elif each.active:
        state = f"read by {each.consumer}" if each.consumer else "read"
    else:
        state = "not read"
    acknowledged = "never"
    if each.HasField("acknowledge_time"):
        acknowledged = _moment(each.acknowledge_time.ToDatetime(tzinfo=UTC))
    waiting = each.lag_duration.ToMilliseconds() / 1000
    return [
        each.subscription,
        each.source_service,
        state,
        "1 event" if each.lag_events == 1 else f"{each.lag_events} events",
        f"{waiting:.1f} s" if each.lag_events else "-",
        ", ".join(each.databases),
        acknowledged,
    ]


def _moment(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
