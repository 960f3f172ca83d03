"""What every client command shares: where the hub is, and a client of it."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import click

from messagehub.client import DEFAULT_TARGET, TIMEOUT_SECONDS, Hub
from messagehub.errors import InvalidRoute
from messagehub.retries import Retries

__all__ = [
    "ATTEMPTS_MAX",
    "as_json_option",
    "each_service",
    "open_hub",
    "service_of",
    "target_options",
]

# A person waits: what is not cured within a few tries is told.
ATTEMPTS_MAX: Final = 4

Command = Callable[..., Any]


def target_options(command: Command) -> Command:
    """Adds `--target` and `--timeout`."""
    command = click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help=f"How long a call may take; the default is {TIMEOUT_SECONDS:.0f}, more for long ones.",
    )(command)
    return click.option(
        "--target",
        envvar="MESSAGEHUB_TARGET",
        default=DEFAULT_TARGET,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="Where the hub is.",
    )(command)


def as_json_option(command: Command) -> Command:
    """Adds `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def open_hub(
    target: str,
    *,
    service: str = "",
    timeout: float | None = None,
    attempts_max: int = ATTEMPTS_MAX,
) -> Hub:
    """Gives a client that gives up early when no hub answers."""
    retries = Retries(attempts_max=attempts_max)
    if timeout is None:
        return Hub(target, service=service, retries=retries)
    return Hub(target, service=service, retries=retries, timeout=timeout, query_timeout=timeout)


async def each_service(hub: Hub, service: str | None) -> AsyncIterator[Hub]:
    """Gives the client as the service that is named, or as each that the hub has a route for."""
    if service is not None:
        hub.service = service
        yield hub
        return
    for route in (await hub.status()).routes:
        hub.service = route.service
        yield hub


async def service_of(hub: Hub, database: str) -> str:
    """Gives the service whose route leads to a database.

    Raises `InvalidRoute`, which lists the routes, if there is none.
    """
    routes = (await hub.status()).routes
    for route in routes:
        if route.database == database:
            return route.service
    known = ", ".join(sorted(route.database for route in routes)) or "none"
    raise InvalidRoute(
        f"no service has the database {database!r}: the databases are {known}; for one that "
        "several services share, say with --service who asks"
    )
