"""The router: every operation is checked, a refused one leaves the others alone."""

from types import SimpleNamespace

import pytest

from hub.core.ports import Adoption, Operation
from hub.core.routing.router import Draft, Router, Settled
from hub.core.routing.routes import Routes
from hub.core.status import DatabaseState, StatusBoard
from messagehub.errors import (
    AccessDenied,
    ConstraintViolation,
    InvalidRequest,
    InvalidRoute,
    OperationNotFound,
)

SERVICES = {"character": "character_db", "auth": "auth_db"}
GRANTS = {"character": {"auth_db": "read"}}


class Recorder:
    """Both ports; answers what the test put in."""

    def __init__(self):
        self.operations: list[Operation] = []
        self.seconds: float | None = None
        self.failures = {}
        self.readings = []
        self.adoptions = []
        self.recorded = {}

    async def run(self, operations, seconds):
        self.operations += operations
        self.seconds = seconds
        return [
            self.failures.get(one.content) or SimpleNamespace(sequence=11, content=one.content)
            for one in operations
        ]

    async def query(self, reading, seconds):
        self.readings.append((reading, seconds))
        yield "page"

    async def look_up(self, database, request_id, *, correlation_id, seconds):
        return self.recorded.get((database, request_id))

    async def adopt(self, adoption, seconds):
        self.adoptions.append(adoption)
        return ("heroes",)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def status():
    board = StatusBoard(databases=("auth_db", "character_db"), changes_max=1, watchers_max=1)
    databases = [DatabaseState("auth_db", available=True), DatabaseState("character_db")]
    board.show((), databases)
    return board


@pytest.fixture
def router(recorder, status):
    return Router(
        routes=Routes(SERVICES, GRANTS), operations=recorder, storage=recorder, status=status
    )


async def execute(router, database="", content="statement"):
    return await router.execute(
        Draft(database, "id", content),
        source_service="character",
        correlation_id="c",
        seconds=2.5,
    )


async def test_an_operation_goes_to_its_route_with_its_envelope(router, recorder):
    executed = await execute(router)
    assert executed.database == "character_db"
    assert executed.outcome.sequence == 11
    assert recorder.operations == [
        Operation(
            database="character_db",
            read_only=False,
            source_service="character",
            correlation_id="c",
            request_id="id",
            content="statement",
        )
    ]
    assert recorder.seconds == 2.5


async def test_a_grant_to_read_travels_with_the_operation(router, recorder):
    await execute(router, "auth_db")
    assert recorder.operations[0].read_only


async def test_a_refused_route_sends_nothing(router, recorder):
    with pytest.raises(InvalidRoute):
        await execute(router, "ghost_db")
    assert not recorder.operations


async def test_a_failed_operation_raises_its_error(router, recorder, status):
    recorder.failures["statement"] = ConstraintViolation("taken")
    with pytest.raises(ConstraintViolation):
        await execute(router)
    assert [one.sequence for one in status.snapshot().databases] == [0, 0]


async def test_the_board_remembers_how_far_a_database_is(router, status):
    await execute(router)
    positions = {one.database: one.sequence for one in status.snapshot().databases}
    assert positions == {"auth_db": 0, "character_db": 11}


async def batch(router, *drafts, service="character"):
    return await router.execute_batch(
        drafts, source_service=service, correlation_id="c", seconds=1.0
    )


async def test_each_operation_of_a_batch_has_its_own_end(router, recorder, status):
    recorder.failures["bad"] = ConstraintViolation("taken")
    settled = await batch(
        router,
        Draft("", "1", "good"),
        Settled("given_db", InvalidRequest("refused before")),
        Draft("ghost_db", "2", "lost"),
        Draft("auth_db", "3", "bad"),
        Draft("auth_db", "4", "also good"),
    )
    assert [one.content for one in recorder.operations] == ["good", "bad", "also good"]
    assert [one.database for one in settled] == [
        "character_db",
        "given_db",
        "ghost_db",
        "auth_db",
        "auth_db",
    ]
    kinds = [type(one.outcome) for one in settled]
    assert kinds[1:4] == [InvalidRequest, InvalidRoute, ConstraintViolation]
    assert [settled[0].outcome.content, settled[4].outcome.content] == ["good", "also good"]
    positions = {one.database: one.sequence for one in status.snapshot().databases}
    assert positions == {"auth_db": 11, "character_db": 11}


async def test_a_batch_of_refused_operations_sends_nothing(router, recorder):
    (one,) = await batch(router, Draft("character_db", "1", "x"), service="auth")
    assert isinstance(one.outcome, AccessDenied)
    assert recorder.seconds is None


async def test_an_unknown_service_fails_the_whole_batch(router, recorder):
    with pytest.raises(InvalidRoute):
        await batch(router, Draft("", "1", "x"), service="ghost")
    with pytest.raises(InvalidRequest):
        await batch(router, Draft("", "1", "x"), service="")
    assert recorder.seconds is None


async def test_a_query_gives_its_database_and_pages(router, recorder):
    database, pages = router.query(
        Draft("auth_db", "", "reading"),
        source_service="character",
        correlation_id="c",
        page_size=7,
        seconds=3.0,
    )
    assert database == "auth_db"
    assert [page async for page in pages] == ["page"]
    (reading, seconds) = recorder.readings[0]
    assert (reading.database, reading.statement, reading.page_size) == ("auth_db", "reading", 7)
    assert seconds == 3.0


async def look_up(router, service, database):
    return await router.look_up(
        "id", source_service=service, database=database, correlation_id="c", seconds=1
    )


async def test_a_write_is_looked_up_where_it_was_sent(router, recorder):
    recorder.recorded["auth_db", "id"] = written = SimpleNamespace(source_service="auth")
    assert await look_up(router, "auth", "") == ("auth_db", written)
    # A write of another service is nobody else's to know of, also where the data is.
    with pytest.raises(OperationNotFound, match="auth_db"):
        await look_up(router, "character", "auth_db")
    with pytest.raises(OperationNotFound, match="character_db"):
        await look_up(router, "character", "")
    with pytest.raises(AccessDenied):
        await look_up(router, "auth", "character_db")


async def no_chunks():
    yield b""


async def test_an_adoption_needs_a_grant_to_write(router, recorder):
    adoption = Adoption("", "c", 1, "sum", no_chunks())
    assert await router.adopt(adoption, source_service="auth", seconds=1) == (
        "auth_db",
        ("heroes",),
    )
    assert recorder.adoptions[0].database == "auth_db"
    with pytest.raises(AccessDenied):
        await router.adopt(
            adoption._replace(database="auth_db"), source_service="character", seconds=1
        )
    assert len(recorder.adoptions) == 1
