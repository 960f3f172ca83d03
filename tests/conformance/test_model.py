"""Any interleaving of operations, copies, failures, crashes and trims equals a model.

The model runs operations one after the other on a dictionary. The engine gets them in groups, may
lose whole groups and run them again, is killed and opened again, and must show the same outcomes,
the same rows and the same journal.
"""

import asyncio
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from storage.core.operation import Operation, Outcome, Position
from tests.conformance.engines import PLACES, Place
from tests.conformance.operations import (
    CREATE,
    apply_all,
    events,
    operation,
    publish,
    selected,
)
from tests.support.calls import rows

IDS: Final = [str(uuid.uuid4()) for _ in range(6)]
PARTS: Final = (
    "CREATE TABLE parts (item INTEGER REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED)"
)
CONSTRAINT, INVALID = "CONSTRAINT_VIOLATION", "INVALID_STATEMENT"


@dataclass
class Expected:
    """What the model says of one operation; `reason` is empty for a success."""

    reason: str = ""
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    sequence: int = 0
    replayed: bool = False


@dataclass
class Asked:
    """One operation as it was drawn."""

    kind: str
    item: int
    n: int
    request_id: str
    cancelled: bool

    def make(self, place: Place) -> Operation:
        texts = {
            "insert": f"INSERT INTO items VALUES ({self.item}, {self.n}) RETURNING id, n",
            "set": f"UPDATE items SET n = {self.n} WHERE id = {self.item} RETURNING n",
            "increment": f"UPDATE items SET n = n + 1 WHERE id = {self.item} RETURNING n",
            "delete": f"DELETE FROM items WHERE id = {self.item} RETURNING id",
            "two": f"INSERT INTO items VALUES ({self.item}, 0), ({self.item + 1}, 0)",
            "orphan": "INSERT INTO parts VALUES (404)",
            "nonsense": "INSERT INTO nowhere VALUES (1)",
            "null": "INSERT INTO items VALUES (999, NULL)",
            "spoil": place.dialect.spoiling[0][1],
        }
        more: dict[str, Any] = {"request_id": self.request_id, "cancelled": self.cancelled}
        if self.kind == "event":
            return publish("character.made", bytes([self.n]), **more)
        return operation(texts[self.kind], **more)

    @property
    def content(self) -> tuple[str, int, int]:
        """What tells it from another operation under the same request id."""
        item = self.item if self.kind in ("insert", "set", "increment", "delete", "two") else 0
        n = self.n if self.kind in ("insert", "set", "event") else 0
        return self.kind, item, n


class Model:
    """A dictionary, a journal, and what is recorded."""

    def __init__(self) -> None:
        self.items: dict[int, int] = {}
        self.journal: list[tuple[int, str]] = []
        self.sequence = 0
        self.recorded: dict[str, tuple[Any, Expected]] = {}

    def record(self, kind: str) -> int:
        self.sequence += 1
        self.journal.append((self.sequence, kind))
        return self.sequence

    def run(self, asked: Asked) -> Expected:
        if asked.request_id in self.recorded:
            content, known = self.recorded[asked.request_id]
            if content != asked.content:
                return Expected("REQUEST_ID_REUSED")
            return Expected(known.reason, known.rows, known.sequence, replayed=True)
        if asked.cancelled:
            return Expected("CANCELLED")
        expected = self._effect(asked)
        kind = "storage.operation_failed" if expected.reason else "storage.operation_completed"
        expected.sequence = self.record("character.made" if asked.kind == "event" else kind)
        if asked.request_id:
            self.recorded[asked.request_id] = (asked.content, expected)
        return expected

    def _effect(self, asked: Asked) -> Expected:
        items, item, n = self.items, asked.item, asked.n
        match asked.kind:
            case "insert" if item not in items:
                items[item] = n
                return Expected(rows=[(item, n)])
            case "two" if item not in items and item + 1 not in items:
                items[item] = items[item + 1] = 0
            case "spoil" if 1 not in items:
                items[1] = 0
            case "set" | "increment" if item in items:
                items[item] = n if asked.kind == "set" else items[item] + 1
                return Expected(rows=[(items[item],)])
            case "delete" if item in items:
                del items[item]
                return Expected(rows=[(item,)])
            case "nonsense":
                return Expected(INVALID)
            case "insert" | "two" | "spoil" | "orphan" | "null":
                return Expected(CONSTRAINT)
        return Expected()

    def trim(self, keep_rows: int, at_most: int) -> tuple[int, int]:
        """Forgets; gives how many entries, and the oldest position."""
        ends = [
            number
            for number, _ in self.journal[:at_most]
            if number < self.sequence and number <= self.sequence - keep_rows
        ]
        del self.journal[: len(ends)]
        oldest = self.journal[0][0] - 1
        self.recorded = {k: v for k, v in self.recorded.items() if v[1].sequence > oldest}
        return len(ends), oldest


KINDS = st.sampled_from(
    ["insert", "set", "increment", "delete", "two", "event", "orphan", "nonsense", "null", "spoil"]
)
GROUPS = st.lists(
    st.builds(
        Asked,
        kind=KINDS,
        item=st.integers(0, 3),
        n=st.integers(0, 3),
        request_id=st.sampled_from(["", *IDS]),
        cancelled=st.sampled_from([False] * 7 + [True]),
    ),
    min_size=1,
    max_size=8,
)


class Machine(RuleBasedStateMachine):
    """Drives an engine and the model side by side."""

    def __init__(self, make_place: Callable[[Path], Place]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.place = make_place(Path(self.directory.name) / "place")
        self.places = [self.place]
        self.model = Model()

    @initialize(group_seconds_max=st.sampled_from([60.0, 0.0005]))
    def open(self, group_seconds_max: float) -> None:
        self.options = {"group_seconds_max": group_seconds_max}
        self.engine = self.runner.run(self.place.open(**self.options))
        self.runner.run(apply_all(self.engine, (operation(CREATE), operation(PARTS))))
        for _ in range(2):
            self.model.record("storage.operation_completed")

    @rule(group=GROUPS)
    def apply(self, group: list[Asked]) -> None:
        expected = [self.model.run(asked) for asked in group]
        operations = [asked.make(self.place) for asked in group]
        applied = self.runner.run(apply_all(self.engine, operations))
        told = [event.sequence for event in applied.events]
        fresh = [e.sequence for e in expected if e.sequence and not e.replayed]
        assert told == fresh
        assert applied.sequence == self.model.sequence
        for wanted, outcome in zip(expected, applied.outcomes, strict=True):
            assert seen(outcome) == wanted

    @rule(repeat=st.sampled_from(IDS))
    def look_up(self, repeat: str) -> None:
        found = self.runner.run(self.engine.recorded(repeat))
        known = self.model.recorded.get(repeat)
        assert (found is None) == (known is None)
        if found is not None and known is not None:
            wanted = known[1]
            assert seen(found.outcome) == Expected(
                wanted.reason, wanted.rows, wanted.sequence, replayed=True
            )

    @rule()
    def crash(self) -> None:
        self.place = self.runner.run(self.place.crash(self.engine))
        self.places.append(self.place)
        self.engine = self.runner.run(self.place.open(**self.options))

    @rule()
    def restart(self) -> None:
        position = self.runner.run(self._open_again())
        assert position.sequence == self.model.sequence
        assert position.oldest_sequence == self.model.journal[0][0] - 1

    async def _open_again(self) -> Position:
        await self.engine.close()
        self.engine = self.place.make(**self.options)
        return await self.engine.open()

    @rule(keep_rows=st.integers(0, 12), at_most=st.integers(1, 6))
    def trim(self, keep_rows: int, at_most: int) -> None:
        trimmed = self.runner.run(
            self.engine.trim(older_than_us=0, keep_rows=keep_rows, at_most=at_most)
        )
        assert (trimmed.rows, trimmed.oldest_sequence) == self.model.trim(keep_rows, at_most)

    @invariant()
    def rows_and_journal_are_those_of_the_model(self) -> None:
        if not self.model.journal:
            return
        found = self.runner.run(selected(self.engine))
        assert dict(found) == self.model.items
        assert self.runner.run(selected(self.engine, "SELECT count(*) FROM parts")) == [(0,)]
        oldest = self.model.journal[0][0] - 1
        kept = self.runner.run(events(self.engine, oldest))
        assert [(event.sequence, event.type) for event in kept] == self.model.journal

    def teardown(self) -> None:
        for place in self.places:
            self.runner.run(place.close())
        if hasattr(self, "engine"):
            self.runner.run(self.engine.close())
        self.runner.close()
        self.directory.cleanup()


def seen(outcome: Outcome) -> Expected:
    """An outcome in the words of the model."""
    if outcome.error is not None:
        return Expected(outcome.error.reason, [], outcome.sequence, outcome.replayed)
    assert outcome.result is not None
    return Expected("", rows(outcome.result), outcome.sequence, outcome.replayed)


def search(make_place: Callable[[Path], Place], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        lambda: Machine(make_place),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("make_place", PLACES, ids=lambda place: place.name)
def test_any_interleaving_equals_the_model(make_place: Callable[[Path], Place]) -> None:
    search(make_place, examples=20, steps=20)


@pytest.mark.soak
@pytest.mark.parametrize("make_place", PLACES, ids=lambda place: place.name)
def test_many_more_interleavings_equal_the_model(make_place: Callable[[Path], Place]) -> None:
    search(make_place, examples=1000, steps=50)
