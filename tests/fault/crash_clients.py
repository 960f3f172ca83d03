"""Writers that never give up, and their own record of what they were told."""

import asyncio
import random
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from messagehub.status import from_status
from messagehub.storage.v1 import storage_service_pb2 as wire
from tests.conformance.storage_client import StorageClient, StreamBrokenError, asking

DATABASES: Final = ("first_db", "second_db")
CREATE: Final = (
    (
        "CREATE TABLE IF NOT EXISTS ledger (writer TEXT, n INTEGER, content TEXT, "
        "PRIMARY KEY (writer, n)) WITHOUT ROWID"
    ),
    "CREATE TABLE IF NOT EXISTS counters (writer TEXT PRIMARY KEY, total INTEGER NOT NULL)",
)
# Outcomes that are final; everything else is asked again with the same request id.
FINAL: Final = frozenset({"CONSTRAINT_VIOLATION"})
PAUSE_SECONDS: Final = 0.02


@dataclass
class Write:
    """One write as its writer knows it; `told` holds every final answer that came."""

    database: str
    writer: str
    n: int
    kind: str
    request_id: str
    content: str
    told: list[wire.Outcome] = field(default_factory=list)

    def make(self) -> wire.Operation:
        more: dict[str, Any] = {
            "database": self.database,
            "service": self.writer,
            "request_id": self.request_id,
            "correlation_id": f"{self.writer}/{self.n}",
            "timeout_ms": 20_000,
        }
        match self.kind:
            case "insert":
                query = "INSERT INTO ledger VALUES (?, ?, ?)"
                return asking(query, self.writer, self.n, self.content, **more)
            case "count":
                query = (
                    "INSERT INTO counters VALUES (?, 1) "
                    "ON CONFLICT DO UPDATE SET total = total + 1 RETURNING total"
                )
                return asking(query, self.writer, **more)
            case "fail":
                query = "INSERT INTO ledger VALUES (?, ?, ?), (?, -1, ''), (?, -1, '')"
                parameters = (self.writer, self.n, self.content, self.writer, self.writer)
                return asking(query, *parameters, **more)
            case _:
                made = asking("", **more)
                made.event.type = "ledger.noted"
                made.event.custom = self.content.encode()
                return made


class Hub:
    """One end of an exchange that begins anew whenever it breaks."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = StorageClient(address)

    async def ask(self, write: Write, copies: int) -> bool:
        """Sends a write, some copies of it with it; False if no final answer came."""
        client = self._client
        if client.ended is not None:
            await self._renew(client)
            return False
        answers = client.send(*(write.make() for _ in range(copies)))
        final = False
        for answer in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(answer, StreamBrokenError):
                continue
            if isinstance(answer, BaseException):
                raise answer
            if answer.HasField("result") or from_status(answer.error).reason in FINAL:
                write.told.append(answer)
                final = True
        return final

    async def prepare(self) -> None:
        """Makes the tables, as soon as the server answers."""
        while True:
            try:
                for database in DATABASES:
                    await self._client.run(*(asking(c, database=database) for c in CREATE))
            except StreamBrokenError:
                await self._renew(self._client)
            else:
                return

    async def close(self) -> None:
        await self._client.close()

    async def _renew(self, broken: StorageClient) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        if self._client is broken:
            self._client = StorageClient(self._address)
            assert isinstance(broken.ended, grpc.aio.AioRpcError | asyncio.CancelledError | None)
            await broken.close()


class Writer:
    """Writes one thing after the other, each until it has a final answer."""

    def __init__(self, name: str, database: str, hubs: list[Hub], dice: random.Random) -> None:
        self.name = name
        self.database = database
        self.writes: list[Write] = []
        self._hubs = hubs
        self._dice = dice

    async def run(self, stop: asyncio.Event) -> None:
        """Writes until told to stop; then what it is at stays in doubt."""
        dice = self._dice
        while not stop.is_set():
            kind = dice.choices(("insert", "count", "fail", "event"), (6, 3, 1, 1))[0]
            content = "x" * dice.randrange(3000)
            number = len(self.writes)
            write = Write(self.database, self.name, number, kind, str(uuid.uuid4()), content)
            self.writes.append(write)
            while not stop.is_set():
                copies = 2 if dice.random() < 0.2 else 1
                if await dice.choice(self._hubs).ask(write, copies):
                    break
            if write.told and dice.random() < 0.05:
                await dice.choice(self._hubs).ask(write, 1)

    @property
    def acknowledged(self) -> int:
        return sum(bool(write.told) for write in self.writes)
