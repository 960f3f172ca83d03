"""Settings come from the file, the environment and the flags; a wrong one names its place."""

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct, field

from messagehub.serving.configuration import ConfigurationError, load


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:1"
    rows_max: Annotated[int, Meta(ge=1)] = 10
    wait_seconds: Annotated[float, Meta(gt=0)] = 0.5
    strict: bool = False
    services: dict[str, str] = field(default_factory=dict)


def loaded(
    *,
    file: Path | None = None,
    environment: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
) -> Settings:
    return load("hub", Settings, file=file, environment=environment or {}, flags=flags)


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "settings.toml"
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(place: str, what: str, **layers: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(**layers)
    assert str(caught.value).startswith(place)
    assert re.search(what, str(caught.value)), str(caught.value)


def test_without_anything_the_defaults_hold() -> None:
    assert loaded() == Settings()


def test_flags_win_over_the_environment_which_wins_over_the_file(written: Any) -> None:
    path = written("[hub]\nlisten = 'file'\nrows_max = 1\nwait_seconds = 1.5\n")
    settings = loaded(
        file=path,
        environment={"MESSAGEHUB_HUB_LISTEN": "environment", "MESSAGEHUB_HUB_ROWS_MAX": "2"},
        flags={"listen": "flag", "rows_max": None},
    )
    assert (settings.listen, settings.rows_max, settings.wait_seconds) == ("flag", 2, 1.5)


def test_the_file_in_the_working_directory_is_read_unless_another_is_named(
    tmp_path: Path, written: Any
) -> None:
    (tmp_path / "messagehub.toml").write_text("[hub]\nlisten = 'found'\n", "utf-8")
    assert loaded().listen == "found"
    assert loaded(file=written("[hub]\nrows_max = 3\n")).listen == Settings().listen


def test_the_environment_gives_numbers_truths_and_structures() -> None:
    settings = loaded(
        environment={
            "MESSAGEHUB_HUB_ROWS_MAX": "7",
            "MESSAGEHUB_HUB_WAIT_SECONDS": "0.25",
            "MESSAGEHUB_HUB_STRICT": "true",
            "MESSAGEHUB_HUB_SERVICES": '{"character": "character_db"}',
        }
    )
    assert settings == Settings(
        rows_max=7, wait_seconds=0.25, strict=True, services={"character": "character_db"}
    )


def test_the_tables_and_variables_of_the_other_server_are_left_alone(written: Any) -> None:
    path = written("[storage]\nanything = 1\n[hub]\nrows_max = 4\n")
    settings = loaded(file=path, environment={"MESSAGEHUB_STORAGE_ANYTHING": "1", "PATH": "x"})
    assert settings == Settings(rows_max=4)


def test_variables_of_the_client_and_of_the_supervisor_are_no_settings() -> None:
    names = ("MESSAGEHUB_TARGET", "MESSAGEHUB_SUPERVISOR_FD")
    assert loaded(environment=dict.fromkeys(names, "7")) == Settings()


def test_an_unknown_key_of_the_file_is_refused_with_a_hint(written: Any) -> None:
    path = written("[hub]\nrow_max = 4\n")
    refused(f"{path}: [hub] row_max", "did you mean rows_max", file=path)


def test_an_unknown_table_is_refused(written: Any) -> None:
    path = written("[hubs]\n")
    refused(str(path), r"no table \[hubs\].*\[hub\], \[storage\]", file=path)


def test_a_key_outside_of_a_table_is_refused(written: Any) -> None:
    path = written("hub = 1\n")
    refused(str(path), r"\[hub\]", file=path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("rows_max = 0", ">= 1"),
        ("rows_max = 'many'", "int"),
        ("wait_seconds = 0.0", "> 0"),
        ("listen = 5", "str"),
        ("services = {character = 1}", "str"),
    ],
)
def test_a_value_of_the_file_that_does_not_fit_is_refused(
    written: Any, text: str, what: str
) -> None:
    path = written(f"[hub]\n{text}\n")
    refused(f"{path}: [hub] {text.split(maxsplit=1)[0]}", what, file=path)


def test_a_file_that_is_named_but_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.toml"
    refused(str(path), "cannot be read", file=path)


@pytest.mark.parametrize("content", [b"[hub\n", b"[hub]\nlisten = '\xff'\n"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    refused(str(path), "not valid TOML", file=path)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("MESSAGEHUB_HUB_ROWS_MAXX", "1", "did you mean rows_max"),
        ("MESSAGEHUB_HUB_ROWS_MAX", "many", "int"),
        ("MESSAGEHUB_HUB_SERVICES", "{nonsense", "not valid JSON"),
        ("MESSAGEHUB_ROWS_MAX", "1", "MESSAGEHUB_HUB_ or MESSAGEHUB_STORAGE_"),
    ],
)
def test_a_wrong_variable_is_refused(name: str, text: str, what: str) -> None:
    refused(f"environment variable {name}", what, environment={name: text})


def test_a_wrong_flag_is_refused_by_the_name_that_the_user_typed() -> None:
    refused("flag --rows-max", ">= 1", flags={"rows_max": 0})
