"""`messagehub backup`: make, list, prove, restore and delete backups."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from messagehub.backup_records import Backup, BackupState, Restore
from messagehub.cli.connection import as_json_option, open_hub, target_options
from messagehub.cli.groups import ListByDefault
from messagehub.cli.printable import json_text, printable
from messagehub.cli.tables import aligned
from messagehub.client import Hub
from messagehub.errors import BackupCorrupt, BackupNotFound

LATEST: Final = "latest"
LOOK_SECONDS: Final = 0.3
HEADING: Final = ("BACKUP", "STATE", "DATABASES", "ROWS", "BYTES", "CREATED", "SCHEDULE")


Told = Callable[[float, str], None]
service_option = click.option("--service", help="Who asks; the default is the hub's first service.")


@click.group(cls=ListByDefault)
def backup() -> None:
    """Make, list, prove, restore and delete backups."""


@backup.command()
@click.argument("databases", nargs=-1, metavar="[DATABASE]...")
@click.option("--no-verify", is_flag=True, help="Do not prove it by restoring it.")
@service_option
@as_json_option
@target_options
def create(databases: tuple[str, ...], *, no_verify: bool, as_json: bool, **where: Any) -> None:
    """Back up the named databases, or all, at one moment, and prove the backup."""

    async def make(hub: Hub, told: Told) -> Backup:
        def look(made: Backup) -> None:
            told(made.progress, made.activity or "create")

        return await hub.create_backup(databases, verify=not no_verify, told=look)

    show([_run(make, **where)], as_json=as_json)


@backup.command("list")
@service_option
@as_json_option
@target_options
def list_backups(*, as_json: bool, **where: Any) -> None:
    """List backups, the newest first."""

    async def read(hub: Hub, _: Told) -> list[Backup]:
        return [one async for one in hub.backups()]

    show(_run(read, **where), as_json=as_json)


@backup.command()
@click.argument("backup_id", metavar="ID")
@service_option
@as_json_option
@target_options
def verify(backup_id: str, *, as_json: bool, **where: Any) -> None:
    """Restore the backup ID into a scratch place and check it; status 1 if it is not right.

    ID is the name of a backup, or `latest`.
    """

    async def prove(hub: Hub, told: Told) -> Backup:
        found = await _found(hub, backup_id)
        async with _watched(hub, found.id, told):
            return await hub.verify_backup(found.id)

    proven = _run(prove, **where)
    show([proven], as_json=as_json)
    if proven.problems:
        raise BackupCorrupt(f"{proven.id} is damaged: {'; '.join(proven.problems)}")


@backup.command()
@click.argument("backup_id", metavar="ID")
@click.argument("databases", nargs=-1, metavar="[DATABASE]...")
@click.option(
    "--to",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the database files into this directory instead; the live ones stay.",
)
@click.option("--allow-torn", is_flag=True, help="Accept that transactions are torn apart.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@service_option
@as_json_option
@target_options
def restore(
    backup_id: str,
    databases: tuple[str, ...],
    *,
    directory: Path | None,
    allow_torn: bool,
    yes: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Replace the named databases, or all, by their state in the backup ID.

    ID is the name of a backup, or `latest`. Writes wait meanwhile. What was written since the
    backup is gone; cursors from before are refused.
    """

    async def find(hub: Hub, _: Told) -> Backup:
        return await _found(hub, backup_id)

    found = _run(find, **where)
    chosen = list(databases) or [one.database for one in found.databases]
    if directory is not None:
        _export(found, chosen, directory, as_json=as_json, where=where)
        return
    if not yes:
        question = f"Replace {', '.join(chosen)} by their state of {_time(found)}?"
        click.confirm(question, abort=True, err=True)

    async def put_back(hub: Hub, told: Told) -> Restore:
        async with _watched(hub, found.id, told):
            return await hub.restore_backup(found.id, chosen, allow_torn_transactions=allow_torn)

    click.echo(restored_text(_run(put_back, **where), as_json=as_json))


@backup.command()
@click.argument("backup_id", metavar="ID")
@click.option("--even-last-verified", is_flag=True, help="Also the last verified one.")
@service_option
@target_options
def delete(backup_id: str, *, even_last_verified: bool, **where: Any) -> None:
    """Delete the backup ID, or cancel it while it is being made."""

    async def remove(hub: Hub, _: Told) -> None:
        await hub.delete_backup(backup_id, even_last_verified=even_last_verified)

    _run(remove, **where)
    click.echo(printable(f"{backup_id} is deleted"))


def _run(
    work: Callable[[Hub, Told], Any], *, service: str | None, target: str, timeout: float | None
) -> Any:
    async def call() -> Any:
        async with open_hub(target, timeout=timeout) as hub:
            hub.service = service or (await hub.status()).routes[0].service
            with _bar() as told:
                return await work(hub, told)

    return asyncio.run(call())


class _watched:  # noqa: N801 - it reads as a block
    """Shows how far the work on a backup is while a call for it is under way."""

    def __init__(self, hub: Hub, backup_id: str, told: Told) -> None:
        self._watching = asyncio.ensure_future(self._watch(hub, backup_id, told))

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.wait([self._watching])

    async def _watch(self, hub: Hub, backup_id: str, told: Told) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            seen = await hub.backup(backup_id)
            told(seen.progress if seen.activity else 0.0, seen.activity or "waiting")


async def _found(hub: Hub, backup_id: str) -> Backup:
    if backup_id != LATEST:
        return await hub.backup(backup_id)
    async for one in hub.backups():
        if one.state in (BackupState.COMPLETED, BackupState.VERIFIED):
            return one
    raise BackupNotFound("there is no backup yet: make one with `messagehub backup create`")


def _export(
    found: Backup, databases: Sequence[str], directory: Path, *, as_json: bool, where: Any
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    files = {name: directory / f"{name}.db" for name in databases}

    async def write(hub: Hub, told: Told) -> None:
        for name, file in files.items():

            def share(done: int, total: int, name: str = name) -> None:
                told(done / max(1, total), name)

            await hub.export_backup(found.id, name, file, told=share)

    _run(write, **where)
    if as_json:
        click.echo(json_text({name: str(file) for name, file in files.items()}))
    else:
        for file in files.values():
            click.echo(printable(f"wrote {file}"))


def show(backups: Iterable[Backup], *, as_json: bool) -> None:
    """Prints backups."""
    if as_json:
        for one in backups:
            click.echo(json_line(one))
    else:
        click.echo(table(backups))


def table(backups: Iterable[Backup]) -> str:
    """Gives backups for people."""
    return aligned(
        HEADING,
        [
            [
                one.id,
                f"{one.state.name} ({one.activity})" if one.activity else one.state.name,
                ", ".join(each.database for each in one.databases) or "-",
                str(sum(each.rows for each in one.databases)),
                str(one.size_bytes),
                _time(one),
                one.schedule or "-",
            ]
            for one in backups
        ],
    )


def json_line(one: Backup) -> str:
    """Gives a backup as a JSON object on one line."""
    fields: dict[str, Any] = {
        "backup_id": one.id,
        "state": one.state.name,
        "service": one.service,
        "correlation_id": one.correlation_id,
        "databases": [
            {name: getattr(each, name) for name in each.__slots__} for each in one.databases
        ],
        "size_bytes": one.size_bytes,
        "created": one.created.isoformat(),
        "duration_seconds": one.duration_seconds,
        "activity": one.activity,
        "progress": one.progress,
        "verified": one.verified.isoformat() if one.verified else None,
        "problems": list(one.problems),
        "tool_version": one.tool_version,
        "schedule": one.schedule,
    }
    if one.error is not None:
        fields["error"] = {"reason": one.error.reason, "message": one.error.message}
    return json_text(fields)


def restored_text(done: Restore, *, as_json: bool) -> str:
    """Gives what a restore did."""
    if as_json:
        databases = [{name: getattr(one, name) for name in one.__slots__} for one in done.databases]
        torn = list(done.torn_transactions)
        return json_text(
            {"backup_id": done.backup_id, "databases": databases, "torn_transactions": torn}
        )
    lines = [f"{one.database} is as it was at {one.sequence}" for one in done.databases]
    lines += [
        f"  the transaction {one.dropped_transaction_id} was prepared in what it replaced"
        for one in done.databases
        if one.dropped_transaction_id
    ]
    lines += [f"torn apart: {one}" for one in done.torn_transactions]
    return printable("\n".join(lines))


def _time(one: Backup) -> str:
    return one.created.astimezone().strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def _bar() -> Iterator[Told]:
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with shown:
        task = shown.add_task("waiting", total=1.0)

        def told(share: float, what: str) -> None:
            shown.update(task, completed=share, description=what)

        yield told
