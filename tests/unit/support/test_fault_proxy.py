"""The proxy does to a connection what it says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.fault_proxy import Direction, FaultProxy

PATIENCE_SECONDS = 5
SILENCE_SECONDS = 0.05


@asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[str, list[bytes]]]:
    received: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                received.append(data)
                writer.write(data)
        except ConnectionError:
            received.append(b"<reset>")
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"127.0.0.1:{port}", received
    finally:
        server.close()
        await server.wait_closed()


class Caller:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, seconds: float = PATIENCE_SECONDS) -> bytes:
        return await asyncio.wait_for(self.reader.read(100), seconds)

    async def is_reset(self) -> bool:
        """Whether the connection ends with a reset; one that stays open is a `TimeoutError`."""
        try:
            while await self.receive():
                pass
        except ConnectionResetError:
            return True
        return False


@asynccontextmanager
async def caller(proxy: FaultProxy) -> AsyncIterator[Caller]:
    host, _, port = proxy.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Caller(reader, writer)
    finally:
        writer.transport.abort()


async def test_it_forwards_both_ways() -> None:
    async with echo_server() as (target, _), FaultProxy(target) as proxy, caller(proxy) as one:
        await one.send(b"hello")
        assert await one.receive() == b"hello"
        assert proxy.connections_accepted == 1


async def test_refuse_keeps_open_connections_and_refuses_new_ones_until_forward() -> None:
    async with echo_server() as (target, _), FaultProxy(target) as proxy, caller(proxy) as one:
        await one.send(b"a")
        await one.receive()
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            async with caller(proxy):
                pass
        await one.send(b"still here")
        assert await one.receive() == b"still here"
        await proxy.forward()
        async with caller(proxy) as other:
            await other.send(b"back")
            assert await other.receive() == b"back"


async def test_cut_resets_open_connections() -> None:
    async with echo_server() as (target, _), FaultProxy(target) as proxy, caller(proxy) as one:
        await one.send(b"a")
        await one.receive()
        proxy.cut()
        assert await one.is_reset()


async def test_a_stalled_connection_loses_nothing() -> None:
    async with (
        echo_server() as (target, received),
        FaultProxy(target) as proxy,
        caller(proxy) as one,
    ):
        proxy.stall()
        await one.send(b"later")
        with pytest.raises(TimeoutError):
            await one.receive(SILENCE_SECONDS)
        assert received == []
        await proxy.forward()
        assert await one.receive() == b"later"


async def test_delay_holds_and_then_delivers() -> None:
    async with echo_server() as (target, _), FaultProxy(target) as proxy, caller(proxy) as one:
        proxy.delay(SILENCE_SECONDS)
        started = asyncio.get_running_loop().time()
        await one.send(b"slow")
        assert await one.receive() == b"slow"
        assert asyncio.get_running_loop().time() - started >= 2 * SILENCE_SECONDS


async def test_one_way_loss_swallows_one_direction_and_cuts_the_connection_afterwards() -> None:
    async with (
        echo_server() as (target, received),
        FaultProxy(target) as proxy,
        caller(proxy) as one,
    ):
        proxy.lose(Direction.TO_CALLER)
        await one.send(b"asked")
        with pytest.raises(TimeoutError):
            await one.receive(SILENCE_SECONDS)
        assert received == [b"asked"]
        await proxy.forward()
        assert await one.is_reset()


async def test_a_target_that_is_gone_resets_the_caller() -> None:
    async with echo_server() as (target, _):
        pass
    async with FaultProxy(target) as proxy, caller(proxy) as one:
        assert await one.is_reset()
