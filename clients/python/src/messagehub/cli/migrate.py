"""`messagehub migrate`: lead databases to the versions of their directories."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from messagehub.cli import migration_reports as reports
from messagehub.cli.connection import as_json_option, open_hub, service_of, target_options
from messagehub.cli.printable import json_text, printable
from messagehub.client import Hub
from messagehub.errors import InvalidRequest, InvalidStatement
from messagehub.migrations import directory, plan
from messagehub.migrations.plan import Plan
from messagehub.schemas import SCHEMA_TIMEOUT_SECONDS
from messagehub.v1.schema_service_pb2 import SchemaUpdateResult

USAGE: Final = "DATABASE DIRECTORY | --all DIRECTORY"


@click.command(options_metavar="[OPTIONS]")
@click.argument("places", nargs=-1, required=True, metavar=USAGE)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="DIRECTORY holds one directory for each database, named as it or as its service; all of "
    "them change in one transaction.",
)
@click.option("--to", default="", metavar="VERSION", help="Stop at this version, or go back to it.")
@click.option(
    "--baseline",
    default="",
    metavar="VERSION",
    help="Record everything up to this version without running it: for a database that was adopted "
    "with its tables.",
)
@click.option("--dry-run", is_flag=True, help="Run everything, report, and undo it.")
@click.option("--yes", is_flag=True, help="Go back without asking.")
@click.option("--service", help="Who asks; the default is the service whose database it is.")
@as_json_option
@target_options
def migrate(
    places: tuple[str, ...],
    *,
    every: bool,
    to: str,
    baseline: str,
    dry_run: bool,
    yes: bool,
    service: str | None,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Lead DATABASE to the newest version of DIRECTORY, which is run once for each version.

    DIRECTORY holds SQL as goose, dbmate or golang-migrate have it, or 1.2.0__name.sql with
    1.2.0__name.undo.sql.
    """
    asked = _Asked(to, baseline, service, dry_run=dry_run, yes=yes, as_json=as_json)
    asyncio.run(_migrate(_directories(places, every=every, to=to), asked, target, timeout))


class _Asked:
    """What the options say."""

    def __init__(
        self,
        to: str,
        baseline: str,
        service: str | None,
        *,
        dry_run: bool,
        yes: bool,
        as_json: bool,
    ) -> None:
        self.to = to
        self.baseline = baseline
        self.service = service
        self.dry_run = dry_run
        self.yes = yes
        self.as_json = as_json


def _directories(places: Sequence[str], *, every: bool, to: str) -> dict[str, Path]:
    """The directory of each database; a name may still be that of its service."""
    if len(places) != (1 if every else 2):
        raise click.UsageError(f"give {USAGE}")
    if not every:
        return {places[0]: Path(places[1])}
    if to:
        raise click.UsageError("--to names a version of one database: leave --all out")
    root = Path(places[0])
    if not root.is_dir():
        raise InvalidRequest(f"{root} is no directory", fields={str(root): "is none"})
    found = {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}
    if not found:
        raise InvalidRequest(f"{root} holds no directory of a database")
    return found


async def _migrate(
    directories: dict[str, Path], asked: _Asked, target: str, timeout: float | None
) -> None:
    async with open_hub(target) as known:
        routes = {route.service: route.database for route in (await known.status()).routes}
        named = {routes.get(name, name): path for name, path in directories.items()}
        service = asked.service or await service_of(known, next(iter(named)))
    seconds = timeout or SCHEMA_TIMEOUT_SECONDS
    async with open_hub(target, service=service) as hub:
        plans = [await _plan(hub, name, path, asked) for name, path in named.items()]
        if not asked.as_json:
            for line in reports.planned(plans):
                click.echo(printable(line))
        plans = [one for one in plans if not one.empty]
        results = await _carry_out(hub, plans, asked, seconds) if plans else []
    if asked.as_json:
        click.echo(json_text(reports.as_json(results, dry_run=asked.dry_run)))
    else:
        for line in reports.told(results, dry_run=asked.dry_run):
            click.echo(printable(line))
    if reports.failed(results):
        raise InvalidStatement("a statement failed; nothing was changed, and nothing would be")


async def _plan(hub: Hub, database: str, path: Path, asked: _Asked) -> Plan:
    return plan.make(
        database,
        directory.load(path),
        await hub.schema(database),
        to=asked.to,
        baseline=asked.baseline,
    )


async def _carry_out(
    hub: Hub, plans: Sequence[Plan], asked: _Asked, seconds: float
) -> list[SchemaUpdateResult]:
    back = next((one for one in plans if one.back), None)
    steps = sum(len(one.baseline) + len(one.updates) + len(one.back) for one in plans)
    if back is not None and not (asked.dry_run or asked.yes):
        # Without an answer, as in a script, nothing is dropped.
        click.confirm(f"Lead {back.database} back to {back.target}?", abort=True, err=True)
    with _progress("rehearsing" if asked.dry_run else "migrating", steps):
        answer: Any
        if back is not None:
            answer = await hub.rollback_schema(
                back.target, database=back.database, dry_run=asked.dry_run, timeout=seconds
            )
        else:
            updates = [
                migration.update(one.database, baseline=migration in one.baseline)
                for one in plans
                for migration in (*one.baseline, *one.updates)
            ]
            answer = await hub.update_schema(updates, dry_run=asked.dry_run, timeout=seconds)
    return list(answer.results)


@contextmanager
def _progress(title: str, steps: int) -> Iterator[None]:
    """A bar that moves while the hub works: all versions are one transaction, done at once."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as shown:
        task = shown.add_task(title, total=None)
        yield
        shown.update(task, total=steps, completed=steps)
