"""The command `messagehub`: its group, and how its commands fail.

The client's commands are here; those of the servers come from the entry points of whatever is
installed beside it. Each is imported when it is used, so that a client command never waits for
the import of a server, nor needs it to be installed.
"""

import os
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import IO, Any, Final, cast

import click

from messagehub import __version__
from messagehub.cli import output
from messagehub.cli.printable import printable
from messagehub.errors import HubError

ENTRY_POINTS: Final = "messagehub.commands"
CLIENT_COMMANDS: Final = MappingProxyType(
    {
        "adopt": "messagehub.cli.adopt",
        "backup": "messagehub.cli.backup",
        "circuits": "messagehub.cli.circuits",
        "events": "messagehub.cli.events",
        "health": "messagehub.cli.health",
        "migrate": "messagehub.cli.migrate",
        "operations": "messagehub.cli.operations",
        "sql": "messagehub.cli.sql",
        "status": "messagehub.cli.status",
        "submit": "messagehub.cli.submit",
        "subscriptions": "messagehub.cli.subscriptions",
        "tx": "messagehub.cli.tx",
        "verify": "messagehub.cli.verify",
    }
)
INTERRUPTED: Final = 130


class CallFailed(click.ClickException):
    """A call that failed: one line with its reason, then one for each field it names."""

    def __init__(self, error: HubError) -> None:
        super().__init__(printable(" ".join(error.message.split())))
        self.error = error

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the lines."""
        click.echo(f"error: {self._line()}", file=file, err=True)
        for field, problem in self.error.fields.items():
            click.echo(printable(f"  {field}: {problem}"), file=file, err=True)
        for note in getattr(self.error, "__notes__", ()):
            click.echo(printable(f"  {note}"), file=file, err=True)

    def _line(self) -> str:
        if target := self.error.metadata.get("target"):
            return (
                f"{self.error.reason}: no hub answers at {target}: start one with "
                "`messagehub up`, or say with --target where it is"
            )
        return f"{self.error.reason}: {self.message}"


class Commands(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Gives the names, also of the servers' commands, if those are installed."""
        del ctx
        return sorted({*CLIENT_COMMANDS, *entry_points(group=ENTRY_POINTS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command."""
        del ctx
        if cmd_name in CLIENT_COMMANDS:
            output.check_open()
            # A client's standard error is for people; what gRPC logs there is not.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            home = import_module(CLIENT_COMMANDS[cmd_name])
            return cast("click.Command", getattr(home, cmd_name))
        for point in entry_points(group=ENTRY_POINTS, name=cmd_name):
            return cast("click.Command", point.load())
        return None

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Reads the arguments, and prints what they ask for by themselves, such as `--help`."""
        with output.told():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; an interruption is quiet, a failed call or lost output one line."""
        try:
            with output.told():
                return super().invoke(ctx)
        except HubError as error:
            raise CallFailed(error) from error
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="messagehub")
def main() -> None:
    """Message Hub: the one door between services and their databases."""
