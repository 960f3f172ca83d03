"""The command of the storage server, found by `messagehub` through the entry points."""

import asyncio
from pathlib import Path

import click

from messagehub.serving import logs
from messagehub.serving.configuration import ConfigurationError
from messagehub.serving.process import serve
from storage.config import load
from storage.server import StorageServer


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
        asyncio.run(serve(StorageServer(settings)))
    except OSError as failure:
        click.echo(f"messagehub storage: {failure}", err=True)
        raise SystemExit(1) from None
