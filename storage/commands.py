"""The command of the storage server, found by `messagehub` through the entry points."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

import click

from messagehub.serving import logs
from messagehub.serving.configuration import ConfigurationError
from messagehub.serving.process import serve
from storage.config import StorageConfig, load
from storage.server import StorageServer

# The exit code when a connection's thread did not come back and was left.
ABANDONED: Final = 3


@click.command()
@click.option("--data-dir", metavar="DIR", help="Where the database files are.")
@click.option("--listen", metavar="HOST:PORT", help="Where hubs reach this server.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration file; messagehub.toml in the working directory is read if it is there.",
)
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
def storage(
    data_dir: str | None, listen: str | None, config: Path | None, log_level: str | None
) -> None:
    """Run a storage server until SIGTERM or Ctrl-C.

    Flags win over MESSAGEHUB_STORAGE_* in the environment, which win over [storage] in the file.
    """
    flags = {"data_dir": data_dir, "listen": listen, "log_level": log_level}
    try:
        settings = load(file=config, flags=flags)
    except ConfigurationError as failure:
        click.echo(f"messagehub storage: {failure}", err=True)
        raise SystemExit(2) from None
    logs.set_up(settings.log_level)
    try:
        asyncio.run(_run(settings))
    except OSError as failure:
        click.echo(f"messagehub storage: {failure}", err=True)
        raise SystemExit(1) from None


async def _run(settings: StorageConfig) -> None:
    server = StorageServer(settings)
    await serve(server)
    if server.abandoned:
        # Python would wait for the thread. The file's lock goes with the process, and what the
        # thread had not committed is not in the file.
        logging.shutdown()
        os._exit(ABANDONED)
