"""The answer to a batch: every operation has its place in it, and all of it fits one message."""

from collections.abc import Sequence
from typing import Final

from hub.core.ports import Outcome
from hub.core.routing.router import Settled
from messagehub.errors import HubError, Recording, ResultTooLarge
from messagehub.status import to_status
from messagehub.v1 import storage_service_pb2 as messages

# What the message takes for each result besides the result's own bytes: a tag and a length.
RESULT_BYTES: Final = 6


def batch_response(
    correlation_id: str, settled: Sequence[Settled], message_bytes_max: int
) -> messages.ExecuteBatchResponse:
    """Gives the results in order; those that do not fit any more are errors instead.

    Room is kept for what has to be told of every operation, an error at least, so the answer is
    never larger than `message_bytes_max`, as long as that holds the errors alone.
    """
    response = messages.ExecuteBatchResponse(correlation_id=correlation_id)
    refusals = [_refusal(one, message_bytes_max) for one in settled]
    kept = sum(_size(refusal) for refusal in refusals)
    bytes_left = message_bytes_max - response.ByteSize() - kept
    for one, refusal in zip(settled, refusals, strict=True):
        result = refusal if isinstance(one.outcome, HubError) else _result(one)
        more = _size(result) - _size(refusal)
        if more > bytes_left:
            result, more = refusal, 0
        bytes_left -= more
        response.results.append(result)
    return response


def _size(result: messages.BatchResult) -> int:
    return result.ByteSize() + RESULT_BYTES


def _result(settled: Settled) -> messages.BatchResult:
    database, outcome = settled
    if isinstance(outcome, HubError):
        refused = messages.BatchResult(database=database, error=to_status(outcome))
        _place(refused, outcome.recording)
        return refused
    result = messages.BatchResult(database=database)
    _place(result, outcome)
    result.result.CopyFrom(outcome.result)
    return result


def _refusal(settled: Settled, limit: int) -> messages.BatchResult:
    """What is told of an operation at least: its own error, or that its result does not fit."""
    database, outcome = settled
    if isinstance(outcome, HubError):
        return _result(settled)
    too_much = ResultTooLarge(
        f"the operation succeeded, but the results of the batch are over {limit} bytes: send it "
        "again alone, with the same request_id",
        metadata={"limit_bytes": str(limit)},
    )
    refused = messages.BatchResult(database=database, error=to_status(too_much))
    _place(refused, outcome)
    return refused


def _place(result: messages.BatchResult, recorded: Outcome | Recording | None) -> None:
    """Says where an outcome stands in the journal, if it does."""
    if recorded is not None:
        result.sequence = recorded.sequence
        result.schema_version = recorded.schema_version
        result.replayed = recorded.replayed
