"""The bank's checker finds what it is there to find."""

import pytest

from tests.support.bank import (
    ACCOUNTS,
    BALANCE,
    Account,
    Books,
    Tables,
    Told,
    Transfer,
    problems,
    problems_of_cut,
)

A, B = "a_db", "b_db"


def transfer(name: str, told: Told) -> Transfer:
    return Transfer(name, Account(A, 1), Account(B, 2), 30, told)


@pytest.fixture
def books() -> Books:
    sent = [transfer("done", Told.DONE), transfer("refused", Told.REFUSED)]
    return Books((A, B), {one.request_id: one for one in sent})


@pytest.fixture
def tables() -> Tables:
    balances = {Account(d, n): BALANCE for d in (A, B) for n in range(ACCOUNTS)}
    balances |= {Account(A, 1): BALANCE - 30, Account(B, 2): BALANCE + 30}
    return Tables(balances, [(A, "done", -30), (B, "done", 30)])


def test_books_that_agree(books: Books, tables: Tables) -> None:
    assert problems(books, tables) == []


def test_a_transfer_within_a_database(books: Books, tables: Tables) -> None:
    books.transfers["inner"] = Transfer("inner", Account(A, 3), Account(A, 4), 5, Told.DONE)
    tables.balances |= {Account(A, 3): BALANCE - 5, Account(A, 4): BALANCE + 5}
    tables.records += [(A, "inner", -5), (A, "inner", 5)]
    assert problems(books, tables) == []


def test_an_acknowledged_transfer_that_is_lost(books: Books, tables: Tables) -> None:
    books.transfers["lost"] = transfer("lost", Told.DONE)
    assert any("committed, but {}" in one for one in problems(books, tables))


@pytest.mark.parametrize("half", [0, 1])
def test_half_a_transfer(books: Books, tables: Tables, half: int) -> None:
    del tables.records[half]
    assert len(problems(books, tables)) == 1


def test_a_transfer_done_twice(books: Books, tables: Tables) -> None:
    tables.records *= 2
    assert len(problems(books, tables)) == 1


def test_a_refused_transfer_that_is_there(books: Books, tables: Tables) -> None:
    tables.records += transfer("refused", Told.REFUSED).records
    assert any("not committed, but" in one for one in problems(books, tables))


def test_a_transfer_that_nobody_sent(books: Books, tables: Tables) -> None:
    tables.records.append((A, "ghost", 1))
    assert problems(books, tables) == ["nobody sent ('a_db', 'ghost', 1)"]


def test_a_balance_that_its_transfers_do_not_explain(books: Books, tables: Tables) -> None:
    tables.balances[Account(B, 7)] += 1
    assert len(problems(books, tables)) == 1


def test_a_transfer_that_is_not_settled(books: Books, tables: Tables) -> None:
    books.transfers["open"] = transfer("open", Told.NOTHING)
    assert problems(books, tables) == ["open is not settled"]


def test_a_cut_with_all_money() -> None:
    books = Books((A, B))
    assert problems_of_cut(books, {A: 400, B: books.total - 400}, {A: 3, B: 5}) == []


def test_a_cut_through_a_transfer() -> None:
    books = Books((A, B))
    [sums] = problems_of_cut(books, {A: 400, B: books.total - 401}, {A: 3, B: 5})
    assert "400" in sums
    [half] = problems_of_cut(books, {A: 400, B: books.total - 400}, {A: 3, B: 4})
    assert "half" in half
