"""The README's drill does what it says: the data are lost, and come back."""

import re
import shlex
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, run_command, running_processes

LOSS = "rm -r .messagehub"


def drill() -> list[str]:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "backup create" in block)
    return [line for line in block.splitlines() if not line.startswith("#")]


@pytest.mark.timeout(240)
async def test_the_drill(tmp_path: Path) -> None:
    printed: dict[str, str] = {}
    async with running_processes(tmp_path) as processes:
        up = processes.up()
        await up.ready("storage.character_db")
        for line in drill():
            if line == LOSS:
                assert await up.stop() == 0
                shutil.rmtree(processes.data_dir)
                up.start()
                await up.ready("storage.character_db")
                continue
            words = shlex.split(line)[1:]
            if "--to" in words:
                words[-1] = str(tmp_path / words[-1])
            status, output, errors = await run_command(*words, "--target", up.address)
            assert status == 0, (line, output, errors)
            printed[line] = output
    assert LOSS in drill()
    assert "VERIFIED" in printed["messagehub backup create"]
    assert "VERIFIED" in printed["messagehub backup list"]
    assert "locket" in printed['messagehub sql character_db "SELECT name FROM keepsakes"']
    raw = sqlite3.connect(tmp_path / "looked-into" / "character_db.db")
    assert raw.execute("SELECT name FROM keepsakes").fetchall() == [("locket",)]
    raw.close()
