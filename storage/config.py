"""The settings of the storage server; every limit has its unit in its name."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from messagehub.serving import configuration
from messagehub.serving.settings import (
    BETWEEN_SERVERS,
    KIBIBYTE,
    MEBIBYTE,
    AtMost,
    Check,
    MessageBytes,
    Positive,
    Seconds,
    Streams,
    listens,
)

# SQLite's own ceilings (sqlite.org/limits.html), and its largest page: a database that may not
# even have one would have no limit at all.
SqliteBytes = Annotated[int, Meta(ge=1, le=1_000_000_000)]
SqliteParameters = Annotated[int, Meta(ge=1, le=32_766)]
DatabaseBytes = Annotated[int, Meta(ge=64 * KIBIBYTE, le=2**63 - 1)]


class StorageConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read from `[storage]` of messagehub.toml, `MESSAGEHUB_STORAGE_*` and flags."""

    listen: str = "127.0.0.1:50052"
    data_dir: str = ".messagehub"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    # Messages. A frame carries many operations, so it may be larger than a call at the hub's door.
    message_bytes_max: MessageBytes = 64 * MEBIBYTE
    concurrent_streams_max: Streams = 10_000
    default_timeout_seconds: Seconds = 30.0
    frame_bytes_max: Positive = 4 * MEBIBYTE
    frame_acknowledge_seconds: Seconds = 0.005
    outgoing_bytes_max: Positive = 64 * MEBIBYTE
    caller_outgoing_bytes_max: Positive = 32 * MEBIBYTE

    # Statements.
    statement_bytes_max: SqliteBytes = MEBIBYTE
    parameters_max: SqliteParameters = 32_766
    value_bytes_max: SqliteBytes = 16 * MEBIBYTE
    # Above this, functions whose cost is the product of their arguments are done another way.
    function_value_bytes_max: Positive = 64 * 1024
    # What views and common table expressions may add to a statement; about 200 bytes each.
    expanded_words_max: Positive = 200_000
    # What SQLite may use of memory, for all databases together; past it statements are refused.
    heap_bytes_max: Positive = 2048 * MEBIBYTE
    # What one statement may write to temporary files and the log; needs Linux to count it.
    written_bytes_max: Positive = 1024 * MEBIBYTE
    read_seconds_max: Seconds = 30.0
    write_seconds_max: Seconds = 10.0
    query_seconds_max: Seconds = 600.0

    # Results.
    result_rows_max: Positive = 10_000
    result_bytes_max: Positive = 15 * MEBIBYTE
    page_rows_max: Positive = 1_000
    page_bytes_max: Positive = 256 * 1024

    # Queues, per database and within it per calling service.
    queue_operations_max: Positive = 10_000
    queue_bytes_max: Positive = 64 * MEBIBYTE
    caller_operations_max: Positive = 5_000
    caller_bytes_max: Positive = 32 * MEBIBYTE

    # Group commit: what one fsync is shared by, and how long a group may gather results.
    group_operations_max: Positive = 256
    group_seconds_max: Seconds = 0.02

    # Connections, per database. The last of each is for services that hold none of them.
    readers_max: Positive = 5
    queries_max: Positive = 9
    reader_stall_seconds: Seconds = 0.002

    # Databases.
    databases_open_max: Positive = 512
    database_bytes_max: DatabaseBytes = 64 * 1024 * MEBIBYTE
    idle_close_seconds: Seconds = 300.0
    reopen_seconds: Seconds = 1.0

    # The journal: how long and how much of it is kept.
    journal_age_seconds_max: Seconds = 7 * 24 * 3600.0
    journal_rows_max: Positive = 10_000_000
    trim_every_seconds: Seconds = 10.0
    trim_rows_max: Positive = 1_000
    tail_bytes_max: Positive = 4 * MEBIBYTE
    tail_message_events_max: Positive = 512
    tail_message_bytes_max: Positive = MEBIBYTE
    tail_heartbeat_seconds: Seconds = 2.0

    # Named subscriptions, per database, and how far behind one may be and still hold its journal
    # back from being trimmed.
    subscriptions_max: Positive = 1_000
    subscription_lag_rows_max: Positive = 20_000_000
    subscription_lag_seconds_max: Seconds = 14 * 24 * 3600.0

    # Transactions: how long a part may be open, and be unused; how long one may be prepared before
    # hubs are asked to find out how it ended; how many snapshots are open in a database, and how
    # long commits may be held back for them.
    transaction_seconds_max: Seconds = 300.0
    transaction_idle_seconds_max: Seconds = 60.0
    in_doubt_seconds: Seconds = 1.0
    snapshots_max: Positive = 32
    # What a part remembers to be run again after a crash, and to answer a call that is repeated.
    part_bytes_max: Positive = 32 * MEBIBYTE
    part_answers_bytes_max: Positive = 16 * MEBIBYTE
    commit_hold_seconds_max: Seconds = 5.0

    # How long the scripts of one change of a schema may take, together.
    schema_seconds_max: Seconds = 3600.0

    # Backups. Empty = beside the data directory, with `-backups` at its end, so that whoever
    # destroys the one still has the other; better is another disk.
    backup_dir: str = ""
    # How many are taken, verified or restored at a time.
    backups_at_once_max: Positive = 2

    drain_seconds: Seconds = 10.0

    @property
    def backup_directory(self) -> Path:
        """Where backups are kept."""
        data = Path(self.data_dir)
        return Path(self.backup_dir) if self.backup_dir else data.with_name(f"{data.name}-backups")


CHECKS: Final[tuple[Check, ...]] = (
    listens,
    *(
        AtMost(key, "message_bytes_max", f"the largest {what} would not fit a message")
        for key, what in (
            ("result_bytes_max", "result"),
            ("page_bytes_max", "page"),
            ("frame_bytes_max", "frame"),
            ("tail_message_bytes_max", "message of events"),
        )
    ),
    *BETWEEN_SERVERS,
)


def load(*, file: Path | None = None, flags: dict[str, Any] | None = None) -> StorageConfig:
    """Gives the settings, also checked against each other; raises `ConfigurationError`."""
    return configuration.load("storage", StorageConfig, file=file, flags=flags, checks=CHECKS)
