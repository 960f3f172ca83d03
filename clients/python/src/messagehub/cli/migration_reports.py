"""What `messagehub migrate` says: the plan before, the statements and their times after."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from messagehub.migrations.plan import Plan
from messagehub.v1.schema_service_pb2 import SchemaUpdateResult, StatementReport

STATEMENT_CHARACTERS_MAX: Final = 72
NOTHING: Final = "none"


def planned(plans: Sequence[Plan]) -> Iterator[str]:
    """The plan, line by line."""
    for plan in plans:
        current = plan.current or NOTHING
        if plan.empty:
            yield f"{plan.database} is at {current}: nothing to do"
            continue
        yield f"{plan.database} is at {current}:"
        for migration in plan.baseline:
            yield f"  = {migration.version}  {migration.description} (recorded only)"
        for migration in plan.updates:
            yield f"  + {migration.version}  {migration.description}"
        for change in plan.back:
            yield f"  - {change.version}  {change.description}"


def told(results: Sequence[SchemaUpdateResult], *, dry_run: bool) -> Iterator[str]:
    """What was done, with everything that a reviewer should look at."""
    for result in results:
        milliseconds = result.duration.ToMicroseconds() / 1000
        yield (
            f"{result.database}: {result.from_version or NOTHING} -> "
            f"{result.to_version or NOTHING}, {len(result.statements)} statements in "
            f"{milliseconds:.1f} ms"
        )
        for statement in result.statements:
            if dry_run or statement.warnings or statement.HasField("error"):
                yield from _statement(statement)
    if results:
        yield "nothing was changed: this was a dry run" if dry_run else "done"


def failed(results: Sequence[SchemaUpdateResult]) -> bool:
    """True if a statement of a dry run failed."""
    return any(one.HasField("error") for result in results for one in result.statements)


def as_json(results: Sequence[SchemaUpdateResult], *, dry_run: bool) -> dict[str, Any]:
    """The same for programs; times in seconds."""
    return {
        "dry_run": dry_run,
        "results": [
            {
                "database": result.database,
                "from_version": result.from_version,
                "to_version": result.to_version,
                "seconds": result.duration.ToMicroseconds() / 1e6,
                "statements": [
                    {
                        "number": one.number,
                        "statement": one.statement,
                        "rows_affected": one.rows_affected,
                        "seconds": one.duration.ToMicroseconds() / 1e6,
                        "warnings": list(one.warnings),
                        "error": one.error.message if one.HasField("error") else None,
                    }
                    for one in result.statements
                ],
            }
            for result in results
        ],
    }


def _statement(one: StatementReport) -> Iterator[str]:
    text = " ".join(one.statement.split())
    if len(text) > STATEMENT_CHARACTERS_MAX:
        text = f"{text[: STATEMENT_CHARACTERS_MAX - 3]}..."
    milliseconds = one.duration.ToMicroseconds() / 1000
    yield f"  {one.number}. {text}  ({one.rows_affected} rows, {milliseconds:.1f} ms)"
    for warning in one.warnings:
        yield f"     warning: {warning}"
    if one.HasField("error"):
        yield f"     FAILED: {one.error.message}"
