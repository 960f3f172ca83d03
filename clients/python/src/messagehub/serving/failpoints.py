"""Places in a server where a fault test makes the process die or stall.

`MESSAGEHUB_FAILPOINTS` names them: `name=kill`, `name=kill@N` (at the N-th time, from 1) and
`name=sleep:SECONDS`, joined by commas. Without it `reached` does nothing.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

VARIABLE: Final = "MESSAGEHUB_FAILPOINTS"
KILL: Final = "kill"
SLEEP: Final = "sleep"


class _Failpoint(NamedTuple):
    """What happens at a place: `seconds` of sleep, or death at the `number`-th time."""

    seconds: float | None
    number: int | None


def from_environment(
    environment: Mapping[str, str],
    *,
    kill: Callable[[], None],
    sleep: Callable[[float], None],
) -> Callable[[str], None]:
    """Gives what is to be called with the name of a place that was reached.

    Raises `ValueError` for a text that says nothing: a test must not pass for lack of its fault.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return _nothing
    failpoints = dict(_parsed(one.strip()) for one in text.split(","))
    times: Counter[str] = Counter()

    def reached(name: str) -> None:
        failpoint = failpoints.get(name)
        if failpoint is None:
            return
        times[name] += 1
        if failpoint.seconds is not None:
            sleep(failpoint.seconds)
        elif failpoint.number in (None, times[name]):
            kill()

    return reached


def _nothing(name: str) -> None:
    """No failpoint is set."""


def _parsed(text: str) -> tuple[str, _Failpoint]:
    name, _, action = text.partition("=")
    verb, at, count = action.partition("@")
    if name and verb == KILL and (not at or (count.isascii() and count.isdigit() and int(count))):
        return name, _Failpoint(None, int(count) if at else None)
    verb, colon, seconds = action.partition(":")
    if name and verb == SLEEP and colon:
        return name, _Failpoint(float(seconds), None)
    raise ValueError(
        f"{VARIABLE}: {text!r} must be name={KILL}, name={KILL}@N or name={SLEEP}:SECONDS"
    )


def _kill() -> None:
    # SIGKILL, so that no handler, finally clause or flush softens the fault.
    os.kill(os.getpid(), signal.SIGKILL)


# A sleep blocks the whole process on purpose: it stalls, as if it were stopped.
reached: Final = from_environment(os.environ, kill=_kill, sleep=time.sleep)
