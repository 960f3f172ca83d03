"""The settings of the hub; every limit has its unit in its name."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from messagehub.serving import configuration
from messagehub.serving.configuration import ConfigurationError

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}\Z")]
# Where to listen is a host and a port; where to connect is any name that gRPC resolves.
ListenAddress = Annotated[str, Meta(pattern=r"^\S+:[0-9]{1,5}\Z")]
Address = Annotated[str, Meta(min_length=1)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]

MEBIBYTE: Final = 1024 * 1024
DEFAULT_SERVICES: Final = ("character", "campaign", "auth", "metrics", "catalog")


def _default_services() -> dict[str, str]:
    return {service: f"{service}_db" for service in DEFAULT_SERVICES}


class HubConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read from `[hub]` of messagehub.toml, `MESSAGEHUB_HUB_*` and flags."""

    listen: ListenAddress = "127.0.0.1:50051"
    storage: Address = "127.0.0.1:50052"
    # The hub keeps no truth: this directory is for operations accepted for later delivery.
    data_dir: str = ".messagehub"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    # Which database each service owns, and what else it may reach: service, database, access.
    # Without grants every service reaches every database (a name is only a claim).
    services: Annotated[dict[Name, Name], Meta(min_length=1)] = field(
        default_factory=_default_services
    )
    grants: dict[Name, dict[Name, Literal["read", "write"]]] | None = None

    # Calls.
    message_bytes_max: Positive = 16 * MEBIBYTE
    default_timeout_seconds: Seconds = 30.0
    query_seconds_max: Seconds = 600.0
    concurrent_streams_max: Positive = 10_000
    drain_seconds: Seconds = 10.0

    # Statements and batches.
    query_bytes_max: Positive = MEBIBYTE
    parameters_max: Positive = 32_766
    batch_operations_max: Positive = 1_000
    query_page_rows_max: Positive = 1_000
    adopt_chunk_bytes_max: Positive = MEBIBYTE

    # Operations on their way to the storage server.
    storage_frames_in_flight_max: Positive = 4
    frame_operations_max: Positive = 256
    frame_bytes_max: Positive = 4 * MEBIBYTE
    pending_operations_max: Positive = 10_000
    pending_bytes_max: Positive = 64 * MEBIBYTE
    queue_retry_seconds: Seconds = 0.1

    # The connection to the storage server.
    storage_answer_seconds: Seconds = 10.0
    connect_seconds: Seconds = 2.0
    reconnect_seconds_min: Seconds = 0.1
    reconnect_seconds_max: Seconds = 0.3
    keepalive_seconds: Annotated[float, Meta(ge=15)] = 20.0
    keepalive_answer_seconds: Seconds = 10.0

    # Watches of the status.
    status_watchers_max: Positive = 1_000
    status_changes_max: Positive = 256

    # Subscriptions. A database's live window is shared by all that subscribe to it.
    heartbeat_seconds: Seconds = 5.0
    subscriptions_max: Positive = 1_000
    service_subscriptions_max: Positive = 500
    subscriber_window_bytes_max: Positive = 4 * MEBIBYTE
    event_message_events_max: Positive = 512
    event_message_bytes_max: Positive = 256 * 1024
    event_window_bytes_max: Positive = 16 * MEBIBYTE
    event_bytes_max: Positive = MEBIBYTE
    journal_reads_max: Positive = 8
    tail_linger_seconds: Seconds = 10.0
    # The storage server says something at least every 5 seconds.
    tail_silence_seconds_max: Annotated[float, Meta(ge=6)] = 15.0


def load(*, file: Path | None = None, flags: dict[str, Any] | None = None) -> HubConfig:
    """Gives the hub's settings, also checked against each other; raises `ConfigurationError`."""
    config = configuration.load("hub", HubConfig, file=file, flags=flags)
    for service, databases in (config.grants or {}).items():
        if service not in config.services:
            raise ConfigurationError(
                f"[hub] grants: there is no service {service}; configured are "
                + ", ".join(sorted(config.services))
            )
        if unknown := databases.keys() - set(config.services.values()):
            raise ConfigurationError(
                f"[hub] grants.{service}: there is no database {min(unknown)}; configured are "
                + ", ".join(sorted(set(config.services.values())))
            )
    if config.pending_bytes_max < config.message_bytes_max:
        raise ConfigurationError(
            "[hub] pending_bytes_max must not be below message_bytes_max: "
            "the largest message would never be accepted"
        )
    if config.reconnect_seconds_max < config.reconnect_seconds_min:
        raise ConfigurationError(
            "[hub] reconnect_seconds_max must not be below reconnect_seconds_min"
        )
    return config
