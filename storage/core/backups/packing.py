"""The one door to zstandard: files into compressed ones and back, with the digests of both."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

import zstandard

from storage.core.backups.progress import Progress

CHUNK_BYTES: Final = 1024 * 1024
# The default of the command `zstd`: smaller levels save little time, larger ones little room.
LEVEL: Final = 3


class Packed(NamedTuple):
    """Sizes in bytes, and sha256 in hexadecimal, of a file and of what it was compressed to."""

    size_bytes: int
    checksum: str
    compressed_bytes: int
    compressed_checksum: str


class Damaged(Exception):
    """What is read is not what was written; the text says how."""


class _Digested:
    """A file that is written through a digest."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size_bytes += len(data)
        return self._inner.write(data)


def pack(source: Path, target: BinaryIO, progress: Progress) -> Packed:
    """Compresses a file; each byte of it counts as work."""
    digest, size = hashlib.sha256(), 0
    written = _Digested(target)
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    with (
        source.open("rb") as file,
        compressor.stream_writer(cast("BinaryIO", written), closefd=False) as writer,
    ):
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            writer.write(chunk)
            progress.add(len(chunk))
    return Packed(size, digest.hexdigest(), written.size_bytes, written.digest.hexdigest())


def unpack(source: BinaryIO, expected: Packed) -> Iterator[bytes]:
    """Gives the file in pieces; raises `Damaged` at the end if it is not what was packed."""
    digest, size = hashlib.sha256(), 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(source, closefd=False) as reader:
            while chunk := reader.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                if size > expected.size_bytes:
                    break
                yield chunk
    except zstandard.ZstdError as failure:
        raise Damaged(f"cannot be decompressed ({failure})") from failure
    if (size, digest.hexdigest()) != (expected.size_bytes, expected.checksum):
        raise Damaged(
            f"{size} of {expected.size_bytes} bytes come out of it, or not those that went in"
        )


def check(source: BinaryIO, expected: Packed, progress: Progress) -> None:
    """Raises `Damaged` unless the compressed file is, bit for bit, the one that was written."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        progress.check()
    if size != expected.compressed_bytes:
        raise Damaged(f"has {size} bytes, {expected.compressed_bytes} were written")
    if digest.hexdigest() != expected.compressed_checksum:
        raise Damaged("has other bytes than those that were written")
