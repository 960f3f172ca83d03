import asyncio
import uuid

import grpc
import pytest

from messagehub.channel import DEFAULT_TARGET
from messagehub.client import Hub, Operation, Result
from messagehub.errors import (
    Cancelled,
    CircuitOpen,
    ConstraintViolation,
    DeadlineExceeded,
    InvalidRequest,
    MessageTooLarge,
    QueueFull,
    StorageUnavailable,
)
from messagehub.retries import Retries
from messagehub.status import to_status
from messagehub.v1.storage_service_pb2 import BatchResult, ExecuteBatchResponse
from tests.support.ports import free_address
from tests.unit.client.conftest import Waits
from tests.unit.client.fake_hub import FakeHub, executed, page, result_set

NO_WAITING = Retries(attempts_max=1)


async def test_a_result_says_everything(hub: Hub, fake: FakeHub) -> None:
    answer = executed(
        (1, "Ada"),
        columns=["id", "name"],
        correlation_id="c-7",
        database="character_db",
        sequence=42,
        schema_version="1.2.0",
        replayed=True,
    )
    answer.result.rows_affected = 1
    answer.result.last_insert_id = 9
    fake.execute.append(answer)
    assert await hub.execute("INSERT ...") == Result(
        columns=("id", "name"),
        rows=[(1, "Ada")],
        rows_affected=1,
        last_insert_id=9,
        database="character_db",
        sequence=42,
        schema_version="1.2.0",
        replayed=True,
        correlation_id="c-7",
    )


async def test_the_envelope_is_filled_in(hub: Hub, fake: FakeHub) -> None:
    fake.execute.append(executed())
    await hub.execute(
        "SELECT :a", {"a": 1}, database="catalog_db", correlation_id="c-1", schema_version=">=1"
    )
    [request] = fake.requests
    assert request.source_service == "character"
    assert request.database == "catalog_db"
    assert request.correlation_id == "c-1"
    assert request.schema_version == ">=1"
    assert request.statement.query == "SELECT :a"
    assert request.statement.named_parameters["a"].integer == 1
    assert uuid.UUID(request.request_id).version == 7
    assert 1.0 < fake.seconds_left[0] < 30.0


async def test_a_call_may_bring_its_own_request_id_and_deadline(hub: Hub, fake: FakeHub) -> None:
    fake.execute.append(executed())
    wanted = str(uuid.uuid4())
    await hub.execute("DELETE FROM heroes", request_id=wanted, timeout=300.0)
    assert fake.requests[0].request_id == wanted
    assert fake.seconds_left[0] > 200.0


async def test_a_retry_keeps_the_request_id(hub: Hub, fake: FakeHub, waits: Waits) -> None:
    fake.execute.extend(
        [
            StorageUnavailable("gone"),
            CircuitOpen("open", retry_after=0.5),
            QueueFull("full", retry_after=0.25),
            executed(),
        ]
    )
    await hub.execute("DELETE FROM heroes")
    assert len(fake.requests) == 4
    assert len({request.request_id for request in fake.requests}) == 1
    assert waits.seconds == [0.05, 0.5 + 0.1, 0.25 + 0.2]


async def test_an_error_is_typed_and_has_its_cause(hub: Hub, fake: FakeHub) -> None:
    fake.execute.append(
        ConstraintViolation(
            "name is taken", metadata={"constraint": "unique"}, fields={"heroes.name": "is taken"}
        )
    )
    with pytest.raises(ConstraintViolation, match="name is taken") as caught:
        await hub.execute("INSERT ...")
    assert caught.value.metadata == {"constraint": "unique"}
    assert caught.value.fields == {"heroes.name": "is taken"}
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
    assert len(fake.requests) == 1


async def test_a_hub_that_is_away_is_told_with_its_address() -> None:
    address = free_address()
    async with Hub(address, service="character", retries=NO_WAITING) as hub:
        with pytest.raises(StorageUnavailable, match=address) as caught:
            await hub.execute("SELECT 1")
    assert caught.value.metadata == {"target": address}


async def test_a_hub_that_comes_late_is_found() -> None:
    address = free_address()
    failed = asyncio.Event()

    async def nap(_: float) -> None:
        failed.set()
        await asyncio.sleep(0.01)

    retries = Retries(sleep=nap)
    async with Hub(address, service="character", timeout=30.0, retries=retries) as hub:
        waiting = asyncio.create_task(hub.execute("SELECT 1"))
        await failed.wait()
        async with FakeHub.running(address) as fake:
            fake.execute.append(executed((1,)))
            assert (await waiting).rows == [(1,)]


async def test_the_deadline_ends_a_call(hub: Hub, fake: FakeHub) -> None:
    fake.query.append([asyncio.Event().wait()])
    with pytest.raises(DeadlineExceeded):
        async for _ in hub.query("SELECT 1", timeout=0.05):
            pass


@pytest.mark.parametrize("timeout", [0, -1.0])
async def test_a_deadline_in_the_past_is_refused(hub: Hub, timeout: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await hub.execute("SELECT 1", timeout=timeout)
    assert "timeout" in caught.value.fields


async def test_a_message_beyond_the_clients_limit_is_told(fake: FakeHub) -> None:
    async with Hub(fake.address, service="character", message_bytes_max=1000) as hub:
        with pytest.raises(MessageTooLarge):
            await hub.execute("SELECT ?", [b"x" * 2000])
    assert fake.requests == []


async def test_a_batch_gives_each_outcome_in_order(hub: Hub, fake: FakeHub) -> None:
    fake.execute_batch.append(
        ExecuteBatchResponse(
            correlation_id="c-3",
            results=[
                BatchResult(database="a", sequence=1, result=result_set(["n"], [(5,)])),
                BatchResult(
                    database="b",
                    error=to_status(ConstraintViolation("no")),
                    sequence=4,
                    replayed=True,
                ),
            ],
        )
    )
    first, second = await hub.execute_batch(
        [("SELECT ?", [5]), Operation("DELETE FROM x", database="b", request_id="r-2")]
    )
    assert isinstance(first, Result)
    assert (first.rows, first.correlation_id, first.database) == ([(5,)], "c-3", "a")
    assert isinstance(second, ConstraintViolation)
    assert second.recording == (4, "", True)
    one, two = fake.requests[0].operations
    assert uuid.UUID(one.request_id).version == 7
    assert one.statement.parameters[0].integer == 5
    assert (two.request_id, two.database) == ("r-2", "b")


async def test_a_query_gives_its_rows_over_many_pages(hub: Hub, fake: FakeHub) -> None:
    pages = [page((n, str(n)), columns=["id", "name"]) for n in range(50)]
    fake.query.append([page(columns=["id", "name"]), *pages])
    rows = hub.query("SELECT ...", page_size=1)
    assert [row async for row in rows] == [(n, str(n)) for n in range(50)]
    assert rows.columns == ("id", "name")
    assert fake.requests[0].page_size == 1


async def test_no_page_is_lost_when_the_caller_is_slow(hub: Hub, fake: FakeHub) -> None:
    fake.query.append([page((n,)) for n in range(5)])
    seen = []
    async for row in hub.query("SELECT ..."):
        await hub.status()  # long enough for all pages and the end to arrive
        seen.append(row)
    assert seen == [(n,) for n in range(5)]


async def test_a_query_without_rows_has_columns(hub: Hub, fake: FakeHub) -> None:
    fake.query.append([page(columns=["id"])])
    async with hub.query("SELECT ...") as rows:
        assert rows.columns == ("id",)
        assert [row async for row in rows] == []


async def test_leaving_the_loop_stops_the_query(hub: Hub, fake: FakeHub) -> None:
    fake.query.append([page((1,)), asyncio.Event().wait()])
    async for _ in hub.query("SELECT ..."):
        break
    async with asyncio.timeout(10):
        await fake.cancelled.wait()


async def test_leaving_the_block_stops_the_query(hub: Hub, fake: FakeHub) -> None:
    fake.query.append([page((1,), (2,)), asyncio.Event().wait()])
    async with hub.query("SELECT ...") as rows:
        assert await anext(rows) == (1,)
    async with asyncio.timeout(10):
        await fake.cancelled.wait()
    assert [row async for row in rows] == []


async def test_a_reader_that_waits_holds_the_hub_up(hub: Hub, fake: FakeHub) -> None:
    big = page(*[(b"x" * 1000,) for _ in range(1000)])
    fake.query.append([big] * 300)
    rows = hub.query("SELECT ...")
    await anext(rows)
    for _ in range(50):
        await hub.status()  # time enough for a hub that does not wait
    assert fake.pages_sent < 100  # what the connection buffers, however long the query is
    rows.close()


async def test_the_first_page_is_asked_for_again(hub: Hub, fake: FakeHub) -> None:
    fake.query.extend([[StorageUnavailable("gone")], [page((1,))]])
    assert [row async for row in hub.query("SELECT ...")] == [(1,)]


async def test_a_broken_query_is_not_an_ended_one(hub: Hub, fake: FakeHub) -> None:
    fake.query.append([page((1,)), StorageUnavailable("gone")])
    rows = hub.query("SELECT ...")
    assert await anext(rows) == (1,)
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            await anext(rows)
    assert len(fake.requests) == 1


async def test_a_query_that_was_cancelled_is_not_an_ended_one(hub: Hub, fake: FakeHub) -> None:
    fake.query.append([page((1,)), asyncio.Event().wait()])
    rows = hub.query("SELECT ...")
    assert await anext(rows) == (1,)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(rows), 0.05)
    with pytest.raises(Cancelled):
        await anext(rows)


async def test_the_status_is_given_whole(hub: Hub, fake: FakeHub) -> None:
    assert await hub.status() == fake.status


async def test_a_closed_client_says_so(fake: FakeHub) -> None:
    hub = Hub(fake.address, service="character")
    await hub.close()
    with pytest.raises(RuntimeError, match="closed"):
        await hub.execute("SELECT 1")


def test_the_default_is_the_hub_of_make_run() -> None:
    assert Hub(service="character").target == DEFAULT_TARGET == "127.0.0.1:50051"
