"""Submitting operations and following them, through `grpc.aio` stubs."""

import asyncio
from typing import Any, Final

from messagehub.v1.storage_service_pb2 import (
    CancelOperationRequest,
    GetOperationRequest,
    ListOperationsRequest,
    Operation,
    OperationState,
    SubmitOperationRequest,
    SubmitOperationResponse,
)
from tests.support.calls import CALL_SECONDS, SERVICE, Python, statement

FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
SECONDS_MAX: Final = 30
LOOK_EVERY_SECONDS: Final = 0.01


def state_of(operation: Operation) -> str:
    """The state without its prefix."""
    return OperationState.Name(operation.state).removeprefix("OPERATION_STATE_")


async def submit(
    stub: Any, query: str, *parameters: Python, service: str = SERVICE, **envelope: Any
) -> SubmitOperationResponse:
    """Submits an operation of the service `character`, unless told otherwise."""
    request = SubmitOperationRequest(
        source_service=service, statement=statement(query, *parameters), **envelope
    )
    return await stub.SubmitOperation(request, timeout=CALL_SECONDS)


async def get(
    stub: Any, request_id: str, *, service: str = SERVICE, database: str = ""
) -> Operation:
    """Asks for an operation."""
    request = GetOperationRequest(source_service=service, request_id=request_id, database=database)
    return (await stub.GetOperation(request, timeout=CALL_SECONDS)).operation


async def ended(stub: Any, request_id: str, **fields: Any) -> Operation:
    """Gives an operation once it has ended."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            operation = await get(stub, request_id, **fields)
            if state_of(operation) in FINAL:
                return operation
            await asyncio.sleep(LOOK_EVERY_SECONDS)


async def cancel(stub: Any, request_id: str, *, service: str = SERVICE) -> Operation:
    """Takes an operation back."""
    request = CancelOperationRequest(source_service=service, request_id=request_id)
    return (await stub.CancelOperation(request, timeout=CALL_SECONDS)).operation


async def listed(stub: Any, *, service: str = SERVICE, **fields: Any) -> list[Operation]:
    """Gives all pages of a list."""
    found: list[Operation] = []
    request = ListOperationsRequest(source_service=service, **fields)
    while True:
        page = await stub.ListOperations(request, timeout=CALL_SECONDS)
        found += page.operations
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
