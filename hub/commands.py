"""The commands of the hub, found by `messagehub` through the entry points in pyproject.toml."""

import asyncio
from pathlib import Path

import click

from hub.config import load
from hub.server import HubServer
from hub.supervisor import ChildFailed, Settings, Supervisor
from messagehub.serving import logs
from messagehub.serving.configuration import ConfigurationError
from messagehub.serving.process import serve


@click.command()
@click.option("--data-dir", metavar="DIR", help="Where operations for later delivery are kept.")
@click.option("--listen", metavar="HOST:PORT", help="Where services reach the hub.")
@click.option(
    "--storage",
    metavar="HOST:PORT",
    multiple=True,
    help="Where the hub reaches the storage server; given again, a standby of it.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration file; messagehub.toml in the working directory is read if it is there.",
)
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
def hub(
    data_dir: str | None,
    listen: str | None,
    storage: tuple[str, ...],
    config: Path | None,
    log_level: str | None,
) -> None:
    """Run the hub until SIGTERM or Ctrl-C.

    Flags win over MESSAGEHUB_HUB_* in the environment, which win over [hub] in the file.
    """
    flags = {
        "data_dir": data_dir,
        "listen": listen,
        "storage": list(storage) or None,
        "log_level": log_level,
    }
    try:
        settings = load(file=config, flags=flags)
    except ConfigurationError as failure:
        click.echo(f"messagehub hub: {failure}", err=True)
        raise SystemExit(2) from None
    logs.set_up(settings.log_level)
    try:
        asyncio.run(serve(HubServer(settings)))
    except OSError as failure:
        click.echo(f"messagehub hub: {failure}", err=True)
        raise SystemExit(1) from None


@click.command()
@click.option("--data-dir", metavar="DIR", help="Where both keep their files.")
@click.option("--listen", metavar="HOST:PORT", help="Where services reach the hub.")
@click.option("--storage-listen", metavar="HOST:PORT", help="Where the hub reaches the storage.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration file; messagehub.toml in the working directory is read if it is there.",
)
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option(
    "--stop-seconds",
    type=click.FloatRange(min=0),
    default=Settings.stop_seconds_max,
    show_default=True,
    help="How long each may take to stop before it is killed.",
)
def up(
    data_dir: str | None,
    listen: str | None,
    storage_listen: str | None,
    config: Path | None,
    log_level: str | None,
    stop_seconds: float,
) -> None:
    """Run a storage server and a hub together until SIGTERM or Ctrl-C.

    What dies is started again. Their log lines go to standard error. A second Ctrl-C kills them.
    """
    logs.set_up("info")
    settings = Settings(
        data_dir=data_dir,
        listen=listen,
        storage_listen=storage_listen,
        config=config,
        log_level=log_level,
        stop_seconds_max=stop_seconds,
    )

    async def supervise() -> None:
        await Supervisor(settings, show=click.echo).run()

    try:
        asyncio.run(supervise())
    except ChildFailed as failure:
        click.echo(f"messagehub up: {failure}", err=True)
        raise SystemExit(failure.exit_status) from None
