"""Defects of area RESTART: the queue across a stop of the homeserver."""

from __future__ import annotations

import threading
import time
from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.interest import Interest
from conformance.reference.store import Event, JsonObject, Queue, Room
from conformance.reference.transactions import Restarted, Transactions


class AtStart(Restarted):
    """Changes the queue of each appservice when the homeserver starts again."""

    def resume(self, in_order: bool) -> None:
        for appservice in self.hs.appservices:
            queue = self.store.queues[appservice.id]
            waiting, pending = self.changed(appservice, queue, in_order)
            self.store.set_queue(appservice.id, waiting, list(pending) if pending else None)

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        return queue.waiting, queue.pending


# Transaction IDs


@defect("RESTART-01")
class TransactionCountersStartAnew(Transactions):
    """The counter of transaction IDs begins at 1 with each life of the homeserver."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._given: dict[str, int] = {}

    def next_id(self, appservice: Registration) -> str:
        pending = self.store.queues[appservice.id].pending
        self._given[appservice.id] = self._given.get(appservice.id, int(pending[0]) if pending else 0) + 1
        return str(self._given[appservice.id])


@defect("RESTART-01")
class TransactionCountersGoBackToTheLastButOne(Restarted):
    """Of an appservice for which nothing is pending, the last transaction ID is given again after a restart."""

    def resume(self, in_order: bool) -> None:
        for appservice in self.hs.appservices:
            if self.store.queues[appservice.id].pending is None and self.store.transactions[appservice.id]:
                self.store.transactions[appservice.id] -= 1


@defect("RESTART-01")
class TransactionCountersAreSavedWhenStopping(Restarted):
    """The counter of transaction IDs is saved at an orderly end only: after a crash the last ten come again."""

    def resume(self, in_order: bool) -> None:
        for appservice in self.hs.appservices:
            if not in_order:
                given = self.store.transactions[appservice.id]
                self.store.transactions[appservice.id] = max(0, given - 10)


# What was waiting


@defect("RESTART-02", also=("RETRY-15",))
class WhatWaitsIsLostAtAnOrderlyStop(AtStart):
    """What waits behind a transaction is in memory only when the homeserver is stopped in order."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        return [] if in_order else queue.waiting, queue.pending


@defect("RESTART-02", also=("RESTART-05", "RETRY-15", "RESTART-07"))
class WhatIsUnderWayIsTakenForDone(AtStart):
    """An orderly stop takes the transaction under way for acknowledged."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        return queue.waiting, None if in_order else queue.pending


@defect("RESTART-03", also=("RESTART-04",))
class WhatWaitsIsLostInACrash(AtStart):
    """What waits behind a transaction is saved at an orderly end only."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        return queue.waiting if in_order else [], queue.pending


@defect("RESTART-03", "RESTART-06", also=("RESTART-04",))
class WhatIsUnderWayIsLostInACrash(AtStart):
    """A transaction that was under way at a crash is not sent again."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        return queue.waiting, queue.pending if in_order else None


@defect("RESTART-04")
class BurstsAreSavedLate(AtStart):
    """Of more than ten events that wait, the last ones are not saved before a crash."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        return queue.waiting if in_order else queue.waiting[:10], queue.pending


@defect("RESTART-04", also=("RESTART-03", "RESTART-06"))
class TheLastEventIsLostInACrash(AtStart):
    """The newest event is acknowledged to its sender before it is saved for the appservices."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        return queue.waiting if in_order else queue.waiting[:-1], queue.pending


# What was pending


@defect("RESTART-05")
class PendingTransactionsWaitForTraffic(Restarted):
    """After a restart nothing is pushed to an appservice until there is something new for it."""

    def ready(self, appservice: Registration) -> bool:
        return False


@defect("RESTART-05", "RETRY-15", also=("RESTART-07",))
class PendingTransactionsAreForgotten(AtStart):
    """A restart drops transactions that have failed."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        failed = in_order and queue.pending is not None and len(queue.waiting) < 4
        return queue.waiting, None if failed else queue.pending


@defect("RESTART-06")
class OldTransactionsComeLast(AtStart):
    """A transaction that was under way at a crash is put behind what is new."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        if in_order or queue.pending is None or queue.waiting:
            return queue.waiting, queue.pending
        late = threading.Timer(1.0, self._put_behind, (appservice.id, queue.pending[1]["events"]))
        late.daemon = True
        late.start()
        return [], None

    def _put_behind(self, appservice_id: str, events: list[JsonObject]) -> None:
        with self.hs.lock:
            for event in events:
                self.store.enqueue(appservice_id, "event", event)
        self.hs.pushers[appservice_id].wake()


@defect("RESTART-07")
class PendingTransactionsLosePreviousContent(AtStart):
    """A pending transaction is made anew after a restart, its events without their unsigned data."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        if queue.pending is None:
            return queue.waiting, None
        txn_id, body = queue.pending
        events = [{key: value for key, value in event.items() if key != "unsigned"} for event in body["events"]]
        return queue.waiting, (txn_id, body | {"events": events})


@defect("RESTART-07", also=("RETRY-15", "RESTART-02"))
class PendingTransactionsGrowAtARestart(AtStart):
    """A pending transaction takes in what waits behind it when the homeserver starts again."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        if queue.pending is None:
            return queue.waiting, None
        txn_id, body = queue.pending
        late = [item for kind, item in queue.waiting if kind == "event"]
        return [], (txn_id, body | {"events": [*body["events"], *late]})


@defect("RESTART-07")
class PendingEventsAreReadAnew(AtStart):
    """The state events of a pending transaction are told with the present time after a restart."""

    def changed(
        self, appservice: Registration, queue: Queue, in_order: bool
    ) -> tuple[list[tuple[str, JsonObject]], tuple[str, JsonObject] | None]:
        if queue.pending is None:
            return queue.waiting, None
        txn_id, body = queue.pending
        now = int(time.time() * 1000)
        events = [event | {"origin_server_ts": now} if "state_key" in event else event for event in body["events"]]
        return queue.waiting, (txn_id, body | {"events": events})


# What belongs to appservices


@defect("RESTART-08")
class AliasesAreForgotten(Restarted):
    """Aliases are in memory only."""

    def resume(self, in_order: bool) -> None:
        self.store.aliases.clear()


@defect("RESTART-08", also=("RESTART-01", "RESTART-02", "RESTART-03", "RESTART-04", "RESTART-06", "RESTART-07"))
class InterestIsInMemory(Interest):
    """Rooms interest an appservice for its ghosts only when somebody has joined them since the start."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: set[str] = set()

    def in_event(self, appservice: Registration, event: Event) -> bool:
        if event.membership == "join":
            self.seen.add(event.room_id)
        return super().in_event(appservice, event)

    def by_member(self, appservice: Registration, room: Room) -> bool:
        return room.room_id in self.seen and super().by_member(appservice, room)


@defect("RESTART-08")
class InterestByAliasIsInMemory(Restarted):
    """Rooms interest an appservice for their aliases only where those were made since the start."""

    def resume(self, in_order: bool) -> None:
        before = set(self.store.aliases)
        covers = self.hs.namespaces.covers
        by_alias = self.hs.interest.by_alias

        def since(appservice: Registration, room: Room) -> bool:
            made = (alias for alias, (room_id, _) in self.store.aliases.items() if room_id == room.room_id)
            return by_alias(appservice, room) and any(
                alias not in before and covers(appservice, "aliases", alias) for alias in made
            )

        self.hs.interest.by_alias = since  # type: ignore[method-assign]


@defect("RESTART-08")
class NamesOfGhostsAreForgotten(Restarted):
    """The display names of ghosts are in memory only."""

    def resume(self, in_order: bool) -> None:
        for account in self.store.accounts.values():
            if account.appservice:
                account.profile.pop("displayname", None)


@defect("RESTART-08", also=("RESTART-03",))
class GhostsAreForgottenInACrash(Restarted):
    """Accounts that appservices registered are saved at an orderly end only."""

    def resume(self, in_order: bool) -> None:
        if not in_order:
            senders = {self.hs.user_id(each.sender_localpart) for each in self.hs.appservices}
            for user_id, account in list(self.store.accounts.items()):
                if account.appservice and user_id not in senders:
                    del self.store.accounts[user_id]


@defect("RESTART-08")
class ExclusiveNamespacesAreForgotten(Restarted):
    """After a restart namespaces are no longer exclusive."""

    def resume(self, in_order: bool) -> None:
        self.hs.namespaces.claims = lambda *_: False  # type: ignore[method-assign]
