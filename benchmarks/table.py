"""Rows of figures as a Markdown table."""

import os
import platform
from collections.abc import Sequence
from statistics import median, quantiles

MEBIBYTE = 1024 * 1024


def p(samples: Sequence[float], percent: int) -> float:
    """The percentile of samples, of which there must be at least two."""
    return median(samples) if percent == 50 else quantiles(samples, n=100)[percent - 1]


def milliseconds(seconds: float) -> str:
    """A duration with three digits that matter."""
    return f"{seconds * 1000:.3g} ms"


def show(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; the first row is its head."""
    print(f"\n## {title}\n")
    head, *body = rows
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in body:
        print("| " + " | ".join(row) + " |")
    print(f"\n{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
