"""Mutants of area RETRY."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from collections import Counter

from tests.mutants import mutant
from tests.mutants._outages import (
    acknowledged_if,
    delays,
    is_cut,
    is_redirect,
    pending_ids,
    sent_instead,
    status_of,
    unanswered_if,
)
from tests.mutants._tools import memberships


@mutant(
    "RETRY-01",
    also=("RETRY-02", "RETRY-04", "RETRY-07", "RETRY-08", "RETRY-16", "TXN-15"),
)
def retries_need_new_traffic() -> None:
    """A failed transaction is tried again when something new is to be pushed, and never by itself."""
    from synapse.appservice.scheduler import _Recoverer, _TransactionController

    plain = _TransactionController.send

    async def send(self, service, events, *others):
        await plain(self, service, events, *others)
        if events:
            self.force_retry(service)

    _Recoverer.recover = lambda self: None
    _TransactionController.send = send


@mutant("RETRY-02", also=("RETRY-08",))
def a_reset_is_an_acknowledgement() -> None:
    """A transaction whose connection is reset counts as delivered, as the appservice has read it."""
    from twisted.internet.error import ConnectionLost

    unanswered_if(lambda failure: is_cut(failure, ConnectionLost))


@mutant("RETRY-03")
def a_time_out_is_an_acknowledgement() -> None:
    """A transaction that is not answered in time counts as delivered."""
    from twisted.internet.defer import CancelledError, TimeoutError

    unanswered_if(lambda failure: failure.check(TimeoutError) or is_cut(failure, CancelledError))


@mutant("RETRY-03")
def a_time_out_gives_another_id() -> None:
    """A transaction that was not answered in time is tried again under a new id."""
    from synapse.appservice.api import ApplicationServiceApi
    from synapse.http import RequestTimedOutError

    plain, given_up = ApplicationServiceApi.put_json, Counter[str]()

    async def put_json(self, uri, *args, **kwargs):
        tries = given_up[uri]
        try:
            return await plain(self, f"{uri}-{tries}" if tries else uri, *args, **kwargs)
        except RequestTimedOutError:
            given_up[uri] += 1
            raise

    ApplicationServiceApi.put_json = put_json


@mutant("RETRY-03")
def transactions_are_waited_for_without_end() -> None:
    """A transaction that is not answered is never given up."""
    from synapse.http import client

    client.timeout_deferred = lambda deferred, **limits: deferred


@mutant("RETRY-04")
def client_errors_are_final() -> None:
    """A transaction that is answered 4xx is not tried again."""
    acknowledged_if(lambda error: 400 <= (status_of(error) or 0) < 500)


@mutant("RETRY-04")
def what_is_too_large_is_dropped() -> None:
    """A transaction that is answered 413 is not tried again."""
    acknowledged_if(lambda error: status_of(error) == 413)


@mutant("RETRY-04")
def redirects_are_acknowledgements() -> None:
    """A transaction that is answered with a redirect counts as delivered."""
    acknowledged_if(is_redirect)


@mutant("RETRY-04")
def a_limit_gives_another_id() -> None:
    """A transaction that was answered 429 is tried again under a new id."""
    from synapse.appservice.api import ApplicationServiceApi

    plain, limited = ApplicationServiceApi.put_json, Counter[str]()

    async def put_json(self, uri, *args, **kwargs):
        try:
            return await plain(self, uri + "-again" * limited[uri], *args, **kwargs)
        except Exception as error:
            limited[uri] += status_of(error) == 429
            raise

    ApplicationServiceApi.put_json = put_json


@mutant("RETRY-05")
def the_backoff_is_constant() -> None:
    """A failed transaction is tried again every two seconds."""
    delays(lambda number: 2)


@mutant("RETRY-05")
def the_backoff_starts_again() -> None:
    """Gaps of 2, 4 and 8 seconds, and then from the beginning."""
    delays(lambda number: 2 ** ((number - 1) % 3 + 1))


@mutant("RETRY-05")
def the_backoff_is_capped_too_soon() -> None:
    """Gaps of two seconds and then of three, without further growth."""
    delays(lambda number: min(2**number, 3))


@mutant("RETRY-05")
def the_backoff_shrinks() -> None:
    """Attempts become more frequent, not rarer."""
    delays(lambda number: max(1, 2 ** (4 - number)))


@mutant("RETRY-06")
def the_backoff_is_in_milliseconds() -> None:
    """The backoff grows from 0.1 seconds to a cap of 0.8."""
    delays(lambda number: min(0.05 * 2**number, 0.8))


@mutant("RETRY-06")
def each_attempt_is_a_dozen() -> None:
    """What sends a transaction tries a dozen times before it says that it has failed."""

    async def send(transaction, api, right):
        for _ in range(12):
            if await right(transaction, api):
                return True
        return False

    sent_instead(send)


@mutant("RETRY-07")
def the_fifth_attempt_is_the_last() -> None:
    """After five attempts no other is made until the homeserver is restarted."""
    from synapse.appservice.scheduler import _Recoverer

    plain = _Recoverer._backoff

    def backoff(self):
        if self.backoff_counter < 4:
            plain(self)

    _Recoverer._backoff = backoff


@mutant("RETRY-07")
def what_failed_five_times_is_dropped() -> None:
    """A transaction that failed five times is dropped, so that the queue moves on."""
    tries: Counter[tuple[str, int]] = Counter()

    async def send(transaction, api, right):
        done = await right(transaction, api)
        tries[transaction.service.id, transaction.id] += 1
        return done or tries[transaction.service.id, transaction.id] >= 5

    sent_instead(send)


@mutant("RETRY-08", also=("RETRY-16",))
def the_queue_of_an_outage_is_short() -> None:
    """In an outage ten transactions are kept, and no more."""
    from synapse.appservice.scheduler import _TransactionController

    plain = _TransactionController.send

    async def send(self, service, events, *others):
        if len(await pending_ids(self.store, service)) < 10:
            await plain(self, service, events, *others)

    _TransactionController.send = send


@mutant("RETRY-08", also=("RETRY-16",))
def a_recovery_drops_the_rest() -> None:
    """When the transaction that failed is delivered, the rest of the queue is forgotten."""
    from synapse.appservice.scheduler import _Recoverer

    plain = _Recoverer.retry

    async def retry(self):
        store, waiting = self.store, len(await pending_ids(self.store, self.service))
        complete = store.complete_appservice_txn

        async def completed(txn_id, service):
            await complete(txn_id, service)
            if waiting > 1:
                await store.db_pool.simple_delete("application_services_txns", {"as_id": service.id}, "forget")

        store.complete_appservice_txn = completed
        try:
            await plain(self)
        finally:
            store.complete_appservice_txn = complete

    _Recoverer.retry = retry


@mutant("RETRY-08", also=("RETRY-16",))
def a_backlog_is_one_event_of_each_sender() -> None:
    """Of what waits in an outage only the newest event of each room is kept beside the transaction that failed."""
    from synapse.storage.databases.main.appservice import ApplicationServiceTransactionWorkerStore

    plain = ApplicationServiceTransactionWorkerStore.create_appservice_txn

    async def create(self, service, events, **others):
        waiting = (await pending_ids(self, service))[1:]
        for number, ids in waiting:
            rooms = {each.room_id for each in await self.get_events_as_list(ids)}
            if rooms & {each.room_id for each in events}:
                await self.complete_appservice_txn(number, service)
        return await plain(self, service=service, events=events, **others)

    ApplicationServiceTransactionWorkerStore.create_appservice_txn = create


@mutant("RETRY-09")
def the_backoff_is_never_reset() -> None:
    """The next outage goes on with the gaps of the one before."""
    from synapse.appservice.scheduler import _Recoverer

    counters: dict[str, int] = {}
    recover = _Recoverer.recover

    def begin(self):
        self.backoff_counter = max(self.backoff_counter, counters.get(self.service.id, 1))
        counters[self.service.id] = min(self.backoff_counter + 1, 3)
        recover(self)

    _Recoverer.recover = begin


@mutant("RETRY-09", also=("RETRY-16", "EPH-21"))
def a_recovered_appservice_is_on_probation() -> None:
    """After a recovery nothing is pushed for eight seconds."""
    from synapse.appservice.scheduler import _Recoverer
    from synapse.util.duration import Duration

    plain = _Recoverer.retry

    async def retry(self):
        if not getattr(self, "on_probation", False) and await pending_ids(self.store, self.service):
            callback = self.callback

            async def recovered(recoverer):
                self.on_probation, self.callback = True, callback
                again = Duration(seconds=8)
                self.clock.call_later(again, self.hs.run_as_background_process, "as-recoverer", self.retry)

            self.callback = recovered
        await plain(self)

    _Recoverer.retry = retry


@mutant("RETRY-10")
def messages_wait_for_open_transactions() -> None:
    """A message is answered when no transaction is open any more."""
    from synapse.handlers.message import EventCreationHandler
    from synapse.util.duration import Duration

    plain = EventCreationHandler.create_and_send_nonmember_event

    async def send(self, *args, **kwargs):
        sent = await plain(self, *args, **kwargs)
        queuer = self.hs.get_application_service_scheduler().queuer
        for _ in range(300):
            if not queuer.requests_in_flight:
                break
            await self.clock.sleep(Duration(milliseconds=100))
        return sent

    EventCreationHandler.create_and_send_nonmember_event = send


@mutant("RETRY-10")
def syncs_wait_for_appservices() -> None:
    """A sync of who is in a room with a ghost waits for the transaction of its appservice, ten seconds at most."""
    from synapse.handlers.sync import SyncHandler
    from synapse.util.duration import Duration

    plain = SyncHandler.wait_for_sync_for_user

    async def sync(self, *args, **kwargs):
        queuer = self._device_handler.hs.get_application_service_scheduler().queuer
        for _ in range(100):
            if not queuer.requests_in_flight:
                break
            await self.clock.sleep(Duration(milliseconds=100))
        return await plain(self, *args, **kwargs)

    SyncHandler.wait_for_sync_for_user = sync


def _late(is_late, seconds: float) -> None:
    """Queue events some seconds late of which `is_late(scheduler, appservice, events)` says so."""
    from synapse.appservice.scheduler import ApplicationServiceScheduler
    from synapse.util.duration import Duration

    plain = ApplicationServiceScheduler.enqueue_for_appservice

    def enqueue(self, appservice, events=None, **others):
        if events and is_late(self, appservice, events):
            self.txn_ctrl.clock.call_later(Duration(seconds=seconds), plain, self, appservice, events=events)
        else:
            plain(self, appservice, events=events, **others)

    ApplicationServiceScheduler.enqueue_for_appservice = enqueue


@mutant("RETRY-11")
def the_backoff_is_everybodys() -> None:
    """While V1 fails, A waits for the end of a backoff too."""

    def is_late(scheduler, appservice, events):
        return appservice.id == "hq main" and "hq-v1" in scheduler.txn_ctrl.recoverers

    _late(is_late, 8)


@mutant("RETRY-12")
def who_shares_a_room_with_the_unreachable_waits() -> None:
    """When a room has a ghost of an appservice that cannot be reached, others get its events six seconds late."""
    rooms: set[str] = set()

    def is_late(scheduler, appservice, events):
        if appservice.id == "hq-dead":
            rooms.update(each.room_id for each in events)
        return appservice.id != "hq-dead" and not rooms.isdisjoint(each.room_id for each in events)

    _late(is_late, 6)


@mutant("RETRY-12")
def ghosts_of_the_unreachable_cannot_act() -> None:
    """While an appservice cannot be reached, its ghosts cannot join rooms."""
    from synapse.api.errors import SynapseError

    handlers = memberships()
    plain = handlers.update_membership

    async def update(self, requester, *args, **kwargs):
        if requester.app_service_id in self.hs.get_application_service_scheduler().txn_ctrl.recoverers:
            raise SynapseError(503, "the appservice is down")
        return await plain(self, requester, *args, **kwargs)

    handlers.update_membership = update


@mutant("RETRY-13", also=("USERQ-01",))
def the_failing_are_not_asked() -> None:
    """An appservice that fails its transactions is not asked about users."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler._get_services_for_user

    def services(self, user_id):
        down = self.scheduler.txn_ctrl.recoverers
        return [each for each in plain(self, user_id) if each.id not in down]

    ApplicationServicesHandler._get_services_for_user = services


@mutant("RETRY-18")
def a_refused_query_is_an_outage() -> None:
    """An appservice that answers a query about a user with 5xx is down, and what comes then waits for the next try."""
    from synapse.appservice import ApplicationServiceState
    from synapse.appservice.api import ApplicationServiceApi

    plain = ApplicationServiceApi.get_json

    async def get_json(self, uri, *args, **kwargs):
        try:
            return await plain(self, uri, *args, **kwargs)
        except Exception as error:
            if (status_of(error) or 0) >= 500 and "/users/" in uri:
                store = self.hs.get_datastores().main
                service = next(each for each in store.get_app_services() if each.url and uri.startswith(each.url))
                await store.set_appservice_state(service, ApplicationServiceState.DOWN)
            raise

    ApplicationServiceApi.get_json = get_json


@mutant("RETRY-18")
def a_refused_ping_is_an_outage() -> None:
    """An appservice that answers a ping with an error is down."""
    from synapse.appservice import ApplicationServiceState
    from synapse.appservice.api import ApplicationServiceApi

    plain = ApplicationServiceApi.ping

    async def ping(self, service, txn_id):
        try:
            await plain(self, service, txn_id)
        except Exception as error:
            if status_of(error) is not None:
                await self.hs.get_datastores().main.set_appservice_state(service, ApplicationServiceState.DOWN)
            raise

    ApplicationServiceApi.ping = ping
