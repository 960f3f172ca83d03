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
        ('[hub]\nlisten = "localhost"', r"\[hub\] listen.*HOST:PORT"),
        ('[hub]\nlisten = "localhost:65536"', r"\[hub\] listen.*from 0 .* to 65535"),
        ('[hub]\nlisten = "localhost:"', r"\[hub\] listen"),
        ('[hub]\nlisten = ":50051"', r"\[hub\] listen"),
        ('[hub]\nlisten = "::1:50051"', r"\[hub\] listen.*\[::1\]:50051"),
        ('[hub]\nlisten = "unix:/run/hub"', r"\[hub\] listen"),
        ("[hub]\ndrain_seconds = inf", r"\[hub\] drain_seconds"),
        ("[hub]\ndrain_seconds = nan", r"\[hub\] drain_seconds"),
        ("[hub]\nunready_seconds = inf", r"\[hub\] unready_seconds"),
        ("[hub]\nkeepalive_seconds = inf", r"\[hub\] keepalive_seconds"),
        ("[hub]\nretry_budget_max = nan", r"\[hub\] retry_budget_max"),
        ("[hub]\nmessage_bytes_max = 4_000_000_000", r"\[hub\] message_bytes_max"),
        ("[hub]\nconcurrent_streams_max = 4_000_000_000", r"\[hub\] concurrent_streams_max"),
        ("[hub]\nadopt_chunk_bytes_max = 2_000_000", r"\[hub\] adopt_chunk_bytes_max"),
        ('[hub]\nstorage = ""', r"\[hub\] storage"),
        ("[hub.services]", r"\[hub\] services"),
        ('[hub.services]\nShop = "shop_db"', r"\[hub\] services"),
        ('[hub.services]\nshop = "Shop"', r"\[hub\] services"),
        ('[hub.services]\nshop = "9db"', r"\[hub\] services"),
        (f'[hub.services]\nshop = "{"d" * 64}"', r"\[hub\] services"),
        ('[hub.services]\nshop = "shop_db\\n"', r"\[hub\] services"),
        ('[hub.grants.auth]\nauth_db = "own"', r"\[hub\] grants"),
        ('[hub.grants.auth]\nauth_db = "read"', r"grants\.auth: auth_db = .read. has no effect"),
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


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[hub]\nmessage_bytes_max = 1_000_000_000",
            "[hub] message_bytes_max must not be above pending_bytes_max (67,108,864, the default)",
        ),
        (
            """[hub]
            event_message_bytes_max = 2_000
            message_bytes_max = 1_000
            transaction_bytes_max = 500""",
            "[hub] message_bytes_max must not be below event_message_bytes_max (2,000, ",
        ),
        (
            "[storage]\nresult_bytes_max = 40_000_000",
            "[storage] result_bytes_max must not be above [hub] message_bytes_max (16,777",
        ),
        (
            "[storage]\nresult_bytes_max = 40_000_000\n[hub]\nmessage_bytes_max = 30_000_000",
            "[hub] message_bytes_max must not be below [storage] result_bytes_max (40,0",
        ),
        (
            "[storage]\nmessage_bytes_max = 10_000_000",
            "[storage] message_bytes_max must not be below [hub] message_bytes_max (16,77",
        ),
        (
            "[storage]\njournal_age_seconds_max = 3600",
            "[storage] journal_age_seconds_max must be above [hub] inbox_age_seconds_max (25",
        ),
        (
            "[hub]\ndelivery_attempt_seconds = 2\n[storage]\nwrite_seconds_max = 2",
            "[hub] delivery_attempt_seconds must be above [storage] write_seconds_max (2, ",
        ),
        (
            "[storage]\ntail_heartbeat_seconds = 20.0",
            "[storage] tail_heartbeat_seconds must be below [hub] tail_silence_seconds_max (1",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_both_places(tmp_path, text, problem):
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load(file=file)
    assert str(caught.value).startswith(f"{file}: {problem.format(file=file)}")


def test_contradictions_are_told_where_they_were_given(tmp_path, monkeypatch):
    file = written(tmp_path, "[hub]\npending_bytes_max = 5")
    monkeypatch.setenv("MESSAGEHUB_HUB_PENDING_BYTES_MAX", "6")
    with pytest.raises(
        ConfigurationError, match=r"^environment variable .*_PENDING_BYTES_MAX must"
    ):
        load(file=file)
    monkeypatch.delenv("MESSAGEHUB_HUB_PENDING_BYTES_MAX")
    monkeypatch.setenv("MESSAGEHUB_STORAGE_JOURNAL_AGE_SECONDS_MAX", "60")
    with pytest.raises(
        ConfigurationError, match=r"^environment variable .*_AGE_SECONDS_MAX must be"
    ):
        load(file=written(tmp_path, ""))
    with pytest.raises(ConfigurationError, match=r"^flag --listen: 'localhost' is no HOST:PORT"):
        load(file=written(tmp_path, ""), flags={"listen": "localhost"})


def test_settings_of_the_other_server_that_are_no_numbers_are_its_own_business(tmp_path):
    text = '[storage]\njournal_age_seconds_max = "long"\nnonsense = 1\nlisten = "nowhere"\n'
    assert load(file=written(tmp_path, text)) == HubConfig()


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
