"""The configuration of a server: `messagehub.toml`, then `MESSAGEHUB_*`, then flags.

A server declares a frozen `msgspec.Struct` whose fields are its settings, each with a default and
its unit in the name. The table of its name in the file, `MESSAGEHUB_<SERVER>_<SETTING>` in the
environment and the flags of its command are laid over each other; a key that no server knows, or
a value that does not fit, is refused with the place where it stands.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from messagehub.serving.settings import Check, Known, Setting

FILE_NAME: Final = "messagehub.toml"
TABLES: Final = ("hub", "storage")
PREFIX: Final = "MESSAGEHUB_"
# Variables with the prefix that are no settings: of the command, the supervisor, fault tests.
NOT_SETTINGS: Final = (
    "MESSAGEHUB_TARGET",
    "MESSAGEHUB_SUPERVISOR_FD",
    "MESSAGEHUB_FAILPOINTS",
)

Settings = TypeVar("Settings", bound=msgspec.Struct)


class ConfigurationError(Exception):
    """A setting that cannot be used; the text names its place and what to do."""


def load(
    table: str,
    settings: type[Settings],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    checks: Sequence[Check] = (),
) -> Settings:
    """Gives the settings of one server, or raises `ConfigurationError`.

    Without `file`, `messagehub.toml` in the working directory is read if it is there. A flag that
    is None was not given. `checks` are about settings that fit one by one.
    """
    variables = os.environ if environment is None else environment
    given = _given(table, file, variables)
    given |= {
        key: (f"flag --{key.replace('_', '-')}", value)
        for key, value in (flags or {}).items()
        if value is not None
    }
    for key, (place, value) in given.items():
        _check(settings, key, place, value)
    merged = {key: value for key, (_, value) in given.items()}
    loaded = msgspec.convert(merged, settings, strict=False)
    places = {key: place for key, (place, _) in given.items()}
    others = {
        f"{other}.{key}": Setting(f"[{other}] {key}", number, place)
        for other in TABLES
        if other != table
        for key, (place, value) in _given(other, file, variables).items()
        if (number := _number(value)) is not None
    }
    known = Known(table, loaded, places, others)
    for check in checks:
        if problem := check(known):
            raise ConfigurationError(problem)
    return loaded


def _given(
    table: str, file: Path | None, environment: Mapping[str, str]
) -> dict[str, tuple[str, Any]]:
    """What the file says for a server, and over it the environment: value and place by key."""
    return _from_file(table, file) | _from_environment(table, environment)


def _number(value: Any) -> float | None:
    """A setting of the other server, which checks its kind by itself."""
    try:
        return msgspec.convert(value, int | float, strict=False)
    except msgspec.ValidationError:
        return None


def _check(settings: type[msgspec.Struct], key: str, place: str, value: Any) -> None:
    if key not in settings.__struct_fields__:
        close = difflib.get_close_matches(key, settings.__struct_fields__, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigurationError(f"{place}: there is no setting {key}{hint}")
    try:
        msgspec.convert({key: value}, settings, strict=False)
    except msgspec.ValidationError as failure:
        raise ConfigurationError(f"{place}: {failure}") from failure


def _from_file(table: str, file: Path | None) -> dict[str, tuple[str, Any]]:
    path = file or Path(FILE_NAME)
    if file is None and not path.exists():
        return {}
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as failure:
        raise ConfigurationError(f"{path}: cannot be read: {failure.strerror}") from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise ConfigurationError(f"{path}: is not valid TOML: {failure}") from failure
    for name, part in content.items():
        if name not in TABLES:
            raise ConfigurationError(
                f"{path}: there is no table [{name}]; the tables are "
                + ", ".join(f"[{known}]" for known in TABLES)
            )
        if not isinstance(part, dict):
            raise ConfigurationError(f"{path}: {name} must be a table: [{name}]")
    return {
        key: (f"{path}: [{table}] {key}", value) for key, value in content.get(table, {}).items()
    }


def _from_environment(table: str, environment: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    prefix = f"{PREFIX}{table.upper()}_"
    found: dict[str, tuple[str, Any]] = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        if not any(name.startswith(f"{PREFIX}{known.upper()}_") for known in TABLES):
            raise ConfigurationError(
                f"environment variable {name}: settings begin with "
                + " or ".join(f"{PREFIX}{known.upper()}_" for known in TABLES)
            )
        if name.startswith(prefix):
            place = f"environment variable {name}"
            found[name.removeprefix(prefix).lower()] = (place, _structured(place, text))
    return found


def _structured(place: str, text: str) -> Any:
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as failure:
        raise ConfigurationError(f"{place}: is not valid JSON: {failure}") from failure
