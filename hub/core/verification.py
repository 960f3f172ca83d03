"""Whether the invariants of a live deployment hold: of each database, and of the hub's inbox."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from hub.core.transactions.together import each
from messagehub.errors import HubError

HUB = ""


class Finding(NamedTuple):
    """An invariant of a database, or of the hub, and why it does not hold; empty = it does."""

    database: str
    invariant: str
    problem: str


class Verification:
    """Asks every database; `inbox_problem` tells what is wrong with the inbox, empty = nothing."""

    def __init__(
        self,
        inspect: Callable[[str], Awaitable[Sequence[tuple[str, str]]]],
        inbox_problem: Callable[[], str],
    ) -> None:
        self._inspect = inspect
        self._inbox_problem = inbox_problem

    async def run(self, databases: Sequence[str]) -> list[Finding]:
        """Gives every invariant of the databases and of the hub; one that is away is a problem."""
        answers = await each(self._asked(database) for database in databases)
        findings = [Finding(HUB, "the inbox takes operations", self._inbox_problem())]
        for database, answer in zip(databases, answers, strict=True):
            if isinstance(answer, HubError):
                findings.append(Finding(database, "the database answers", answer.message))
                continue
            findings.append(Finding(database, "the database answers", ""))
            findings += [Finding(database, *one) for one in answer]
        return findings

    async def _asked(self, database: str) -> Sequence[tuple[str, str]]:
        return await self._inspect(database)
