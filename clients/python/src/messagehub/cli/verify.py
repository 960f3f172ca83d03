"""`messagehub verify`: whether the invariants of a live deployment hold."""

import asyncio

import click

from messagehub.cli.connection import as_json_option, open_hub, target_options
from messagehub.cli.printable import json_text
from messagehub.cli.tables import aligned
from messagehub.v1.hub_service_pb2 import Finding

HEADING = ("DATABASE", "INVARIANT", "HOLDS")


@click.command()
@click.option("--service", help="Who asks; the default is the hub's first service.")
@as_json_option
@target_options
def verify(*, service: str | None, as_json: bool, target: str, timeout: float | None) -> None:
    """Check that what must always hold, holds; status 1 if something does not.

    Only reads, from a snapshot of each database: it may be run at any time.
    """

    async def ask() -> list[Finding]:
        async with open_hub(target, timeout=timeout) as hub:
            hub.service = service or (await hub.status()).routes[0].service
            return list((await hub.verify_deployment()).findings)

    findings = asyncio.run(ask())
    if as_json:
        for one in findings:
            fields = {"database": one.database, "invariant": one.invariant, "problem": one.problem}
            click.echo(json_text(fields))
    else:
        lines = [[one.database or "-", one.invariant, one.problem or "yes"] for one in findings]
        click.echo(aligned(HEADING, lines))
    if broken := sum(bool(one.problem) for one in findings):
        raise click.ClickException(f"{broken} of {len(findings)} invariants do not hold")
