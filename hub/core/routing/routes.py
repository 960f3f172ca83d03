"""Which database a service reaches, and whether it may write there."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from messagehub.errors import AccessDenied, HubError, InvalidRequest, InvalidRoute

WRITE: Final = "write"


class Route(NamedTuple):
    """A database, and whether the calling service may only read it."""

    database: str
    read_only: bool


class Routes:
    """The configured services, their databases and the grants, checked on every operation.

    `services` maps a service to its own database, which it may always write. `grants` maps a
    service to further databases and `read` or `write`; None opens every database to everybody.
    """

    def __init__(
        self,
        services: Mapping[str, str],
        grants: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.services = dict(services)
        self.databases = tuple(sorted(set(services.values())))
        self.open_access = grants is None
        # service -> database -> route, with the service's own database also under "".
        self._routes: dict[str, dict[str, Route]] = {}
        for service, own in services.items():
            if grants is None:
                reached = {name: Route(name, read_only=False) for name in self.databases}
            else:
                reached = {
                    name: Route(name, read_only=access != WRITE)
                    for name, access in grants.get(service, {}).items()
                }
            reached[own] = reached[""] = Route(own, read_only=False)
            self._routes[service] = reached

    def resolve(self, source_service: str, database: str) -> Route:
        """Gives the route to a database; an empty name is the service's own database.

        Raises `InvalidRequest` without a service, `InvalidRoute` for a service or a database that
        is not configured, `AccessDenied` without a grant.
        """
        try:
            return self._routes[source_service][database]
        except KeyError:
            raise self._refusal(source_service, database) from None

    def resolve_writable(self, source_service: str, database: str) -> Route:
        """Like `resolve`, and also raises `AccessDenied` where the service may only read."""
        route = self.resolve(source_service, database)
        if route.read_only:
            raise AccessDenied(
                f"the service {source_service} may only read the database {route.database}: "
                "its grant must say write",
                metadata={"service": source_service, "database": route.database},
            )
        return route

    def readable(self, source_service: str) -> tuple[str, ...]:
        """The databases that a service may read, sorted; raises as `resolve` does."""
        self.check_service(source_service)
        return tuple(sorted({route.database for route in self._routes[source_service].values()}))

    def writable(self, source_service: str) -> tuple[str, ...]:
        """The databases that a service may write, sorted; raises as `resolve` does."""
        self.check_service(source_service)
        routes = self._routes[source_service].values()
        return tuple(sorted({route.database for route in routes if not route.read_only}))

    def check_service(self, source_service: str) -> None:
        """Raises `InvalidRequest` without a service and `InvalidRoute` for an unknown one."""
        if source_service not in self._routes:
            raise self._refusal(source_service, "")

    def check_database(self, database: str) -> None:
        """Raises `InvalidRoute` for a database that is not configured."""
        if database not in self.databases:
            raise self._unknown(database)

    def _refusal(self, source_service: str, database: str) -> HubError:
        services = ", ".join(sorted(self.services))
        if not source_service:
            return InvalidRequest(
                f"source_service is missing: say which service calls, one of {services}",
                fields={"source_service": f"is required, one of {services}"},
            )
        if source_service not in self.services:
            return InvalidRoute(
                f"there is no service {source_service!r}: the configured services are {services}",
                fields={"source_service": f"must be one of {services}"},
            )
        if database not in self.databases:
            return self._unknown(database)
        return AccessDenied(
            f"the service {source_service} has no grant for the database {database}: "
            "add one to the hub's configuration",
            metadata={"service": source_service, "database": database},
        )

    def _unknown(self, database: str) -> InvalidRoute:
        databases = ", ".join(self.databases)
        return InvalidRoute(
            f"there is no database {database!r}: the configured databases are {databases}",
            fields={"database": f"must be empty or one of {databases}"},
        )
