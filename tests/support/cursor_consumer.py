"""A subscriber that keeps its own cursor, as a process of its own that a test may kill.

TARGET FILE [SOURCE]. Each message is one line of JSON in the file, its events together with its
cursor, so that what was taken and where to go on are one fact. A line that was cut by a kill was
never taken; the next life goes on after the last whole one.
"""

import asyncio
import json
import sys
from pathlib import Path

import grpc

from messagehub.v1.event_service_pb2 import SubscribeRequest
from messagehub.v1.event_service_pb2_grpc import EventServiceStub


def taken(file: Path) -> list[dict[str, object]]:
    """The whole lines of a file; what follows the last of them is cut off."""
    whole, _, rest = file.read_bytes().rpartition(b"\n") if file.exists() else (b"", b"", b"")
    if rest:
        file.write_bytes(whole + b"\n" if whole else b"")
    return [json.loads(line) for line in whole.splitlines()]


async def consume(target: str, file: Path, sources: list[str]) -> None:
    """Subscribes again and again, each time with the last cursor."""
    lines = taken(file)
    cursor = str(lines[-1]["cursor"]) if lines else ""
    request = SubscribeRequest(source_service="character", databases=["*"], sources=sources)
    with file.open("a", encoding="utf-8") as out:
        while True:
            request.ClearField("start")
            if cursor:
                request.cursor = cursor
            else:
                request.earliest = True
            async with grpc.aio.insecure_channel(target) as channel:
                try:
                    async for message in EventServiceStub(channel).Subscribe(request):
                        events = [
                            [event.subject, event.sequence, event.source, event.type]
                            for event in message.events
                        ]
                        line = {"cursor": message.cursor, "events": events}
                        print(json.dumps(line), file=out, flush=True)
                        cursor = message.cursor
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
