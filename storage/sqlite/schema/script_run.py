"""Running a script within the transaction that is open, statement by statement."""

from collections.abc import Callable
from typing import Final

from messagehub.errors import ConstraintViolation, DeadlineExceeded, HubError
from messagehub.schema import scripts
from messagehub.status import to_status
from messagehub.v1.schema_service_pb2 import SchemaUpdateResult
from messagehub.v1.statement_pb2 import Statement
from storage.core.operation import Operation
from storage.sqlite import failures
from storage.sqlite.changes import Changes
from storage.sqlite.failures import FAILURES
from storage.sqlite.schema.review import Review
from storage.sqlite.statements import Runner

MICROSECONDS: Final = 1_000_000
VIOLATIONS_TOLD_MAX: Final = 5
TEXT_CHARACTERS_MAX: Final = 400
# What a report holds of one statement, and of all together; then only how each begins. So a script
# of thousands of statements has a report that still fits a message.
REPORT_CHARACTERS_MAX: Final = 4096
SCRIPT_REPORT_CHARACTERS_MAX: Final = 256 * 1024
BEGINNING_CHARACTERS: Final = 60


class ScriptRun:
    """One script and its report. `until` is a time of `clock`, which `control` keeps too.

    Raises the `HubError` of the first statement that fails, with its number and text.
    """

    def __init__(
        self,
        runner: Runner,
        changes: Changes,
        report: SchemaUpdateResult,
        control: Operation,
        *,
        clock: Callable[[], float],
        until: float,
    ) -> None:
        self._runner = runner
        self._changes = changes
        self._report = report
        self._control = control
        self._clock = clock
        self._until = until
        self._room = SCRIPT_REPORT_CHARACTERS_MAX

    def run(self, script: str) -> None:
        """Runs all statements, then looks whether every foreign key leads somewhere."""
        began = self._clock()
        number = 0
        for number, text in enumerate(scripts.statements(script), 1):
            self._run_one(number, text)
        if number:
            self._guarded(number, "PRAGMA foreign_key_check", self._check_foreign_keys)
        self._report.duration.FromMicroseconds(int((self._clock() - began) * MICROSECONDS))

    def _run_one(self, number: int, text: str) -> None:
        shown = text[: REPORT_CHARACTERS_MAX if self._room > 0 else BEGINNING_CHARACTERS]
        self._room -= len(shown)
        told = self._report.statements.add(number=number, statement=shown)
        began = self._clock()

        def run() -> None:
            review = Review(self._runner, text)
            result = self._changes.run_behind_savepoint(Statement(query=text))
            told.rows_affected = result.rows_affected
            told.warnings.extend(review.warnings(result.rows_affected))

        try:
            self._guarded(number, text, run)
        except HubError as failure:
            told.error.CopyFrom(to_status(failure))
            raise
        finally:
            told.duration.FromMicroseconds(int((self._clock() - began) * MICROSECONDS))

    def _guarded(self, number: int, text: str, run: Callable[[], None]) -> None:
        """Runs something within the time that is left; what fails tells where."""
        try:
            self._runner.begin(self._control, max(0.0, self._until - self._clock()))
            run()
        except HubError as refusal:
            raise self._placed(refusal, number, text) from refusal
        except FAILURES as failure:
            failures.verify(failure)
            error = failures.translate(failure, self._runner.guard)
            if failures.is_interrupt(failure):
                error = self._control.overdue(self._clock()) or self._too_long()
            raise self._placed(error, number, text) from failure
        finally:
            self._runner.end()

    def _too_long(self) -> HubError:
        return DeadlineExceeded(
            "the script took longer than it may (schema_seconds_max, or the time of the call): do "
            "less in one version, or allow more"
        )

    def _check_foreign_keys(self) -> None:
        with self._runner.watch:
            found = self._runner.raw.execute("PRAGMA foreign_key_check")
            rows = found.fetchmany(VIOLATIONS_TOLD_MAX)
        if rows:
            where = ", ".join(
                f"row {row} of {table} (to {parent})" for table, row, parent, _ in rows
            )
            raise ConstraintViolation(
                f"after the script, foreign keys lead nowhere: {where}; repair them in the script",
                metadata={"constraint": "foreign_key"},
            )

    def _placed(self, error: HubError, number: int, text: str) -> HubError:
        report = self._report
        cut = text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[:TEXT_CHARACTERS_MAX]}…"
        return type(error)(
            f"statement {number} of the script to {report.to_version or 'none'} of "
            f"{report.database} failed: {error.message}; it is: {cut}",
            retry_after=error.retry_after,
            fields=error.fields,
            metadata=error.metadata
            | {
                "database": report.database,
                "version": report.to_version,
                "statement_number": str(number),
                "statement": cut,
            },
        )
