"""How the last transactions of this hub ended, for those who ask again."""

from collections import OrderedDict

from hub.core.transactions.transaction import Standing


class Remembered:
    """A bounded memory; what it has forgotten, or never knew, only the databases know."""

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._standings: OrderedDict[str, Standing] = OrderedDict()

    def keep(self, standing: Standing) -> None:
        """Keeps an end, instead of the oldest one if there are too many."""
        self._standings[standing.header.transaction_id] = standing
        if len(self._standings) > self._kept_max:
            self._standings.popitem(last=False)

    def get(self, transaction_id: str) -> Standing | None:
        """Gives how a transaction ended, if it is known here."""
        return self._standings.get(transaction_id)
