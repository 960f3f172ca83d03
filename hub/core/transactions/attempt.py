"""One attempt at a transaction, from its first step to the last word about it."""

from collections.abc import Mapping

from hub.core.transactions.locks import Held
from hub.core.transactions.states import Happening, Phase, after
from hub.core.transactions.transaction import Header, PartResult, PreparedPart, Work

NOTHING = Work()


class Attempt:
    """What one attempt has done so far.

    `work` is what it does, by database. `begins` = its parts begin with its first step; those of an
    interactive transaction are there already, and one that is not is lost.
    """

    def __init__(
        self,
        header: Header,
        work: Mapping[str, Work] | None = None,
        *,
        request_id: str = "",
        fingerprint: bytes = b"",
        begins: bool = True,
    ) -> None:
        self.header = header
        self.request_id = request_id
        self.fingerprint = fingerprint
        self.begins = begins
        self.phase = Phase.OPEN
        # The participants that may have heard of it.
        self.begun: set[str] = set()
        self.prepared: list[PreparedPart] = []
        self.results: list[PartResult] = []
        self._locks: list[Held] = []
        self._work: Mapping[str, Work] = work or {}

    def work(self, database: str) -> Work:
        """What it does in one database."""
        return self._work.get(database, NOTHING)

    def plan(self, work: Mapping[str, Work]) -> None:
        """Says what it does, where that was not known when it began."""
        self._work = work

    def happens(self, happening: Happening) -> None:
        """Goes on to the next phase."""
        self.phase = after(self.phase, happening)

    def hold(self, locks: Held) -> None:
        """Keeps locks until they are released here."""
        self._locks.append(locks)

    def release(self, database: str) -> None:
        """Gives back the locks of one database."""
        for held in self._locks:
            held.release(database)

    def release_all(self) -> None:
        """Gives back what locks are left."""
        for held in self._locks:
            held.release_all()
