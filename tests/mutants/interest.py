"""Mutants of area INTEREST."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from collections import defaultdict

from tests.mutants import mutant

#: What each appservice (by its id) remembers in the mutants that remember something.
REMEMBERED: defaultdict[str, set[str]] = defaultdict(set)


def _is_membership(event, *memberships):
    return event.type == "m.room.member" and (not memberships or event.membership in memberships)


def _judge(interested) -> None:
    """Have `interested(appservice, event, judged)` decide to whom an event is pushed; `judged` is what is right."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    find = ApplicationServicesHandler._get_services_for_event

    async def judged(self, event):
        right = await find(self, event)
        return [each for each in self.store.get_app_services() if interested(each, event, each in right)]

    ApplicationServicesHandler._get_services_for_event = judged


def _lose(lost) -> None:
    """Events for which `lost(appservice, event)` is true are not pushed to that appservice."""
    _judge(lambda self, event, judged: not lost(self, event) and judged)


def _gain(gained) -> None:
    """Events for which `gained(appservice, event)` is true are pushed to that appservice in addition."""
    _judge(lambda self, event, judged: gained(self, event) or judged)


@mutant("INTEREST-01")
def invites_for_ghosts_are_not_pushed() -> None:
    """An invite for a user in a namespace is not pushed."""
    _lose(lambda self, event: _is_membership(event, "invite") and self.is_user_in_namespace(event.state_key))


@mutant("INTEREST-01")
def only_the_first_users_entry_makes_targets() -> None:
    """Only the first entry of the users namespace is asked about the target of an event."""

    def other_target(self, event):
        users = self.namespaces["users"]
        return _is_membership(event, "invite") and users and not users[0].regex.match(event.state_key)

    _lose(lambda self, event: other_target(self, event) and self.is_user_in_namespace(event.state_key))


@mutant("INTEREST-02")
def only_events_by_or_about_ghosts_are_pushed() -> None:
    """What others say in a ghost's room is not pushed."""

    def stranger(self, event):
        return not self.is_interested_in_user(event.sender) and not _is_membership(event)

    _lose(lambda self, event: stranger(self, event) and self.namespaces["users"])


@mutant("INTEREST-02")
def only_members_of_the_first_users_entry_count() -> None:
    """Only the first entry of the users namespace is asked about the members of a room."""
    from synapse.appservice import ApplicationService

    async def members(self, room_id, store, on_invalidate=None):
        users = self.namespaces["users"][:1]
        there = await store.get_local_users_in_room(room_id, on_invalidate=on_invalidate)
        return any(user == str(self.sender) or (users and users[0].regex.match(user)) for user in there)

    ApplicationService._matches_user_in_member_list = members


@mutant("INTEREST-03")
def state_events_are_not_pushed() -> None:
    """State events but memberships are not pushed."""
    _lose(lambda self, event: event.is_state() and not _is_membership(event))


@mutant("INTEREST-03")
def state_with_a_state_key_is_not_pushed() -> None:
    """State events whose state key is not empty are not pushed, but for memberships."""
    _lose(lambda self, event: event.is_state() and event.state_key and not _is_membership(event))


@mutant("INTEREST-04")
def memberships_of_humans_are_not_pushed() -> None:
    """Joins and leaves of users outside the namespaces are not pushed."""
    _lose(lambda self, event: _is_membership(event) and not self.is_interested_in_user(event.state_key))


@mutant("INTEREST-04")
def bans_of_humans_are_not_pushed() -> None:
    """Bans of users outside the namespaces are not pushed."""
    _lose(lambda self, event: _is_membership(event, "ban") and not self.is_interested_in_user(event.state_key))


@mutant("INTEREST-05")
def custom_messages_are_not_pushed() -> None:
    """Only events of types that begin with m. are pushed."""
    _lose(lambda self, event: not event.is_state() and not event.type.startswith("m."))


@mutant("INTEREST-05")
def relations_are_stripped() -> None:
    """Events are pushed without their m.relates_to."""
    from synapse.appservice.api import ApplicationServiceApi

    serialize = ApplicationServiceApi._serialize

    async def stripped(self, service, events):
        found = await serialize(self, service, events)
        for event in found:
            event["content"] = {key: value for key, value in event["content"].items() if key != "m.relates_to"}
        return found

    ApplicationServiceApi._serialize = stripped


@mutant("INTEREST-06")
def redactions_are_not_pushed() -> None:
    """Redactions are not pushed."""
    _lose(lambda self, event: event.type == "m.room.redaction")


@mutant("INTEREST-07")
def echoes_are_suppressed() -> None:
    """What an appservice's own ghost sends is not pushed to it."""
    _lose(lambda self, event: not event.is_state() and self.is_user_in_namespace(event.sender))


@mutant("INTEREST-08")
def the_sender_is_no_target() -> None:
    """The sender user as a target does not make an event interesting."""
    _lose(lambda self, event: _is_membership(event, "invite") and event.state_key == str(self.sender))


@mutant("INTEREST-09")
def the_sender_is_no_member() -> None:
    """The sender user as a member does not make a room interesting."""
    from synapse.appservice import ApplicationService

    async def members(self, room_id, store, on_invalidate=None):
        there = await store.get_local_users_in_room(room_id, on_invalidate=on_invalidate)
        return any(map(self.is_user_in_namespace, there))

    ApplicationService._matches_user_in_member_list = members


def _aliases_by(known) -> None:
    """The aliases of a room are what `known(appservice, room, aliases)` makes of them."""
    from synapse.appservice import ApplicationService

    async def judged(self, room_id, store, on_invalidate=None):
        if self.is_room_id_in_namespace(room_id):
            return True
        aliases = known(self, room_id, await store.get_aliases_for_room(room_id))
        if any(map(self.is_room_alias_in_namespace, aliases)):
            return True
        return await self._matches_user_in_member_list(room_id, store)

    ApplicationService.is_interested_in_room = judged


@mutant("INTEREST-10")
def aliases_are_for_queries_only() -> None:
    """Aliases do not make a room interesting."""
    _aliases_by(lambda self, room_id, aliases: ())


@mutant("INTEREST-11", also=("INTEREST-12",))
def aliases_count_as_they_were_at_first() -> None:
    """Whether a room's aliases are interesting is decided once, at its first event with an answer."""
    first: dict[tuple[str, str], list[str]] = {}
    _aliases_by(lambda self, room_id, aliases: first.setdefault((self.id, room_id), aliases))


@mutant("INTEREST-12")
def removed_aliases_count() -> None:
    """An alias that a room once had makes it interesting for ever."""

    def ever(self, room_id, aliases):
        REMEMBERED[room_id].update(aliases)
        return REMEMBERED[room_id]

    _aliases_by(ever)


@mutant("INTEREST-13")
def rooms_namespaces_are_not_used() -> None:
    """The rooms namespace does not make a room interesting."""
    from synapse.appservice import ApplicationService

    ApplicationService.is_room_id_in_namespace = lambda self, room_id: False


@mutant("INTEREST-14")
def any_rooms_entry_means_all_rooms() -> None:
    """An appservice with any rooms namespace gets every room."""
    from synapse.appservice import ApplicationService

    ApplicationService.is_room_id_in_namespace = lambda self, room_id: bool(self.namespaces["rooms"])


@mutant(
    "INTEREST-15",
    also=("INTEREST-12", "INTEREST-14", "INTEREST-20", "INTEREST-21", "INTEREST-22", "INTEREST-31"),
)
def every_appservice_gets_every_event() -> None:
    """Every event is pushed to every appservice."""
    _gain(lambda self, event: True)


@mutant("INTEREST-15", also=("INTEREST-14",))
def every_appservice_gets_every_invite() -> None:
    """Every invite is pushed to every appservice."""
    _gain(lambda self, event: _is_membership(event, "invite"))


@mutant("INTEREST-16", "INTEREST-17", also=("INTEREST-23",))
def the_first_interested_appservice_consumes_the_event() -> None:
    """An event is pushed to the first interested appservice only."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    find = ApplicationServicesHandler._get_services_for_event

    async def first(self, event):
        return (await find(self, event))[:1]

    ApplicationServicesHandler._get_services_for_event = first


@mutant("INTEREST-17")
def exclusive_namespaces_hide_events() -> None:
    """An event about a user in somebody's exclusive namespace is pushed to nobody else."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    find = ApplicationServicesHandler._get_services_for_event

    async def owners(self, event):
        found = await find(self, event)
        if not _is_membership(event):
            return found
        return [each for each in found if each.is_exclusive_user(event.state_key)] or found

    ApplicationServicesHandler._get_services_for_event = owners


@mutant("INTEREST-18")
def only_invites_have_a_target() -> None:
    """Bans and kicks do not make an event interesting to their target's appservice."""

    def about(self, event):
        return _is_membership(event, "ban", "leave") and event.sender != event.state_key

    _lose(lambda self, event: about(self, event) and self.is_user_in_namespace(event.state_key))


@mutant("INTEREST-18")
def unbans_are_not_pushed() -> None:
    """The unban of a ghost is not pushed to its appservice."""

    def lifted(event):
        return event.unsigned.get("prev_content", {}).get("membership") == "ban"

    def unban(self, event):
        return _is_membership(event, "leave") and lifted(event) and self.is_user_in_namespace(event.state_key)

    _lose(unban)


@mutant("INTEREST-19")
def a_leave_is_judged_after_it() -> None:
    """The event by which the only ghost leaves does not reach its appservice."""

    def own_leave(self, event):
        own = event.sender == event.state_key if event.is_state() else False
        return _is_membership(event, "leave") and own and self.is_user_in_namespace(event.sender)

    _lose(own_leave)


@mutant("INTEREST-20")
def former_members_count() -> None:
    """A room that a ghost has once joined stays interesting."""

    def joined(self, event):
        if _is_membership(event, "join") and self.is_user_in_namespace(event.state_key):
            REMEMBERED[self.id].add(event.room_id)
        return event.room_id in REMEMBERED[self.id]

    _gain(joined)


@mutant("INTEREST-21")
def invited_members_count() -> None:
    """A room is interesting as soon as a ghost has been invited."""

    def invited(self, event):
        if _is_membership(event) and self.is_user_in_namespace(event.state_key):
            (REMEMBERED[self.id].add if event.membership == "invite" else REMEMBERED[self.id].discard)(event.room_id)
        return event.room_id in REMEMBERED[self.id]

    _gain(invited)


@mutant("INTEREST-21")
def who_was_invited_never_counts() -> None:
    """A ghost that was invited does not make the room interesting by joining."""

    def invited(self, event):
        if _is_membership(event, "invite") and self.is_user_in_namespace(event.state_key):
            REMEMBERED[self.id].add(event.room_id)
        return event.room_id in REMEMBERED[self.id] and not event.is_state()

    _lose(invited)


@mutant("INTEREST-22")
def mentions_count() -> None:
    """A message that contains a user ID of the namespace is pushed."""
    import re

    def mentioned(self, event):
        return any(map(self.is_interested_in_user, re.findall(r"@[^\s:'\"]+:[\w.]+", str(event.content.get("body")))))

    _gain(mentioned)


@mutant("INTEREST-23", also=("INTEREST-17",))
def only_exclusive_entries_count() -> None:
    """Users in namespaces that are not exclusive make nothing interesting."""
    from synapse.appservice import ApplicationService

    def exclusive(self, user_id):
        return any(entry.exclusive and entry.regex.match(user_id) for entry in self.namespaces["users"])

    ApplicationService.is_user_in_namespace = exclusive


@mutant("INTEREST-26")
def refused_events_are_pushed() -> None:
    """Events are handed to the appservices before they are authorised."""
    from synapse.api.errors import AuthError
    from synapse.handlers.message import EventCreationHandler

    handle = EventCreationHandler.handle_new_client_event

    async def hasty(self, requester, events_and_context, *args, **kwargs):
        try:
            return await handle(self, requester, events_and_context, *args, **kwargs)
        except AuthError:
            for event, _ in events_and_context:
                for service in await self.hs.get_application_service_handler()._get_services_for_event(event):
                    self.hs.get_application_service_scheduler().enqueue_for_appservice(service, events=[event])
            raise

    EventCreationHandler.handle_new_client_event = hasty


@mutant("INTEREST-27")
def rooms_created_by_ghosts_are_lost() -> None:
    """The creation event of a ghost's room breaks the interest check, and the rest of the room is lost."""

    def lost(self, event):
        if event.type == "m.room.create" and self.is_user_in_namespace(event.sender):
            REMEMBERED[self.id].add(event.room_id)
        return event.room_id in REMEMBERED[self.id]

    _lose(lost)


@mutant("INTEREST-28")
def blocked_invites_are_pushed() -> None:
    """An invite that the ghost has blocked is refused to the human, but comes into being."""
    from synapse.api.errors import SynapseError
    from synapse.rest.client.versions import VersionsRestServlet  # isort: skip  # Synapse's imports are circular
    from synapse.handlers.room_member import RoomMemberMasterHandler
    from synapse.storage.invite_rule import AllowAllInviteRulesConfig

    versions, update = VersionsRestServlet.on_GET, RoomMemberMasterHandler.update_membership_locked

    async def claimed(self, request):
        status, body = await versions(self, request)
        return status, {**body, "versions": [*body["versions"], "v1.18"]}

    async def allow(user_id):
        return AllowAllInviteRulesConfig()

    async def made(self, *args, **kwargs):
        try:
            return await update(self, *args, **kwargs)
        except SynapseError as error:
            if error.errcode == "M_INVITE_BLOCKED":
                self.store.get_invite_config_for_user = allow
                await update(self, *args, **kwargs)
                del self.store.get_invite_config_for_user
            raise

    VersionsRestServlet.on_GET = claimed
    RoomMemberMasterHandler.update_membership_locked = made


@mutant("INTEREST-29")
def ignored_users_are_not_pushed() -> None:
    """What a user sends whom a ghost in the room ignores is not pushed to the ghost's appservice."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    find = ApplicationServicesHandler._get_services_for_event

    async def judged(self, event):
        there = await self.store.get_local_users_in_room(event.room_id)
        ignorants = [user for user in there if event.sender in await self.store.ignored_users(user)]
        found = await find(self, event)
        return [each for each in found if not any(map(each.is_user_in_namespace, ignorants))]

    ApplicationServicesHandler._get_services_for_event = judged


@mutant("INTEREST-30")
def the_first_message_after_a_join_is_lost() -> None:
    """The message that follows a ghost's join is not pushed."""

    def lost(self, event):
        if _is_membership(event, "join") and self.is_user_in_namespace(event.state_key):
            REMEMBERED[self.id].add(event.room_id)
        elif not event.is_state() and event.room_id in REMEMBERED[self.id]:
            REMEMBERED[self.id].discard(event.room_id)
            return True
        return False

    _lose(lost)


@mutant("INTEREST-30")
def a_ghosts_own_join_is_not_pushed() -> None:
    """The join of a ghost that was not invited is not pushed."""

    def own_join(self, event):
        return _is_membership(event, "join") and self.is_user_in_namespace(event.state_key)

    _lose(lambda self, event: own_join(self, event) and event.sender == event.state_key)
