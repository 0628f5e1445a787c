"""Pushing events: transactions, their retries, and the queue of each appservice (AS: Pushing events)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from conformance.appservice.registration import Registration
from conformance.reference.outgoing import NoResponse, Reply, To
from conformance.reference.policy import Policy
from conformance.reference.store import Event, JsonObject, Queue

if TYPE_CHECKING:
    from conformance.reference.homeserver import Homeserver


class Transactions(Policy):
    """What a transaction is called and what it holds."""

    #: Events in a transaction at most.
    batch = 100

    def next_id(self, appservice: Registration) -> str:
        """An ID that this appservice was never given before, not even before a restart."""
        return str(self.store.transactions[appservice.id] + 1)

    def chosen(self, queue: Queue) -> int:
        """How many items of a queue the next transaction takes from its front."""
        return min(len(queue.waiting), self.batch)

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        """The body: `events` always, `ephemeral` for those who receive it (since v1.13)."""
        body: JsonObject = {"events": [item for kind, item in items if kind == "event"]}
        ephemeral = [item for kind, item in items if kind == "ephemeral"]
        if ephemeral:
            body["ephemeral"] = ephemeral
        return body

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        """What a retry sends: the same ID, the same events."""
        return txn_id, body

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        """Send a transaction; whether it was acknowledged."""
        path = f"/transactions/{self.hs.outgoing.segment(txn_id)}"
        try:
            reply = self.hs.outgoing.ask(appservice, To.TRANSACTION, "PUT", path, legacy=path, body=body)
        except NoResponse as error:
            return self.lost(error)
        return self.acknowledges(reply)

    def acknowledges(self, reply: Reply) -> bool:
        """A success with a JSON object: an answer that was cut off in its head is none."""
        return reply.ok and isinstance(reply.json, dict)

    def lost(self, error: NoResponse) -> bool:
        """Without an answer nothing is acknowledged, however much of the transaction was written."""
        return False


class Backoff(Policy):
    """How long to wait after a failure: exponentially longer, up to a cap, for as long as it takes."""

    #: Seconds before scaling.
    first, cap = 2.0, 600.0
    factor = 2.0

    def delay(self, failures: int) -> float:
        """Seconds, before scaling, after so many failures in a row."""
        return min(self.first * self.factor ** (failures - 1), self.cap)

    def after_success(self, failures: int) -> int:
        """The failures that count once an appservice has answered."""
        return 0


class Queues(Policy):
    """What is put into the queues of which appservices."""

    def told(self, event: Event) -> None:
        """Queue an event for every appservice that it interests: each once, and without waiting for any."""
        for appservice in self.hs.appservices:
            if appservice.url is not None and self.hs.interest.in_event(appservice, event):
                self.put(appservice, "event", self.hs.format.for_appservice(event, appservice))

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        """Put an item at the end of an appservice's queue as it is now: what happens to it later changes nothing."""
        self.store.enqueue(appservice.id, kind, item)
        self.hs.pushers[appservice.id].wake()


class Restarted(Policy):
    """What is done with what was known before a restart: everything is as it was."""

    def resume(self, in_order: bool) -> None:
        """Go on where the life before ended: queues, accounts, rooms and aliases were read from the file.

        :param in_order: whether the homeserver was stopped in order; False after a crash.
        """

    def ready(self, appservice: Registration) -> bool:
        """Whether what is pending or waiting for an appservice is pushed without anything new to push."""
        return True


class Pusher:
    """The one thread that pushes to an appservice: one transaction after the other."""

    def __init__(self, hs: Homeserver, appservice: Registration) -> None:
        self.hs = hs
        self.appservice = appservice
        #: Failures in a row.
        self.failures = 0
        #: When the request that is open was begun, and when an outage last ended, in monotonic seconds.
        self.sending_since: float | None = None
        self.recovered_at = 0.0
        self._work = threading.Semaphore(0)
        self._idle = False
        self._thread = threading.Thread(target=self._run, name=f"push {appservice.id}", daemon=True)

    def start(self) -> None:
        """Begin, with what is left of the life before."""
        if self.hs.restarted.ready(self.appservice):
            self.wake()
        else:
            self._idle = True
        self._thread.start()

    def wake(self) -> None:
        """There is something in the queue."""
        self._work.release()

    def _run(self) -> None:
        if self._idle:
            self._work.acquire()
        while not self.hs.stopping.is_set():
            pending = self._next()
            if pending is None:
                self._work.acquire()
                continue
            txn_id, body = pending
            if self.failures:
                txn_id, body = self.hs.transactions.retried(self.appservice, txn_id, body, self.failures)
            self.sending_since = time.monotonic()
            done = self.hs.transactions.send(self.appservice, txn_id, body)
            self.sending_since = None
            if done:
                self.recovered_at = time.monotonic() if self.failures else self.recovered_at
                self.failures = self.hs.backoff.after_success(self.failures)
                with self.hs.lock:
                    if not self.hs.stopping.is_set():
                        self.hs.store.end_transaction(self.appservice.id)
            else:
                self.failures += 1
                self.hs.stopping.wait(self.hs.clock.scaled(self.hs.backoff.delay(self.failures)))

    def _next(self) -> tuple[str, JsonObject] | None:
        """The pending transaction, or a new one of what is in the queue."""
        with self.hs.lock:
            queue = self.hs.store.queues[self.appservice.id]
            if queue.pending is None and queue.waiting:
                count = self.hs.transactions.chosen(queue)
                body = self.hs.transactions.body(self.appservice, queue.waiting[:count])
                txn_id = self.hs.transactions.next_id(self.appservice)
                self.hs.store.begin_transaction(self.appservice.id, txn_id, body, count)
            return queue.pending
