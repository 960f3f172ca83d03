"""A stranger's tool, knowing nothing but the address: reflection, a call, a refusal, a stream."""

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from google.rpc import error_details_pb2

from messagehub.v1.storage_service_pb2_grpc import StorageServiceStub
from tests.support.calls import run_async
from tests.support.servers import Servers

BUF = str(Path(sys.executable).with_name("buf"))
SECONDS_MAX = 30
# What buf exits with: the gRPC code, shifted by three bits.
INVALID_ARGUMENT = 3 << 3


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(BUF, "curl", "--protocol", "grpc", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def curl(*arguments: str) -> tuple[int | None, str, str]:
    process = await start(*arguments)
    async with asyncio.timeout(SECONDS_MAX):
        output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def call(servers: Servers, method: str, request: dict[str, Any]) -> Any:
    url = f"http://{servers.hub.address}/messagehub.v1.{method}"
    status, output, errors = await curl("-d", json.dumps(request), url)
    assert status == 0, errors
    return json.loads(output)


async def test_the_services_are_listed_by_reflection(servers: Servers) -> None:
    status, output, errors = await curl("--list-services", f"http://{servers.hub.address}")
    assert status == 0, errors
    assert {
        "messagehub.v1.StorageService",
        "messagehub.v1.EventService",
        "messagehub.v1.TransactionService",
        "grpc.health.v1.Health",
    } <= set(output.split())
    status, output, errors = await curl("--list-services", f"http://{servers.storage.address}")
    assert status == 0, errors
    assert "messagehub.storage.v1.StorageService" in output.split()


async def test_a_statement_is_executed(servers: Servers, table: str) -> None:
    request = {"sourceService": "character", "statement": {"query": f"CREATE TABLE {table} (a)"}}
    made = await call(servers, "StorageService/Execute", request)
    assert made["database"] == "character_db"
    request["statement"] = {
        "query": "SELECT ? AS text, ? AS big, ? AS blob, ?",
        "parameters": [
            {"text": "naïve ✓"},
            {"integer": "9223372036854775807"},
            {"blob": base64.b64encode(b"\x00\xff").decode()},
            {"null": None},
        ],
    }
    answer = await call(servers, "StorageService/Execute", request | {"correlationId": "mine"})
    assert answer["correlationId"] == "mine"
    assert answer["result"]["rows"] == [{"values": request["statement"]["parameters"]}]


async def test_a_refusal_has_its_details(servers: Servers) -> None:
    request = {"sourceService": "character", "statement": {"query": "SELEC 1"}}
    url = f"http://{servers.hub.address}/messagehub.v1.StorageService/Execute"
    status, _, errors = await curl("-d", json.dumps(request), url)
    assert status == INVALID_ARGUMENT
    (encoded,) = [
        detail["value"]
        for detail in json.loads(errors)["details"]
        if detail["type"] == "google.rpc.ErrorInfo"
    ]
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(encoded + "=="))
    assert (info.reason, info.domain) == ("INVALID_STATEMENT", "messagehub.v1")


async def test_events_are_streamed(
    servers: Servers, storage_stub: StorageServiceStub, table: str
) -> None:
    url = f"http://{servers.hub.address}/messagehub.v1.EventService/Subscribe"
    process = await start("-d", json.dumps({"sourceService": "character"}), url)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS_MAX):
            first = await read_document(process.stdout)
            assert first["cursor"]
            assert "events" not in first
            await run_async(storage_stub, f"CREATE TABLE {table} (a)", correlation_id="mine")
            (event,) = (await read_document(process.stdout))["events"]
        assert event["type"] == "storage.operation_completed"
        assert event["correlationId"] == "mine"
        assert table in event["operationCompleted"]["query"]
    finally:
        process.kill()
        await process.communicate()


async def read_document(stream: asyncio.StreamReader) -> Any:
    """The next JSON document of a stream that has several."""
    text = ""
    while True:
        line = await stream.readline()
        assert line, f"the stream ended: {text}"
        text += line.decode()
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            continue
