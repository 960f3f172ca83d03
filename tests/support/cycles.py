"""Cycles in a graph whose edges have kinds."""

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

Node = TypeVar("Node", bound=Hashable)


class Graph(Generic[Node]):
    """Nodes and directed edges, each of one or several kinds; no edge leads to its own node."""

    def __init__(self) -> None:
        self._edges: defaultdict[Node, defaultdict[Node, set[str]]] = defaultdict(
            lambda: defaultdict(set)
        )

    def add(self, source: Node, target: Node, kind: str) -> None:
        """Adds an edge."""
        if source != target:
            self._edges[source][target].add(kind)

    def edges(self, kind: str) -> Iterator[tuple[Node, Node]]:
        """Gives the edges of a kind."""
        for source, targets in self._edges.items():
            for target, kinds in targets.items():
                if kind in kinds:
                    yield source, target

    def tangles(self, kinds: Iterable[str]) -> Iterator[list[Node]]:
        """Gives the strongly connected components of several nodes, by edges of these kinds."""
        wanted = set(kinds)
        for component in components(self._edges, lambda node: self._next(node, wanted)):
            if len(component) > 1:
                yield component

    def cycles(self, kinds: Iterable[str]) -> Iterator[list[Node]]:
        """Gives a short cycle of each of those components."""
        wanted = set(kinds)
        for component in self.tangles(wanted):
            yield self._path(component[0], component[0], wanted, set(component))

    def path(self, source: Node, target: Node, kinds: Iterable[str]) -> list[Node]:
        """Gives the nodes of a shortest path by edges of these kinds; none = there is none."""
        return self._path(source, target, set(kinds), None)

    def _path(
        self, source: Node, target: Node, kinds: set[str], inside: set[Node] | None
    ) -> list[Node]:
        came_from: dict[Node, Node] = {}
        waiting = deque([source])
        while waiting:
            node = waiting.popleft()
            for following in self._next(node, kinds):
                if following == target:
                    return _backwards(came_from, source, node, target)
                if following not in came_from and (inside is None or following in inside):
                    came_from[following] = node
                    waiting.append(following)
        return []

    def _next(self, node: Node, kinds: set[str]) -> list[Node]:
        if node not in self._edges:
            return []
        return [target for target, found in self._edges[node].items() if found & kinds]


def _backwards(came_from: dict[Node, Node], source: Node, last: Node, target: Node) -> list[Node]:
    path = [target, last]
    while path[-1] != source:
        path.append(came_from[path[-1]])
    return path[::-1]


def components(
    nodes: Iterable[Node], following: Callable[[Node], list[Node]]
) -> Iterator[list[Node]]:
    """Gives the strongly connected components (Tarjan 1972, without recursion)."""
    index: dict[Node, int] = {}
    low: dict[Node, int] = {}
    on_stack: set[Node] = set()
    stack: list[Node] = []
    for root in list(nodes):
        if root in index:
            continue
        work = [(root, iter(following(root)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            target = next(targets, None)
            if target is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = stack.index(node)
                    component = stack[cut:]
                    del stack[cut:]
                    on_stack.difference_update(component)
                    yield component
            elif target not in index:
                index[target] = low[target] = len(index)
                stack.append(target)
                on_stack.add(target)
                work.append((target, iter(following(target))))
            elif target in on_stack:
                low[node] = min(low[node], index[target])
