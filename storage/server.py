"""The composition root of the storage server."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from messagehub.serving import failpoints
from messagehub.serving.drain import FAREWELL_SECONDS, Drain
from messagehub.serving.health import READY, HealthBoard
from messagehub.serving.process import bind, enable_reflection, make_server
from messagehub.storage.v1 import (
    backup_service_pb2,
    backup_service_pb2_grpc,
    participant_service_pb2,
    participant_service_pb2_grpc,
    storage_service_pb2,
    storage_service_pb2_grpc,
)
from storage.api.adoption import Adoption
from storage.api.backup_service import BackupService
from storage.api.exchange import ExchangeLimits
from storage.api.participant_service import ParticipantService
from storage.api.storage_service import StorageService
from storage.config import StorageConfig
from storage.core.backups.backups import Backups
from storage.core.database import Database, DatabaseLimits
from storage.core.databases import Databases, Upkeep
from storage.core.engine import Engine
from storage.core.fair_queue import QueueLimits
from storage.core.following import FollowLimits
from storage.core.read_lanes import ReadLimits
from storage.core.scratch import ADOPTING, COPYING, RESTORING, remove_leftovers
from storage.core.subscriptions import MICROSECONDS, LagLimits
from storage.core.transactions.limits import TransactionLimits
from storage.directory.shelf import DirectoryShelf
from storage.sqlite.backups.files import SqliteFiles
from storage.sqlite.engine import SUFFIX, SqliteEngine, SqliteSettings, description
from storage.sqlite.statements import StatementLimits

# How long what is interrupted at the end of the drain time may take to roll back and to close.
INTERRUPTED_SECONDS = 2.0
NANOSECONDS_PER_MICROSECOND = 1000

_log = logging.getLogger(__name__)

BACKUPS = backup_service_pb2.DESCRIPTOR.services_by_name["BackupService"].full_name
PARTICIPANTS = participant_service_pb2.DESCRIPTOR.services_by_name["ParticipantService"].full_name
SERVICE = storage_service_pb2.DESCRIPTOR.services_by_name["StorageService"].full_name


class StorageServer:
    """A storage server in this process: `start`, then `address`, then `stop`."""

    def __init__(self, config: StorageConfig) -> None:
        self._config = config
        self._drain = Drain()
        self.abandoned = False
        self.address = config.listen

    async def start(self) -> None:
        """Binds and begins to serve. Raises `OSError` if the address or directory is unusable."""
        config = self._config
        directory = Path(config.data_dir)
        directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(directory, ADOPTING, COPYING, RESTORING)
        self._health = HealthBoard()
        self._databases = make_databases(config, self._tell)
        self._server = make_server(
            message_bytes_max=config.message_bytes_max,
            default_timeout=config.default_timeout_seconds,
            concurrent_streams_max=config.concurrent_streams_max,
            drain=self._drain,
        )
        service = StorageService(
            self._databases,
            Adoption(self._databases, directory, size_bytes_max=config.database_bytes_max),
            _exchange_limits(config),
            engine=description(),
            page_rows_max=config.page_rows_max,
        )
        storage_service_pb2_grpc.add_StorageServiceServicer_to_server(service, self._server)
        participant_service_pb2_grpc.add_ParticipantServiceServicer_to_server(
            ParticipantService(self._databases), self._server
        )
        self._backups = make_backups(config, self._databases)
        backup_service_pb2_grpc.add_BackupServiceServicer_to_server(
            BackupService(self._databases, self._backups), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        enable_reflection(self._server, (SERVICE, PARTICIPANTS, BACKUPS, health))
        self.address = bind(self._server, config.listen)
        await self._server.start()
        for name in (READY, SERVICE, PARTICIPANTS, BACKUPS):
            self._health.set(name, serving=True)

    async def stop(self) -> None:
        """Not ready, what is under way finishes within the drain time, all closes, exit.

        A connection whose thread does not come back, from a disk that hangs or from one long call
        of a function, is left alone: `abandoned` then says that only the end of the process ends
        it. Nothing of it was answered, so whoever waits for it learns that the outcome is unknown.
        """
        self._health.close()
        self._drain.refuse()
        self._backups.cancel_all()
        try:
            async with asyncio.timeout(self._config.drain_seconds + INTERRUPTED_SECONDS):
                await self._databases.end(self._config.drain_seconds)
        except TimeoutError:
            self.abandoned = True
            _log.error("a connection did not come back; the process ends without it")
        await self._drain.finish(FAREWELL_SECONDS)
        await self._server.stop(FAREWELL_SECONDS)

    def _tell(self, database: Database) -> None:
        self._health.set(f"storage.{database.name}", serving=not database.detail)


def make_databases(config: StorageConfig, told: Callable[[Database], None]) -> Databases:
    """The databases of a configuration, on the running loop; `told` learns of each change."""
    return Databases(
        _engine_factory(config, Path(config.data_dir)),
        _database_limits(config),
        _upkeep(config),
        time.time,
        told,
        failpoints.reached,
    )


def make_backups(config: StorageConfig, databases: Databases) -> Backups:
    """The backups of a configuration, on the running loop."""
    directory = Path(config.data_dir)
    shelf = DirectoryShelf(config.backup_directory)
    with suppress(OSError):  # it may be away now and there when it is needed
        shelf.tidy()
    return Backups(
        databases,
        shelf,
        SqliteFiles(directory, suffix=SUFFIX, reached=failpoints.reached),
        directory,
        at_once_max=config.backups_at_once_max,
        wall_clock_us=lambda: time.time_ns() // NANOSECONDS_PER_MICROSECOND,
        reached=failpoints.reached,
    )


def _engine_factory(config: StorageConfig, directory: Path) -> Callable[[str], Engine]:
    settings = SqliteSettings(
        directory=directory,
        limits=StatementLimits(
            statement_bytes_max=config.statement_bytes_max,
            parameters_max=config.parameters_max,
            value_bytes_max=config.value_bytes_max,
            function_value_bytes_max=config.function_value_bytes_max,
            expanded_words_max=config.expanded_words_max,
            heap_bytes_max=config.heap_bytes_max,
            written_bytes_max=config.written_bytes_max,
            result_rows_max=config.result_rows_max,
            result_bytes_max=config.result_bytes_max,
            page_bytes_max=config.page_bytes_max,
            read_seconds_max=config.read_seconds_max,
            write_seconds_max=config.write_seconds_max,
        ),
        group_seconds_max=config.group_seconds_max,
        query_seconds_max=config.query_seconds_max,
        database_bytes_max=config.database_bytes_max,
        journal_bytes_max=config.tail_message_bytes_max,
        part_bytes_max=config.part_bytes_max,
        subscriptions_max=config.subscriptions_max,
        subscription_lag=LagLimits(
            config.subscription_lag_rows_max,
            int(config.subscription_lag_seconds_max * MICROSECONDS),
        ),
        schema_seconds_max=config.schema_seconds_max,
    )

    def make(name: str) -> Engine:
        return SqliteEngine(name, settings)

    return make


def _database_limits(config: StorageConfig) -> DatabaseLimits:
    return DatabaseLimits(
        queue=QueueLimits(
            operations_max=config.queue_operations_max,
            bytes_max=config.queue_bytes_max,
            caller_operations_max=config.caller_operations_max,
            caller_bytes_max=config.caller_bytes_max,
            retry_after_seconds=config.group_seconds_max,
        ),
        reads=ReadLimits(lanes_max=config.readers_max, stall_seconds=config.reader_stall_seconds),
        group_operations_max=config.group_operations_max,
        queries_max=config.queries_max,
        tail_bytes_max=config.tail_bytes_max,
        follow=FollowLimits(
            config.tail_message_events_max,
            config.tail_message_bytes_max,
            config.tail_heartbeat_seconds,
        ),
        reopen_seconds=config.reopen_seconds,
        transactions=TransactionLimits(
            seconds_max=config.transaction_seconds_max,
            idle_seconds_max=config.transaction_idle_seconds_max,
            in_doubt_seconds=config.in_doubt_seconds,
            snapshots_max=config.snapshots_max,
            answers_bytes_max=config.part_answers_bytes_max,
            hold_seconds_max=config.commit_hold_seconds_max,
            keep_seconds=config.journal_age_seconds_max,
        ),
    )


def _upkeep(config: StorageConfig) -> Upkeep:
    return Upkeep(
        databases_open_max=config.databases_open_max,
        idle_close_seconds=config.idle_close_seconds,
        every_seconds=config.trim_every_seconds,
        journal_age_seconds_max=config.journal_age_seconds_max,
        journal_rows_max=config.journal_rows_max,
        trim_rows_max=config.trim_rows_max,
    )


def _exchange_limits(config: StorageConfig) -> ExchangeLimits:
    return ExchangeLimits(
        frame_bytes_max=config.frame_bytes_max,
        outgoing_bytes_max=config.outgoing_bytes_max,
        caller_outgoing_bytes_max=config.caller_outgoing_bytes_max,
        acknowledge_seconds=config.frame_acknowledge_seconds,
        operation_seconds_max=config.default_timeout_seconds,
    )
