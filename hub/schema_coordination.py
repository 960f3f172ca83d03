"""The part of the composition root that coordinates changes of schemas."""

from hub.adapters.schema_events import SchemaEvents
from hub.api.schema_checks import SchemaChecks
from hub.api.schema_requests import SchemaRequests
from hub.api.schema_service import SchemaService
from hub.config import HubConfig
from hub.core.announcements import Announcements
from hub.core.background import Background
from hub.core.ports import Storage
from hub.core.routing.router import Router
from hub.core.routing.routes import Routes
from hub.core.schema.migrations import Migrations
from hub.core.schema.standings import Standings
from hub.core.transactions.coordinator import Coordinator


class SchemaCoordination:
    """`service` and `requests` for the edge."""

    def __init__(
        self,
        config: HubConfig,
        *,
        routes: Routes,
        router: Router,
        storage: Storage,
        coordinator: Coordinator,
        announcements: Announcements,
    ) -> None:
        self._background = Background()
        checks = SchemaChecks(config, routes=routes)
        migrations = Migrations(
            coordinator=coordinator,
            storage=storage,
            journals=SchemaEvents(router, announcements),
            background=self._background,
            seconds_max=config.schema_seconds_max,
            announce_seconds=config.storage_answer_seconds,
        )
        self.requests = SchemaRequests(checks=checks, migrations=migrations)
        self.service = SchemaService(
            routes=routes,
            checks=checks,
            migrations=migrations,
            standings=Standings(
                storage,
                required=config.required_versions,
                seconds=config.storage_answer_seconds,
            ),
            storage=storage,
        )

    async def stop(self, seconds: float) -> None:
        """Ends what is still being told of failures."""
        await self._background.close(seconds)
