"""Mutants of area RESTART, of what is lost or altered when Synapse is stopped, and of bad registrations."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from tests.mutants import mutant
from tests.mutants._outages import pending_ids


def _at_the_start(do) -> None:
    """Have `do(store, services)` be done when Synapse starts, before anything is pushed."""
    from synapse.appservice.scheduler import ApplicationServiceScheduler

    plain = ApplicationServiceScheduler.start

    async def start(self):
        await do(self.store, self.store.get_app_services())
        await plain(self)

    ApplicationServiceScheduler.start = start


@mutant("RETRY-15", also=("RESTART-07",))
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


@mutant("RESTART-08")
def aliases_are_lost_at_the_start() -> None:
    """When Synapse starts, the aliases that appservices have created are deleted."""

    async def forget(store, services):
        for each in services:
            await store.db_pool.simple_delete("room_aliases", {"creator": each.sender.to_string()}, "forget")

    _at_the_start(forget)


@mutant("RESTART-08")
def ghosts_are_nameless_after_the_start() -> None:
    """When Synapse starts, ghosts lose their names."""

    async def forget(store, services):
        for each in services:
            rows = await store.db_pool.simple_select_onecol("users", {"appservice_id": each.id}, "name")
            for user_id in rows:
                await store.db_pool.simple_delete("profiles", {"full_user_id": user_id}, "forget")

    _at_the_start(forget)


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
