"""All comparisons in one run: `python -m benchmarks.compare`, which is `make bench`.

Writes tables, figures and plots into a folder. What is measured, and beside what, is in
`benchmarks/subjects/`, one file per subject; the systems are in `benchmarks/peers/`, one file each.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from benchmarks import plots, report
from benchmarks.harness import Outcome, Subject, compare
from benchmarks.subjects import event_delivery, floor, growth, single_rows, transactions
from benchmarks.subjects.scale import FULL, SMALL, Scale
from benchmarks.subjects.systems import running_systems

RESULTS = Path(__file__).parent / "results"


async def measure(subjects: list[Subject], scale: Scale) -> list[Outcome]:
    """Measures one subject after the other."""
    outcomes = []
    for subject in subjects:
        began = time.monotonic()
        outcomes.append(await compare(subject, scale.rounds))
        print(f"{subject.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return outcomes


async def beside_peers(scale: Scale) -> tuple[list[Outcome], list[str]]:
    """Everything that is measured while all systems run; gives also what could not run."""
    async with running_systems() as systems:
        targets = systems.targets
        async with floor.subjects(targets["hub"], targets["floor"], scale) as subjects:
            outcomes = await measure(subjects, scale)
        outcomes += await measure(await single_rows.subjects(systems, scale), scale)
        outcomes += await measure(transactions.subjects(systems, scale), scale)
        outcomes += await measure(await event_delivery.subjects(systems, scale), scale)
        return outcomes, systems.not_run


async def by_growth(scale: Scale) -> list[Outcome]:
    """The hub alone, with little and with much."""
    outcomes = []
    for part in growth.PARTS:
        async with part(scale) as subjects:
            outcomes += await measure(subjects, scale)
    return outcomes


async def run(scale: Scale, remark: str) -> report.Report:
    """Measures everything."""
    start = report.Report(scale.rounds, scale.seconds, [], [], remark)
    outcomes, not_run = await beside_peers(scale)
    outcomes += await by_growth(scale)
    return report.Report(scale.rounds, scale.seconds, outcomes, not_run, remark, start.load_before)


def main() -> None:
    """Reads the command line, measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    parser.add_argument("--rounds", type=int, default=0, help="how often each is measured")
    parser.add_argument("--small", action="store_true", help="only see that everything works")
    parser.add_argument("--remark", default="", help="what a reader must know about this run")
    given = parser.parse_args()
    scale = SMALL if given.small else FULL
    if given.rounds:
        scale = scale.with_rounds(given.rounds)
    done = asyncio.run(run(scale, given.remark))
    report.write(done, given.results)
    plots.write(done, given.results)
    print(report.markdown(done))


if __name__ == "__main__":
    main()
