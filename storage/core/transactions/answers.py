"""What the operations of an open part gave, so that none that is sent again is run twice.

The newest are kept whole, up to a number of bytes; of older ones only that they were done.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from messagehub.errors import HubError, RequestIdReused, ResultTooLarge, Retry
from messagehub.storage.v1.participant_service_pb2 import ParticipantOperation, ParticipantResult

DIGEST_BYTES: Final = 16
# What a failure is counted as; its details are bounded.
FAILURE_BYTES: Final = 4096


class Answers:
    """The answers of one part, by request id; at most `bytes_max` of them."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._digests: dict[str, bytes] = {}
        self._kept: dict[str, ParticipantResult | HubError] = {}

    def find(self, operation: ParticipantOperation) -> ParticipantResult | None:
        """Gives what an operation gave before; None if it was not run.

        Raises the error that it gave, `RequestIdReused` if it was another operation, and
        `ResultTooLarge` if its answer is not kept any more.
        """
        digest = self._digests.get(operation.request_id)
        if digest is None:
            return None
        if digest != _digest(operation):
            raise RequestIdReused(
                f"request_id {operation.request_id} was used before in this transaction for "
                "another operation: use a new id for new content",
                fields={"request_id": "was used before with other content"},
            )
        known = self._kept.get(operation.request_id)
        if known is None:
            raise ResultTooLarge(
                f"the operation {operation.request_id} was run in this transaction, but its answer "
                "is not kept any more (part_answers_bytes_max): read again what it left"
            )
        if isinstance(known, HubError):
            raise known
        return known

    def keep(
        self, operations: Sequence[ParticipantOperation], results: Sequence[ParticipantResult]
    ) -> None:
        """Keeps what operations gave."""
        for operation, result in zip(operations, results, strict=False):
            self._keep(operation, result, result.ByteSize())

    def keep_failure(self, operation: ParticipantOperation, failure: HubError) -> None:
        """Keeps why an operation failed, unless it may be sent again: it left nothing."""
        if failure.retry in (Retry.SAME_CALL, Retry.SLOWER):
            return
        self._keep(operation, failure, FAILURE_BYTES)

    def _keep(
        self, operation: ParticipantOperation, answer: ParticipantResult | HubError, size: int
    ) -> None:
        name = operation.request_id
        if not name:
            return
        self._digests[name] = _digest(operation)
        if size > self._bytes_max:
            return
        self._kept[name] = answer
        self._bytes += size
        while self._bytes > self._bytes_max:
            dropped = self._kept.pop(next(iter(self._kept)))
            self._bytes -= FAILURE_BYTES if isinstance(dropped, HubError) else dropped.ByteSize()


def _digest(operation: ParticipantOperation) -> bytes:
    content = operation.SerializeToString(deterministic=True)
    return blake2b(content, digest_size=DIGEST_BYTES).digest()
