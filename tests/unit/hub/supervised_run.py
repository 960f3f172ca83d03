"""Runs the supervisor over stand-ins for the servers.

    python supervised_run.py DIRECTORY SETTINGS

SETTINGS is JSON, laid over the supervisor's settings.
"""

import asyncio
import json
import sys
from pathlib import Path

from hub.supervisor import ChildFailed, Programs, Settings, Supervisor

STATUS = 'import json; print(json.dumps({"ready": True, "routes": [{"database": "a_db"}]}))'


async def main() -> None:
    directory = sys.argv[1]
    child = (sys.executable, str(Path(__file__).with_name("supervised_child.py")))
    programs = Programs(
        storage=(*child, "storage", directory),
        hub=(*child, "hub", directory),
        status=(sys.executable, "-c", STATUS),
    )
    settings = {"restart_seconds_min": 0.01, **json.loads(sys.argv[2])}
    supervisor = Supervisor(
        Settings(programs=programs, **settings),
        show=lambda text: print(text, flush=True),
        chance=lambda: 1.0,
    )
    try:
        await supervisor.run()
    except ChildFailed as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.exit_status)


asyncio.run(main())
