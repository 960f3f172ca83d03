"""The cursor: whatever goes in comes out, and nothing else is taken for a cursor."""

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.events import cursor
from hub.core.events.journal import Position
from messagehub.errors import InvalidCursor

EPOCH = "0123456789abcdef0123456789abcdef"
FIVE = {
    f"{service}_db": Position(EPOCH, 9_999_999)
    for service in ("character", "campaign", "auth", "metrics", "catalog")
}

names = st.text(min_size=1, max_size=70).filter(lambda text: text.isprintable())
epochs = st.one_of(st.uuids().map(lambda uuid: uuid.hex), st.uuids().map(str), st.text(max_size=40))
positions = st.dictionaries(
    names, st.builds(Position, epochs, st.integers(0, 2**63 - 1)), max_size=8
)


@given(positions)
def test_what_goes_in_comes_out(given_positions):
    assert cursor.decode(cursor.encode(given_positions)) == given_positions


@given(positions)
def test_it_is_safe_in_urls_files_and_shells(given_positions):
    text = cursor.encode(given_positions)
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()


def test_the_order_of_the_databases_does_not_matter():
    assert cursor.encode(FIVE) == cursor.encode(dict(reversed(FIVE.items())))


@given(positions, st.data())
def test_any_change_is_noticed(given_positions, data):
    text = cursor.encode(given_positions)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABCabc019-_=. é").filter(lambda c: c != text[at]))
    with pytest.raises(InvalidCursor):
        cursor.decode(text[:at] + other + text[at + 1 :])


@given(positions, st.data())
def test_a_cursor_that_was_cut_is_noticed(given_positions, data):
    text = cursor.encode(given_positions)
    with pytest.raises(InvalidCursor):
        cursor.decode(text[: data.draw(st.integers(0, len(text) - 1))])


@given(st.text(max_size=200))
def test_other_text_is_refused_and_says_what_to_do(text):
    with pytest.raises(InvalidCursor) as refusal:
        cursor.decode(text)
    assert "earliest or latest" in refusal.value.message
    assert "cursor" in refusal.value.fields


def sealed(content: bytes) -> str:
    raw = content + zlib.crc32(content).to_bytes(4, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@given(st.binary(max_size=200))
def test_nonsense_with_a_good_checksum_is_refused_or_is_a_cursor(content):
    text = sealed(bytes((cursor.VERSION,)) + content)
    try:
        given_positions = cursor.decode(text)
    except InvalidCursor:
        return
    assert cursor.encode(given_positions) == text


def test_an_endless_number_is_refused_quickly():
    with pytest.raises(InvalidCursor):
        cursor.decode(sealed(bytes((cursor.VERSION,)) + b"\xff" * 100_000))


def test_another_format_is_named():
    with pytest.raises(InvalidCursor, match="format 2, this hub reads format 1"):
        cursor.decode(sealed(b"\x02abc"))


def test_a_database_that_is_named_twice_is_refused():
    one = cursor.encode({"a": Position("", 1)})
    content = base64.urlsafe_b64decode(one + "==")[:-4]
    with pytest.raises(InvalidCursor):
        cursor.decode(sealed(content + content[1:]))


def test_a_longer_one_than_any_is_refused_unread():
    with pytest.raises(InvalidCursor, match="more than any cursor"):
        cursor.decode("A" * (cursor.CHARACTERS_MAX + 1))


def test_resume_gives_the_positions():
    assert cursor.resume(cursor.encode(FIVE), list(FIVE), may_grow=False) == FIVE


def test_resume_refuses_a_cursor_with_other_databases():
    with pytest.raises(InvalidCursor, match="also reads metrics_db"):
        cursor.resume(cursor.encode(FIVE), [n for n in FIVE if n != "metrics_db"], may_grow=True)


def test_resume_refuses_a_cursor_with_fewer_databases():
    with pytest.raises(InvalidCursor, match="no position in extra_db"):
        cursor.resume(cursor.encode(FIVE), [*FIVE, "extra_db"], may_grow=False)


def test_resume_of_all_databases_may_know_fewer():
    assert cursor.resume(cursor.encode(FIVE), [*FIVE, "extra_db"], may_grow=True) == FIVE
