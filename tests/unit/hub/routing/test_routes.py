"""Routes: who reaches which database, and how a refusal reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.routing.routes import Route, Routes
from messagehub.errors import AccessDenied, InvalidRequest, InvalidRoute

SERVICES = {"character": "character_db", "auth": "auth_db", "metrics": "metrics_db"}
GRANTS = {"metrics": {"character_db": "read", "auth_db": "write"}}


def test_an_empty_database_is_the_services_own():
    routes = Routes(SERVICES)
    assert routes.resolve("auth", "") == Route("auth_db", read_only=False)


def test_without_grants_everybody_reaches_everything():
    routes = Routes(SERVICES)
    assert routes.open_access
    assert routes.resolve("auth", "metrics_db") == Route("metrics_db", read_only=False)
    assert routes.readable("auth") == ("auth_db", "character_db", "metrics_db")


def test_with_grants_nothing_is_open_that_is_not_written():
    routes = Routes(SERVICES, GRANTS)
    assert not routes.open_access
    with pytest.raises(AccessDenied) as caught:
        routes.resolve("auth", "metrics_db")
    assert caught.value.metadata == {"service": "auth", "database": "metrics_db"}
    assert routes.readable("auth") == ("auth_db",)


def test_a_grant_says_read_or_write():
    routes = Routes(SERVICES, GRANTS)
    assert routes.resolve("metrics", "character_db").read_only
    assert not routes.resolve("metrics", "auth_db").read_only
    assert routes.readable("metrics") == ("auth_db", "character_db", "metrics_db")


def test_ones_own_database_is_writable_whatever_the_grants_say():
    routes = Routes(SERVICES, {"auth": {"auth_db": "read"}})
    assert not routes.resolve("auth", "auth_db").read_only
    assert not routes.resolve("auth", "").read_only


def test_writable_refuses_a_grant_to_read():
    routes = Routes(SERVICES, GRANTS)
    assert routes.resolve_writable("metrics", "auth_db").database == "auth_db"
    with pytest.raises(AccessDenied, match="must say write"):
        routes.resolve_writable("metrics", "character_db")


def test_a_missing_service_is_named_as_the_field():
    with pytest.raises(InvalidRequest) as caught:
        Routes(SERVICES).resolve("", "auth_db")
    assert list(caught.value.fields) == ["source_service"]
    assert "auth, character, metrics" in caught.value.message


@pytest.mark.parametrize(
    ("service", "database", "field", "configured"),
    [
        ("ghost", "", "source_service", "auth, character, metrics"),
        ("ghost", "auth_db", "source_service", "auth, character, metrics"),
        ("auth", "ghost_db", "database", "auth_db, character_db, metrics_db"),
        ("auth", "*", "database", "auth_db, character_db, metrics_db"),
    ],
)
def test_an_unknown_name_is_refused_with_the_configured_ones(service, database, field, configured):
    with pytest.raises(InvalidRoute) as caught:
        Routes(SERVICES, GRANTS).resolve(service, database)
    assert list(caught.value.fields) == [field]
    assert configured in caught.value.message
    assert (service if field == "source_service" else database) in caught.value.message


def test_readable_refuses_an_unknown_service():
    with pytest.raises(InvalidRoute):
        Routes(SERVICES).readable("ghost")


NAMES = st.sampled_from(["a", "b", "c", "d", ""])


@given(
    services=st.dictionaries(st.sampled_from("abc"), st.sampled_from("abc"), min_size=1),
    grants=st.none()
    | st.dictionaries(
        st.sampled_from("abc"),
        st.dictionaries(st.sampled_from("abc"), st.sampled_from(["read", "write"])),
    ),
    service=NAMES,
    database=NAMES,
)
def test_a_route_is_given_exactly_where_the_configuration_says_so(
    services, grants, service, database
):
    grants = grants and {
        name: {d: a for d, a in access.items() if d in services.values()}
        for name, access in grants.items()
    }
    routes = Routes(services, grants)
    wanted = None
    if service in services:
        name = database or services[service]
        granted = None if grants is None else grants.get(service, {}).get(name)
        if name == services[service] or (grants is None and name in services.values()):
            granted = "write"
        if granted:
            wanted = Route(name, read_only=granted == "read")
    if wanted is None:
        with pytest.raises((InvalidRequest, InvalidRoute, AccessDenied)):
            routes.resolve(service, database)
    else:
        assert routes.resolve(service, database) == wanted
        assert wanted.database in routes.readable(service)
