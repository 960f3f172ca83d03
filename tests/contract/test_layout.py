"""The walls of the house: where a service lives, what is public."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import messagehub

REPOSITORY = Path(__file__).resolve().parents[2]

PUBLIC = {
    "messagehub": {"Hub", "HubError", "Result", "__version__"},
}


def names(folder: str, pattern: str) -> set[str]:
    return {path.stem for path in (REPOSITORY / folder).glob(pattern)}


def test_every_service_lives_in_the_file_named_as_its_contract() -> None:
    contracts = names("protos/messagehub/v1", "*_service.proto")
    assert names("hub/api", "*_service.py") == contracts


def test_every_private_service_lives_in_the_file_named_as_its_contract() -> None:
    assert names("storage/api", "*_service.py") == names(
        "protos/messagehub/storage/v1", "*_service.proto"
    )


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_is_a_literal_list(module: str) -> None:
    public = importlib.import_module(module)
    assert set(public.__all__) == PUBLIC[module]
    for name in public.__all__:
        assert getattr(public, name) is not None


def test_the_generated_stubs_need_neither_our_client_nor_its_extras() -> None:
    program = (
        "import sys\n"
        "import messagehub.v1.storage_service_pb2_grpc, messagehub.v1.event_service_pb2_grpc\n"
        "print([name for name in ('messagehub.client', 'messagehub.cli', 'messagehub.serving',"
        " 'messagehub.storage', 'click', 'rich', 'msgspec') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = messagehub.nothing
