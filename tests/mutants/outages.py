"""Mutants of areas TXN and ORDER that show in outages, and of the order of what is pushed."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

import json
from collections import Counter

from tests.mutants import mutant
from tests.mutants._outages import is_cut, pending_ids, pending_instead, sent_instead, unanswered_if

#: What says that a transaction comes again under its id.
_SAME_ID = ("RETRY-04", "RETRY-08", "TXN-15")


@mutant("TXN-11", also=_SAME_ID)
def each_attempt_has_an_id_of_its_own() -> None:
    """Each attempt to deliver a transaction has another id."""
    _ids_by_attempt(lambda number, attempt: f"{number}.{attempt}")


@mutant("TXN-11", also=_SAME_ID)
def the_second_retry_has_another_id() -> None:
    """The id of a transaction changes with its third attempt."""
    _ids_by_attempt(lambda number, attempt: number if attempt < 3 else f"{number}-late")


def _ids_by_attempt(make) -> None:
    """Give a transaction, at each attempt, the id that `make(id, attempt)` makes."""
    attempts: Counter[tuple[str, int]] = Counter()

    async def send(transaction, api, right):
        number = transaction.id
        attempts[transaction.service.id, number] += 1
        transaction.id = make(number, attempts[transaction.service.id, number])
        try:
            return await right(transaction, api)
        finally:
            transaction.id = number

    sent_instead(send)


def _retries(change) -> None:
    """Have `change(events)` change the events of a transaction that is tried again."""

    async def load(store, service, right):
        transaction = await right(store, service)
        if transaction is not None:
            transaction.events = change(list(transaction.events))
        return transaction

    pending_instead(load)


@mutant("TXN-12")
def a_retry_is_sorted() -> None:
    """The events of a transaction that is tried again are sorted by their ids, as the database gives them."""
    _retries(lambda events: sorted(events, key=lambda event: event.event_id))


@mutant("TXN-12")
def a_retry_has_state_first() -> None:
    """In a transaction that is tried again state events come before all others."""
    _retries(lambda events: sorted(events, key=lambda event: not event.is_state()))


@mutant("TXN-12", also=("RETRY-08",))
def a_retry_has_the_newest_state_only() -> None:
    """In a transaction that is tried again there is one event for each piece of state, the last."""

    def change(events):
        last = {(event.room_id, event.type, event.state_key): event for event in events if event.is_state()}
        return [each for each in events if not each.is_state() or each in last.values()]

    _retries(change)


@mutant("TXN-12")
def a_retry_has_ten_milliseconds_more() -> None:
    """The time stamps of events are those of the attempt, in retries."""
    from tests.mutants._wire import events

    seen: Counter[str] = Counter()

    def change(event, pushed):
        seen[event.event_id] += 1
        pushed["origin_server_ts"] += 10 * (seen[event.event_id] - 1)

    events(change)


def _joining(place) -> None:
    """Add what comes in an outage to a transaction that waits: `place(count)` is which one, by age, or None."""
    from synapse.storage.databases.main.appservice import ApplicationServiceTransactionWorkerStore

    plain = ApplicationServiceTransactionWorkerStore.create_appservice_txn

    async def create(self, service, events, **others):
        waiting = await pending_ids(self, service)
        chosen = place(len(waiting))
        made = await plain(self, service=service, events=events, **others)
        if waiting and chosen is not None and events:
            number, ids = waiting[chosen]
            table, key = "application_services_txns", {"as_id": service.id, "txn_id": number}
            together = json.dumps([*ids, *(each.event_id for each in events)])
            await self.db_pool.simple_update(table, key, {"event_ids": together}, "join")
            await self.complete_appservice_txn(made.id, service)
        return made

    ApplicationServiceTransactionWorkerStore.create_appservice_txn = create


@mutant("TXN-13", also=("RETRY-16", "TXN-14"))
def later_events_join_the_failed_transaction() -> None:
    """Events that come in an outage are added to the transaction that has failed."""
    _joining(lambda count: 0)


@mutant("TXN-13", also=("ORDER-04", "RETRY-16", "TXN-14"))
def the_fifth_event_joins_the_failed_transaction() -> None:
    """When five transactions wait, what comes is added to the one that has failed."""
    _joining(lambda count: 0 if count == 5 else None)


@mutant("TXN-11", also=("TXN-12", "TXN-14", "RETRY-08", "RETRY-16", *_SAME_ID))
def a_retry_is_everything_that_waits() -> None:
    """What is tried again is all that waits, under the id of the newest of it."""

    async def load(store, service, right):
        transaction = await right(store, service)
        waiting = await pending_ids(store, service)
        if transaction is not None and len(waiting) > 1:
            transaction.events = await store.get_events_as_list([each for _, ids in waiting for each in ids])
            transaction.id = waiting[-1][0]
            for number, _ in waiting[:-1]:
                await store.complete_appservice_txn(number, service)
            table, key = "application_services_txns", {"as_id": service.id, "txn_id": transaction.id}
            together = json.dumps([each.event_id for each in transaction.events])
            await store.db_pool.simple_update(table, key, {"event_ids": together}, "merge")
        return transaction

    pending_instead(load)


@mutant("TXN-15")
def a_closed_connection_is_an_acknowledgement() -> None:
    """A transaction whose connection is closed without an answer counts as delivered."""
    from twisted.internet.error import ConnectionDone

    unanswered_if(lambda failure: is_cut(failure, ConnectionDone))


@mutant("TXN-15", also=("RETRY-02", "RETRY-08"))
def any_broken_connection_is_an_acknowledgement() -> None:
    """A transaction counts as delivered when it was sent, whatever becomes of the connection then."""
    unanswered_if(is_cut)


def _again(is_sent_again, seconds: float) -> None:
    """Send an acknowledged transaction once more of which `is_sent_again(number, took)` says so."""
    import time
    from itertools import count

    from synapse.util.duration import Duration

    numbers = count(1)

    async def send(transaction, api, right):
        began = time.monotonic()
        done = await right(transaction, api)
        if done and is_sent_again(next(numbers), time.monotonic() - began):
            process = api.hs.run_as_background_process
            api.clock.call_later(Duration(milliseconds=int(1000 * seconds)), process, "again", right, transaction, api)
        return done

    sent_instead(send)


@mutant("TXN-18")
def every_seventh_acknowledgement_is_lost() -> None:
    """Every seventh transaction is sent again a second after it was acknowledged."""
    _again(lambda number, took: number % 7 == 0, 1)


@mutant("TXN-18", also=("ORDER-03",))
def what_took_long_is_sent_again() -> None:
    """A transaction whose acknowledgement took more than half a second is sent again."""
    _again(lambda number, took: took > 0.5, 0.2)


# Order


def _batches(arrange) -> None:
    """Have `arrange(events)` arrange what waits when a transaction is made."""

    async def send(transaction, api, right):
        transaction.events = arrange(list(transaction.events))
        return await right(transaction, api)

    sent_instead(send)


@mutant("ORDER-01", "ORDER-02", also=("ORDER-03", "ORDER-05", "ORDER-06"))
def batches_are_backwards() -> None:
    """The events of a transaction come newest first."""
    _batches(lambda events: events[::-1])


@mutant("ORDER-01", "ORDER-02", also=("ORDER-03", "ORDER-05", "ORDER-06"))
def batches_are_sorted_by_id() -> None:
    """The events of a transaction are sorted by their ids."""
    _batches(lambda events: sorted(events, key=lambda event: event.event_id))


@mutant("ORDER-02")
def the_rooms_of_a_batch_are_mixed() -> None:
    """When a transaction has events of several rooms, those of the last room come backwards."""

    def arrange(events):
        rooms = list(dict.fromkeys(each.room_id for each in events))
        if len(rooms) < 2:
            return events
        return [*(each for each in events if each.room_id != rooms[-1])] + [
            each for each in events[::-1] if each.room_id == rooms[-1]
        ]

    _batches(arrange)


@mutant("ORDER-03")
def transactions_do_not_wait_for_each_other() -> None:
    """A transaction is sent whether or not another one is open."""
    from synapse.appservice.scheduler import _ServiceQueuer

    class Nobody(set[str]):
        def add(self, each):
            pass

    plain = _ServiceQueuer.__init__

    def init(self, *args):
        plain(self, *args)
        self.requests_in_flight = Nobody()

    _ServiceQueuer.__init__ = init


@mutant("ORDER-03")
def what_takes_long_is_overtaken() -> None:
    """When a transaction takes more than half a second, the next is sent beside it."""
    from synapse.appservice.scheduler import _TransactionController
    from synapse.util.duration import Duration

    plain = _TransactionController.send

    async def send(self, service, *args):
        sending = self.hs.run_as_background_process("as-sender", plain, self, service, *args)
        for _ in range(10):
            if sending.called:
                return
            await self.clock.sleep(Duration(milliseconds=50))

    _TransactionController.send = send


@mutant("ORDER-04", also=("RETRY-08", "RETRY-16"))
def a_backlog_is_delivered_backwards() -> None:
    """When the transaction that failed is delivered, the others follow newest first."""
    failed: dict[str, int] = {}

    async def load(store, service, right):
        waiting = await pending_ids(store, service)
        oldest = await right(store, service)
        if not waiting or oldest is None or failed.setdefault(service.id, oldest.id) == oldest.id:
            return oldest
        if len(waiting) == 1:
            del failed[service.id]
        number, ids = waiting[-1]
        oldest.id, oldest.events = number, await store.get_events_as_list(ids)
        return oldest

    pending_instead(load)


@mutant("ORDER-04", also=("RETRY-01", "RETRY-02", "RETRY-16", "TXN-11", "TXN-12", "TXN-14"))
def the_newest_is_tried_first() -> None:
    """In an outage the transaction that is tried is the newest."""

    async def load(store, service, right):
        found = await right(store, service)
        waiting = await pending_ids(store, service)
        if found is not None and waiting:
            found.id, ids = waiting[-1]
            found.events = await store.get_events_as_list(ids)
        return found

    pending_instead(load)


@mutant("ORDER-05", also=("ORDER-06",))
def memberships_come_last() -> None:
    """In a transaction memberships come after all other events."""
    _batches(lambda events: sorted(events, key=lambda event: event.type == "m.room.member"))


@mutant("ORDER-06")
def invites_take_a_detour() -> None:
    """Invites are pushed half a second after everything else."""
    from synapse.appservice.scheduler import ApplicationServiceScheduler
    from synapse.util.duration import Duration

    plain = ApplicationServiceScheduler.enqueue_for_appservice

    def enqueue(self, appservice, events=None, **others):
        if events and events[0].type == "m.room.member" and events[0].membership == "invite":
            later = Duration(milliseconds=500)
            self.txn_ctrl.clock.call_later(later, plain, self, appservice, events=events)
        else:
            plain(self, appservice, events=events, **others)

    ApplicationServiceScheduler.enqueue_for_appservice = enqueue
