"""Finds what no serializable database may do, in a history of appends to lists and reads of them.

After Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations"
(VLDB 2020): every value is appended once, so a list that was read tells in which order its
transactions wrote, and with that which transaction depends on which. The names of the anomalies are
those of Adya, "Weak Consistency" (1999).

    ww   it appended right after the other     G0        a cycle of ww
    wr   it read what the other appended       G1c       a cycle of ww and wr
    rw   it did not see what the other         G-single  a cycle with one rw
         appended right after what it read     G2        a cycle with more of them
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

from tests.support.cycles import Graph
from tests.support.histories import Append, History, Key, Outcome

WW, WR, RW = "ww", "wr", "rw"


def anomalies(history: History) -> list[str]:
    """Says everything that is wrong with a history; what did not end well is none of it."""
    return list(_Checker(history).found())


class _Checker:
    """One history and what follows from it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._writers = {
            append.value: transaction
            for transaction in history.transactions
            for append in transaction.appends()
        }
        self._keys = {
            append.value: append.key
            for transaction in history.transactions
            for append in transaction.appends()
        }
        # What a read of an unknown transaction said was said, but it may not have been committed.
        self._read = [
            (transaction, read)
            for transaction in history.transactions
            if transaction.outcome is Outcome.COMMITTED
            for read in transaction.reads()
        ]
        self._orders = self._longest()

    def found(self) -> Iterator[str]:
        yield from self._wrong_values()
        yield from self._lost()
        yield from self._intermediate()
        yield from self._within()
        yield from self._fractured()
        diverging = list(self._diverging())
        yield from diverging
        if not diverging:
            yield from self._cycles()

    def _lists(self) -> Iterator[tuple[str, Key, tuple[int, ...]]]:
        for transaction, read in self._read:
            yield transaction.name, read.key, read.values or ()
        for key, values in self._history.final.items():
            yield "the end", key, values

    def _longest(self) -> dict[Key, tuple[int, ...]]:
        orders: dict[Key, tuple[int, ...]] = {}
        for _, key, values in self._lists():
            orders[key] = max(orders.get(key, ()), values, key=len)
        return orders

    def _wrong_values(self) -> Iterator[str]:
        for name, key, values in self._lists():
            for value, times in Counter(values).items():
                writer = self._writers.get(value)
                if times > 1:
                    yield f"duplicate: {name} read {value} {times} times in {key}"
                if writer is None or self._keys[value] != key:
                    yield f"garbage: {name} read {value} in {key}, where nobody appended it"
                elif writer.outcome is Outcome.ABORTED:
                    yield f"G1a: {name} read {value} in {key} of {writer.name}, which was aborted"

    def _lost(self) -> Iterator[str]:
        for transaction in self._history.transactions:
            if transaction.outcome is Outcome.COMMITTED:
                for append in transaction.appends():
                    if append.value not in self._history.final.get(append.key, ()):
                        yield f"lost: {append} of {transaction.name} is not there at the end"

    def _intermediate(self) -> Iterator[str]:
        for transaction, read in self._read:
            values = read.values or ()
            writer = self._writers.get(values[-1]) if values else None
            if writer is None or writer is transaction:
                continue
            mine = [append.value for append in writer.appends() if append.key == read.key]
            if mine and values[-1] != mine[-1]:
                yield f"G1b: {transaction.name} read {read.key} between appends of {writer.name}"

    def _within(self) -> Iterator[str]:
        """A transaction must see what it did itself, and the same again."""
        for transaction in self._history.transactions:
            if transaction.outcome is not Outcome.COMMITTED:
                continue
            known: dict[Key, tuple[int, ...]] = {}
            mine: dict[Key, tuple[int, ...]] = {}
            for each in transaction.operations:
                own = mine.get(each.key, ())
                if isinstance(each, Append):
                    mine[each.key] = (*own, each.value)
                    if each.key in known:
                        known[each.key] += (each.value,)
                elif each.values is not None:
                    seen = each.values
                    if known.get(each.key, seen) != seen or seen[len(seen) - len(own) :] != own:
                        yield f"internal: {transaction.name} read {seen} in {each.key}"
                    known[each.key] = seen

    def _fractured(self) -> Iterator[str]:
        """Of another transaction all was seen, or nothing."""
        for transaction in self._history.transactions:
            if transaction.outcome is not Outcome.COMMITTED:
                continue
            read = {each.key: set(each.values or ()) for each in transaction.reads()}
            seen = {value for values in read.values() for value in values}
            writers = {
                writer.name: writer
                for value in seen
                if (writer := self._writers.get(value)) not in (None, transaction)
            }
            for writer in writers.values():
                missing = [a for a in writer.appends() if a.value not in read.get(a.key, {a.value})]
                if missing:
                    yield f"fractured: {transaction.name} saw {writer.name}, but not {missing}"

    def _diverging(self) -> Iterator[str]:
        for name, key, values in self._lists():
            if self._orders[key][: len(values)] != values:
                yield f"diverging: {name} read {values} in {key}, another one {self._orders[key]}"

    def _cycles(self) -> Iterator[str]:
        """Gives the worst kind of cycle that there is."""
        graph = self._graph()
        for name, kinds in (("G0", (WW,)), ("G1c", (WW, WR))):
            if cycles := list(graph.cycles(kinds)):
                yield from (f"{name}: {' -> '.join(cycle)}" for cycle in cycles)
                return
        cycles = list(graph.cycles((WW, WR, RW)))
        # Only an edge between two nodes of one component can be part of a cycle.
        home = {node: n for n, nodes in enumerate(graph.tangles((WW, WR, RW))) for node in nodes}
        single = [
            f"G-single: {source} -> {' -> '.join(path)}"
            for source, target in graph.edges(RW)
            if home.get(source, -1) == home.get(target, -2)
            and (path := graph.path(target, source, (WW, WR)))
        ]
        yield from single or [f"G2: {' -> '.join(cycle)}" for cycle in cycles]

    def _graph(self) -> Graph[str]:
        graph: Graph[str] = Graph()
        for values in self._orders.values():
            for one, other in itertools.pairwise(values):
                graph.add(*self._names(one, other), WW)
        for transaction, read in self._read:
            order = self._orders[read.key]
            seen = len(read.values or ())
            others = [v for v in order[:seen] if self._writers.get(v) is not transaction]
            if others:
                graph.add(*self._names(others[-1]), transaction.name, WR)
            following = [v for v in order[seen:] if self._writers.get(v) is not transaction]
            if following:
                graph.add(transaction.name, *self._names(following[0]), RW)
        return graph

    def _names(self, *values: int) -> Iterable[str]:
        return [self._writers[value].name if value in self._writers else "?" for value in values]
