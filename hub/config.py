"""The settings of the hub; every limit has its unit in its name."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from hub import cron
from messagehub.errors import InvalidRequest
from messagehub.schema.ranges import parse_range
from messagehub.serving import configuration
from messagehub.serving.settings import (
    BETWEEN_SERVERS,
    MEBIBYTE,
    YEAR_SECONDS,
    AtMost,
    Check,
    Known,
    MessageBytes,
    Positive,
    Seconds,
    Streams,
    listens,
)

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}\Z")]
# Where to connect is any name that gRPC resolves.
Address = Annotated[str, Meta(min_length=1)]
Addresses = Annotated[list[Address], Meta(min_length=1)]
# What may be nothing.
SecondsOrNone = Annotated[float, Meta(ge=0, le=100 * YEAR_SECONDS)]
DEFAULT_SERVICES: Final = ("character", "campaign", "auth", "metrics", "catalog")


def _default_services() -> dict[str, str]:
    return {service: f"{service}_db" for service in DEFAULT_SERVICES}


class DatabaseConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read from `[hub.databases.NAME]`: the storage servers of one database."""

    storage: Address | Addresses


class BackupConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read from `[hub.backups.NAME]`: when which databases are backed up, and what is kept.

    `schedule` is a cron expression, in UTC. Without `databases` it is all of them. Of its verified
    backups the last ones stay, and the newest of so many days and weeks; 0 is none.
    """

    schedule: str
    databases: list[Name] | None = None
    keep_last: Positive = 7
    keep_daily: Annotated[int, Meta(ge=0)] = 7
    keep_weekly: Annotated[int, Meta(ge=0)] = 4


class HubConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read from `[hub]` of messagehub.toml, `MESSAGEHUB_HUB_*` and flags."""

    listen: str = "127.0.0.1:50051"
    # One storage server, or several that serve the same databases: the first of them that has a
    # database is asked for it. `databases` names others for single databases.
    storage: Address | Addresses = "127.0.0.1:50052"
    databases: dict[Name, DatabaseConfig] = field(default_factory=dict)
    # The hub keeps no truth: this directory is for operations accepted for later delivery. Each
    # hub has one of its own; a storage server may share it.
    data_dir: str = ".messagehub"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    # Which database each service owns, and what else it may reach: service, database, access.
    # Without grants every service reaches every database (a name is only a claim).
    services: Annotated[dict[Name, Name], Meta(min_length=1)] = field(
        default_factory=_default_services
    )
    grants: dict[Name, dict[Name, Literal["read", "write"]]] | None = None

    # Calls.
    message_bytes_max: MessageBytes = 16 * MEBIBYTE
    default_timeout_seconds: Seconds = 30.0
    query_seconds_max: Seconds = 600.0
    concurrent_streams_max: Streams = 10_000
    # At the end: for so long not ready and still serving, so that a load balancer can notice; then
    # for so long refusing what is new and finishing what is under way.
    unready_seconds: SecondsOrNone = 0.0
    drain_seconds: Seconds = 10.0

    # Statements and batches.
    query_bytes_max: Positive = MEBIBYTE
    parameters_max: Positive = 32_766
    batch_operations_max: Positive = 1_000
    # After how long without an outcome a stream of operations says that they are taken in.
    stream_taken_seconds: Seconds = 0.005
    query_page_rows_max: Positive = 1_000
    # A storage server takes no larger ones.
    adopt_chunk_bytes_max: Annotated[int, Meta(ge=1, le=MEBIBYTE)] = MEBIBYTE

    # Operations on their way to the storage server.
    storage_frames_in_flight_max: Positive = 4
    frame_operations_max: Positive = 256
    frame_bytes_max: Positive = 4 * MEBIBYTE
    pending_operations_max: Positive = 10_000
    pending_bytes_max: Positive = 64 * MEBIBYTE
    queue_retry_seconds: Seconds = 0.1

    # The inbox, operations for later delivery: what may wait for one database, and how long. The
    # age must be below `journal_age_seconds_max` of the storage servers, or an operation could be
    # done twice.
    inbox_operations_max: Positive = 100_000
    inbox_bytes_max: Positive = 256 * MEBIBYTE
    inbox_age_seconds_max: Seconds = 3 * 24 * 3600.0
    inbox_retry_seconds: Seconds = 1.0
    # What is kept of those that have ended.
    inbox_keep_seconds: Seconds = 24 * 3600.0
    inbox_kept_operations_max: Positive = 100_000
    inbox_kept_bytes_max: Positive = 256 * MEBIBYTE
    inbox_page_bytes_max: Positive = MEBIBYTE
    inbox_sweep_seconds: Seconds = 1.0
    # How many changes of the inbox share one fsync.
    inbox_group_operations_max: Positive = 512

    # Delivery: what is claimed at once for one service and database, and how it is tried. An
    # attempt must be longer than `write_seconds_max` of the storage servers.
    delivery_batch_operations_max: Positive = 128
    delivery_batch_bytes_max: Positive = 4 * MEBIBYTE
    delivery_attempt_seconds: Seconds = 30.0
    delivery_setbacks_max: Positive = 5
    delivery_retry_seconds_min: Seconds = 0.05
    delivery_retry_seconds_max: Seconds = 5.0
    # How many databases are asked at once for an operation whose database nobody named.
    operation_look_ups_max: Positive = 8

    # The connection to the storage server.
    # How long a storage server may say nothing before that counts against it, to a call too.
    storage_answer_seconds: Seconds = 10.0
    connect_seconds: Seconds = 2.0
    reconnect_seconds_min: Seconds = 0.1
    reconnect_seconds_max: Seconds = 0.3
    keepalive_seconds: Annotated[float, Meta(ge=15, le=YEAR_SECONDS)] = 20.0
    keepalive_answer_seconds: Seconds = 10.0

    # Circuits, one for each database. One opens after so many failures in a row, or when this rate
    # of the last calls failed; it is tried after a time that doubles as long as that fails.
    circuit_failures_max: Positive = 10
    circuit_window_calls: Positive = 100
    circuit_window_calls_min: Positive = 20
    circuit_failure_rate_max: Annotated[float, Meta(gt=0, le=1)] = 0.5
    circuit_open_seconds_min: Seconds = 1.0
    circuit_open_seconds_max: Seconds = 30.0
    circuit_trials_max: Positive = 3
    circuit_trials_to_close: Positive = 1

    # Retries by the hub itself. Each costs 1 of the budget of its database, which every call adds
    # its share to.
    retry_attempts_max: Positive = 5
    retry_seconds_min: Seconds = 0.05
    retry_seconds_max: Seconds = 0.5
    retry_budget_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    retry_budget_per_second: Annotated[float, Meta(ge=0, le=1e9)] = 1.0
    retry_budget_max: Annotated[float, Meta(ge=0, le=1e9)] = 100.0

    # Transactions: what one may have (its statements and events together have so many bytes, and so
    # may its rows), how many are under way in one call, open over several, remembered after that.
    transaction_operations_max: Positive = 1_000
    transaction_events_max: Positive = 1_000
    transaction_bytes_max: Positive = 8 * MEBIBYTE
    transactions_running_max: Positive = 1_000
    transactions_open_max: Positive = 1_000
    transactions_kept_max: Positive = 10_000
    # How long a step waits for a database that another transaction has.
    transaction_wait_seconds: Seconds = 2.0
    # How long an answer waits until every database shows what was committed; 0 = not at all.
    transaction_visible_seconds: SecondsOrNone = 1.0
    # Interactive ones: rolled back without a call for so long (the default, and the most that a
    # caller may ask for), and after so long in any case.
    transaction_idle_seconds: Seconds = 10.0
    transaction_idle_seconds_max: Seconds = 50.0
    transaction_seconds_max: Seconds = 60.0
    # How long participants are told again and again how a transaction ended, before that is left to
    # the resolver; how long one that another hub began may stay undecided; how long one read over
    # several databases may hold commits back.
    transaction_settle_seconds: Seconds = 30.0
    transaction_abandoned_seconds: Seconds = 3.0
    transaction_lease_seconds: Seconds = 5.0
    transaction_retry_seconds_min: Seconds = 0.01
    transaction_retry_seconds_max: Seconds = 0.5

    # Schemas: how many versions one call may lead to, how long it may take with all its scripts,
    # and the ranges of versions that databases should be in, such as ">=1.2 <2"; they are shown,
    # and nothing is refused for them.
    schema_updates_max: Positive = 1_000
    schema_seconds_max: Seconds = 600.0
    required_versions: dict[Name, str] = field(default_factory=dict)

    # Backups: how many are made at a time, how long one, its proof or a restore may take, and how
    # long they try to get one moment of all databases. A restore waits for transactions that are
    # prepared, then gives up.
    backups_running_max: Positive = 2
    backup_seconds_max: Seconds = 6 * 3600.0
    backup_cut_seconds: Seconds = 60.0
    restore_wait_seconds: Seconds = 10.0
    # Schedules: how often they are looked at, and how long after a failure they are tried again.
    backups: dict[Name, BackupConfig] = field(default_factory=dict)
    backup_look_seconds: Seconds = 5.0
    backup_retry_seconds: Seconds = 300.0

    # Watches of the status.
    status_watchers_max: Positive = 1_000
    status_changes_max: Positive = 256

    # Subscriptions. A database's live window is shared by all that subscribe to it.
    heartbeat_seconds: Seconds = 5.0
    # How long the name of a subscription is not free after the hub of its stream was killed.
    subscription_lease_seconds: Seconds = 15.0
    subscriptions_max: Positive = 10_000
    service_subscriptions_max: Positive = 5_000
    subscriber_bytes_max: Positive = MEBIBYTE
    event_message_events_max: Positive = 512
    event_message_bytes_max: Positive = 256 * 1024
    event_window_bytes_max: Positive = 16 * MEBIBYTE
    event_bytes_max: Positive = MEBIBYTE
    # How long events may gather while telling all subscribers takes most of the hub's time.
    event_gather_seconds_max: Seconds = 0.1
    journal_reads_max: Positive = 8
    tail_linger_seconds: Seconds = 10.0
    # The storage server says something at least every 5 seconds.
    tail_silence_seconds_max: Annotated[float, Meta(ge=6, le=YEAR_SECONDS)] = 15.0

    def servers_of(self, database: str) -> tuple[str, ...]:
        """The storage servers of a database, each once, the preferred one first."""
        own = self.databases.get(database)
        storage = self.storage if own is None else own.storage
        return (storage,) if isinstance(storage, str) else tuple(dict.fromkeys(storage))


def _transactions(known: Known) -> str | None:
    """Checks that the home of a transaction can be told of all of it in one message."""
    config: HubConfig = known.settings  # type: ignore[assignment]
    if 2 * config.transaction_bytes_max <= config.message_bytes_max:
        return None
    return (
        f"{known.place('transaction_bytes_max')} must not be above half of message_bytes_max "
        f"({config.message_bytes_max:,}): its home is told of a transaction's statements and rows "
        "in one message"
    )


def _required_versions(known: Known) -> str | None:
    """Checks that what is required of schemas can be read, and of databases that are there."""
    config: HubConfig = known.settings  # type: ignore[assignment]
    place = known.place("required_versions")
    owned = set(config.services.values())
    for database, wanted in config.required_versions.items():
        if database not in owned:
            return f"{place}: there is no database {database}; there are {', '.join(sorted(owned))}"
        try:
            parse_range(wanted)
        except InvalidRequest:
            return f"{place}.{database} must be a range of versions, such as >=1.2 <2"
    return None


def _routes(known: Known) -> str | None:
    """Checks that grants and databases name what is configured, and that grants have an effect."""
    config: HubConfig = known.settings  # type: ignore[assignment]
    owned = set(config.services.values())
    configured = f"configured are {', '.join(sorted(owned))}"
    for service, databases in (config.grants or {}).items():
        place = known.place("grants")
        if service not in config.services:
            return f"{place}: there is no service {service}; configured are " + ", ".join(
                sorted(config.services)
            )
        if unknown := databases.keys() - owned:
            return f"{place}.{service}: there is no database {min(unknown)}; {configured}"
        own = config.services[service]
        if databases.get(own) == "read":
            return (
                f'{place}.{service}: {own} = "read" has no effect, because {own} is the service\'s '
                "own database, which it may always write: leave it out, or give the service "
                "another database of its own in [hub.services]"
            )
    if unknown := config.databases.keys() - owned:
        return f"{known.place('databases')}: there is no database {min(unknown)}; {configured}"
    return None


def _backups(known: Known) -> str | None:
    """Checks that schedules are times, of databases that are configured."""
    config: HubConfig = known.settings  # type: ignore[assignment]
    owned = set(config.services.values())
    for name, backup in config.backups.items():
        place = f"{known.place('backups')}.{name}"
        if problem := cron.check(backup.schedule):
            return f"{place}: schedule {backup.schedule!r} is no cron expression: {problem}"
        if unknown := set(backup.databases or ()) - owned:
            return (
                f"{place}: there is no database {min(unknown)}; configured are "
                f"{', '.join(sorted(owned))}"
            )
    return None


CHECKS: Final[tuple[Check, ...]] = (
    listens,
    _routes,
    _backups,
    _required_versions,
    *(
        AtMost("message_bytes_max", key, f"the largest {what} would never be accepted")
        for key, what in (("pending_bytes_max", "message"), ("inbox_bytes_max", "operation"))
    ),
    *(
        AtMost(key, "message_bytes_max", f"the largest {what} would not fit a message")
        for key, what in (
            ("event_message_bytes_max", "message of events"),
            ("inbox_page_bytes_max", "page of operations"),
        )
    ),
    AtMost(
        "circuit_window_calls_min",
        "circuit_window_calls",
        "the failure rate would never open a circuit",
    ),
    *(
        AtMost(f"{prefix}_min", f"{prefix}_max", "the time would shrink from one to the next")
        for prefix in (
            "reconnect_seconds",
            "delivery_retry_seconds",
            "circuit_open_seconds",
            "retry_seconds",
            "transaction_retry_seconds",
        )
    ),
    AtMost(
        "transaction_idle_seconds",
        "transaction_idle_seconds_max",
        "nobody could ask for the default",
    ),
    _transactions,
    *BETWEEN_SERVERS,
)


def load(*, file: Path | None = None, flags: dict[str, Any] | None = None) -> HubConfig:
    """Gives the hub's settings, also checked against each other; raises `ConfigurationError`."""
    return configuration.load("hub", HubConfig, file=file, flags=flags, checks=CHECKS)
