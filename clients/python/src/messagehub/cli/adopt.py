"""`messagehub adopt`: take over a copy of an existing SQLite file."""

import asyncio
import hashlib
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, cast
from urllib.parse import quote

import click
import grpc
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from messagehub.channel import decode
from messagehub.cli.connection import as_json_option, open_hub, service_of, target_options
from messagehub.cli.printable import json_text, printable
from messagehub.errors import InvalidRequest
from messagehub.v1.hub_service_pb2 import AdoptDatabaseRequest, AdoptDatabaseResponse
from messagehub.v1.hub_service_pb2_grpc import HubServiceStub

CHUNK_BYTES: Final = 1024 * 1024
COPY_PAGES: Final = 1024
TIMEOUT_SECONDS: Final = 3600.0
_TABLES: Final = "SELECT count(*) FROM sqlite_master WHERE type IN ('table', 'view')"

Told = Callable[[int, int], None]


class Copy(NamedTuple):
    """A copy of a database, whole and at rest."""

    path: Path
    size_bytes: int
    checksum: str


@click.command()
@click.argument("database")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--service", help="Who asks; the default is the service whose database it is.")
@as_json_option
@target_options
def adopt(
    database: str,
    file: Path,
    *,
    service: str | None,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Fill the empty DATABASE with a copy of the SQLite FILE.

    FILE is only read, and may be in use meanwhile: the copy is consistent. A DATABASE that holds
    tables is refused.
    """
    with tempfile.TemporaryDirectory(prefix="messagehub-adopt-") as directory, _progress() as shown:
        copied = copy_database(file, Path(directory), _bar(shown, "copying"))
        service = service or asyncio.run(_service(target, database))
        told = _bar(shown, "sending")
        adopted = upload(target, service, database, copied, told, timeout or TIMEOUT_SECONDS)
    tables = list(adopted.tables)
    if as_json:
        click.echo(json_text({"database": adopted.database, "tables": tables}))
        return
    click.echo(printable(f"{adopted.database} holds {len(tables)} tables of {file}:"))
    for table in tables:
        click.echo(printable(f"  {table}"))


def copy_database(file: Path, directory: Path, told: Told) -> Copy:
    """Copies a database, also one that others are writing to, at one moment of its life.

    What is committed only in the write-ahead log beside it is part of that. Raises
    `InvalidRequest` for what is no database, and for one that only its own program can make whole.
    """
    file = file.resolve()
    if not file.is_file():
        raise _refusal(file, "it is no regular file")
    path = directory / "copy.sqlite3"
    try:
        _back_up(file, path, "mode=ro", told)
    except sqlite3.OperationalError as failure:
        _copy_alone(file, path, told, failure)
    except sqlite3.Error as failure:
        raise _refusal(file, f"is it a SQLite database? {failure}") from failure
    with path.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    return Copy(path, path.stat().st_size, checksum)


def _copy_alone(file: Path, path: Path, told: Told, failure: sqlite3.Error) -> None:
    """Copies a database that cannot be opened for reading, if that file is all there is of it.

    One in WAL mode cannot be opened where its companions cannot be made; without companions nobody
    is writing. What lies in companions would be missing from the copy, or half of it there.
    """
    for suffix, content in (("-wal", "committed changes"), ("-journal", "a broken-off change")):
        companion = file.with_name(f"{file.name}{suffix}")
        if companion.exists() and companion.stat().st_size:
            raise _refusal(
                file,
                f"{companion.name} beside it may hold {content}, and cannot be used from here "
                f"({failure}): open the database once with the program that wrote it, or with "
                f"`sqlite3 '{file}' 'SELECT 1 FROM sqlite_master'`, where it may be written, then "
                "adopt it again",
            ) from failure
    try:
        _back_up(file, path, "mode=ro&immutable=1", told)
    except sqlite3.Error as second:
        raise _refusal(file, f"is it a SQLite database? {second}") from second


def _back_up(file: Path, path: Path, mode: str, told: Told) -> None:
    def step(_status: int, remaining: int, total: int) -> None:
        told(total - remaining, total)

    source = sqlite3.connect(f"file:{quote(str(file))}?{mode}", uri=True)
    try:
        copy = sqlite3.connect(path)
        try:
            source.backup(copy, pages=COPY_PAGES, progress=step)
            copy.execute("PRAGMA journal_mode = DELETE")
            if not copy.execute(_TABLES).fetchone()[0]:
                raise _refusal(file, "it holds no tables, so there is nothing to adopt")
        finally:
            copy.close()
    finally:
        source.close()


async def _service(target: str, database: str) -> str:
    async with open_hub(target) as hub:
        return await service_of(hub, database)


def upload(
    target: str, service: str, database: str, copied: Copy, told: Told, timeout: float
) -> AdoptDatabaseResponse:
    """Streams the copy to the hub, not faster than the hub takes it.

    This is the one call that is not asynchronous: when a hub refuses a stream in the middle,
    gRPC's asyncio side may tell of the write that failed for it instead of the reason.
    """
    with grpc.insecure_channel(target, options=[("grpc.enable_retries", 0)]) as channel:
        call = HubServiceStub(channel).AdoptDatabase.future(
            _requests(service, database, copied, told), timeout=timeout
        )
        try:
            return call.result()
        except grpc.RpcError as failure:
            raise decode(cast("grpc.Call", failure), target) from failure
        finally:
            call.cancel()


def _requests(
    service: str, database: str, copied: Copy, told: Told
) -> Iterator[AdoptDatabaseRequest]:
    request = AdoptDatabaseRequest(
        source_service=service,
        database=database,
        size_bytes=copied.size_bytes,
        checksum=copied.checksum,
    )
    sent = 0
    with copied.path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            request.chunk = chunk
            yield request
            sent += len(chunk)
            told(sent, copied.size_bytes)
            request = AdoptDatabaseRequest()


def _refusal(file: Path, why: str) -> InvalidRequest:
    return InvalidRequest(f"{file} cannot be copied: {why}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _bar(shown: Progress, title: str) -> Told:
    task = shown.add_task(title, total=None)

    def told(done: int, total: int) -> None:
        shown.update(task, completed=done, total=total)

    return told
