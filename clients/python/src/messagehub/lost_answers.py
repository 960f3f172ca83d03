"""What a caller may believe after an answer was lost.

A call that ended without an answer may have been done. What a later attempt says of itself, such
as "it lost against another", says nothing of the earlier one.
"""

from messagehub.errors import HubError, Retry
from messagehub.retries import may_retry

__all__ = ["LostAnswers"]


class LostAnswers:
    """Decides whether a call of a transaction is made again, and remembers what was not answered.

    With `whole_transaction` also one that lost against another is: the hub has forgotten it then.
    """

    def __init__(self, *, whole_transaction: bool = False) -> None:
        self._whole_transaction = whole_transaction
        self._last: HubError | None = None

    def __bool__(self) -> bool:
        """True if the outcome of some attempt is not known."""
        return self._last is not None

    def again(self, error: HubError) -> bool:
        """True if the call may be made again after this error."""
        if error.code == "UNAVAILABLE":
            self._last = error
        if error.retry is Retry.WHOLE_TRANSACTION:
            return self._whole_transaction
        return may_retry(error)

    def conclusion(self, error: HubError) -> HubError:
        """Gives what the last error says of all attempts together.

        An attempt that changed nothing and was not recorded leaves open what an earlier one did.
        """
        nothing_recorded = error.retry in (Retry.WHOLE_TRANSACTION, Retry.SLOWER)
        return self._last if self._last is not None and nothing_recorded else error
