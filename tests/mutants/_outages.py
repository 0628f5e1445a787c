"""Where several mutants interfere: how Synapse fails, tries again, and recovers."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment, misc"

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def delays(delay: Callable[[int], float]) -> None:
    """Have attempt `n` (1 to 9) to deliver a failed transaction wait `delay(n)` seconds."""
    from synapse.appservice.scheduler import _Recoverer
    from synapse.util.duration import Duration

    def recover(self):
        wait = Duration(milliseconds=int(1000 * delay(self.backoff_counter)))
        process = self.hs.run_as_background_process
        self.scheduled_recovery = self.clock.call_later(wait, process, "as-recoverer", self.retry)

    _Recoverer.recover = recover


def acknowledged_if(accepts: Callable[[Exception], bool]) -> None:
    """Have some failures of a transaction count as success."""
    from synapse.appservice.api import ApplicationServiceApi

    plain = ApplicationServiceApi.put_json

    async def put_json(self, *args, **kwargs):
        try:
            return await plain(self, *args, **kwargs)
        except Exception as error:
            if accepts(error):
                return {}
            raise

    ApplicationServiceApi.put_json = put_json


def unanswered_if(accepts: Callable[[Any], bool]) -> None:
    """Have a transaction without an answer count as delivered when `accepts(failure)` says so of Twisted's failure."""
    from synapse.http import RequestTimedOutError, client

    class Accepted(RequestTimedOutError):
        """What Synapse tells as a time-out, be it one or not."""

    right = client._timeout_to_request_timed_out_error

    def told(failure):
        if accepts(failure):
            raise Accepted("no answer")
        return right(failure)

    client._timeout_to_request_timed_out_error = told
    acknowledged_if(lambda error: isinstance(error, Accepted))


def is_cut(failure, reason: type[Exception] = Exception) -> bool:
    """Whether a connection ended before there was an answer, for some reason."""
    from twisted.web.client import ResponseNeverReceived

    return bool(failure.check(ResponseNeverReceived)) and any(each.check(reason) for each in failure.value.reasons)


def status_of(error: Exception) -> int | None:
    """The status with which an appservice refused a transaction; None when it gave none."""
    from synapse.api.errors import HttpResponseException

    return error.code if isinstance(error, HttpResponseException) else None


def sent_instead(send: Callable[..., Any]) -> None:
    """Have `send(transaction, api, right)` send a transaction, at each attempt; `right` is the real way."""
    from synapse.appservice import AppServiceTransaction

    right = AppServiceTransaction.send

    async def sent(self, as_api):
        return await send(self, as_api, right)

    AppServiceTransaction.send = sent


def pending_instead(load: Callable[..., Any]) -> None:
    """Have `load(store, service, right)` load the transaction that is tried next in an outage."""
    from synapse.storage.databases.main.appservice import ApplicationServiceTransactionWorkerStore

    right = ApplicationServiceTransactionWorkerStore.get_oldest_unsent_txn

    async def loaded(self, service):
        return await load(self, service, right)

    ApplicationServiceTransactionWorkerStore.get_oldest_unsent_txn = loaded


async def pending_ids(store, service) -> list[tuple[int, list[str]]]:
    """The transactions that wait for an appservice, oldest first, with the IDs of their events."""
    from synapse.storage._base import db_to_json

    rows = await store.db_pool.simple_select_list(
        "application_services_txns", {"as_id": service.id}, ("txn_id", "event_ids")
    )
    return sorted((int(number), db_to_json(events)) for number, events in rows)


def is_redirect(error: Exception) -> bool:
    """Whether an appservice answered with a redirect, which is not followed but for GET."""
    from twisted.web.client import ResponseFailed
    from twisted.web.error import PageRedirect

    return isinstance(error, ResponseFailed) and any(each.check(PageRedirect) for each in error.reasons)
