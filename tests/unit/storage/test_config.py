"""The settings of the storage server: what nobody could serve with is refused at the start."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from messagehub.serving.configuration import ConfigurationError
from storage.commands import storage
from storage.config import CHECKS, StorageConfig, load


@pytest.fixture(autouse=True)
def clean_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "storage.toml"
    file.write_text(f"[storage]\n{text}\n")
    return file


def test_the_defaults_contradict_nothing() -> None:
    assert load() == StorageConfig()
    assert len(CHECKS) > 5


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("parameters_max = 32_767", "parameters_max"),
        ("value_bytes_max = 1_000_000_001", "value_bytes_max"),
        ("statement_bytes_max = 1_000_000_001", "statement_bytes_max"),
        ("database_bytes_max = 65_535", "database_bytes_max"),
        ("message_bytes_max = 2_000_000_000", "message_bytes_max"),
        ("concurrent_streams_max = 3_000_000_000", "concurrent_streams_max"),
        ("trim_rows_max = 9_223_372_036_854_775_808", "trim_rows_max"),
        ("write_seconds_max = inf", "write_seconds_max"),
        ("write_seconds_max = nan", "write_seconds_max"),
        ("journal_age_seconds_max = 1e300", "journal_age_seconds_max"),
        ("idle_close_seconds = -1", "idle_close_seconds"),
        ('listen = "127.0.0.1"', "listen"),
        ('listen = "127.0.0.1:70000"', "listen"),
        ('listen = "127.0.0.1:-1"', "listen"),
        ('listen = "127.0.0.1:x"', "listen"),
        ('listen = "one two:1"', "listen"),
        ("result_bytes_max = 70_000_000", "result_bytes_max"),
        ("message_bytes_max = 1_000", "message_bytes_max"),
        ("frame_bytes_max = 70_000_000", "frame_bytes_max"),
    ],
)
def test_what_cannot_be_served_with_is_refused_with_its_place(
    tmp_path: Path, text: str, key: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load(file=file)
    assert str(caught.value).startswith(f"{file}: [storage] {key}")


@pytest.mark.parametrize(
    "given",
    [
        {"parameters_max": 32_766},
        {"value_bytes_max": 1_000_000_000},
        {"statement_bytes_max": 1_000_000_000},
        {"database_bytes_max": 65_536},
        {"listen": "127.0.0.1:0"},
        {"listen": "storage.example.net:65535"},
        {"listen": "[::1]:50052"},
        {"listen": "[fe80::1%eth0]:50052"},
    ],
)
def test_what_is_just_possible_is_taken(tmp_path: Path, given: dict[str, Any]) -> None:
    ((key, value),) = given.items()
    text = f"{key} = {value!r}"
    assert getattr(load(file=written(tmp_path, text)), key) == value


def test_the_command_says_which_flag_and_does_not_start() -> None:
    refused = CliRunner().invoke(storage, ["--listen", "127.0.0.1:99999"])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("messagehub storage: flag --listen: '127.0.0.1:99999' is no")
    assert len(refused.stderr.splitlines()) == 1


def test_a_setting_of_the_hub_that_contradicts_is_found_here_too(tmp_path: Path) -> None:
    file = tmp_path / "both.toml"
    file.write_text("[hub]\nmessage_bytes_max = 100_000_000\npending_bytes_max = 100_000_000\n")
    with pytest.raises(ConfigurationError) as caught:
        load(file=file)
    assert str(caught.value).startswith(
        f"{file}: [hub] message_bytes_max must not be above [storage] message_bytes_max "
        "(67,108,864, the default): the largest call"
    )
