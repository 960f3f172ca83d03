from pathlib import Path

import msgspec
import pytest

from hub.supervisor import Child, describe, reachable, screen
from messagehub.serving.configuration import ConfigurationError, load
from messagehub.serving.supervision import DESCRIPTOR_VARIABLE


def child(name: str, address: str) -> Child:
    made = Child(name, (), {})
    made.address = address
    return made


def test_the_screen_says_what_runs_where(tmp_path: Path) -> None:
    text = screen(
        child("hub", "127.0.0.1:50051"),
        child("storage", "127.0.0.1:50052"),
        str(tmp_path),
        {"ready": True, "routes": [{"database": "catalog_db"}, {"database": "b_db"}]},
    )
    assert "is up" in text
    assert "127.0.0.1:50052" in text
    assert str(tmp_path) in text
    assert "catalog_db, b_db" in text
    assert "messagehub sql catalog_db" in text
    assert "--target" not in text


def test_the_screen_names_the_target_that_is_not_the_default() -> None:
    text = screen(child("hub", "0.0.0.0:7"), child("storage", "x:8"), None, {"ready": True})
    assert text.count("--target 127.0.0.1:7") == 3


def test_the_screen_does_not_call_ready_what_is_not() -> None:
    text = screen(child("hub", "a:1"), child("storage", "b:2"), None, {})
    assert "NOT READY" in text
    assert "is up" not in text


@pytest.mark.parametrize(
    ("address", "target"),
    [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:2", "127.0.0.1:2"), ("hub.local:3", "hub.local:3")],
)
def test_an_address_to_connect_to(address: str, target: str) -> None:
    assert reachable(address) == target


def test_how_a_process_ended() -> None:
    assert describe(3) == "exit status 3"
    assert describe(-9) == "signal SIGKILL"


class Nothing(msgspec.Struct):
    pass


def test_the_variables_of_client_and_supervisor_are_no_settings() -> None:
    variables = {"MESSAGEHUB_TARGET": "a:1", DESCRIPTOR_VARIABLE: "7"}
    assert load("hub", Nothing, environment=variables) == Nothing()
    with pytest.raises(ConfigurationError, match="MESSAGEHUB_TARGETS"):
        load("hub", Nothing, environment={"MESSAGEHUB_TARGETS": "a:1"})
