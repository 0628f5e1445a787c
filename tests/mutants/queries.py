"""Mutants of areas USERQ and ALIASQ."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from typing import Any

from tests.mutants import mutant
from tests.mutants._tools import memberships, uncached
from tests.mutants._wire import requests


def _asked_of(choose: Callable[..., Any]) -> None:
    """Have `choose(services, user_id, right)` say who is asked about an unknown user; `right` are the right ones."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler._get_services_for_user

    def services(self, user_id):
        return choose([each for each in self.store.get_app_services() if each.url], user_id, plain(self, user_id))

    ApplicationServicesHandler._get_services_for_user = services


def _unknown_instead(is_unknown: Callable[..., Any]) -> None:
    """Have `is_unknown(handler, user_id, right)` say whether a user is unknown, so that somebody is asked."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    right = ApplicationServicesHandler._is_unknown_user

    async def unknown(self, user_id):
        return await is_unknown(self, user_id, right)

    ApplicationServicesHandler._is_unknown_user = unknown


def _query_instead(name: str, query: Callable[..., Any]) -> None:
    """Have `query(api, service, subject, right)` ask an appservice about a user or an alias."""
    from synapse.appservice.api import ApplicationServiceApi

    right = getattr(ApplicationServiceApi, name)

    async def asked(self, service, subject):
        return await query(self, service, subject, right)

    setattr(ApplicationServiceApi, name, asked)


def _paths(part: str, change: Callable[[str], str]) -> None:
    """Change what follows a part of the path in requests to appservices."""

    def edit(request):
        before, found, rest = request.uri.partition(part)
        request.uri = before + found + change(rest) if found else before

    requests(edit)


@mutant("USERQ-01")
def nobody_is_asked_about_users() -> None:
    """Appservices are not asked about unknown users."""
    _asked_of(lambda services, user_id, right: [])


@mutant("USERQ-01")
def only_senders_are_asked_about() -> None:
    """When a membership is pushed, only its sender is asked about, and not whom it is about."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler._check_user_exists
    previous: dict[str, str] = {}

    async def check(self, user_id):
        members = previous.pop("sender", None)
        if members is None:
            previous["sender"] = user_id
            return await plain(self, user_id)
        return True

    ApplicationServicesHandler._check_user_exists = check


@mutant("USERQ-02")
def user_ids_are_encoded_twice() -> None:
    """User IDs in queries are percent-encoded twice."""
    _paths("/users/", lambda rest: rest.replace("%3D", "%253D"))


@mutant("USERQ-02")
def user_ids_are_cut_at_a_slash() -> None:
    """What follows a slash in a user ID is missing in the query."""
    _paths("/users/", lambda rest: rest.replace("%2F", "/").partition("/")[0])


@mutant("USERQ-02")
def plus_signs_are_blanks() -> None:
    """The escapes in queries are those of a form: a plus sign stands for itself, and is a blank when decoded."""
    _paths("/users/", lambda rest: rest.replace("%2B", "%20"))


@mutant("USERQ-03")
def strangers_are_asked_about_at_the_first() -> None:
    """The first appservice is asked about those who are in nobody's namespace."""
    _asked_of(lambda services, user_id, right: right or services[:1])
    _everybody_is_looked_at()


@mutant("USERQ-03")
def prefixes_are_enough() -> None:
    """An appservice is asked about users whose ID begins with the letters of its namespace."""

    def near(service, user_id):
        return any(user_id.startswith(each.regex.pattern.removesuffix("-.*")) for each in service.namespaces["users"])

    _asked_of(lambda services, user_id, right: right or [each for each in services if near(each, user_id)])
    _everybody_is_looked_at()


def _everybody_is_looked_at() -> None:
    """Look at all memberships, also those that interest no appservice."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler._get_services_for_event

    async def services(self, event):
        found = await plain(self, event)
        if not found and event.type == "m.room.member":
            await self._check_user_exists(event.state_key)
        return found

    ApplicationServicesHandler._get_services_for_event = services


@mutant("USERQ-04")
def all_are_asked_when_one_is() -> None:
    """Of an unknown user in a namespace every appservice is asked."""
    _asked_of(lambda services, user_id, right: services if right else [])


@mutant("USERQ-05")
def only_the_exclusive_are_asked() -> None:
    """Only whoever has a user exclusively is asked about it."""
    _asked_of(lambda services, user_id, right: [each for each in right if each.is_exclusive_user(user_id)])


@mutant("USERQ-06")
def ghosts_without_devices_are_asked_about() -> None:
    """An appservice is asked about its ghosts that have no device."""

    async def is_unknown(handler, user_id, right):
        if not await right(handler, user_id):
            ghost = any(each.is_user_in_namespace(user_id) for each in handler.store.get_app_services())
            return ghost and not await handler.store.get_devices_by_user(user_id)
        return True

    _unknown_instead(is_unknown)


_OPEN: dict[str, float] = {}


def _while_open(name: str) -> None:
    """Keep in mind which queries are open."""

    async def query(api, service, subject, right):
        _OPEN[subject] = time.monotonic()
        try:
            return await right(api, service, subject)
        finally:
            del _OPEN[subject]

    _query_instead(name, query)


async def _until_none_is_open(clock, seconds: float) -> None:
    from synapse.util.duration import Duration

    for _ in range(int(10 * seconds)):
        if not _OPEN:
            return
        await clock.sleep(Duration(milliseconds=100))


@mutant("USERQ-07", also=("USERQ-15",))
def registrations_wait_for_queries() -> None:
    """While an appservice is asked about a user, it cannot register anybody."""
    from synapse.handlers.register import RegistrationHandler

    plain = RegistrationHandler.appservice_register

    async def register(self, *args, **kwargs):
        await _until_none_is_open(self.clock, 20)
        return await plain(self, *args, **kwargs)

    _while_open("query_user")
    RegistrationHandler.appservice_register = register


@mutant("USERQ-07")
def names_wait_for_queries() -> None:
    """While an appservice is asked about a user, nobody can be given a name."""
    from synapse.handlers.profile import ProfileHandler

    plain = ProfileHandler.set_displayname

    async def named(self, *args, **kwargs):
        await _until_none_is_open(self.clock, 20)
        return await plain(self, *args, **kwargs)

    _while_open("query_user")
    ProfileHandler.set_displayname = named


@mutant("USERQ-09")
def the_invite_that_asked_is_not_pushed() -> None:
    """A membership because of which an appservice was asked is not pushed."""
    from synapse.appservice.scheduler import ApplicationServiceScheduler
    from synapse.handlers.appservice import ApplicationServicesHandler

    check, enqueue = ApplicationServicesHandler._check_user_exists, ApplicationServiceScheduler.enqueue_for_appservice
    asked: set[str] = set()

    async def checked(self, user_id):
        if await self._is_unknown_user(user_id):
            asked.add(user_id)
        return await check(self, user_id)

    def enqueued(self, appservice, events=None, **others):
        kept = [each for each in events or () if each.type != "m.room.member" or each.state_key not in asked]
        asked.difference_update(each.state_key for each in events or () if each.type == "m.room.member")
        enqueue(self, appservice, events=kept, **others)

    ApplicationServicesHandler._check_user_exists = checked
    ApplicationServiceScheduler.enqueue_for_appservice = enqueued


@mutant("USERQ-09", also=("USERQ-08", "USERQ-15", "USERQ-17"))
def strangers_cannot_be_invited() -> None:
    """A local user who does not exist cannot be invited."""
    from synapse.api.errors import NotFoundError

    handlers = memberships()
    plain = handlers.update_membership

    async def update(self, requester, target, room_id, action, *args, **kwargs):
        handler = self.hs.get_application_service_handler()
        if action == "invite" and await handler._is_unknown_user(target.to_string()):
            await handler.query_user_exists(target.to_string())
            raise NotFoundError("no such user")
        return await plain(self, requester, target, room_id, action, *args, **kwargs)

    handlers.update_membership = update


def _created_after(is_created: Callable[[bool], bool]) -> None:
    """Have the homeserver register a user after a query with some answers."""

    async def query(api, service, user_id, right):
        known = await right(api, service, user_id)
        store = api.hs.get_datastores().main
        if is_created(known) and not await store.get_user_by_id(user_id):
            await store.register_user(user_id, appservice_id=service.id)
        return known

    _query_instead("query_user", query)


@mutant("USERQ-10")
def known_users_are_created() -> None:
    """The homeserver registers a user that the appservice says it knows."""
    _created_after(lambda known: known)


@mutant("USERQ-11")
def unknown_users_are_created() -> None:
    """The homeserver registers a user that the appservice does not know."""
    _created_after(lambda known: not known)


@mutant("USERQ-15")
def users_are_asked_about_later() -> None:
    """Users are asked about half a second after the event about them is pushed."""
    from synapse.handlers.appservice import ApplicationServicesHandler
    from synapse.util.duration import Duration

    plain = ApplicationServicesHandler._check_user_exists

    async def check(self, user_id):
        later = Duration(milliseconds=500)
        self.clock.call_later(later, self.hs.run_as_background_process, "user-query", plain, self, user_id)
        return True

    ApplicationServicesHandler._check_user_exists = check


@mutant("USERQ-16")
def invites_wait_for_queries() -> None:
    """While an appservice is asked about a user, nobody can be invited."""

    handlers = memberships()
    plain = handlers.update_membership

    async def update(self, requester, target, room_id, action, *args, **kwargs):
        if action == "invite":
            await _until_none_is_open(self.clock, 20)
        return await plain(self, requester, target, room_id, action, *args, **kwargs)

    _while_open("query_user")
    handlers.update_membership = update


@mutant("USERQ-17")
def senders_are_asked_about() -> None:
    """An appservice is asked about its own sender user, who is in no table of users."""

    async def is_unknown(handler, user_id, right):
        return handler.is_mine_id(user_id) and not await handler.store.get_user_by_id(user_id)

    _unknown_instead(is_unknown)


# Aliases


def _aliases_of(choose: Callable[..., bool]) -> None:
    """Have `choose(services, service, alias, right)` say whether an appservice is asked about an unknown alias."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler.query_room_alias_exists

    class Chosen:
        def __init__(self, store):
            self.store = store

        def get_app_services(self):
            services = [each for each in self.store.get_app_services() if each.url]
            return [_Asked(services, each, choose) for each in services]

        def __getattr__(self, name):
            return getattr(self.store, name)

    async def query(self, room_alias):
        handler = copy(self)
        handler.store = Chosen(self.store)
        return await plain(handler, room_alias)

    ApplicationServicesHandler.query_room_alias_exists = query


class _Asked:
    """A registration that says otherwise whether an alias is in its namespaces."""

    def __init__(self, services, service, choose):
        self._services, self._service, self._choose = services, service, choose

    def is_room_alias_in_namespace(self, alias):
        return self._choose(self._services, self._service, alias, self._service.is_room_alias_in_namespace(alias))

    def __getattr__(self, name):
        return getattr(self._service, name)


@mutant("ALIASQ-01")
def nobody_is_asked_about_aliases() -> None:
    """Appservices are not asked about unknown aliases."""
    _aliases_of(lambda services, service, alias, right: False)


@mutant("ALIASQ-02")
def aliases_are_encoded_twice() -> None:
    """A percent sign in an alias that looks like an escape stands for itself in the query."""
    _paths("/rooms/", lambda rest: rest.replace("%252f", "%2f"))


@mutant("ALIASQ-02")
def blanks_are_plus_signs() -> None:
    """A blank in an alias is a plus sign in the query."""
    _paths("/rooms/", lambda rest: rest.replace("%20", "+"))


@mutant("ALIASQ-02")
def question_marks_begin_a_query() -> None:
    """A question mark in an alias is not encoded."""
    _paths("/rooms/", lambda rest: rest.replace("%3F", "?"))


@mutant("ALIASQ-03")
def the_first_is_asked_about_all_aliases() -> None:
    """The first appservice is asked about aliases that are in nobody's namespace."""

    def choose(services, service, alias, right):
        return right or (service is services[0] and not any(s.is_room_alias_in_namespace(alias) for s in services))

    _aliases_of(choose)


@mutant("ALIASQ-04")
def all_are_asked_about_an_alias() -> None:
    """Of an alias in a namespace every appservice is asked."""
    _aliases_of(lambda services, service, alias, right: any(s.is_room_alias_in_namespace(alias) for s in services))


@mutant("ALIASQ-05")
def only_exclusive_aliases_are_asked_about() -> None:
    """Only whoever has an alias exclusively is asked about it."""
    _aliases_of(lambda services, service, alias, right: right and service.is_exclusive_alias(alias))


@mutant("ALIASQ-06", also=("ALIASQ-07", "ALIASQ-17", "ALIASQ-18"))
def an_alias_is_looked_up_before_the_answer() -> None:
    """What an alias leads to is looked up when the appservice is asked, and not when it has answered."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler.query_room_alias_exists

    async def query(self, room_alias):
        before = await self.store.get_association_from_room_alias(room_alias)
        await plain(self, room_alias)
        return before

    ApplicationServicesHandler.query_room_alias_exists = query


@mutant("ALIASQ-07", also=("ALIASQ-18",))
def an_alias_must_lead_into_a_new_room() -> None:
    """After a query an alias counts when its room was made since."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler.query_room_alias_exists

    async def query(self, room_alias):
        began = self.clock.time_msec()
        found = await plain(self, room_alias)
        if found is not None:
            state = await self.hs.get_storage_controllers().state.get_current_state_event(
                found.room_id, "m.room.create", ""
            )
            if state.origin_server_ts < began:
                return None
        return found

    ApplicationServicesHandler.query_room_alias_exists = query


@mutant("ALIASQ-08", also=("ALIASQ-06", "ALIASQ-07", "ALIASQ-17", "ALIASQ-18"))
def a_join_waits_for_two_seconds() -> None:
    """A join does not wait for an answer about its alias for more than two seconds."""
    from synapse.handlers.appservice import ApplicationServicesHandler
    from synapse.util.duration import Duration

    plain = ApplicationServicesHandler.query_room_alias_exists

    async def query(self, room_alias):
        found: list[Any] = []

        async def ask():
            found.append(await plain(self, room_alias))

        self.hs.run_as_background_process("alias-query", ask)
        for _ in range(40):
            if found:
                return found[0]
            await self.clock.sleep(Duration(milliseconds=50))
        return None

    ApplicationServicesHandler.query_room_alias_exists = query


@mutant("ALIASQ-09", also=("ALIASQ-06", "ALIASQ-17", "ALIASQ-18"))
def rooms_wait_for_queries() -> None:
    """While an appservice is asked about an alias, no room can be created."""
    from synapse.handlers.room import RoomCreationHandler

    plain = RoomCreationHandler.create_room

    async def create(self, *args, **kwargs):
        await _until_none_is_open(self.clock, 20)
        return await plain(self, *args, **kwargs)

    _while_open("query_alias")
    RoomCreationHandler.create_room = create


def _failing_with(status: int, code: int) -> None:
    """Have a join fail with a code when the appservice answers with a status."""
    from synapse.api.errors import HttpResponseException, SynapseError
    from synapse.appservice.api import ApplicationServiceApi

    plain = ApplicationServiceApi.get_json
    right = ApplicationServiceApi.query_alias
    answers: dict[str, int] = {}

    async def get_json(self, uri, *args, **kwargs):
        try:
            return await plain(self, uri, *args, **kwargs)
        except HttpResponseException as error:
            answers["last"] = error.code
            raise

    async def query(self, service, alias):
        answers.clear()
        known = await right(self, service, alias)
        if answers.get("last") == status:
            raise SynapseError(code, "the appservice does not know the alias")
        return known

    ApplicationServiceApi.get_json = get_json
    ApplicationServiceApi.query_alias = query


@mutant("ALIASQ-10")
def an_unknown_alias_is_an_error() -> None:
    """A join of an alias that the appservice does not know is answered 500."""
    _failing_with(404, 500)


@mutant("ALIASQ-12")
def a_forbidden_alias_is_an_error() -> None:
    """A join of an alias about which the appservice answers 403 is answered 502."""
    _failing_with(403, 502)


@mutant("ALIASQ-11")
def promised_rooms_are_made() -> None:
    """When the appservice has made no room for an alias that it knows, the homeserver makes one."""
    from synapse.handlers.appservice import ApplicationServicesHandler
    from synapse.types import create_requester

    plain = ApplicationServicesHandler.query_room_alias_exists
    known: set[str] = set()

    async def query_alias(api, service, alias, right):
        if await right(api, service, alias):
            known.add(alias)
        return alias in known

    async def query(self, room_alias):
        found = await plain(self, room_alias)
        alias = room_alias.to_string()
        if found is None and alias in known:
            service = next(s for s in self.store.get_app_services() if s.is_room_alias_in_namespace(alias))
            maker = create_requester(service.sender, app_service=service)
            setup = {"preset": "public_chat", "room_alias_name": room_alias.localpart}
            await self.hs.get_room_creation_handler().create_room(maker, setup)
            found = await self.store.get_association_from_room_alias(room_alias)
        return found

    _query_instead("query_alias", query_alias)
    ApplicationServicesHandler.query_room_alias_exists = query


@mutant("ALIASQ-16")
def aliases_wait_for_queries() -> None:
    """While an appservice is asked about an alias, no alias is looked up."""
    from synapse.handlers.directory import DirectoryHandler

    plain = DirectoryHandler.get_association

    async def get(self, room_alias):
        await _until_none_is_open(self.hs.get_clock(), 20)
        return await plain(self, room_alias)

    _while_open("query_alias")
    DirectoryHandler.get_association = get


@mutant("ALIASQ-17")
def the_second_who_joins_does_not_wait() -> None:
    """While an appservice is asked about an alias, others who join it are told that it does not exist."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler.query_room_alias_exists

    async def query(self, room_alias):
        return None if room_alias.to_string() in _OPEN else await plain(self, room_alias)

    _while_open("query_alias")
    ApplicationServicesHandler.query_room_alias_exists = query


@mutant("ALIASQ-18")
def joins_are_for_those_who_are_there() -> None:
    """A join is pushed to those who have a user in the room, and not for the sake of an alias."""
    from synapse.appservice import ApplicationService

    plain = uncached("is_interested_in_event")

    async def interested(self, event_id, event, store, **others):
        if (
            event.type == "m.room.member"
            and event.membership == "join"
            and not self.is_interested_in_user(event.sender)
        ):
            return await self._matches_user_in_member_list(event.room_id, store)
        return await plain(self, event_id, event, store)

    ApplicationService.is_interested_in_event = interested


@mutant("ALIASQ-19")
def appservices_are_asked_about_their_aliases() -> None:
    """The join of an alias of a namespace fails when the appservice does not know the alias, though it exists."""
    from synapse.handlers.directory import DirectoryHandler

    plain = DirectoryHandler.get_association

    async def get(self, room_alias):
        alias = room_alias.to_string()
        handler = self.hs.get_application_service_handler()
        services = [each for each in self.store.get_app_services() if each.is_room_alias_in_namespace(alias)]
        if services and not any([await handler.appservice_api.query_alias(each, alias) for each in services]):
            from synapse.api.errors import NotFoundError

            raise NotFoundError("no such alias")
        return await plain(self, room_alias)

    DirectoryHandler.get_association = get
