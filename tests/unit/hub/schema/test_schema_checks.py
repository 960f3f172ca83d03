"""What is refused in an update before anything leaves the hub, and by which field."""

from typing import Any

import pytest

from hub.api.schema_checks import SchemaChecks
from hub.config import HubConfig
from hub.core.routing.routes import Routes
from messagehub.errors import AccessDenied, HubError, InvalidRequest, MessageTooLarge
from messagehub.v1.schema_pb2 import SchemaUpdate
from messagehub.v1.schema_service_pb2 import ListSchemasRequest, RollbackSchemaRequest

ROUTES = Routes(
    {"auth": "auth_db", "metrics": "metrics_db"}, grants={"auth": {"metrics_db": "read"}}
)
CHECKS = SchemaChecks(HubConfig(schema_updates_max=2, transaction_bytes_max=5000), routes=ROUTES)


def checked(*updates: SchemaUpdate, service: str = "auth", request_id: str = "") -> Any:
    return CHECKS.updates(service, updates, correlation_id="c", request_id=request_id)


@pytest.mark.parametrize(
    ("updates", "error", "field"),
    [
        ([], InvalidRequest, "updates"),
        ([SchemaUpdate(version="1.0.0")] * 3, InvalidRequest, "updates"),
        ([SchemaUpdate(version="1.0")], InvalidRequest, "updates[0].version"),
        ([SchemaUpdate(version="0.0.0")], InvalidRequest, "updates[0].version"),
        ([SchemaUpdate(version="1.0.0", script="\0")], InvalidRequest, "updates[0].script"),
        ([SchemaUpdate(version="1.0.0", database="x")], HubError, "updates[0].database"),
        ([SchemaUpdate(version="1.0.0", script="x" * 6000)], MessageTooLarge, None),
        ([SchemaUpdate(version="1.0.0", database="metrics_db")], AccessDenied, None),
    ],
)
def test_what_cannot_be_is_refused(
    updates: list[SchemaUpdate], error: type[HubError], field: str | None
) -> None:
    with pytest.raises(error) as refusal:
        checked(*updates)
    assert list(refusal.value.fields) == ([field] if field else [])


def test_the_same_content_has_the_same_fingerprint() -> None:
    one = SchemaUpdate(version="1.0.0", script="SELECT 1")
    same = SchemaUpdate(version="1.0.0", script="SELECT 1", database="auth_db")
    other = SchemaUpdate(version="1.0.0", script="SELECT 2")
    assert checked(one).fingerprint == checked(same).fingerprint
    assert checked(one).fingerprint != checked(other).fingerprint
    assert not checked(one).chosen
    given = checked(one, request_id="01890a5d-ac96-774b-bcce-b302099a8057")
    assert (given.chosen, given.request_id) == (True, "01890a5d-ac96-774b-bcce-b302099a8057")


def test_a_rollback_and_required_versions() -> None:
    rollback = CHECKS.rollback(RollbackSchemaRequest(source_service="auth", to_version="0.0.0"))
    assert rollback.databases == ("auth_db",)
    for request in (
        RollbackSchemaRequest(source_service="auth"),
        RollbackSchemaRequest(source_service="auth", to_version="one"),
    ):
        with pytest.raises(InvalidRequest) as refusal:
            CHECKS.rollback(request)
        assert list(refusal.value.fields) == ["to_version"]
    asked = ListSchemasRequest(source_service="auth", required_versions={"auth_db": ">=1"})
    assert dict(CHECKS.required(asked)) == {"auth_db": ">=1"}
    asked.required_versions["auth_db"] = "nonsense"
    with pytest.raises(InvalidRequest) as refusal:
        CHECKS.required(asked)
    assert list(refusal.value.fields) == ["required_versions[auth_db]"]
