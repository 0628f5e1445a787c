"""Defects of area RETRY: failure, backoff, recovery."""

from __future__ import annotations

import time
from typing import Any

import urllib3

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.defects.restart import AtStart
from conformance.reference.outgoing import NoResponse, Outgoing, Reply, To
from conformance.reference.policy import MatrixError
from conformance.reference.queries import Queries
from conformance.reference.rooms import Powers, Rooms
from conformance.reference.store import Event, JsonObject, Queue, Room
from conformance.reference.transactions import Backoff, Queues, Transactions


class _Failures(Transactions):
    """Transactions that remember how often each has failed in a row, by appservice."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.failures: dict[str, int] = {}

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        done = super().send(appservice, txn_id, body)
        self.failures[appservice.id] = 0 if done else self.failures.get(appservice.id, 0) + 1
        return done or self.dropped(appservice, self.failures[appservice.id])

    def dropped(self, appservice: Registration, failures: int) -> bool:
        return False


@defect("RETRY-01", "RETRY-02", "RETRY-03", also=("RETRY-08", "RETRY-16", "RETRY-17", "RETRY-04", "TXN-15"))
class FailedTransactionsAreDropped(_Failures):
    """A transaction that failed is thrown away."""

    def dropped(self, appservice: Registration, failures: int) -> bool:
        return True


@defect(
    "RETRY-01",
    also=(
        "RETRY-02",
        "RETRY-03",
        "RETRY-04",
        "RETRY-07",
        "RETRY-08",
        "RETRY-09",
        "RETRY-16",
        "RETRY-17",
        "TXN-15",
        "INV-08",
    ),
)
class RetriesNeedNewTraffic(Transactions):
    """A failed transaction is tried again only when there is something new to push."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._failed: dict[str, int] = {}

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        waiting = len(self.store.queues[appservice.id].waiting)
        if self._failed.get(appservice.id, -1) >= waiting:
            return False  # nothing new: not even tried
        done = super().send(appservice, txn_id, body)
        if done:
            self._failed.pop(appservice.id, None)
        elif appservice.id not in self._failed:
            self._failed[appservice.id] = waiting
        return done


@defect("RETRY-02", also=("RETRY-03", "TXN-15", "RETRY-08", "RETRY-17"))
class CutConnectionsCountAsDelivery(Transactions):
    """Only HTTP errors are retried: a transaction whose connection was cut counts as delivered."""

    def lost(self, error: NoResponse) -> bool:
        return not error.timed_out


@defect("RETRY-03", also=("RETRY-17",))
class HungRequestsAreWaitedForForEver(Outgoing):
    """A transaction that gets no answer is waited for without a limit."""

    patience = {**Outgoing.patience, To.TRANSACTION: 1e6}


class _StatusIsFinal(Transactions):
    statuses: tuple[int, ...] = ()

    def acknowledges(self, reply: Reply) -> bool:
        return reply.status in self.statuses or super().acknowledges(reply)


@defect("RETRY-03")
class TimedOutTransactionsGetNewIds(Transactions):
    """A transaction that was never answered is sent again under another ID."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._renamed: set[str] = set()

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        name = f"{txn_id}-again" if f"{appservice.id} {txn_id}" in self._renamed else txn_id
        path = f"/transactions/{name}"
        try:
            reply = self.hs.outgoing.ask(appservice, To.TRANSACTION, "PUT", path, legacy=path, body=body)
        except NoResponse as error:
            if error.timed_out:
                self._renamed.add(f"{appservice.id} {txn_id}")
            return self.lost(error)
        return self.acknowledges(reply)


@defect("RETRY-04")
class RedirectsCountAsDelivery(_StatusIsFinal):
    """Only statuses from 400 on are failures: a transaction that was answered with a redirect counts as delivered."""

    statuses = (302,)


@defect("RETRY-04")
class TransactionsThatAreTooLargeAreDropped(_StatusIsFinal):
    """A transaction that was answered 413 is never sent again."""

    statuses = (413,)


@defect("RETRY-04", also=("INV-08",))
class ClientErrorsAreFinal(_StatusIsFinal):
    """A transaction that was answered 400, 401, 403 or 404 is poison and never sent again."""

    statuses = (400, 401, 403, 404)


@defect("RETRY-04")
class TooManyRequestsIsFinal(_StatusIsFinal):
    """A transaction that was answered 429 is never sent again."""

    statuses = (429,)


@defect("RETRY-04")
class UnavailableIsFinal(_StatusIsFinal):
    """A transaction that was answered 503 is never sent again."""

    statuses = (503,)


@defect("RETRY-04")
class ForbiddenTransactionsGetNewIds(Transactions):
    """A transaction that was answered 403 is sent again under another ID."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._renamed: set[str] = set()

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        name = f"{txn_id}-again" if f"{appservice.id} {txn_id}" in self._renamed else txn_id
        path = f"/transactions/{name}"
        try:
            reply = self.hs.outgoing.ask(appservice, To.TRANSACTION, "PUT", path, legacy=path, body=body)
        except NoResponse as error:
            return self.lost(error)
        if reply.status == 403:
            self._renamed.add(f"{appservice.id} {txn_id}")
        return self.acknowledges(reply)


@defect("RETRY-04")
class ConflictsAreDelivery(Transactions):
    """A transaction that is answered 409 has been there before: it counts as delivered."""

    def acknowledges(self, reply: Reply) -> bool:
        return super().acknowledges(reply) or reply.status == 409


@defect("RETRY-04")
class BadGatewaysAreFinal(Transactions):
    """A transaction that is answered 502 or 504 is not sent again."""

    def acknowledges(self, reply: Reply) -> bool:
        return super().acknowledges(reply) or reply.status in (502, 504)


@defect("RETRY-04")
class PoisonIsFinal(Transactions):
    """A transaction that is answered 405, 410 or 422 is not sent again."""

    def acknowledges(self, reply: Reply) -> bool:
        return super().acknowledges(reply) or reply.status in (405, 410, 422)


@defect("RETRY-04", also=("TXN-11",))
class ClientErrorsOfRetriesAreFinal(_Failures):
    """A retry that is answered 4xx is not sent again, while a first attempt so answered is."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        self.again = self.failures.get(appservice.id, 0) > 0
        return super().send(appservice, txn_id, body)

    def acknowledges(self, reply: Reply) -> bool:
        return super().acknowledges(reply) or (self.again and 400 <= reply.status < 500)


@defect("RETRY-05")
class BackoffIsConstant(Backoff):
    """Every retry comes after the same time."""

    factor = 1.0


@defect("RETRY-05")
class BackoffHardlyGrows(Backoff):
    """Each gap is a fiftieth longer than the one before."""

    factor = 1.02


@defect("RETRY-05", also=("RETRY-09",))
class BackoffStartsOverAfterTheThirdFailure(Backoff):
    """The backoff grows for two failures and begins again at the third."""

    def delay(self, failures: int) -> float:
        return super().delay((failures - 1) % 3 + 1)


@defect("RETRY-06", also=("RETRY-05", "RETRY-09"))  # its gaps are too short to be compared
class NoBackoffAtAll(Backoff):
    """A failed transaction is sent again at once, over and over."""

    first, factor = 0.2, 1.0


@defect("RETRY-07", also=("RETRY-08", "TXN-13", "RETRY-16"))
class GivesUpAfterFourFailures(_Failures):
    """After four failures a transaction is thrown away."""

    def dropped(self, appservice: Registration, failures: int) -> bool:
        return failures >= 4


@defect("RETRY-07", also=("RETRY-08",))
class StopsTryingAfterFourFailures(Backoff):
    """After four failures in a row an appservice is never tried again."""

    def delay(self, failures: int) -> float:
        return 1e9 if failures >= 4 else super().delay(failures)


@defect("RETRY-08", also=("RETRY-16",))
class QueueHoldsTenEvents(Queues):
    """While an appservice fails, events beyond the tenth in its queue are dropped."""

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        full = len(self.store.queues[appservice.id].waiting) >= 10
        if not (full and self.hs.pushers[appservice.id].failures):
            super().put(appservice, kind, item)


@defect("RETRY-08", also=("RETRY-16",))
class QueueIsThrownAwayAtRecovery(_Failures):
    """When an appservice has recovered, what was queued behind the failed transaction is thrown away."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        failures = self.failures.get(appservice.id, 0)
        done = super().send(appservice, txn_id, body)
        if done and failures >= 3:
            with self.hs.lock:
                self.store.queues[appservice.id].waiting.clear()
        return done


@defect("RETRY-09", also=("RETRY-04", "RETRY-16", "TXN-15"))
class BackoffIsNeverReset(Backoff):
    """After a recovery the next outage begins with the gap at which the last one ended."""

    def after_success(self, failures: int) -> int:
        return failures


@defect("RETRY-10", also=("RETRY-11",))
class SendingWaitsForHungAppservices(Rooms):
    """A message that interests an appservice which does not answer is itself answered six seconds late."""

    def append(self, room: Room, *args: Any, **options: Any) -> Event:
        event = super().append(room, *args, **options)
        deadline = time.monotonic() + 6.0
        if any(self._hangs(each, event) for each in self.hs.appservices):
            while (left := deadline - time.monotonic()) > 0 and not self.hs.stopping.is_set():
                self.hs.news.wait(left)  # others may go on
        return event

    def _hangs(self, appservice: Registration, event: Event) -> bool:
        pusher = self.hs.pushers.get(appservice.id)
        since = pusher.sending_since if pusher else None
        long = since is not None and time.monotonic() - since > 0.1
        return long and self.hs.interest.in_event(appservice, event)


@defect("RETRY-11", also=("RETRY-12", "USERQ-18"))
class OneFailingAppserviceStallsTheNext(Transactions):
    """While a known appservice fails its transactions, nothing is pushed to others with users in the same rooms."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        rooms = {str(event["room_id"]) for event in body["events"]} & set(self.store.rooms)
        failing = [each for each in self.hs.appservices if each is not appservice and self._fails(each)]
        if any(self.hs.interest.by_member(each, self.store.rooms[room]) for each in failing for room in rooms):
            return False
        return super().send(appservice, txn_id, body)

    def _fails(self, appservice: Registration) -> bool:
        pusher, pending = self.hs.pushers.get(appservice.id), self.store.queues[appservice.id].pending
        known = pending is not None and pending[0] != "1"  # one that was never reached stalls nobody
        return known and pusher is not None and pusher.failures > 0


@defect("RETRY-12")
class GhostsOfUnreachableAppservicesCannotJoin(Powers):
    """The ghosts of an appservice that cannot be reached cannot join rooms."""

    def check_membership(self, room: Room, sender: str, target: str, membership: str) -> None:
        for appservice in self.hs.appservices:
            pusher = self.hs.pushers.get(appservice.id)
            down = pusher is not None and pusher.failures > 0
            if down and membership == "join" and self.hs.namespaces.covers(appservice, "users", target):
                raise MatrixError(403, "M_FORBIDDEN", "the appservice is down")
        super().check_membership(room, sender, target, membership)


@defect("RETRY-13")
class FailingAppservicesAreNotAsked(Queries):
    """An appservice whose transactions fail is marked as down and asked about nobody."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        return [each for each in super().asked(kind, identifier) if not self.hs.pushers[each.id].failures]


@defect("RETRY-16", also=("RETRY-09",))
class EventsOfARecoveryAreLost(Queues):
    """An event that is stored within 150 ms of the end of an outage is never pushed."""

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        if time.monotonic() - self.hs.pushers[appservice.id].recovered_at > 0.15:
            super().put(appservice, kind, item)


@defect("RETRY-17", needs=("REG-01",))  # calls as V6 are no pushes to it
class HalfAnAnswerIsWaitedForForEver(Outgoing):
    """There is no limit on the time that the rest of an answer may take once its head has arrived."""

    def rest(self, reply: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return super().rest(reply)
        except urllib3.exceptions.ReadTimeoutError:
            self.hs.stopping.wait()
            raise


class _Marked(Outgoing):
    """An appservice that has refused something is taken to be down: nothing is pushed to it any more."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._down: set[str] = set()

    def once(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: JsonObject | None,
    ) -> Reply:
        if about is To.TRANSACTION and appservice.id in self._down:
            raise NoResponse("down")
        reply = super().once(appservice, about, method, path, query, body)
        if self.marks(about, reply):
            self._down.add(appservice.id)
        return reply

    def marks(self, about: To, reply: Reply) -> bool:
        """Whether an answer shows that the appservice is down."""
        raise NotImplementedError


@defect("RETRY-18", also=("INV-07",))
class FailedQueriesMarkAnAppserviceAsDown(_Marked):
    """Nothing is pushed any more to an appservice that has answered a query about a user with 500."""

    def marks(self, about: To, reply: Reply) -> bool:
        return about is To.USER and reply.status >= 500


@defect("RETRY-18", also=("INV-07",))
class FailedPingsMarkAnAppserviceAsDown(_Marked):
    """Nothing is pushed any more to an appservice that has answered a ping with 404."""

    def marks(self, about: To, reply: Reply) -> bool:
        return about is To.PING and reply.status == 404


@defect("RETRY-18", also=("INV-07",))
class FailedQueriesBeginABackoff(Outgoing):
    """A query or a ping that fails delays the transactions as one of them does that fails: longer each time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.failures: dict[str, int] = {}
        self.not_before: dict[str, float] = {}

    def ask(self, appservice: Registration, about: To, method: str, path: str, **more: Any) -> Reply:
        if about is To.TRANSACTION:
            self.hs.stopping.wait(max(0.0, self.not_before.get(appservice.id, 0.0) - time.monotonic()))
            self.failures[appservice.id] = 0
            return super().ask(appservice, about, method, path, **more)
        reply = super().ask(appservice, about, method, path, **more)
        if not reply.ok and about in (To.USER, To.PING):
            failures = self.failures[appservice.id] = self.failures.get(appservice.id, 0) + 1
            delay = self.hs.clock.scaled(self.hs.backoff.delay(failures))
            self.not_before[appservice.id] = time.monotonic() + delay
        return reply


@defect("RETRY-15", also=("RESTART-02", "RESTART-06", "RESTART-07"))
class PendingTransactionsGetANewId(AtStart):
    """A pending transaction has another ID after a restart."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        if queue.pending is None:
            return queue.waiting, None
        self.store.transactions[appservice.id] += 1
        return queue.waiting, (str(self.store.transactions[appservice.id]), queue.pending[1])


@defect("RETRY-08", also=("RETRY-04", "RETRY-16"))
class ASecondFailureInARecoveryLosesItsTransaction(Transactions):
    """What fails right after the first success of a recovery counts as delivered."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._recovered: set[str] = set()

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        recovering = self.hs.pushers[appservice.id].failures > 0
        if super().send(appservice, txn_id, body):
            (self._recovered.add if recovering else self._recovered.discard)(appservice.id)
            return True
        fresh = appservice.id in self._recovered
        self._recovered.discard(appservice.id)
        return fresh
