"""What an event may be called: `<subject>.<what happened>`, and which names are the hub's own."""

import re
from typing import Final

from messagehub.errors import InvalidRequest

CHARACTERS_MAX: Final = 128
RESERVED_PREFIXES: Final = ("storage.", "schema.", "transaction.")
# What a service asks of the hub by publishing it: an operation to submit, schemas to update.
OPERATION_REQUEST: Final = "storage.operation_request"
SCHEMA_REQUEST: Final = "storage.schema_request"
BACKUP_REQUEST: Final = "storage.backup_request"

_type = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
_pattern = re.compile(r"[a-z0-9_.*]+")


def check_published(event_type: str) -> None:
    """Raises unless a service may publish events of this type."""
    what = ""
    if not event_type:
        what = "is required, such as character.levelled_up"
    elif len(event_type) > CHARACTERS_MAX:
        what = f"has {len(event_type)} characters, the limit is {CHARACTERS_MAX}"
    elif not _type.fullmatch(event_type):
        what = (
            "must be words of a-z, 0-9 and _ joined by dots, at least two, beginning with a "
            "letter, such as character.levelled_up"
        )
    elif event_type.startswith(RESERVED_PREFIXES):
        what = f"must not begin with {', '.join(RESERVED_PREFIXES)}: those are the hub's own"
    if what:
        raise InvalidRequest(f"event.type {what}", fields={"event.type": what})


def check_pattern(pattern: str, field: str) -> None:
    """Raises `InvalidRequest` for a pattern that no type can match."""
    what = ""
    if len(pattern) > CHARACTERS_MAX:
        what = f"has {len(pattern)} characters, the limit is {CHARACTERS_MAX}"
    elif not _pattern.fullmatch(pattern):
        what = "must be made of a-z, 0-9, _ and dots, with * for any run of characters"
    if what:
        raise InvalidRequest(f"{field} {what}", fields={field: what})
