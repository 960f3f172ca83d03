"""Server reflection: a tool that has no proto files finds every service and its messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from messagehub.storage.v1 import backup_service_pb2 as private_backups
from messagehub.storage.v1 import participant_service_pb2
from messagehub.storage.v1 import storage_service_pb2 as private
from messagehub.v1 import (
    backup_service_pb2,
    event_service_pb2,
    hub_service_pb2,
    schema_service_pb2,
    storage_service_pb2,
    transaction_service_pb2,
)
from tests.support.servers import Servers

PUBLIC = (
    backup_service_pb2,
    event_service_pb2,
    hub_service_pb2,
    schema_service_pb2,
    storage_service_pb2,
    transaction_service_pb2,
)
OWN = {"hub": PUBLIC, "storage": (private, participant_service_pb2, private_backups)}
STANDARD = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


@contextmanager
def reflection(servers: Servers, server: str) -> Iterator[Any]:
    with grpc.insecure_channel(getattr(servers, server).address) as channel:
        yield ProtoReflectionDescriptorDatabase(channel)


def services(server: str) -> list[ServiceDescriptor]:
    contracts = (*OWN[server], health_pb2)
    return [s for c in contracts for s in c.DESCRIPTOR.services_by_name.values()]


@pytest.mark.parametrize("server", OWN)
def test_every_service_is_listed(grpc_server: Servers, server: str) -> None:
    with reflection(grpc_server, server) as database:
        listed = set(database.get_services())
    assert listed == {service.full_name for service in services(server)} | STANDARD


@pytest.mark.parametrize("server", OWN)
def test_methods_and_messages_are_those_of_the_contract(grpc_server: Servers, server: str) -> None:
    with reflection(grpc_server, server) as database:
        pool = descriptor_pool.DescriptorPool(database)
        for service in services(server):
            found = pool.FindServiceByName(service.full_name)
            assert [m.name for m in found.methods] == [m.name for m in service.methods]
            for method, contract in zip(found.methods, service.methods, strict=True):
                assert method.input_type.fields_by_name.keys() == (
                    contract.input_type.fields_by_name.keys()
                )
                assert method.output_type.full_name == contract.output_type.full_name
