"""Whole commits out of a stream of events: the reason why no cursor splits a transaction."""

from hub.core.events.journal import JournalEvent, JournalPage


class CommitAssembler:
    """Gives events out by whole commits and marks the last event of each.

    Adjacent events with one transaction id belong to one commit. Of the newest ones it cannot be
    seen whether more will follow, so they are held back until the journal's boundary passes them.
    """

    def __init__(self) -> None:
        self.held: list[JournalEvent] = []
        self.held_bytes = 0

    def feed(self, page: JournalPage) -> list[JournalEvent]:
        """Takes a page and gives the events of all commits that are complete now."""
        complete: list[JournalEvent] = []
        for event in page.events:
            if self.held and event.transaction_id != self.held[-1].transaction_id:
                self._close(complete)
            if event.transaction_id:
                self.held.append(event)
                self.held_bytes += event.size
            else:
                event.ends_commit = True
                complete.append(event)
        if self.held and self.held[-1].sequence <= page.boundary:
            self._close(complete)
        return complete

    def drop(self) -> None:
        """Forgets the events that are held; what follows of their commit is held again."""
        self.held = []
        self.held_bytes = 0

    def _close(self, complete: list[JournalEvent]) -> None:
        self.held[-1].ends_commit = True
        complete += self.held
        self.drop()
