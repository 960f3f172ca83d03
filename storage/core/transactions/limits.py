"""The bounds of transactions in one database."""

from dataclasses import dataclass

from messagehub.storage.v1.participant_service_pb2 import TransactionHeader

MILLISECONDS = 1000


@dataclass(slots=True, frozen=True)
class TransactionLimits:
    """See `StorageConfig` for units and defaults."""

    seconds_max: float
    idle_seconds_max: float
    in_doubt_seconds: float
    snapshots_max: int
    answers_bytes_max: int
    hold_seconds_max: float
    keep_seconds: float

    def expiry(self, header: TransactionHeader, began_at: float, now: float) -> float:
        """When a part that began then, and is used now, is rolled back if nothing comes."""
        idle = header.idle_timeout_ms / MILLISECONDS or self.idle_seconds_max
        total = header.timeout_ms / MILLISECONDS or self.seconds_max
        return min(began_at + min(total, self.seconds_max), now + min(idle, self.idle_seconds_max))
