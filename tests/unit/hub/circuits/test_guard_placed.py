"""The guard sends each operation to the storage server that has its database."""

import pytest

from hub.core.circuits.guard import Guard
from messagehub.errors import ConstraintViolation
from tests.unit.hub.circuits.guard_parts import (
    ANSWER_SECONDS,
    OTHER,
    OWN,
    RETRIES,
    Parts,
    operation,
)


class Server:
    """Answers with its own name."""

    def __init__(self, name):
        self.name = name
        self.calls = []

    async def run(self, operations, seconds):
        self.calls.append([one.request_id for one in operations])
        return [
            ConstraintViolation(self.name)
            if one.request_id == "bad"
            else f"{self.name}:{one.request_id}"
            for one in operations
        ]


@pytest.fixture
def servers():
    return {OWN: Server("one"), OTHER: Server("other")}


@pytest.fixture
def guard(servers):
    parts = Parts(RETRIES)
    return Guard(
        parts.circuits,
        RETRIES,
        operations_of=lambda database: servers[database],
        storage=parts.servers,
        answer_seconds=ANSWER_SECONDS,
        clock=parts.clock,
        sleep=parts.sleep,
        random=lambda: 1.0,
    )


async def test_operations_of_one_storage_server_stay_together(guard, servers):
    assert await guard.run([operation("a"), operation("b")], 1) == ["one:a", "one:b"]
    assert servers[OWN].calls == [["a", "b"]]
    assert not servers[OTHER].calls


async def test_operations_of_several_keep_their_places(guard, servers):
    wanted = [("a", OWN), ("b", OTHER), ("bad", OWN), ("d", OTHER)]
    outcomes = await guard.run([operation(*one) for one in wanted], 1)
    assert outcomes[:2] == ["one:a", "other:b"]
    assert isinstance(outcomes[2], ConstraintViolation)
    assert outcomes[3] == "other:d"
    assert (servers[OWN].calls, servers[OTHER].calls) == ([["a", "bad"]], [["b", "d"]])


async def test_an_operation_goes_where_its_database_is_now(guard, servers):
    servers[OWN] = Server("standby")
    assert await guard.run([operation("a")], 1) == ["standby:a"]
