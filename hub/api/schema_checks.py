"""What is checked in a change of a schema before anything leaves the hub."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hub.api.checks import given_request_id
from hub.config import HubConfig
from hub.core.routing.routes import Routes
from hub.core.schema.changes import Change, Wanted, check_rising
from messagehub.errors import HubError, InvalidRequest, MessageTooLarge
from messagehub.request_ids import new_request_id
from messagehub.schema import scripts
from messagehub.schema.ranges import parse_range
from messagehub.schema.versions import NOTHING, SemanticVersion
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaRollback
from messagehub.v1.schema_pb2 import SchemaUpdate
from messagehub.v1.schema_service_pb2 import ListSchemasRequest, RollbackSchemaRequest

DESCRIPTION_CHARACTERS_MAX = 1024
MILLISECONDS = 1000


class SchemaChecks:
    """Makes changes of what callers send; each refusal names its field."""

    def __init__(self, limits: HubConfig, *, routes: Routes) -> None:
        self._limits = limits
        self._routes = routes

    def updates(
        self,
        source_service: str,
        updates: Sequence[SchemaUpdate],
        *,
        correlation_id: str,
        request_id: str,
    ) -> Wanted:
        """Checks updates, their routes and their order."""
        self._routes.check_service(source_service)
        given = given_request_id(request_id)
        self._check_size(updates)
        changes = []
        for place, update in enumerate(updates):
            with _below(f"updates[{place}]"):
                changes.append(self._update(source_service, update))
        check_rising(changes)
        return _wanted(source_service, correlation_id, given, changes)

    def rollback(self, request: RollbackSchemaRequest) -> Wanted:
        """Checks a rollback."""
        self._routes.check_service(request.source_service)
        given = given_request_id(request.request_id)
        version = str(SemanticVersion.parse(request.to_version, "to_version"))
        route = self._routes.resolve_writable(request.source_service, request.database)
        content = SchemaOperation(
            rollback=SchemaRollback(to_version=version), timeout_ms=self._timeout_ms
        )
        change = Change(route.database, version, "rollback", "", content)
        return _wanted(request.source_service, request.correlation_id, given, [change])

    def required(self, request: ListSchemasRequest) -> Mapping[str, str]:
        """Checks the ranges that a caller requires."""
        for database, wanted in request.required_versions.items():
            path = f"required_versions[{database}]"
            self._routes.resolve(request.source_service, database)
            parse_range(wanted, path)
        return request.required_versions

    @property
    def _timeout_ms(self) -> int:
        return int(self._limits.schema_seconds_max * MILLISECONDS)

    def _check_size(self, updates: Sequence[SchemaUpdate]) -> None:
        limits = self._limits
        if not updates:
            raise _invalid("updates", "is empty: send at least one update")
        if len(updates) > limits.schema_updates_max:
            raise _invalid(
                "updates", f"has {len(updates)} updates, the limit is {limits.schema_updates_max}"
            )
        size = sum(update.ByteSize() for update in updates)
        if size > limits.transaction_bytes_max:
            raise MessageTooLarge(
                f"the updates have {size} bytes, the limit is {limits.transaction_bytes_max} "
                "(transaction_bytes_max): send fewer versions in a call",
                metadata={"limit_bytes": str(limits.transaction_bytes_max)},
            )

    def _update(self, source_service: str, update: SchemaUpdate) -> Change:
        version = SemanticVersion.parse(update.version)
        if version <= NOTHING:
            raise _invalid("version", f"must be above {NOTHING}, which a new database has")
        if len(update.description) > DESCRIPTION_CHARACTERS_MAX:
            raise _invalid("description", f"has over {DESCRIPTION_CHARACTERS_MAX} characters")
        for field, script in (
            ("script", update.script),
            ("rollback_script", update.rollback_script),
        ):
            if "\0" in script:
                raise _invalid(field, "holds a NUL character, which no SQL does")
        route = self._routes.resolve_writable(source_service, update.database)
        told = SchemaUpdate()
        told.CopyFrom(update)
        told.database = route.database
        told.version = str(version)
        return Change(
            route.database,
            told.version,
            update.description,
            scripts.checksum(update.script),
            SchemaOperation(update=told, timeout_ms=self._timeout_ms),
        )


def _wanted(
    source_service: str, correlation_id: str, request_id: str, changes: Sequence[Change]
) -> Wanted:
    digest = hashlib.sha256(source_service.encode())
    for change in changes:
        content = change.content.SerializeToString(deterministic=True)
        for part in (change.database.encode(), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return Wanted(
        source_service,
        correlation_id,
        request_id or new_request_id(),
        bool(request_id),
        digest.digest(),
        changes,
    )


@contextmanager
def _below(path: str) -> Iterator[None]:
    """Names the fields of a refusal as they stand in the request."""
    try:
        yield
    except HubError as refusal:
        refusal.fields = {f"{path}.{field}": what for field, what in refusal.fields.items()}
        raise


def _invalid(field: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {what}", fields={field: what})
