"""The health board tells the truth from the first moment, and nobody can hold it up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from messagehub.serving.health import LIVENESS, READY, HealthBoard

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
DATABASE = "storage.character_db"


class Aborted(Exception):
    """What `abort` raises, so that a behaviour ends there."""


class Context:
    """As much of a call as `Check` uses."""

    code: grpc.StatusCode | None = None

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.code = code
        raise Aborted(details)


def asking(name: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


async def check(board: HealthBoard, name: str) -> int:
    context: Any = Context()
    return (await board.Check(asking(name), context)).status


def watching(board: HealthBoard, name: str) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    context: Any = Context()
    return board.Watch(asking(name), context)


async def told(watch: AsyncIterator[health_pb2.HealthCheckResponse]) -> int:
    async with asyncio.timeout(5):
        return (await anext(watch)).status


async def settled() -> None:
    """Lets everything run that is ready to run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_new_process_lives_but_is_not_ready() -> None:
    board = HealthBoard()
    assert await check(board, LIVENESS) == SERVING
    assert await check(board, READY) == NOT_SERVING


async def test_a_name_that_nobody_set_is_not_found() -> None:
    context: Any = Context()
    with pytest.raises(Aborted, match=DATABASE):
        await HealthBoard().Check(asking(DATABASE), context)
    assert context.code is grpc.StatusCode.NOT_FOUND


async def test_check_gives_the_newest_status() -> None:
    board = HealthBoard()
    board.set(DATABASE, serving=True)
    assert await check(board, DATABASE) == SERVING
    board.set(DATABASE, serving=False)
    assert await check(board, DATABASE) == NOT_SERVING


async def test_a_watch_begins_with_the_status_and_tells_changes_only() -> None:
    board = HealthBoard()
    async with aclosing(watching(board, READY)) as watch:
        assert await told(watch) == NOT_SERVING
        board.set(READY, serving=False)
        board.set("another", serving=True)
        waiting = asyncio.create_task(told(watch))
        await settled()
        assert not waiting.done()
        board.set(READY, serving=True)
        assert await waiting == SERVING


async def test_a_watch_of_an_unknown_name_stays_open_until_the_name_is_known() -> None:
    board = HealthBoard()
    async with aclosing(watching(board, DATABASE)) as watch:
        assert await told(watch) == SERVICE_UNKNOWN
        board.set(DATABASE, serving=True)
        assert await told(watch) == SERVING
        board.forget(DATABASE)
        assert await told(watch) == SERVICE_UNKNOWN


async def test_a_watcher_that_reads_slowly_gets_the_newest_status_and_holds_nobody_up() -> None:
    board = HealthBoard()
    async with aclosing(watching(board, READY)) as slow, aclosing(watching(board, READY)) as quick:
        assert (await told(slow), await told(quick)) == (NOT_SERVING, NOT_SERVING)
        for serving in (True, False, True):
            board.set(READY, serving=serving)
            assert await told(quick) == (SERVING if serving else NOT_SERVING)
        assert await told(slow) == SERVING
        board.set(READY, serving=False)
        assert await told(slow) == NOT_SERVING


async def test_a_watcher_that_went_away_holds_nobody_up() -> None:
    board = HealthBoard()
    async with aclosing(watching(board, READY)) as gone, aclosing(watching(board, READY)) as there:
        await told(gone)
        await told(there)
        waiting = asyncio.create_task(told(gone))
        await settled()
        waiting.cancel()
        board.set(READY, serving=True)
        assert await told(there) == SERVING
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_closing_ends_every_watch_after_a_last_status() -> None:
    board = HealthBoard()
    board.set(READY, serving=True)
    async with (
        aclosing(watching(board, READY)) as ready,
        aclosing(watching(board, LIVENESS)) as liveness,
        aclosing(watching(board, "unknown")) as unknown,
    ):
        for watch in (ready, liveness, unknown):
            await told(watch)
        waiting = [asyncio.create_task(told(watch)) for watch in (ready, liveness, unknown)]
        await settled()
        board.close()
        last, *others = await asyncio.gather(*waiting, return_exceptions=True)
        assert last == NOT_SERVING
        assert [type(other) for other in others] == [StopAsyncIteration, StopAsyncIteration]
        with pytest.raises(StopAsyncIteration):
            await told(ready)


async def test_a_closed_board_stays_not_ready_but_alive() -> None:
    board = HealthBoard()
    board.set(DATABASE, serving=True)
    board.close()
    board.set(READY, serving=True)
    board.set(DATABASE, serving=True)
    assert await check(board, READY) == NOT_SERVING
    assert await check(board, DATABASE) == NOT_SERVING
    assert await check(board, LIVENESS) == SERVING


async def test_a_watch_that_begins_after_the_close_ends_too() -> None:
    board = HealthBoard()
    board.close()
    async with aclosing(watching(board, READY)) as watch:
        assert await told(watch) == NOT_SERVING
        with pytest.raises(StopAsyncIteration):
            await told(watch)
