"""The ratios to the floor, in a minute: what `make bench-smoke` runs."""

import asyncio

from benchmarks import report
from benchmarks.harness import compare
from benchmarks.subjects.floor import scene
from benchmarks.subjects.scale import Scale

SMOKE = Scale(rounds=3, seconds=1.0)


async def main() -> None:
    """Measures and prints tables."""
    before = report.Report(SMOKE.rounds, SMOKE.seconds, [], [])
    async with scene(SMOKE) as subjects:
        outcomes = [await compare(subject, SMOKE.rounds) for subject in subjects]
    print(
        report.markdown(
            report.Report(SMOKE.rounds, SMOKE.seconds, outcomes, [], "", before.load_before)
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
