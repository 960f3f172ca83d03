"""Version numbers that must agree, agree."""

import re
import tomllib
from pathlib import Path
from typing import Any

import messagehub

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENT = REPOSITORY / "clients/python"
GENERATED = ("src/messagehub/v1", "src/messagehub/storage/v1")


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]


def floors() -> dict[str, str]:
    """Distribution to the oldest version that the client allows."""
    found = {}
    for requirement in project(CLIENT)["dependencies"]:
        name, floor = re.fullmatch(r"([a-z-]+)>=([0-9.]+)(?:,<\d+)?", requirement).groups()
        found[name] = floor
    return found


def stamped(pattern: str, files: str) -> set[str]:
    """The versions that the generator wrote into the stubs."""
    texts = [path.read_text("utf-8") for part in GENERATED for path in (CLIENT / part).glob(files)]
    assert texts
    return {re.search(pattern, text, re.MULTILINE).group(1) for text in texts}


def test_the_clients_floors_are_the_versions_that_generated_the_stubs() -> None:
    assert stamped(r"^# Protobuf Python Version: (.+)$", "*_pb2.py") == {floors()["protobuf"]}
    assert stamped(r"^GRPC_GENERATED_VERSION = '(.+)'$", "*_pb2_grpc.py") == {floors()["grpcio"]}
    assert floors()["grpcio-status"] == floors()["grpcio"]


def test_the_generator_is_the_one_that_stamped_the_stubs() -> None:
    pinned = (REPOSITORY / "protos/generator.in").read_text("utf-8")
    assert f"grpcio-tools=={floors()['grpcio']}" in pinned.splitlines()


def test_server_and_client_have_one_version() -> None:
    assert messagehub.__version__ == project(CLIENT)["version"]
    assert messagehub.__version__ == project(REPOSITORY)["version"]
    assert (
        f"messagehub-client[cli,serving]=={messagehub.__version__}"
        in (project(REPOSITORY)["dependencies"])
    )


def test_the_client_is_light() -> None:
    assert set(floors()) == {"grpcio", "grpcio-status", "protobuf"}
