"""Rate limits, which the specification leaves to homeservers, and who is free of them (AS: Registration)."""

from __future__ import annotations

import time
from typing import Any

from conformance.reference.identity import Requester
from conformance.reference.policy import MatrixError, Policy


class Limits(Policy):
    """A bucket of tokens for each user and kind of action."""

    #: Actions at once, and actions a second in the long run.
    burst, rate = 160.0, 8.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

    def limited(self, requester: Requester) -> bool:
        """Whether limits apply: not to an appservice with `rate_limited: false`, and never to its sender user."""
        appservice = requester.appservice
        if appservice is None:
            return True
        if self.hs.namespaces.is_sender(appservice, requester.user_id):
            return False
        return appservice.extra.get("rate_limited") is not False

    def check(self, requester: Requester, action: str) -> None:
        """Take one from the bucket.

        :raises MatrixError: 429 M_LIMIT_EXCEEDED, with the milliseconds to wait.
        """
        if not self.limited(requester):
            return
        now = time.monotonic()
        key = (requester.user_id, action)
        left, before = self._buckets.get(key, (self.burst, now))
        left = min(self.burst, left + (now - before) * self.rate)
        if left < 1:
            wait = int((1 - left) / self.rate * 1000) + 1
            raise MatrixError(429, "M_LIMIT_EXCEEDED", "too many at once", {"retry_after_ms": wait})
        self._buckets[key] = (left - 1, now)
