"""Versions and ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagehub.errors import InvalidRequest, SchemaMismatch
from messagehub.schema.ranges import check_version, parse_range
from messagehub.schema.versions import NOTHING, SemanticVersion

# semver.org §11, and what the contract promises.
RISING = [
    "0.0.0", "0.0.1-0", "0.0.1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta",
    "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.9.0", "1.10.0", "2.0.0",
    "20240101120000.0.0",
]  # fmt: skip


def test_versions_are_ordered_by_their_numbers() -> None:
    versions = [SemanticVersion.parse(text) for text in RISING]
    assert versions == sorted(versions)
    assert [str(version) for version in versions] == RISING
    assert versions[0] == NOTHING


def test_a_build_counts_for_nothing() -> None:
    one, other = SemanticVersion.parse("1.0.0+a"), SemanticVersion.parse("1.0.0+b")
    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == "1.0.0+a"
    assert one != "1.0.0"


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "01.2.3", "1.2.3.4", "v1.2.3", "1.2.3-", "1.2.3-01", "1.2.x", "\uff11.2.3"],
)
def test_what_is_no_version_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        SemanticVersion.parse(text, "updates[0].version")
    assert "updates[0].version" in refusal.value.fields


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.2 <2", "1.2.0 1.10.5 1.99.0", "1.1.9 2.0.0 2.0.0-rc.1 1.2.0-rc.1"),
        (">=1.2.0,<2.0.0", "1.2.0 2.0.0-rc.1", "2.0.0"),
        ("1.2", "1.2.0 1.2.9", "1.3.0 1.3.0-rc.1 1.1.0"),
        ("1.2.x", "1.2.0 1.2.9", "1.3.0"),
        ("1.2.3", "1.2.3 1.2.3+b", "1.2.4 1.2.3-rc"),
        ("=1.2.3", "1.2.3", "1.2.4"),
        ("!=1.2", "1.1.0 1.3.0", "1.2.5"),
        (">1.2", "1.3.0 2.0.0", "1.2.9"),
        (">1.2.0", "1.2.1", "1.2.0"),
        ("<=1.2", "1.2.9 1.0.0", "1.3.0"),
        ("<=1.2.0", "1.2.0", "1.2.1"),
        ("^1.2", "1.2.0 1.9.0", "2.0.0 1.1.0 2.0.0-rc.1"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        ("1.2 || >=3", "1.2.4 3.0.0", "1.3.0 2.9.0"),
        ("*", "0.0.1 9.9.9", ""),
        (">= 1.2", "1.2.0", "1.1.0"),
    ],
)
def test_ranges(text: str, inside: str, outside: str) -> None:
    wanted = parse_range(text)
    assert all(wanted.holds(version) for version in inside.split())
    assert not any(wanted.holds(version) for version in outside.split())
    assert not wanted.holds("")


@pytest.mark.parametrize(
    "text",
    [" ", "||", "1.2 ||", ">", ">=1.2 no", "1.x.3", "1.2-rc", "<*", ">=1.2<2", "1" * 300],
)
def test_what_is_no_range_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_range(text)
    assert "schema_version" in refusal.value.fields


def test_a_mismatch_names_what_is_wanted_and_what_is_there() -> None:
    check_version("", "", "catalog_db")
    check_version(">=1", "1.0.0", "catalog_db")
    with pytest.raises(SchemaMismatch) as refusal:
        check_version(">=2", "1.0.0", "catalog_db")
    told = {"database": "catalog_db", "wanted": ">=2", "actual": "1.0.0"}
    assert refusal.value.metadata == told


numbers = st.integers(0, 30)
versions = st.builds(SemanticVersion, numbers, numbers, numbers)


@given(versions, versions)
def test_bounds_agree_with_the_order(bound: SemanticVersion, version: SemanticVersion) -> None:
    text = str(version)
    assert parse_range(f">={bound}").holds(text) == (version >= bound)
    assert parse_range(f"<{bound}").holds(text) == (version < bound)
    assert parse_range(f"{bound}").holds(text) == (version == bound)
    assert parse_range(f"^{bound}").holds(text) <= (version >= bound)
