"""A TCP proxy that misbehaves on request, to stand between the hub and a storage server."""

import asyncio
import socket
import struct
from enum import Enum, auto
from typing import Final, Self

from tests.support.ports import free_address

CHUNK_BYTES: Final = 64 * 1024
NO_LINGER: Final = struct.pack("ii", 1, 0)


class Direction(Enum):
    """Which way bytes travel."""

    TO_TARGET = auto()
    TO_CALLER = auto()


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST, as the network does, instead of an orderly end."""
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    writer.transport.abort()


class _Connection:
    """Two pumps between a caller and the target."""

    def __init__(self, caller: asyncio.StreamWriter, target: asyncio.StreamWriter) -> None:
        self._writers = (caller, target)
        self.poisoned = False

    def abort(self) -> None:
        for writer in self._writers:
            reset(writer)


class FaultProxy:
    """Forwards TCP connections to `target` until it is told to do worse.

    Faults hold for the connections that are open and for those to come, until `forward`. All
    methods belong to the loop that `start` ran on.
    """

    def __init__(self, target: str) -> None:
        self.address = free_address()
        self.connections_accepted = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._delay_seconds = 0.0
        self._lost: frozenset[Direction] = frozenset()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens and forwards."""
        await self.forward()

    async def stop(self) -> None:
        """Stops listening and drops every connection."""
        await self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()

    async def forward(self) -> None:
        """Ends every fault. A connection that lost bytes is cut, for its stream has a hole."""
        for connection in [c for c in self._open if c.poisoned]:
            connection.abort()
        self._delay_seconds = 0.0
        self._lost = frozenset()
        self._flowing.set()
        if self._server is None:
            host, _, port = self.address.rpartition(":")
            self._server = await asyncio.start_server(self._accept, host, int(port))

    async def refuse(self) -> None:
        """Refuses new connections; those that are open go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
            # The listening socket leaves the selector in the loop's next turn.
            await asyncio.sleep(0)

    def cut(self) -> None:
        """Resets every open connection."""
        for connection in list(self._open):
            connection.abort()

    def stall(self) -> None:
        """Accepts connections and bytes, and passes nothing on; nothing is lost."""
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Holds every piece of a stream for a while before it is passed on."""
        self._delay_seconds = seconds

    def lose(self, *directions: Direction) -> None:
        """Swallows what travels in these directions; the other way stays whole."""
        self._lost = frozenset(directions)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_accepted += 1
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        try:
            target_reader, target_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            reset(writer)
            return
        connection = _Connection(writer, target_writer)
        self._open.add(connection)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(
                    self._pump(connection, Direction.TO_TARGET, reader, target_writer)
                )
                pumps.create_task(
                    self._pump(connection, Direction.TO_CALLER, target_reader, writer)
                )
        finally:
            self._open.discard(connection)
            connection.abort()

    async def _pump(
        self,
        connection: _Connection,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                if direction in self._lost:
                    connection.poisoned = True
                    continue
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
        except OSError:
            # A reset on one side is a reset on the other.
            connection.abort()
