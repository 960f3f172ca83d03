"""A call can be followed by its correlation id through the logs of both processes."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.event_service_pb2 import SubscribeRequest
from messagehub.v1.storage_service_pb2 import ExecuteBatchRequest
from tests.support.calls import CALL_SECONDS, batch_operation, execute_request, query_request
from tests.support.processes import ServerProcess, running_processes

# Lines of these loggers are about calls; the others are about the process.
ABOUT_CALLS = ("messagehub.serving.interceptor",)


def lines_with(process: ServerProcess, correlation_id: str) -> list[dict[str, Any]]:
    return [line for line in process.log_lines() if line.get("correlation_id") == correlation_id]


async def test_what_goes_wrong_is_in_both_logs(tmp_path: Path) -> None:
    async with running_processes(tmp_path) as processes:
        storage = processes.storage()
        hub = processes.hub(storage.address)
        await hub.ready()
        async with grpc.aio.insecure_channel(hub.address) as channel:
            stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
            request = execute_request("SELECT * FROM nowhere", correlation_id="of execute")
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Execute(request, timeout=CALL_SECONDS)
            query = query_request("SELECT * FROM nowhere", correlation_id="of query")
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Query(query, timeout=CALL_SECONDS).read()
            await stub.ExecuteBatch(
                ExecuteBatchRequest(
                    source_service="character",
                    correlation_id="of batch",
                    operations=[batch_operation("SELECT * FROM nowhere")],
                ),
                timeout=CALL_SECONDS,
            )
            events: Any = event_service_pb2_grpc.EventServiceStub(channel)
            subscribe = SubscribeRequest(source_service="character", cursor="nonsense")
            with pytest.raises(grpc.aio.AioRpcError):
                await events.Subscribe(subscribe, timeout=CALL_SECONDS).read()
        assert await hub.stop() == 0
        assert await storage.stop() == 0
        for process in (hub, storage):
            assert process.log_lines(), process.log_text()
            for line in process.log_lines():
                assert {"time", "level", "logger", "message"} <= line.keys()
                if line["logger"] in ABOUT_CALLS:
                    assert line["correlation_id"]
        for correlation_id in ("of execute", "of query"):
            (line,) = lines_with(hub, correlation_id)
            assert line["reason"] == "INVALID_STATEMENT"
        for correlation_id in ("of execute", "of query", "of batch"):
            assert lines_with(storage, correlation_id), correlation_id
        (line,) = [line for line in hub.log_lines() if line.get("reason") == "INVALID_CURSOR"]
        assert line["method"] == "/messagehub.v1.EventService/Subscribe"
