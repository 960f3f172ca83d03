"""Log lines of a server: one line per fact, JSON, with the correlation id of the call it is about.

The correlation id travels in a context variable, which the interceptor sets. Work that serves
many calls at once (a frame of operations) passes `extra={"correlation_id": ...}` instead.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

import grpc

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")

# Where gRPC's asyncio side logs what became of calls.
_GRPC: Final = "grpc._cython.cygrpc"
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record with its `extra` fields as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Gives the line; a trace of the stack goes to the log only, never to a caller."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := correlation_id.get():
            fields["correlation_id"] = current
        fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


class _GoneCallers(logging.Filter):
    """Makes one line of what gRPC logs, with a trace, of each caller that left unanswered."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Says whether the record is logged."""
        failure = record.exc_info and record.exc_info[1]
        if not isinstance(failure, grpc.aio.InternalError):
            return True
        record.msg, record.args = "the caller had gone before it was answered", ()
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return logging.getLogger(record.name).isEnabledFor(logging.INFO)


_GONE_CALLERS: Final = _GoneCallers()  # one for all: a logger takes the same filter once


def set_up(level: str) -> None:
    """Sends every log line of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger(_GRPC).addFilter(_GONE_CALLERS)
