"""The kinds of settings that servers share, and what holds between settings.

A bound that no machine can use is refused when the server starts, not when it is met: SQLite and
gRPC count in 32 bits, and a time that is infinite or no number would disable what it bounds.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta, Struct

KIBIBYTE: Final = 1024
MEBIBYTE: Final = 1024 * KIBIBYTE
YEAR_SECONDS: Final = 365 * 24 * 3600.0

Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Seconds = Annotated[float, Meta(gt=0, le=100 * YEAR_SECONDS)]
# gRPC's and protobuf's own ceiling is 2 GiB, envelope included.
MessageBytes = Annotated[int, Meta(ge=1, le=1024 * MEBIBYTE)]
Streams = Annotated[int, Meta(ge=1, le=2**31 - 1)]

_LISTEN: Final = re.compile(r"(?:\[[0-9a-fA-F:.]+(?:%\w+)?\]|[^\s:\[\]/]+):([0-9]{1,5})")
PORT_MAX: Final = 65_535


class Setting(NamedTuple):
    """A setting as it is in force; `place` is where it was given, empty = it is the default."""

    name: str
    value: Any
    place: str


@dataclass(frozen=True)
class Known:
    """The settings of one server, and what the same places say of the other.

    `places` has where each setting was given, `others` what was given for the other server, by
    names such as `storage.result_bytes_max`.
    """

    table: str
    settings: Struct
    places: Mapping[str, str]
    others: Mapping[str, Setting]

    def find(self, name: str) -> Setting | None:
        """Gives a setting; None if it is the other server's and nothing was given for it here."""
        table, _, key = name.rpartition(".")
        if table not in {"", self.table}:
            return self.others.get(name)
        told = f"[{table}] {key}" if table else key
        return Setting(told, getattr(self.settings, key), self.places.get(key, ""))

    def place(self, key: str) -> str:
        """Where a setting of this server was given, or its name."""
        return self.places.get(key, f"[{self.table}] {key}")


Check = Callable[[Known], str | None]


@dataclass(frozen=True)
class AtMost:
    """One setting must not be above another, or must be below it; `why` says what would happen.

    Gives what to tell whoever starts the server, None if all is well. A setting of the other
    server counts where it is given in the same file or environment.
    """

    low: str
    high: str
    why: str
    below: bool = False

    def __call__(self, known: Known) -> str | None:
        """Checks the two."""
        low, high = known.find(self.low), known.find(self.high)
        if low is None or high is None:
            return None
        if low.value < high.value or (low.value == high.value and not self.below):
            return None
        if high.place:
            must = "be above" if self.below else "not be below"
            return f"{high.place} must {must} {_told(low)}: {self.why}"
        must = "be below" if self.below else "not be above"
        return f"{low.place} must {must} {_told(high)}: {self.why}"


def _told(setting: Setting) -> str:
    return f"{setting.name} ({setting.value:,}, {setting.place or 'the default'})"


def listens(known: Known) -> str | None:
    """Checks that `listen` is a host and a port."""
    listen = known.find("listen")
    found = listen and _LISTEN.fullmatch(listen.value)
    if found and int(found[1]) <= PORT_MAX:
        return None
    return (
        f"{known.place('listen')}: {listen and listen.value!r} is no HOST:PORT with a port from 0 "
        f"(any free one) to {PORT_MAX}: say for example 127.0.0.1:50051, or [::1]:50051"
    )


# What holds between a hub and its storage servers. Each checks it where it is started.
BETWEEN_SERVERS: Final[tuple[Check, ...]] = (
    AtMost(
        "storage.result_bytes_max",
        "hub.message_bytes_max",
        "the largest result would not fit the hub's answer",
    ),
    AtMost(
        "hub.message_bytes_max",
        "storage.message_bytes_max",
        "the largest call that the hub takes would not fit a message to the storage server",
    ),
    AtMost(
        "hub.frame_bytes_max",
        "storage.message_bytes_max",
        "the hub would send frames that the storage server refuses",
    ),
    AtMost(
        "hub.inbox_age_seconds_max",
        "storage.journal_age_seconds_max",
        "an operation could be delivered after its first outcome is forgotten, and be done twice",
        below=True,
    ),
    AtMost(
        "storage.write_seconds_max",
        "hub.delivery_attempt_seconds",
        "an attempt at delivery would end before the statement may",
        below=True,
    ),
    AtMost(
        "hub.transaction_seconds_max",
        "storage.transaction_seconds_max",
        "an open transaction would end before the hub says so",
    ),
    AtMost(
        "hub.transaction_idle_seconds_max",
        "storage.transaction_idle_seconds_max",
        "parts of an open transaction would end before it has been idle for as long as it may",
        below=True,
    ),
    AtMost(
        "storage.tail_heartbeat_seconds",
        "hub.tail_silence_seconds_max",
        "the hub would take a quiet database for a lost one",
        below=True,
    ),
)
