"""Stands for a server in tests of the supervisor: does what the files beside its log say.

    python supervised_child.py NAME DIRECTORY [flags of a server]

Each start and each orderly stop is a line in DIRECTORY/log. `NAME.exit` holds the status to exit
with instead of serving; with `NAME.stubborn` SIGTERM is ignored. The pid of a
child stands for a port that was free.
"""

import json
import os
import signal
import sys
from pathlib import Path

from messagehub.serving.supervision import follow_supervisor, tell_supervisor

ANY_PORT = "127.0.0.1:0"


def main() -> None:
    name, directory, flags = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]

    def log(what: str) -> None:
        line = {"what": what, "name": name, "pid": os.getpid(), "flags": flags}
        with (directory / "log").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def stop(*_: object) -> None:
        log("stop")
        os._exit(0)

    stubborn = (directory / f"{name}.stubborn").exists()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else stop)
    follow_supervisor()
    log("start")
    exit_file = directory / f"{name}.exit"
    if exit_file.exists():
        sys.exit(int(exit_file.read_text()))
    listen = flags[flags.index("--listen") + 1] if "--listen" in flags else ANY_PORT
    tell_supervisor(f"127.0.0.1:{os.getpid()}" if listen == ANY_PORT else listen)
    while True:
        signal.pause()


main()
