"""How far a long piece of work is: written by the thread that does it, read on the loop."""

from messagehub.errors import Cancelled


class Progress:
    """Counts bytes of work; `kind` says what is done. It may be cancelled at any time."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.total_bytes = 0
        self.done_bytes = 0
        self.cancelled = False

    def expect(self, size_bytes: int) -> None:
        """There is more to do."""
        self.total_bytes += size_bytes

    def add(self, size_bytes: int) -> None:
        """So much more is done; raises `Cancelled` if nobody wants the rest."""
        self.done_bytes += size_bytes
        self.check()

    def check(self) -> None:
        """Raises `Cancelled` if nobody wants the rest."""
        if self.cancelled:
            raise Cancelled(f"the backup was cancelled while it was on its way ({self.kind})")

    def cancel(self) -> None:
        """The work ends at its next step."""
        self.cancelled = True
