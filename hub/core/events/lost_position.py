"""What a subscriber is told whose position is lost: why, and where it can begin instead."""

from collections.abc import Mapping

from hub.core.events import cursor
from hub.core.events.journal import Position
from messagehub.errors import CursorExpired, HubError


def lost_position(
    failure: HubError, database: str, positions: Mapping[str, Position], message: str = ""
) -> HubError:
    """Gives the same error with the oldest cursor that the subscription can begin at.

    `positions` are those of all its databases; the journal of `database` refused its own.
    """
    metadata = {"database": database}
    epoch = failure.metadata.get("epoch")
    oldest = failure.metadata.get("oldest_sequence", "")
    if epoch is not None and oldest.isdecimal():
        instead = {**positions, database: Position(epoch, int(oldest))}
        metadata["oldest_cursor"] = cursor.encode(instead)
    what = (
        "the events right after the cursor are not kept any more"
        if isinstance(failure, CursorExpired)
        else "it was restored or replaced, or the cursor is not from this hub's data"
    )
    return type(failure)(
        message
        or f"{database} cannot go on from the cursor: {what}. Subscribe again with the cursor in "
        "the metadata oldest_cursor, or from earliest or latest",
        metadata=metadata,
    )
