"""How the schemas of databases stand, compared with what is required of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hub.core.ports import Storage
from hub.core.transactions.together import each
from messagehub.errors import HubError
from messagehub.schema.ranges import parse_range


class Standing(NamedTuple):
    """One database; `found` is what it said of its schema, or why it said nothing."""

    database: str
    required: str
    found: Any

    @property
    def compatible(self) -> bool:
        """True if the version is in the required range, or none is required."""
        if not self.required:
            return True
        known = not isinstance(self.found, HubError)
        return known and parse_range(self.required).holds(self.found.version)


class Standings:
    """Asks databases. `required` are the ranges of the configuration, by database."""

    def __init__(self, storage: Storage, *, required: Mapping[str, str], seconds: float) -> None:
        self._storage = storage
        self._required = required
        self._seconds = seconds

    async def of(
        self,
        databases: Sequence[str],
        required: Mapping[str, str],
        *,
        correlation_id: str,
        seconds: float,
    ) -> list[Standing]:
        """Compares databases with what the caller, or else the configuration, requires of them."""
        seconds = min(seconds, self._seconds)
        found = await each(
            self._storage.describe_schema(name, correlation_id=correlation_id, seconds=seconds)
            for name in databases
        )
        ranges = {**self._required, **required}
        return [
            Standing(name, ranges.get(name, ""), one)
            for name, one in zip(databases, found, strict=True)
        ]
