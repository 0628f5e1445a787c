"""Mutants of area NSALIAS. Synapse itself deviates in NSALIAS-05, -17 and -18: its own proof."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import importlib
import re
from urllib.parse import quote

from tests.mutants import mutant


def _aliases_of_humans(may_modify) -> None:
    """Have `may_modify(services, alias)` decide which aliases humans may create and delete."""
    from synapse.handlers.directory import DirectoryHandler

    def can_modify_alias(self, alias, user_id=None):
        return may_modify(self.store.get_app_services(), alias.to_string())

    DirectoryHandler.can_modify_alias = can_modify_alias


def _aliases_of_appservices(allowed) -> None:
    """Have `allowed(service, alias, requester, others)` decide what an appservice may create."""
    from synapse.api.errors import Codes, SynapseError
    from synapse.handlers.directory import DirectoryHandler

    original = DirectoryHandler.create_association

    async def create(self, requester, room_alias, room_id, servers=None, check_membership=True):
        if requester.app_service_id is None:
            return await original(self, requester, room_alias, room_id, servers, check_membership)
        service = self.store.get_app_service_by_id(requester.app_service_id)
        others = [each for each in self.store.get_app_services() if each != service]
        if not allowed(service, room_alias.to_string(), requester, others):
            raise SynapseError(400, "reserved", errcode=Codes.EXCLUSIVE)
        return await self._create_association(room_alias, room_id, servers, creator=requester.user.to_string())

    DirectoryHandler.create_association = create


def _deletions_of_appservices(allowed) -> None:
    """Have `allowed(service, alias, creator)` decide what an appservice may delete."""
    from synapse.api.errors import Codes, SynapseError
    from synapse.handlers.directory import DirectoryHandler

    async def delete(self, service, room_alias):
        creator = await self.store.get_room_alias_creator(room_alias.to_string())
        if not allowed(service, room_alias.to_string(), creator):
            raise SynapseError(400, "reserved", errcode=Codes.EXCLUSIVE)
        await self._delete_association(room_alias)

    DirectoryHandler.delete_appservice_association = delete


def _is_exclusive(services, alias) -> bool:
    return any(each.is_exclusive_alias(alias) for each in services)


@mutant("NSALIAS-01", "NSALIAS-02", "NSALIAS-09")
def humans_may_take_and_delete_any_alias() -> None:
    """Namespaces of aliases bind no human."""
    _aliases_of_humans(lambda services, alias: True)


@mutant("NSALIAS-01", also=("NSALIAS-02",))
def a_refused_alias_is_created() -> None:
    """A human who creates an exclusive alias is refused, but the alias is there afterwards."""
    from synapse.api.errors import AuthError
    from synapse.handlers.directory import DirectoryHandler

    original = DirectoryHandler.create_association

    async def create(self, requester, room_alias, room_id, *args, **kwargs):
        try:
            await original(self, requester, room_alias, room_id, *args, **kwargs)
        except AuthError:
            await self._create_association(room_alias, room_id, None, creator=requester.user.to_string())
            raise

    DirectoryHandler.create_association = create


@mutant("NSALIAS-01")
def aliases_beyond_ascii_are_matched_encoded() -> None:
    """Aliases with letters beyond ASCII are matched in their percent-encoded form."""
    _aliases_of_humans(lambda services, alias: not _is_exclusive(services, alias if alias.isascii() else quote(alias)))


@mutant("NSALIAS-01", also=("NSALIAS-02",))
def exclusive_aliases_are_forbidden() -> None:
    """A human who creates an exclusive alias is told 403 M_FORBIDDEN."""
    from synapse.api.errors import AuthError
    from synapse.handlers.directory import DirectoryHandler

    original = DirectoryHandler.can_modify_alias

    def can_modify_alias(self, alias, user_id=None):
        if not original(self, alias, user_id):
            raise AuthError(403, "no")
        return True

    DirectoryHandler.can_modify_alias = can_modify_alias


@mutant("NSALIAS-02")
def create_room_gives_any_alias() -> None:
    """createRoom does not look at the namespaces of aliases."""
    from synapse.handlers.directory import DirectoryHandler

    original = DirectoryHandler.create_association

    async def create(self, requester, room_alias, room_id, servers=None, check_membership=True):
        if check_membership or requester.app_service_id is not None:
            return await original(self, requester, room_alias, room_id, servers, check_membership)
        return await self._create_association(room_alias, room_id, servers, creator=requester.user.to_string())

    DirectoryHandler.create_association = create


@mutant("NSALIAS-03")
def open_aliases_are_closed_to_humans() -> None:
    """Humans may create aliases in no namespace, exclusive or not."""
    _aliases_of_humans(lambda services, alias: not any(each.is_room_alias_in_namespace(alias) for each in services))


@mutant("NSALIAS-04")
def appservices_may_take_each_others_aliases() -> None:
    """An appservice may create an alias in another's exclusive namespace."""
    _aliases_of_appservices(
        lambda service, alias, requester, others: (
            service.is_room_alias_in_namespace(alias) or _is_exclusive(others, alias)
        )
    )


@mutant("NSALIAS-04")
def ghosts_may_take_other_appservices_aliases() -> None:
    """A ghost, unlike a sender, may create an alias in another appservice's exclusive namespace."""
    _aliases_of_appservices(
        lambda service, alias, requester, others: (
            service.is_room_alias_in_namespace(alias)
            or (requester.user != service.sender and _is_exclusive(others, alias))
        )
    )


@mutant("NSALIAS-06")
def appservices_may_create_what_nobody_owns() -> None:
    """An appservice may create any alias that is not exclusive to another one."""
    _aliases_of_appservices(lambda service, alias, requester, others: not _is_exclusive(others, alias))


@mutant("NSALIAS-06")
def appservices_may_create_any_alias_with_a_room() -> None:
    """createRoom lets an appservice take any alias."""
    from synapse.handlers.directory import DirectoryHandler

    original = DirectoryHandler.create_association

    async def create(self, requester, room_alias, room_id, servers=None, check_membership=True):
        if check_membership or requester.app_service_id is None:
            return await original(self, requester, room_alias, room_id, servers, check_membership)
        return await self._create_association(room_alias, room_id, servers, creator=requester.user.to_string())

    DirectoryHandler.create_association = create


@mutant("NSALIAS-07")
def senders_cannot_create_exclusive_aliases() -> None:
    """The sender user may create no alias that is exclusive to its appservice."""
    _aliases_of_appservices(
        lambda service, alias, requester, others: (
            service.is_room_alias_in_namespace(alias)
            and not (requester.user == service.sender and service.is_exclusive_alias(alias))
        )
    )


@mutant("NSALIAS-07")
def aliases_that_two_appservices_claim_are_nobodys() -> None:
    """An appservice may not create an alias that another one claims too, exclusively or not."""
    _aliases_of_appservices(
        lambda service, alias, requester, others: (
            service.is_room_alias_in_namespace(alias)
            and not any(each.is_room_alias_in_namespace(alias) for each in others)
        )
    )


@mutant("NSALIAS-08")
def ghosts_cannot_create_exclusive_aliases() -> None:
    """Only the sender user may create exclusive aliases."""
    _aliases_of_appservices(
        lambda service, alias, requester, others: (
            service.is_room_alias_in_namespace(alias)
            and (requester.user == service.sender or not service.is_exclusive_alias(alias))
        )
    )


@mutant("NSALIAS-09")
def administrators_may_delete_exclusive_aliases() -> None:
    """The administrator of a room may delete all its aliases."""
    from synapse.handlers.directory import DirectoryHandler

    original = DirectoryHandler.delete_association

    async def delete(self, requester, room_alias):
        if await self._user_can_delete_alias(room_alias, requester):
            return await self._delete_association(room_alias)
        return await original(self, requester, room_alias)

    DirectoryHandler.delete_association = delete


@mutant("NSALIAS-09")
def refused_deletions_happen() -> None:
    """A human who deletes an exclusive alias is refused, but the alias is gone afterwards."""
    from synapse.api.errors import SynapseError
    from synapse.handlers.directory import DirectoryHandler

    original = DirectoryHandler.delete_association

    async def delete(self, requester, room_alias):
        try:
            return await original(self, requester, room_alias)
        except SynapseError:
            await self._delete_association(room_alias)
            raise

    DirectoryHandler.delete_association = delete


@mutant("NSALIAS-10", also=("NSALIAS-11",))
def only_a_senders_own_aliases_can_be_deleted() -> None:
    """An appservice may delete only the aliases that its sender user made."""
    _deletions_of_appservices(
        lambda service, alias, creator: (
            service.is_room_alias_in_namespace(alias) and creator == service.sender.to_string()
        )
    )


@mutant("NSALIAS-10")
def exclusive_aliases_cannot_be_deleted() -> None:
    """An appservice is told that its exclusive alias is deleted, but it stays."""
    from synapse.handlers.directory import DirectoryHandler

    original = DirectoryHandler.delete_appservice_association

    async def delete(self, service, room_alias):
        if not service.is_exclusive_alias(room_alias.to_string()):
            await original(self, service, room_alias)

    DirectoryHandler.delete_appservice_association = delete


@mutant("NSALIAS-11")
def aliases_of_humans_cannot_be_deleted() -> None:
    """An appservice that deletes an alias of its open namespace that a human made is told 400 M_EXCLUSIVE."""
    _deletions_of_appservices(
        lambda service, alias, creator: (
            service.is_room_alias_in_namespace(alias) and service.is_interested_in_user(creator)
        )
    )


@mutant("NSALIAS-12")
def appservices_may_delete_any_alias() -> None:
    """An appservice may delete the exclusive aliases of others."""
    _deletions_of_appservices(lambda service, alias, creator: True)


@mutant("NSALIAS-13")
def exclusive_aliases_cannot_be_joined() -> None:
    """Nobody can join a room by an exclusive alias."""
    from synapse.api.errors import AuthError

    importlib.import_module("synapse.rest")  # before the handlers, which import it in a circle
    from synapse.handlers.room_member import RoomMemberHandler

    original = RoomMemberHandler.lookup_room_alias

    async def lookup(self, room_alias):
        if _is_exclusive(self.store.get_app_services(), room_alias.to_string()):
            raise AuthError(403, "reserved")
        return await original(self, room_alias)

    RoomMemberHandler.lookup_room_alias = lookup


@mutant("NSALIAS-14")
def aliases_are_matched_anywhere() -> None:
    """Whether an alias is exclusive is decided by searching for the regex, without its sigil, anywhere in it."""

    def may_modify(services, alias):
        entries = [entry for each in services for entry in each.namespaces["aliases"] if entry.exclusive]
        return not any(re.search(entry.regex.pattern.lstrip("#"), alias) for entry in entries)

    _aliases_of_humans(may_modify)


@mutant("NSALIAS-15")
def users_namespaces_reserve_aliases() -> None:
    """An alias is exclusive, too, when the user of that name is."""
    _aliases_of_humans(
        lambda services, alias: (
            not _is_exclusive(services, alias) and not any(each.is_exclusive_user(f"@{alias[1:]}") for each in services)
        )
    )
