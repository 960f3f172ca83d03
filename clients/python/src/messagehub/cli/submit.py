"""`messagehub submit`: hand a statement over for later delivery."""

import asyncio
from typing import Final

import click

from messagehub.cli.connection import as_json_option, open_hub, service_of, target_options
from messagehub.cli.operations import json_line, outcome, table
from messagehub.cli.statements import parse_parameters
from messagehub.client import Hub
from messagehub.operations import OperationState, SubmittedOperation

POLL_SECONDS: Final = 0.1
NOT_COMPLETED: Final = 1


@click.command()
@click.argument("database")
@click.argument("query")
@click.option(
    "--param",
    "given",
    multiple=True,
    metavar="[:NAME=]VALUE",
    help="A parameter of QUERY: a JSON number, true, false, null, a quoted text, or plain text.",
)
@click.option("--service", help="Who asks; the default is the service whose database it is.")
@click.option("--request-id", metavar="UUID", help="Names the operation; the default is a new id.")
@click.option("--correlation-id", default="", help="Follows it through logs and events.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for the outcome, at most so long; exit with 1 if it is not completed by then.",
)
@as_json_option
@target_options
@click.pass_context
def submit(
    context: click.Context,
    database: str,
    query: str,
    *,
    given: tuple[str, ...],
    service: str | None,
    request_id: str | None,
    correlation_id: str,
    wait: float,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Submit QUERY to be executed on DATABASE exactly once, as soon as that can be used.

    The hub has it on disk when this returns. `messagehub operations get ID` tells its outcome.
    """
    parameters = parse_parameters(given)

    async def hand_over() -> SubmittedOperation:
        async with open_hub(target, service=service or "", timeout=timeout) as hub:
            hub.service = service or await service_of(hub, database)
            accepted = await hub.submit(
                query,
                parameters,
                database=database,
                request_id=request_id,
                correlation_id=correlation_id,
            )
            return await _outcome(hub, accepted, wait) if wait else accepted

    operation = asyncio.run(hand_over())
    if as_json:
        click.echo(json_line(operation))
    else:
        click.echo(table([operation]))
        if told := outcome(operation):
            click.echo(told)
    if wait and operation.state is not OperationState.COMPLETED:
        context.exit(NOT_COMPLETED)


async def _outcome(hub: Hub, operation: SubmittedOperation, seconds: float) -> SubmittedOperation:
    """Gives the operation once it has ended, else as it stands when the time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not operation.state.final and loop.time() < deadline:
        await asyncio.sleep(min(POLL_SECONDS, max(0.0, deadline - loop.time())))
        operation = await hub.operation(operation.request_id)
    return operation
