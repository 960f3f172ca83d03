"""The answer to one statement."""

from hub.core.routing.router import Executed
from messagehub.v1.storage_service_pb2 import ExecuteResponse


def execute_response(correlation_id: str, executed: Executed) -> ExecuteResponse:
    """Says what a statement gave, and where."""
    database, outcome = executed
    response = ExecuteResponse(
        correlation_id=correlation_id,
        database=database,
        sequence=outcome.sequence,
        schema_version=outcome.schema_version,
        replayed=outcome.replayed,
    )
    response.result.CopyFrom(outcome.result)
    return response
