"""The append-only, time-ordered record of everything said in a run."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, TypeVar

from conformance.wire.exchange import Direction, Exchange, Headers

T = TypeVar("T")


class HarnessFailure(Exception):
    """The suite itself failed (an exception in the fleet's thread, say): never the homeserver's fault."""


class Journal:
    """All exchanges of a run, in both directions, in one time line.

    An exchange is appended when its request arrives or is about to be sent, before anyone waits for it, and completed
    later. Any thread may append, update and wait.
    """

    def __init__(self) -> None:
        #: The two clocks at the same moment, so that reports can show times of day.
        self.began = time.monotonic()
        self.began_at = time.time()
        self._exchanges: list[Exchange] = []
        self._to: dict[str, list[Exchange]] = {}  # those to an appservice, by its code: most questions are about one
        self._changes: list[Exchange] = []  # an exchange once for its arrival and once for every update
        self._changed = threading.Condition()
        self._failure: BaseException | None = None

    def open(
        self, direction: Direction, party: str, method: str, target: str, headers: Headers, **fields: Any
    ) -> Exchange:
        """Append an exchange. `fields` are further attributes of :class:`Exchange`; `started` defaults to now."""
        fields.setdefault("started", time.monotonic())
        with self._changed:
            exchange = Exchange(
                number=len(self._exchanges) + 1,
                direction=direction,
                party=party,
                method=method,
                target=target,
                request_headers=headers,
                **fields,
            )
            self._exchanges.append(exchange)
            if direction is Direction.TO_APPSERVICE:
                self._to.setdefault(party, []).append(exchange)
            self._note(exchange)
        return exchange

    def update(self, exchange: Exchange, **fields: Any) -> None:
        """Change attributes of an exchange and wake those who wait."""
        with self._changed:
            for name, value in fields.items():
                setattr(exchange, name, value)
            self._note(exchange)

    def _note(self, exchange: Exchange) -> None:
        self._changes.append(exchange)
        self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Remember an exception of a server thread: everyone who waits or looks gets it as :class:`HarnessFailure`."""
        with self._changed:
            if self._failure is None:
                self._failure = error
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what :meth:`fail` remembered, if anything.

        :raises HarnessFailure: a server thread of the suite has failed.
        """
        if self._failure is not None:
            raise HarnessFailure(f"the fleet's thread failed: {self._failure!r}") from self._failure

    def marker(self) -> int:
        """The present end of the journal: take it before a stimulus, wait from it after."""
        with self._changed:
            return len(self._exchanges)

    def since(
        self, marker: int = 0, where: Callable[[Exchange], bool] | None = None, to: str | None = None
    ) -> list[Exchange]:
        """The exchanges appended since a marker, in order, optionally only those that a predicate accepts.

        :param to: only requests to the appservice of this code.
        """
        self.check()
        with self._changed:
            found = self._lot(marker, to)
        return [exchange for exchange in found if where is None or where(exchange)]

    def _lot(self, marker: int, to: str | None) -> list[Exchange]:
        if to is None:
            return self._exchanges[marker:]
        requests = self._to.get(to, [])
        return requests[bisect.bisect_right(requests, marker, key=attrgetter("number")) :]

    def __iter__(self) -> Iterator[Exchange]:
        """All exchanges so far, also when the harness has failed."""
        with self._changed:
            return iter(list(self._exchanges))

    def __len__(self) -> int:
        return self.marker()

    def wait_for(
        self, predicate: Callable[[Exchange], bool], since: int, timeout: float, to: str | None = None
    ) -> Exchange | None:
        """The first exchange since a marker that satisfies a predicate, waiting at most `timeout` seconds for it.

        Exchanges that were there before the call count; one that changes is looked at again.

        :param to: only requests to the appservice of this code.
        :raises HarnessFailure: a server thread of the suite has failed.
        """
        return self.wait_until(lambda changed: next((e for e in changed if predicate(e)), None), since, timeout, to)

    def wait_for_end(self, exchange: Exchange, timeout: float) -> None:
        """Wait until an exchange is over, `timeout` seconds at most: who saw its effect may be ahead of the journal."""
        self.wait_for(lambda each: each is exchange and each.answer_until is not None, 0, timeout)

    def wait_until(
        self, probe: Callable[[Iterable[Exchange]], T | None], since: int, timeout: float, to: str | None = None
    ) -> T | None:
        """Call `probe` with the exchanges since a marker, then with each lot that is new or changed, until it
        returns something or `timeout` seconds are over.

        :param to: only requests to the appservice of this code.
        :raises HarnessFailure: a server thread of the suite has failed.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            lot = self._lot(since, to)
            seen = len(self._changes)
        while True:
            self.check()
            result = probe(lot)
            if result is not None:
                return result
            with self._changed:
                while len(self._changes) == seen and self._failure is None:
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        return None
                lot = [each for each in self._changes[seen:] if each.number > since and _is_to(each, to)]
                seen = len(self._changes)


def _is_to(exchange: Exchange, code: str | None) -> bool:
    return code is None or (exchange.direction is Direction.TO_APPSERVICE and exchange.party == code)
