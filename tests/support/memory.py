"""What the system says about the memory of a process; Linux only."""

from pathlib import Path
from typing import Final

import pytest

KIBIBYTE: Final = 1024

needs_proc: Final = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc"
)


def resident_bytes(pid: int) -> int:
    """The memory of the process that is in RAM now."""
    return _field(pid, "VmRSS")


def peak_resident_bytes(pid: int) -> int:
    """The most memory of the process that was ever in RAM."""
    return _field(pid, "VmHWM")


def _field(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * KIBIBYTE
    raise AssertionError(f"process {pid} is gone, or has no {name}")
