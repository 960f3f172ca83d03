"""`messagehub sql`: one statement, statements from a pipe, or a prompt."""

import asyncio
import sqlite3
import sys
from contextlib import suppress
from typing import Final

import click

from messagehub.cli.connection import as_json_option, open_hub, service_of, target_options
from messagehub.cli.main import CallFailed
from messagehub.cli.statements import Piece, leading_keyword, parse_parameters, split
from messagehub.cli.tables import RowPrinter, row_printer
from messagehub.client import Hub
from messagehub.errors import HubError, InvalidRequest, InvalidStatement, StatementForbidden
from messagehub.values import Parameters

READING: Final = frozenset({"SELECT", "WITH", "VALUES", "PRAGMA", "EXPLAIN"})


@click.command()
@click.argument("database")
@click.argument("query", required=False)
@click.option(
    "--param",
    "given",
    multiple=True,
    metavar="[:NAME=]VALUE",
    help="A parameter of QUERY: a JSON number, true, false, null, a quoted text, or plain text.",
)
@click.option("--service", help="Who asks; the default is the service whose database it is.")
@as_json_option
@target_options
def sql(
    database: str,
    query: str | None,
    *,
    given: tuple[str, ...],
    service: str | None,
    as_json: bool,
    target: str,
    timeout: float | None,
) -> None:
    """Run SQL on DATABASE: the QUERY, or statements from standard input.

    Rows stream through in constant memory: as a table on a terminal, else as tab-separated lines
    (NULL is \\N), or with --json as one object on a line.
    """
    parameters = parse_parameters(given)
    if given and query is None:
        raise click.UsageError("--param belongs to a QUERY")
    with asyncio.Runner() as runner:
        hub = runner.run(_connect(target, service, database, timeout))
        session = Session(hub, database, row_printer(as_json=as_json))
        try:
            if query is not None:
                runner.run(session.run(query, parameters))
            elif sys.stdin.isatty():
                _converse(runner, session, database)
            else:
                _run_all(runner, session)
        finally:
            runner.run(hub.close())


class Session:
    """Runs statements on one database and prints what they give."""

    def __init__(self, hub: Hub, database: str, printer: RowPrinter) -> None:
        self._hub = hub
        self._database = database
        self._printer = printer

    async def run(self, query: str, parameters: Parameters = ()) -> None:
        """Runs one statement, streaming if it reads."""
        keyword = leading_keyword(query)
        if keyword in READING:
            try:
                await self._read(query, parameters)
            except (StatementForbidden, InvalidStatement, InvalidRequest):
                # `WITH … INSERT` is a write; a stream refuses it before its first page.
                if keyword != "WITH":
                    raise
            else:
                return
        await self._execute(query, parameters)

    async def _read(self, query: str, parameters: Parameters) -> None:
        async with self._hub.query(query, parameters, database=self._database) as rows:
            self._printer.begin(rows.columns)
            async for row in rows:
                self._printer.row(row)
            self._printer.end()

    async def _execute(self, query: str, parameters: Parameters) -> None:
        result = await self._hub.execute(query, parameters, database=self._database)
        if not result.columns:
            self._printer.outcome(result)
            return
        self._printer.begin(result.columns)
        for row in result.rows:
            self._printer.row(row)
        self._printer.end()


async def _connect(target: str, service: str | None, database: str, timeout: float | None) -> Hub:
    hub = open_hub(target, service=service or "", timeout=timeout)
    try:
        hub.service = service or await service_of(hub, database)
    except BaseException:
        await hub.close()
        raise
    return hub


def _run_all(runner: asyncio.Runner, session: Session) -> None:
    """Runs the statements of standard input up to the first that fails."""
    for piece in split(sys.stdin):
        try:
            runner.run(session.run(piece.text))
        except HubError as error:
            error.add_note(f"the statement begins on line {piece.line} of standard input")
            raise


def _converse(runner: asyncio.Runner, session: Session, database: str) -> None:
    """Reads statements from a prompt until the end of input; errors do not end it."""
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 - gives `input` its history, where it exists
    click.echo("A statement ends with a semicolon. Ctrl-D leaves.")
    first, next_lines = f"{database}> ", "...> ".rjust(len(database) + 2)
    pending = ""
    while True:
        try:
            pending += input(next_lines if pending.strip() else first) + "\n"
            if sqlite3.complete_statement(pending):
                text, pending = pending, ""
                for piece in split(text.splitlines(keepends=True)):
                    _try(runner, session, piece)
        except KeyboardInterrupt:
            pending = ""
            click.echo()
        except EOFError:
            click.echo()
            return


def _try(runner: asyncio.Runner, session: Session, piece: Piece) -> None:
    try:
        runner.run(session.run(piece.text))
    except HubError as error:
        CallFailed(error).show()
