"""Plots of a run: throughput and percentiles against callers, cost against size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Outcome, Row
from benchmarks.report import Report

# The prefix of the subjects, the file, what is said above it.
BY_CALLERS: Final = (
    ("inserts,", "inserts.png", "Durable single-row inserts"),
    ("reads,", "reads.png", "Reads by key"),
)
BY_SIZE: Final = (
    ("growth, databases", "databases.png", "open databases"),
    ("growth, journal", "journal.png", "rows of the journal"),
)
DOTS_PER_INCH: Final = 110


def write(report: Report, folder: Path) -> None:
    """Draws every plot into the folder."""
    for prefix, name, title in BY_CALLERS:
        rows = _rows(report.outcomes, prefix)
        _draw(
            folder / name,
            rows,
            title,
            "concurrent callers",
            (("per_second", "a second"), ("p50_ms", "p50, ms"), ("p99_ms", "p99, ms")),
        )
    for prefix, name, axis in BY_SIZE:
        rows = _rows(report.outcomes, prefix)
        _draw(
            folder / name,
            rows,
            "Cost of a durable insert",
            axis,
            (("p50_ms", "p50, ms"), ("p99_ms", "p99, ms"), ("processor_us", "processor time, µs")),
        )


def _rows(outcomes: Sequence[Outcome], prefix: str) -> list[Row]:
    return [
        row
        for outcome in outcomes
        if outcome.subject.name.startswith(prefix)
        for row in outcome.rows
        if row.contender.curve
    ]


def _draw(
    file: Path, rows: Sequence[Row], title: str, axis: str, figures: Sequence[tuple[str, str]]
) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - only `make bench` installs it

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415 - after its backend is chosen

    curves: dict[str, list[Row]] = {}
    for row in rows:
        curves.setdefault(row.contender.curve, []).append(row)
    picture, panels = pyplot.subplots(1, len(figures), figsize=(5 * len(figures), 4.2))
    for panel, (figure, label) in zip(panels, figures, strict=True):
        for name, points in curves.items():
            _curve(panel, name, points, figure)
        panel.set_xscale("log")
        panel.set_xticks(sorted({row.contender.x for row in rows}))
        panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        panel.minorticks_off()
        panel.set_xlabel(axis)
        panel.set_title(label)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    if len(curves) > 1:
        panels[0].legend(fontsize="small")
    picture.suptitle(f"{title}: medians, bars from the least to the most of the rounds")
    picture.tight_layout()
    picture.savefig(file, dpi=DOTS_PER_INCH)
    pyplot.close(picture)


def _curve(panel: Any, name: str, rows: Sequence[Row], figure: str) -> None:
    ordered = sorted(rows, key=lambda row: row.contender.x)
    middle = [row.median(figure) for row in ordered]
    spreads = [row.spread(figure) for row in ordered]
    below = [m - low for m, (low, _) in zip(middle, spreads, strict=True)]
    above = [high - m for m, (_, high) in zip(middle, spreads, strict=True)]
    panel.errorbar(
        [row.contender.x for row in ordered],
        middle,
        yerr=[below, above],
        marker="o",
        capsize=3,
        label=name,
    )
