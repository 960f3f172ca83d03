"""A log line is one JSON object with the correlation id of the call that it is about."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from messagehub.serving import logs


@pytest.fixture(autouse=True)
def no_call() -> Iterator[None]:
    token = logs.correlation_id.set("")
    yield
    logs.correlation_id.reset(token)


def line(message: str = "it happened", *arguments: object, **extra: Any) -> dict[str, Any]:
    record = logging.getLogger("somebody").makeRecord(
        "somebody", logging.INFO, __file__, 1, message, arguments, None, extra=extra or None
    )
    text = logs.JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_says_when_how_bad_who_and_what() -> None:
    fields = line("took %d rows", 3)
    assert (fields["level"], fields["logger"], fields["message"]) == (
        "info",
        "somebody",
        "took 3 rows",
    )
    assert fields["time"].endswith("+00:00")


def test_outside_of_a_call_there_is_no_correlation_id() -> None:
    assert "correlation_id" not in line()


async def test_calls_that_run_at_once_keep_their_own_correlation_ids() -> None:
    both_set = asyncio.Barrier(2)

    async def call(name: str) -> dict[str, Any]:
        logs.correlation_id.set(name)
        await both_set.wait()
        return line()

    one, other = await asyncio.gather(
        asyncio.create_task(call("one")), asyncio.create_task(call("other"))
    )
    assert (one["correlation_id"], other["correlation_id"]) == ("one", "other")


def test_a_line_for_one_of_many_calls_names_its_own() -> None:
    logs.correlation_id.set("of the stream")
    assert line(correlation_id="of the operation")["correlation_id"] == "of the operation"


def test_extra_fields_are_fields_whatever_they_are() -> None:
    fields = line(method="/a/B", count=2, odd=object, text="naïve\n✓")
    assert (fields["method"], fields["count"], fields["text"]) == ("/a/B", 2, "naïve\n✓")
    assert isinstance(fields["odd"], str)


def test_a_trace_goes_into_the_line() -> None:
    try:
        {}["nowhere"]
    except KeyError as failure:
        caught = failure
    record = logging.getLogger("somebody").makeRecord(
        "somebody",
        logging.ERROR,
        __file__,
        1,
        "failed",
        (),
        (type(caught), caught, caught.__traceback__),
    )
    fields = json.loads(logs.JsonFormatter().format(record))
    assert "KeyError: 'nowhere'" in fields["exception"]


def test_every_line_of_the_process_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    # pytest's own handlers would be closed by `force`.
    root.handlers = []
    try:
        logs.set_up("warning")
        logging.getLogger("somebody").info("not told")
        logging.getLogger("somebody").warning("told")
    finally:
        root.handlers = before
        root.setLevel(level)
    captured = capsys.readouterr()
    assert captured.out == ""
    (only,) = captured.err.splitlines()
    assert json.loads(only)["message"] == "told"


class _FailedBatch(grpc.aio.InternalError):
    """As gRPC's own, whose name is private."""


@pytest.mark.parametrize(("level", "count"), [("info", 1), ("warning", 0)])
def test_a_caller_that_left_unanswered_is_one_line_without_a_trace(
    capsys: pytest.CaptureFixture[str], level: str, count: int
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.set_up(level)
        log = logging.getLogger("grpc._cython.cygrpc")
        for failure in (_FailedBatch("nobody there"), ValueError("a defect")):
            log.error("raised by servicer method", exc_info=failure)
    finally:
        root.handlers[:], level_before = before
        root.setLevel(level_before)
    *gone, defect = map(json.loads, capsys.readouterr().err.splitlines())
    assert [(one["message"], one["level"]) for one in gone] == [
        ("the caller had gone before it was answered", "info")
    ] * count
    assert all("exception" not in one for one in gone)
    assert "a defect" in defect["exception"], "what is no gone caller keeps its trace"
