"""Standard output that is full or closed.

A reader that has enough, such as `head`, ends a command silently with status 1: click sees to
that. Everything else that keeps output from being written is an error of one line.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import click

# What only writing can fail with; and nothing but standard output is written to without a name.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def told() -> Iterator[None]:
    """Around whole commands: what the system refuses them raises `click.ClickException`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as failure:
        problem = failure.strerror or str(failure)
        if failure.filename is not None:
            raise click.ClickException(f"{failure.filename}: {problem}") from failure
        _discard_output()
        if failure.errno in _NO_ROOM:
            problem = f"standard output cannot be written: {problem}"
        raise click.ClickException(problem) from failure


def check_open() -> None:
    """Raises `click.ClickException` if there is no standard output."""
    if sys.stdout is None:
        raise click.ClickException(
            "standard output is closed: open it, or send it to /dev/null if nobody needs it"
        )


def _discard_output() -> None:
    """Forgets what waits to be written: else the interpreter tries again at its end, and fails."""
    with suppress(OSError, AttributeError):  # there is none, or it is none of the system's
        descriptor = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
