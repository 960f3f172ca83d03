"""What was measured, as Markdown and JSON."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.harness import SHOWN, Outcome, Row


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run: where, how, and what came out."""

    rounds: int
    seconds: float
    outcomes: Sequence[Outcome]
    not_run: Sequence[str]
    remark: str = ""
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)

    @property
    def machine(self) -> str:
        """What it ran on."""
        return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def markdown(report: Report) -> str:
    """The tables, each with what the systems promise and what was hoped for."""
    before = ", ".join(f"{one:.1f}" for one in report.load_before)
    lines = [
        "# Results",
        "",
        (
            f"{report.machine}; {report.rounds} rounds in turn, windows of {report.seconds:g} s; "
            f"load averages of the machine before: {before}."
        ),
        *([report.remark] if report.remark else []),
        "A figure is the median of the rounds, with the least and the most; a ratio is the median",
        "of the ratios within a round. `generator` is the load generator's own share of all cores.",
    ]
    lines += [f"\nNot run: {reason}." for reason in report.not_run]
    for outcome in report.outcomes:
        lines += ["", *_table(outcome)]
    return "\n".join(lines) + "\n"


def _table(outcome: Outcome) -> list[str]:
    subject = outcome.subject
    shown = [name for name in SHOWN if any(name in row.rounds[0] for row in outcome.rows)]
    # A lone row has nothing to be a ratio of.
    compared = len(outcome.rows) > 1
    shares = any("load_share" in row.rounds[0] for row in outcome.rows)
    head = [
        "what",
        *(SHOWN[name][0] for name in shown),
        *([f"ratio of {SHOWN[subject.headline][0]}"] if compared else []),
        *(["generator"] if shares else []),
        "what it promises",
    ]
    lines = [f"## {subject.title}", "", _line(head), "|" + "---|" * len(head)]
    for row in outcome.rows:
        cells = [_cell(row, name) for name in shown]
        share = f"{row.median('load_share'):.0%}" if "load_share" in row.rounds[0] else ""
        lines.append(
            _line(
                [
                    row.contender.name,
                    *cells,
                    *([_ratio(row)] if compared else []),
                    *([share] if shares else []),
                    row.contender.promise,
                ]
            )
        )
    missed = [
        f"- {row.contender.name}: {row.ratio:.2f}, hoped for {hope}. {hope.reason}"
        for row in outcome.rows
        if (hope := row.missed) is not None
    ]
    if missed:
        lines += ["", "Slower than hoped:", "", *missed]
    if subject.notes:
        lines += ["", " ".join(subject.notes)]
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(row: Row, name: str) -> str:
    if name not in row.rounds[0]:
        return ""
    low, high = row.spread(name)
    return f"{_number(row.median(name))} {SHOWN[name][1]} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ratio(row: Row) -> str:
    hope = row.contender.hope
    if hope is None:
        return f"{row.ratio:.2f}"
    return f"{row.ratio:.2f} ({'' if hope.met(row.ratio) else '**not** '}{hope})"


def as_json(report: Report) -> str:
    """The same, with the figures of every round."""
    return (
        json.dumps(
            {
                "machine": report.machine,
                "rounds": report.rounds,
                "seconds": report.seconds,
                "load_before": report.load_before,
                "remark": report.remark,
                "not_run": report.not_run,
                "subjects": [_subject(outcome) for outcome in report.outcomes],
            },
            indent=1,
        )
        + "\n"
    )


def _subject(outcome: Outcome) -> dict[str, object]:
    subject = outcome.subject
    return {
        "name": subject.name,
        "title": subject.title,
        "headline": subject.headline,
        "notes": subject.notes,
        "contenders": [
            {
                "name": row.contender.name,
                "promise": row.contender.promise,
                "hope": asdict(row.contender.hope) if row.contender.hope else None,
                "ratio": row.ratio,
                "median": {name: row.median(name) for name in row.rounds[0]},
                "spread": {name: row.spread(name) for name in row.rounds[0]},
                "rounds": row.rounds,
            }
            for row in outcome.rows
        ],
    }


def write(report: Report, folder: Path) -> None:
    """Writes README.md and results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(markdown(report), "utf-8")
    (folder / "results.json").write_text(as_json(report), "utf-8")
