"""The cursor of a subscription: one position for each of its databases, as an opaque text.

base64url without padding of: a version byte; for each database, sorted by name, its name, its
epoch and its sequence; CRC-32 of all that. The checksum finds what was cut or mistyped; whether a
position is of this data, the journal itself says by its epoch. Lengths and sequences are
variable-length integers as in protobuf, and an epoch that is hexadecimal is packed to half its
length, so that the cursors of a few databases fit into an error detail.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from hub.core.events.journal import Position
from messagehub.errors import InvalidCursor

VERSION: Final = 1
CHECKSUM_BYTES: Final = 4
CHARACTERS_MAX: Final = 256 * 1024
KEPT_MAX: Final = 64
INTEGER_BITS_MAX: Final = 63

_REMEDY: Final = (
    "pass a cursor exactly as a SubscribeResponse carried it, or leave it out and begin at "
    "earliest or latest"
)


def encode(positions: Mapping[str, Position]) -> str:
    """Gives the cursor that stands at these positions."""
    return _encode(tuple(sorted(positions.items())))


# Subscribers that keep up stand at the same positions.
@lru_cache(KEPT_MAX)
def _encode(positions: tuple[tuple[str, Position], ...]) -> str:
    out = bytearray((VERSION,))
    for database, (epoch, sequence) in positions:
        name = database.encode()
        _put_integer(out, len(name))
        out += name
        _put_epoch(out, epoch)
        _put_integer(out, sequence)
    out += zlib.crc32(out).to_bytes(CHECKSUM_BYTES, "big")
    return base64.urlsafe_b64encode(out).rstrip(b"=").decode()


def decode(cursor: str) -> dict[str, Position]:
    """Gives the positions of a cursor; raises `InvalidCursor` if it is not one."""
    if not cursor:
        raise _invalid("is empty")
    if len(cursor) > CHARACTERS_MAX:
        raise _invalid(f"has {len(cursor)} characters, more than any cursor")
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as failure:
        raise _invalid("is not base64url") from failure
    content, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
    if not content or zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "big") != checksum:
        raise _invalid("is damaged: its checksum does not fit")
    if content[0] != VERSION:
        raise _invalid(f"has format {content[0]}, this hub reads format {VERSION}")
    try:
        positions = _positions(content)
    except (IndexError, ValueError) as failure:
        raise _invalid("is damaged: it ends too early or has impossible content") from failure
    if encode(positions) != cursor:
        raise _invalid("is not in its one possible form")
    return positions


def resume(cursor: str, databases: Sequence[str], *, may_grow: bool) -> dict[str, Position]:
    """Gives the positions of a cursor for a subscription to these databases.

    Raises `InvalidCursor` unless it names exactly these; with `may_grow` it may know fewer.
    """
    positions = decode(cursor)
    if strange := positions.keys() - set(databases):
        raise InvalidCursor(
            f"the cursor belongs to a subscription that also reads {', '.join(sorted(strange))}: "
            "pass it with the databases that it came from",
            fields={"cursor": f"is for {', '.join(sorted(positions))}"},
        )
    missing = set(databases) - positions.keys()
    if missing and not may_grow:
        raise InvalidCursor(
            f"the cursor has no position in {', '.join(sorted(missing))}: pass it with the "
            "databases that it came from, and read others through a subscription of their own",
            fields={"cursor": f"is for {', '.join(sorted(positions)) or 'no database'}"},
        )
    return positions


def _positions(content: bytes) -> dict[str, Position]:
    positions: dict[str, Position] = {}
    at = 1
    while at < len(content):
        size, at = _integer(content, at)
        name, at = _bytes(content, at, size)
        epoch, at = _epoch(content, at)
        sequence, at = _integer(content, at)
        positions[name.decode()] = Position(epoch, sequence)
    return positions


def _invalid(what: str) -> InvalidCursor:
    return InvalidCursor(f"cursor {what}: {_REMEDY}", fields={"cursor": what})


def _put_integer(out: bytearray, value: int) -> None:
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte, the eighth says that more follow
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _integer(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, INTEGER_BITS_MAX, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - as in `_put_integer`
            return value, at
    raise ValueError


def _bytes(content: bytes, at: int, size: int) -> tuple[bytes, int]:
    if at + size > len(content):
        raise IndexError
    return content[at : at + size], at + size


def _put_epoch(out: bytearray, epoch: str) -> None:
    try:
        packed = bytes.fromhex(epoch)
    except ValueError:
        packed = b""
    hexadecimal = packed.hex() == epoch
    if not hexadecimal:
        packed = epoch.encode()
    _put_integer(out, len(packed) << 1 | hexadecimal)
    out += packed


def _epoch(content: bytes, at: int) -> tuple[str, int]:
    header, at = _integer(content, at)
    packed, at = _bytes(content, at, header >> 1)
    return (packed.hex() if header & 1 else packed.decode()), at
