"""The hub's settings: defaults, places of wrong values, checks of settings against each other."""

import pytest

from hub.config import HubConfig, load
from messagehub.serving.configuration import ConfigurationError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def written(tmp_path, text):
    file = tmp_path / "hub.toml"
    file.write_text(text)
    return file


def test_the_default_serves_the_five_services_of_the_mission_to_everybody():
    config = load()
    assert config.listen == "127.0.0.1:50051"
    assert config.storage == "127.0.0.1:50052"
    assert config.services == {
        "character": "character_db",
        "campaign": "campaign_db",
        "auth": "auth_db",
        "metrics": "metrics_db",
        "catalog": "catalog_db",
    }
    assert config.grants is None


def test_file_then_environment_then_flags(tmp_path, monkeypatch):
    file = written(tmp_path, '[hub]\nlisten = "a:1"\nstorage = "a:2"\nlog_level = "error"\n')
    monkeypatch.setenv("MESSAGEHUB_HUB_STORAGE", "b:2")
    monkeypatch.setenv("MESSAGEHUB_HUB_LOG_LEVEL", "warning")
    config = load(file=file, flags={"log_level": "debug", "listen": None})
    assert (config.listen, config.storage, config.log_level) == ("a:1", "b:2", "debug")


def test_services_and_grants_come_from_the_file(tmp_path):
    text = """
    [hub.services]
    shop = "shop_db"
    reports = "reports_db"
    [hub.grants.reports]
    shop_db = "read"
    """
    config = load(file=written(tmp_path, text))
    assert config.services == {"shop": "shop_db", "reports": "reports_db"}
    assert config.grants == {"reports": {"shop_db": "read"}}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[hub]\nlisten_on = "x"', r"\[hub\] listen_on.*did you mean listen\?"),
        ("[hub]\nmessage_bytes_max = 0", r"\[hub\] message_bytes_max"),
        ("[hub]\ndrain_seconds = 0", r"\[hub\] drain_seconds"),
        ("[hub]\nkeepalive_seconds = 5", r"\[hub\] keepalive_seconds"),
        ('[hub]\nlog_level = "loud"', r"\[hub\] log_level"),
        ('[hub]\nlisten = ""', r"\[hub\] listen"),
        ('[hub]\nlisten = "localhost"', r"\[hub\] listen"),
        ('[hub]\nstorage = ""', r"\[hub\] storage"),
        ("[hub.services]", r"\[hub\] services"),
        ('[hub.services]\nShop = "shop_db"', r"\[hub\] services"),
        ('[hub.services]\nshop = "Shop"', r"\[hub\] services"),
        ('[hub.services]\nshop = "9db"', r"\[hub\] services"),
        (f'[hub.services]\nshop = "{"d" * 64}"', r"\[hub\] services"),
        ('[hub.services]\nshop = "shop_db\\n"', r"\[hub\] services"),
        ('[hub.grants.auth]\nauth_db = "own"', r"\[hub\] grants"),
        ('[hub.grants.ghost]\nauth_db = "read"', r"grants: there is no service ghost.*auth"),
        ('[hub.grants.auth]\nghost_db = "read"', r"grants\.auth: there is no database ghost_db"),
        ("[hub]\nstorage = []", r"\[hub\] storage"),
        ('[hub]\nstorage = ["a:1", ""]', r"\[hub\] storage"),
        ("[hub.databases.auth_db]", r"\[hub\] databases"),
        ('[hub.databases.auth_db]\nstorages = "a:1"', r"\[hub\] databases"),
        ('[hub.databases.ghost_db]\nstorage = "a:1"', "databases: there is no database ghost_db"),
        ("[hub]\nunready_seconds = -1", r"\[hub\] unready_seconds"),
        ("[hub]\npending_bytes_max = 5", "pending_bytes_max must not be below message_bytes_max"),
        ("[hub]\ninbox_bytes_max = 5", "inbox_bytes_max must not be below message_bytes_max"),
        (
            "[hub]\ndelivery_retry_seconds_max = 0.01",
            "delivery_retry_seconds_max must not be below",
        ),
        ("[hub]\nreconnect_seconds_max = 0.01", "reconnect_seconds_max must not be below"),
        ("[hub]\ncircuit_window_calls = 5", "circuit_window_calls must not be below"),
        ("[hub]\ncircuit_failure_rate_max = 1.5", r"\[hub\] circuit_failure_rate_max"),
        ("[hub]\ncircuit_open_seconds_max = 0.5", "circuit_open_seconds_max must not be below"),
        ("[hub]\nretry_seconds_max = 0.01", "retry_seconds_max must not be below"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(tmp_path, text, place):
    with pytest.raises(ConfigurationError, match=place):
        load(file=written(tmp_path, text))


def test_a_database_has_the_storage_servers_of_the_hub_or_its_own(tmp_path):
    text = """
    [hub]
    storage = ["a:1", "b:2", "a:1"]
    [hub.databases.auth_db]
    storage = "c:3"
    [hub.databases.metrics_db]
    storage = ["d:4", "e:5"]
    """
    config = load(file=written(tmp_path, text))
    assert config.servers_of("character_db") == ("a:1", "b:2")
    assert config.servers_of("auth_db") == ("c:3",)
    assert config.servers_of("metrics_db") == ("d:4", "e:5")
    assert HubConfig().servers_of("character_db") == ("127.0.0.1:50052",)


def test_storage_servers_from_the_environment(monkeypatch):
    monkeypatch.setenv("MESSAGEHUB_HUB_STORAGE", '["a:1", "b:2"]')
    assert load().servers_of("auth_db") == ("a:1", "b:2")


def test_grants_are_checked_against_the_services_of_the_same_file(tmp_path):
    text = '[hub.services]\nshop = "shop_db"\n[hub.grants.shop]\nshop_db = "write"\n'
    assert load(file=written(tmp_path, text)).grants == {"shop": {"shop_db": "write"}}


def test_every_setting_has_a_default():
    assert HubConfig() == HubConfig()
    assert HubConfig().services is not HubConfig().services
