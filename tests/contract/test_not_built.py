"""What is part of the contract but not built says so; nothing else does."""

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor, message_factory

from messagehub.v1 import (
    backup_service_pb2,
    event_service_pb2,
    hub_service_pb2,
    schema_service_pb2,
    storage_service_pb2,
    transaction_service_pb2,
)
from tests.support.calls import CALL_SECONDS
from tests.support.refusals import Refusal, refused

CONTRACTS = (
    backup_service_pb2,
    event_service_pb2,
    hub_service_pb2,
    schema_service_pb2,
    storage_service_pb2,
    transaction_service_pb2,
)

# Building an RPC takes its name out of this list.
NOT_BUILT: set[str] = set()

METHODS: dict[str, descriptor.MethodDescriptor] = {
    f"{service.name}.{method.name}": method
    for contract in CONTRACTS
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def call(channel: grpc.Channel, method: descriptor.MethodDescriptor) -> Any:
    """Calls a method with an empty request; a stream is read to its first message."""
    request = message_factory.GetMessageClass(method.input_type)()
    answer = message_factory.GetMessageClass(method.output_type)
    path = f"/{method.containing_service.full_name}/{method.name}"
    codecs = {
        "request_serializer": type(request).SerializeToString,
        "response_deserializer": answer.FromString,
    }
    if method.client_streaming:
        return channel.stream_unary(path, **codecs)(iter([request]), timeout=CALL_SECONDS)
    if method.server_streaming:
        stream = channel.unary_stream(path, **codecs)(request, timeout=CALL_SECONDS)
        try:
            return next(stream)
        finally:
            stream.cancel()
    return channel.unary_unary(path, **codecs)(request, timeout=CALL_SECONDS)


def test_the_list_names_methods_of_the_contract() -> None:
    assert set(METHODS) >= NOT_BUILT


@pytest.mark.parametrize("name", sorted(NOT_BUILT))
def test_a_method_that_is_not_built_says_so(grpc_channel: grpc.Channel, name: str) -> None:
    with refused("UNIMPLEMENTED", "NOT_IMPLEMENTED") as refusal:
        call(grpc_channel, METHODS[name])
    assert "not built yet" in refusal.message


@pytest.mark.parametrize("name", sorted(set(METHODS) - NOT_BUILT))
def test_a_method_that_is_built_never_says_so(grpc_channel: grpc.Channel, name: str) -> None:
    try:
        call(grpc_channel, METHODS[name])
    except grpc.RpcError as failure:
        refusal = Refusal()
        refusal.read_call(failure)
        assert refusal.reason != "NOT_IMPLEMENTED"
        assert refusal.code == "INVALID_ARGUMENT", refusal.message


def test_a_method_that_no_contract_has_is_unimplemented(grpc_channel: grpc.Channel) -> None:
    ask = grpc_channel.unary_unary("/messagehub.v1.StorageService/Guess")
    with pytest.raises(grpc.RpcError) as caught:
        ask(b"", timeout=CALL_SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
