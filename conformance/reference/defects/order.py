"""Defects of area ORDER: linearisation."""

from __future__ import annotations

import threading
from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.store import Event, JsonObject, Queue
from conformance.reference.transactions import Queues, Transactions


@defect("ORDER-01", also=("ORDER-02", "ORDER-03", "ORDER-04", "ORDER-05", "ORDER-06", "TS-09", "RETRY-16"))
class BatchesAreSortedById(Transactions):
    """The events of a transaction are sorted by their IDs, and several are waited for."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        self.hs.stopping.wait(0.02)  # so that there is a batch
        return super().send(appservice, txn_id, body)

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        body = super().body(appservice, items)
        return {**body, "events": sorted(body["events"], key=lambda event: str(event["event_id"]))}


@defect("ORDER-01", also=("ORDER-02", "ORDER-03", "TXN-17"))
class EveryTwentiethEventIsLate(Queues):
    """Every twentieth event of a room is put into the queues behind the one after it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._held: dict[str, Event] = {}

    def told(self, event: Event) -> None:
        late = self._held.pop(event.room_id, None)
        if late is None and event.type == "m.room.message" and len(self.store.rooms[event.room_id].events) % 20 == 0:
            self._held[event.room_id] = event
            timer = threading.Timer(0.3, self._release, (event.room_id,))
            timer.daemon = True
            timer.start()
            return
        super().told(event)
        if late is not None:
            super().told(late)

    def _release(self, room_id: str) -> None:
        with self.hs.lock:
            late = self._held.pop(room_id, None)
            if late is not None and not self.hs.stopping.is_set():
                super().told(late)


@defect("ORDER-01", also=("ORDER-04", "ORDER-05", "ORDER-06"))
class StateComesFirst(Transactions):
    """In a transaction state events come before messages."""

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        body = super().body(appservice, items)
        body["events"].sort(key=lambda event: "state_key" not in event)
        return body


@defect("ORDER-02")
class RoomsHaveQueuesOfTheirOwn(Transactions):
    """A transaction has the events of one room after those of another, whatever the order in which they were sent."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        self.hs.stopping.wait(0.02)  # so that there is a batch
        return super().send(appservice, txn_id, body)

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        body = super().body(appservice, items)
        return {**body, "events": sorted(body["events"], key=lambda event: str(event["room_id"]))}


@defect("ORDER-03", also=("TXN-13", "TXN-14", "RETRY-05", "RETRY-16", "ORDER-04", "RETRY-06", "RETRY-09"))
class TransactionsOverlap(Transactions):
    """The next transaction is sent while the one before has not been answered for a tenth of a second."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        answers: list[bool] = []
        send = super().send

        def one() -> None:
            answers.append(send(appservice, txn_id, body))

        thread = threading.Thread(target=one, daemon=True)
        thread.start()
        thread.join(0.1)
        return answers[0] if answers else True  # taken for granted


@defect("ORDER-04", also=("TXN-13", "RETRY-16"))
class TheNewestComesFirstAfterAnOutage(Transactions):
    """After an outage the queue is worked off from its end."""

    def chosen(self, queue: Queue) -> int:
        owner = next((name for name, each in self.store.queues.items() if each is queue), "")
        pusher = self.hs.pushers.get(owner)
        if pusher is not None and pusher.recovered_at and len(queue.waiting) > 5:
            queue.waiting.reverse()
        return super().chosen(queue)


@defect("ORDER-05")
class MembershipsComeBeforeTheRoom(Queues):
    """The first membership of a new room is pushed once more interesting events have been."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._held: dict[str, Event] = {}

    def told(self, event: Event) -> None:
        room = self.store.rooms[event.room_id]
        if event.membership == "join" and len(room.events) == 2:
            self._held[event.room_id] = event
            return
        super().told(event)
        late = self._held.pop(event.room_id, None)
        if late is not None:
            super().told(late)


@defect("ORDER-06", also=("ORDER-01",))  # and pushed late
class MembershipsAreCollapsed(Queues):
    """Of a user's memberships that wait for the next transaction only the last is pushed."""

    def told(self, event: Event) -> None:
        if event.membership is None or event.sender == event.state_key == self.store.rooms[event.room_id].creators[0]:
            super().told(event)
            return
        timer = threading.Timer(0.1, self._late, (event,))
        timer.daemon = True
        timer.start()

    def _late(self, event: Event) -> None:
        with self.hs.lock:
            present = self.store.rooms[event.room_id].state[event.type, event.state_key or ""]
            if not self.hs.stopping.is_set() and present is event:
                super().told(event)


@defect("ORDER-06")
class JoinsAreLate(Queues):
    """The join of somebody who was invited is pushed a moment later than it happens."""

    def told(self, event: Event) -> None:
        if event.membership == "join" and (event.prev_content or {}).get("membership") == "invite":
            timer = threading.Timer(0.2, self._late, (event,))
            timer.daemon = True
            timer.start()
            return
        super().told(event)

    def _late(self, event: Event) -> None:
        with self.hs.lock:
            if not self.hs.stopping.is_set():
                super().told(event)


@defect("ORDER-01", also=("ORDER-02", "ORDER-05", "TXN-17"))
class TheNewestHundredComeFirst(Transactions):
    """Where more than a hundred events wait, the newest hundred are pushed first."""

    def chosen(self, queue: Queue) -> int:
        if len(queue.waiting) > 100:
            queue.waiting[:] = queue.waiting[-100:] + queue.waiting[:-100]
        return super().chosen(queue)
