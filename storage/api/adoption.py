"""Receiving a file for adoption: into a scratch place, checked, then handed to its database."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from messagehub.errors import InvalidRequest, MessageTooLarge
from messagehub.storage.v1 import storage_service_pb2 as wire
from storage.core.databases import Databases
from storage.core.scratch import ADOPTING, remove_leftovers, scratch

CHUNK_BYTES_MAX = 1024 * 1024


class Adoption:
    """Adopts files of at most `size_bytes_max`; half a file leaves nothing behind."""

    def __init__(self, databases: Databases, directory: Path, *, size_bytes_max: int) -> None:
        self._databases = databases
        self._directory = directory
        self._size_bytes_max = size_bytes_max

    async def run(self, pieces: AsyncIterator[wire.AdoptDatabaseRequest]) -> list[str]:
        """Receives the whole file, checks it, and gives the tables that the database then holds."""
        first = await anext(pieces, None)
        if first is None:
            raise InvalidRequest("the stream holds no message", fields={"chunk": "is missing"})
        if first.size_bytes > self._size_bytes_max:
            raise MessageTooLarge(
                f"the file has {first.size_bytes} bytes, the limit of a database is "
                f"{self._size_bytes_max} (database_bytes_max)",
                metadata={"limit_bytes": str(self._size_bytes_max)},
            )
        database = self._databases.get(first.database)
        remove_leftovers(self._directory, ADOPTING)
        with scratch(self._directory, ADOPTING) as place:
            file = place / "file"
            await self._receive(file, first, pieces)
            return await database.adopt(file)

    async def _receive(
        self,
        path: Path,
        first: wire.AdoptDatabaseRequest,
        pieces: AsyncIterator[wire.AdoptDatabaseRequest],
    ) -> None:
        digest = hashlib.sha256()
        received = 0

        def store(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        with path.open("wb") as file:
            piece: wire.AdoptDatabaseRequest | None = first
            while piece is not None:
                received += len(piece.chunk)
                if len(piece.chunk) > CHUNK_BYTES_MAX or received > first.size_bytes:
                    raise InvalidRequest(
                        f"a chunk is over {CHUNK_BYTES_MAX} bytes, or there are more bytes than "
                        "size_bytes said",
                        fields={"chunk": "is too large"},
                    )
                await asyncio.to_thread(store, piece.chunk)
                piece = await anext(pieces, None)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        if received != first.size_bytes or digest.hexdigest() != first.checksum.lower():
            raise InvalidRequest(
                f"{received} of {first.size_bytes} bytes arrived, or not those that the checksum "
                "was made of: send the file again",
                fields={"checksum": "does not match"},
            )
