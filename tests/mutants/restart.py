"""Mutants of area RESTART, of what is lost or altered when Synapse is stopped, and of bad registrations."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from tests.mutants import mutant
from tests.mutants._outages import pending_ids, pending_instead


def _at_the_start(do) -> None:
    """Have `do(store, services)` be done when Synapse starts, before anything is pushed."""
    from synapse.appservice.scheduler import ApplicationServiceScheduler

    plain = ApplicationServiceScheduler.start

    async def start(self):
        await do(self.store, self.store.get_app_services())
        await plain(self)

    ApplicationServiceScheduler.start = start


@mutant("RETRY-15", also=("RESTART-05", "RESTART-07"))
def what_was_pending_is_forgotten_at_the_start() -> None:
    """When Synapse starts, the transactions that were pending are deleted."""

    async def forget(store, services):
        for each in services:
            await store.db_pool.simple_delete("application_services_txns", {"as_id": each.id}, "forget")

    _at_the_start(forget)


@mutant("RETRY-15", also=("RESTART-07",))
def what_was_pending_has_another_id_after_the_start() -> None:
    """When Synapse starts, the transactions that were pending are numbered anew."""

    async def renumber(store, services):
        for each in services:
            for number, _ in await pending_ids(store, each):
                table, key = "application_services_txns", {"as_id": each.id, "txn_id": number}
                await store.db_pool.simple_update(table, key, {"txn_id": number + 5000}, "renumber")

    _at_the_start(renumber)


@mutant("RESTART-05", also=("RETRY-15", "RESTART-07"))
def nothing_is_recovered_at_the_start() -> None:
    """When Synapse starts, appservices that were down are taken for well, and what was pending waits."""
    from synapse.appservice import ApplicationServiceState
    from synapse.appservice.scheduler import ApplicationServiceScheduler

    async def start(self):
        for each in self.store.get_app_services():
            await self.store.set_appservice_state(each, ApplicationServiceState.UP)

    ApplicationServiceScheduler.start = start


@mutant("RESTART-07")
def what_was_pending_is_backwards_after_the_start() -> None:
    """A transaction from before the start has its events backwards."""
    old: dict[str, int] = {}

    async def note(store, services):
        for each in services:
            old[each.id] = max([number for number, _ in await pending_ids(store, each)], default=0)

    async def load(store, service, right):
        found = await right(store, service)
        if found is not None and found.id <= old.get(service.id, 0):
            found.events = list(found.events)[::-1]
        return found

    _at_the_start(note)
    pending_instead(load)


@mutant("REG-06")
def tokens_may_be_shared() -> None:
    """Two registrations may have the same as_token."""
    _not_compared("as_token")


@mutant("REG-07")
def ids_may_be_shared() -> None:
    """Two registrations may have the same id."""
    _not_compared("id")


def _not_compared(key: str) -> None:
    """Load registrations without comparing what one of their keys says."""
    from synapse.config import appservice

    plain = appservice._load_appservice

    class Unlike(str):
        """A text that is equal to no other when it is looked up."""

        __slots__ = ()

        def __hash__(self):
            return id(self)

    def load(hostname, info, filename):
        service = plain(hostname, info, filename)
        if key == "id":
            service.id = Unlike(service.id)
        else:
            service.token = Unlike(service.token)
        return service

    appservice._load_appservice = load
