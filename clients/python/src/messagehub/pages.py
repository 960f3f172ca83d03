"""Lists that the hub gives page by page."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Self, TypeVar

__all__ = ["Pages"]

Item = TypeVar("Item")


class Pages(Generic[Item]):
    """The items of a list, one page of them in memory.

    async for operation in hub.operations():
        ...
    """

    def __init__(self, read: Callable[[str], Awaitable[tuple[Iterable[Item], str]]]) -> None:
        """`read` takes the token of a page and gives its items and the token of the next one.

        The token of the first page is empty; an empty one from `read` says that it was the last.
        """
        self._read = read
        self._page: deque[Item] = deque()
        self._token = ""
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._page:
            if self._ended:
                raise StopAsyncIteration
            items, self._token = await self._read(self._token)
            self._page.extend(items)
            self._ended = not self._token
        return self._page.popleft()
