"""Defects of area DRAFT: the dialects of 2015 and of r0."""

from __future__ import annotations

import hashlib
import secrets
import threading
from typing import Any

from conformance.appservice.registration import Namespace, Registration
from conformance.reference.conventions import IdConventions
from conformance.reference.defects import defect
from conformance.reference.directory import Aliases
from conformance.reference.drafts import (
    AskingIdentity,
    BareNamespaces,
    DraftAccounts,
    DraftFormat,
    OldIdentity,
    OldOutgoing,
    OldPaths,
    OldRooms,
    ProvisioningQueries,
    UserAccounts,
)
from conformance.reference.enrolments import Enrolments
from conformance.reference.events import Timestamps
from conformance.reference.identity import Requester
from conformance.reference.interest import Interest
from conformance.reference.namespaces import Namespaces, compiled
from conformance.reference.outgoing import Reply, To
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.provisioning import Provisioning
from conformance.reference.queries import Queries
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.transactions import Transactions
from conformance.reference.web import Call

# Registration


@defect("DRAFT-REG-01", also=("DRAFT-TXN-01", "DRAFT-EX-01", "AUTH-08"), spec="draft-004")
class AnotherTokenIsToldThanUsed(Enrolments):
    """The `hs_token` in the answer to a registration is not the one that is used."""

    def told_token(self, registration: Registration) -> str:
        return secrets.token_urlsafe(24)


@defect("DRAFT-REG-01", also=("DRAFT-EX-02", "AUTH-08"), spec="draft-001")
class AliasQueriesHaveNoAccessToken(OldOutgoing):
    """Queries about aliases do not carry the `hs_token`."""

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {} if about is To.ALIAS else super().query(appservice, about)


@defect("DRAFT-REG-02", spec="draft-003")
class OnlyRegexesOfUsersAreChecked(Enrolments):
    """What is no regular expression is refused among users only; among aliases it covers nothing."""

    def namespaces(self, given: Any) -> dict[str, Any]:
        kept = [each for each in given.get("aliases", ()) if self.is_regex(str(each))]
        return super().namespaces({**given, "aliases": kept})


@defect("DRAFT-REG-02", spec="draft-001")
class OnlyTheFirstRegexIsChecked(Enrolments):
    """Of several regexes only the first is checked when an appservice registers."""

    def namespaces(self, given: Any) -> dict[str, Any]:
        kept = {
            kind: [each for place, each in enumerate(entries) if not place or self.is_regex(str(each))]
            for kind, entries in given.items()
        }
        return super().namespaces(kept)


@defect("DRAFT-REG-02", spec="draft-001")
class WhatIsRefusedIsRegistered(Enrolments):
    """A registration with a bad regex is answered 400, and its good regexes are served."""

    def namespaces(self, given: Any) -> dict[str, Any]:
        kept = {kind: [each for each in entries if self.is_regex(str(each))] for kind, entries in given.items()}
        self._refused = kept != given
        return super().namespaces(kept)

    def taken(self, registration: Registration) -> None:
        super().taken(registration)
        if self._refused:
            raise MatrixError(400, "M_INVALID_PARAM", "namespaces do not conform to regex")


@defect("DRAFT-REG-03", spec="draft-004")
class AnybodyMayRegister(Enrolments):
    """A registration needs a token, but no administrator has to have stored it."""

    def is_stored(self, as_token: str) -> bool:
        return True


@defect("DRAFT-REG-03", spec="draft-001")
class TheBeginningOfAStoredTokenIsEnough(Enrolments):
    """A token that a stored one begins with is as good."""

    def is_stored(self, as_token: str) -> bool:
        return any(each.as_token.startswith(as_token) for each in self.hs.stored)


@defect("DRAFT-REG-03", spec="draft-003")
class AMissingTokenIsForbidden(Enrolments):
    """A registration without a token is answered 403."""

    def known_token(self, call: Call) -> str:
        if not call.json.get("as_token"):
            raise MatrixError(403, "M_FORBIDDEN", "that is no stored token")
        return super().known_token(call)


@defect("DRAFT-REG-04", spec="draft-003")
class RoomsFromBeforeARegistrationAreNotOfInterest(Interest):
    """Nothing is delivered from rooms that there were before an appservice registered."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._since: dict[str, int] = {}

    def in_event(self, appservice: Registration, event: Event) -> bool:
        since = self._since.setdefault(appservice.id, event.position)
        first = self.store.rooms[event.room_id].events[0]
        return first.position >= since and super().in_event(appservice, event)


@defect("DRAFT-REG-04", spec="draft-003")
class RegistrationsBringABacklog(Enrolments):
    """At its registration an appservice is sent what would have been of interest before."""

    def taken(self, registration: Registration) -> None:
        super().taken(registration)
        for event in self.store.stream[-30:]:
            if self.hs.interest.in_event(registration, event):
                item = self.hs.format.for_appservice(event, registration)
                self.hs.queues.put(registration, "event", item)


@defect(
    "DRAFT-REG-05",
    also=("DRAFT-REG-04", "DRAFT-ADMIN-02", "REG-04", "NSALIAS-07", "NSALIAS-10", "IDENT-02"),
    spec="draft-003",
)
class RegexesWantASigil(BareNamespaces):
    """Regexes are matched against IDs with their sigil."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        return compiled(entry.regex).fullmatch(identifier) is not None


@defect("DRAFT-REG-05", also=("DRAFT-ADMIN-02", "NSALIAS-07", "NSALIAS-10"), spec="draft-003")
class RegexesOfAliasesWantASigil(BareNamespaces):
    """Regexes of aliases are matched against aliases with their sigil, those of users as they should be."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        if identifier.startswith("#"):
            return compiled(entry.regex).fullmatch(identifier) is not None
        return super().matches(entry, identifier)


@defect("DRAFT-REG-06", also=("DRAFT-TXN-04",), spec="draft-001")
class RoomsCannotBeClaimed(Enrolments):
    """The `rooms` of a registration are ignored."""

    def namespaces(self, given: Any) -> dict[str, Any]:
        return {**super().namespaces(given), "rooms": ()}


@defect("DRAFT-REG-06", also=("DRAFT-TXN-04", "DRAFT-EX-02", "REG-11"), spec="draft-001")
class RegexesOfAliasesWantNoSigil(Namespaces):
    """Regexes of aliases are matched against aliases without their sigil."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        return super().matches(entry, identifier.removeprefix("#"))


@defect("DRAFT-REG-07", also=("REG-09",), spec="draft-004")
class NothingIsClosedToHumans(DraftAccounts):
    """Humans may have any name, whatever is registered as exclusive."""

    def check_human_name(self, localpart: str) -> None:
        return


@defect("DRAFT-REG-07", also=("REG-09",), spec="draft-004")
class OnlyTheFirstObjectIsExclusive(Namespaces):
    """Only the first entry of a list closes its namespace."""

    def claims(self, appservice: Registration, kind: str, identifier: str) -> bool:
        first = self.entries(appservice, kind)[:1]
        return any(entry.exclusive and self.matches(entry, identifier) for entry in first)


@defect("DRAFT-REG-07", spec="draft-004")
class AliasesAreNotClosedToHumans(Namespaces):
    """Exclusive entries close users to humans, but not aliases."""

    def claims(self, appservice: Registration, kind: str, identifier: str) -> bool:
        return kind == "users" and super().claims(appservice, kind, identifier)


@defect("DRAFT-REG-07", spec="draft-004")
class EveryObjectIsExclusive(Enrolments):
    """The flag of an entry is ignored: all namespaces are exclusive."""

    def read(self, given: Any) -> Namespace:
        return Namespace(super().read(given).regex, exclusive=True)


@defect("DRAFT-UNREG-01", spec="draft-003")
class TheUnregisteredStillReceive(Enrolments):
    """An unregistration is answered 200 and changes nothing."""

    def let_go(self, registration: Registration) -> None:
        return


@defect("DRAFT-UNREG-01", spec="draft-003")
class UnregisterIsNotImplemented(Enrolments):
    """An unregistration is answered 500, as homeservers of the time did."""

    def leaving(self, call: Call) -> Registration:
        super().leaving(call)
        raise MatrixError(500, "M_UNKNOWN", "Not implemented")


@defect("DRAFT-UNREG-02", also=("DRAFT-UNREG-01",), spec="draft-003")
class UnknownTokensUnregisterEverybody(Enrolments):
    """An unregistration with an unknown token is refused, and ends all registrations."""

    def leaving(self, call: Call) -> Registration:
        try:
            return super().leaving(call)
        except MatrixError:
            for each in list(self.hs.appservices):
                self.hs.drop_appservice(each)
            raise


@defect("DRAFT-UNREG-02", spec="draft-003")
class UnknownTokensUnregisterToo(Enrolments):
    """An unregistration with an unknown token is answered 200."""

    @endpoint("POST", "/_matrix/appservice/v1/unregister", authenticated=False)
    def unregister(self, call: Call) -> JsonObject:
        try:
            return super().unregister(call)
        except MatrixError:
            return {}


# User queries


@defect("DRAFT-USERQ-01", also=("DRAFT-EX-02",), spec="draft-001")
class ProfilesAreIgnored(Provisioning):
    """A user is made of an answer, but without its profile."""

    def profile(self, answer: JsonObject) -> JsonObject:
        return {}


@defect("DRAFT-USERQ-01", spec="draft-003")
class AvatarsAreIgnored(Provisioning):
    """A user is made of an answer with its name, but without its avatar."""

    def profile(self, answer: JsonObject) -> JsonObject:
        return {key: value for key, value in super().profile(answer).items() if key != "avatar_url"}


@defect("DRAFT-USERQ-01", spec="draft-003")
class UsersAreNotMade(Provisioning):
    """A profile in an answer makes no user."""

    def user(self, appservice: Registration, user_id: str, answer: JsonObject) -> None:
        return


@defect("DRAFT-USERQ-02", spec="draft-003")
class UnknownUsersAreMadeToo(ProvisioningQueries):
    """A user of whom the appservice says 404 is made like any other."""

    def exists(self, reply: Reply) -> bool:
        return reply.status in (200, 404)


class _MakingQueries(Queries):
    def confirmed(self, appservice: Registration, about: To, identifier: str, reply: Reply) -> None:
        with self.hs.lock:
            if about is To.USER and self.makes(reply) and identifier not in self.store.accounts:
                self.store.add_account(identifier, appservice.id)

    def makes(self, reply: Reply) -> bool:
        raise NotImplementedError


@defect("DRAFT-USERQ-03", also=("USERQ-10",), spec="draft-000")
class ConfirmedUsersAreMade(_MakingQueries):
    """The homeserver makes a user whom an appservice has confirmed."""

    def makes(self, reply: Reply) -> bool:
        return True


@defect("DRAFT-USERQ-03", spec="draft-000")
class UsersWithAProfileAreMade(_MakingQueries):
    """The homeserver makes a user when the answer of the appservice has a profile, as before."""

    def makes(self, reply: Reply) -> bool:
        return isinstance(reply.json, dict) and "profile" in reply.json


class _Hasty(Queries):
    def ensure_user(self, user_id: str) -> None:
        threading.Thread(target=self._ask_later, args=(user_id,), daemon=True).start()

    def _ask_later(self, user_id: str) -> None:
        try:
            super().ensure_user(user_id)
        except MatrixError:
            return


@defect(
    "DRAFT-USERQ-04",
    "DRAFT-USERQ-05",
    also=("USERQ-08", "USERQ-12", "USERQ-13", "DRAFT-ALIASQ-05", "DRAFT-USERQ-03"),
    spec="draft-000",
)
class InvitesDoNotWaitForQueries(_Hasty):
    """An invite is answered while the appservice is still being asked."""


@defect("DRAFT-USERQ-05", "DRAFT-ALIASQ-06", also=("USERQ-13", "ALIASQ-14"), spec="draft-001")
class UnansweredQueriesEndIn404(ProvisioningQueries):
    """When an appservice does not answer, the client is told 404."""

    def timed_out(self) -> MatrixError:
        return MatrixError(404, "M_NOT_FOUND", "nobody knows")


@defect("DRAFT-USERQ-05", "DRAFT-ALIASQ-06", also=("USERQ-12", "ALIASQ-13"), spec="draft-000")
class QueriesAreMadeOnce(Queries):
    """An appservice that does not answer is not asked again before the client is told 408."""

    tries = 1


# Alias queries


@defect("DRAFT-ALIASQ-01", also=("DRAFT-EX-02",), spec="draft-001")
class StateOfAnswersIsIgnored(Provisioning):
    """A room is made of an answer without its state."""

    def set_state(self, room: Room, event: JsonObject) -> None:
        return


@defect("DRAFT-ALIASQ-01", spec="draft-001")
class JoinRulesOfAnswersAreIgnored(Provisioning):
    """Join rules in an answer do not replace the homeserver's."""

    def set_state(self, room: Room, event: JsonObject) -> None:
        if event["type"] != "m.room.join_rules":
            super().set_state(room, event)


@defect("DRAFT-ALIASQ-01", spec="draft-001")
class StateOfAnswersIsTheCreators(Provisioning):
    """The state of an answer is sent by whoever made the room."""

    def set_state(self, room: Room, event: JsonObject) -> None:
        super().set_state(room, {**event, "user_id": room.creators[0]})


@defect("DRAFT-ALIASQ-01", spec="draft-001")
class StateOfAnswersIsOfToday(Provisioning):
    """The state of an answer has the time at which the room was made."""

    def set_state(self, room: Room, event: JsonObject) -> None:
        super().set_state(room, {key: value for key, value in event.items() if key != "origin_server_ts"})


@defect("DRAFT-ALIASQ-02", also=("DRAFT-EX-02",), spec="draft-001")
class ScrollbackIsDropped(Provisioning):
    """The messages of an answer are dropped."""

    def add_message(self, room: Room, event: JsonObject) -> None:
        return


@defect("DRAFT-ALIASQ-02", also=("DRAFT-EX-02",), spec="draft-001")
class ScrollbackIsOfToday(Provisioning):
    """The messages of an answer have the time at which the room was made."""

    def add_message(self, room: Room, event: JsonObject) -> None:
        super().add_message(room, {key: value for key, value in event.items() if key != "origin_server_ts"})


@defect("DRAFT-ALIASQ-02", spec="draft-001")
class ScrollbackIsUpsideDown(Provisioning):
    """The messages of an answer are in the room in the opposite order."""

    def listed(self, answer: JsonObject, key: str) -> list[JsonObject]:
        found = super().listed(answer, key)
        return found[::-1] if key == "events" else found


@defect("DRAFT-ALIASQ-02", spec="draft-001")
class ScrollbackIsOneUsers(Provisioning):
    """All messages of an answer are the first sender's."""

    def listed(self, answer: JsonObject, key: str) -> list[JsonObject]:
        found = super().listed(answer, key)
        return [{**each, "user_id": found[0]["user_id"]} for each in found] if key == "events" else found


@defect("DRAFT-ALIASQ-03", spec="draft-001")
class EmptyRoomsAreOneRoom(Provisioning):
    """Aliases for which an appservice has neither messages nor state lead into one room."""

    def room(self, appservice: Registration, alias: str, answer: JsonObject) -> None:
        with self.hs.lock:
            shared = next((room for name, (room, _) in self.store.aliases.items() if name in self._empty), None)
            if not answer.get("state") and not answer.get("events"):
                self._empty.add(alias)
                if shared is not None:
                    self.store.set_alias(alias, shared, self.hs.user_id(appservice.sender_localpart))
                    return
        super().room(appservice, alias, answer)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._empty: set[str] = set()


@defect("DRAFT-ALIASQ-04", also=("DRAFT-EX-02",), spec="draft-001")
class SendersOfScrollbackAreTakenAsTheyAre(Provisioning):
    """Nobody is asked about the senders of an answer's events."""

    def ask_about(self, user_id: str) -> None:
        return


@defect("DRAFT-ALIASQ-04", spec="draft-001")
class SendersOfStateAreTakenAsTheyAre(Provisioning):
    """Of the senders in an answer, only those of messages are asked about."""

    def senders(self, events: list[JsonObject]) -> list[str]:
        return super().senders([event for event in events if "state_key" not in event])


@defect("DRAFT-ALIASQ-05", spec="draft-000")
class UnknownGhostsAreForbidden(AskingIdentity):
    """Who acts as an unknown ghost is refused, and nobody is asked about it, as today."""

    def ask_first(self, call: Call) -> None:
        return


@defect("DRAFT-ALIASQ-05", also=("DRAFT-EX-01",), spec="draft-004")
class QueriesWithinQueriesLock(AskingIdentity):
    """While an appservice is asked about a ghost as which it acts, everything waits."""

    def ask_first(self, call: Call) -> None:
        with self.hs.lock:
            super().ask_first(call)


@defect("DRAFT-ALIASQ-05", also=("DRAFT-EX-01",), spec="draft-004")
class NothingIsAskedWhileAsking(AskingIdentity):
    """While one query is open, there is no other: who acts as an unknown ghost meanwhile is refused."""

    def ask_first(self, call: Call) -> None:
        if not self.hs.queries.open:
            super().ask_first(call)


# Pushing


@defect("DRAFT-TXN-01", also=("TXN-02", "TXN-20"), spec="draft-004")
class TransactionsComeByPost(OldOutgoing):
    """Transactions come with POST."""

    def ask(self, appservice: Registration, about: To, method: str, path: str, **more: Any) -> Reply:
        return super().ask(appservice, about, "POST" if about is To.TRANSACTION else method, path, **more)


@defect("DRAFT-TXN-01", "DRAFT-REG-01", also=("AUTH-08",), spec="draft-001")
class TransactionsHaveNoAccessToken(OldOutgoing):
    """Transactions do not carry the `hs_token`."""

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {} if about is To.TRANSACTION else super().query(appservice, about)


@defect("DRAFT-TXN-01", also=("DRAFT-EX-01",), spec="draft-004")
class TheUrlsPathIsLost(OldOutgoing):
    """The path of an appservice's url is dropped in transactions."""

    def ask(self, appservice: Registration, about: To, method: str, path: str, **more: Any) -> Reply:
        if about is To.TRANSACTION and appservice.url is not None:
            path = "/../.." + path if "/as/second" in appservice.url else path
        return super().ask(appservice, about, method, path, **more)

    def url(self, appservice: Registration, path: str) -> str:
        if path.startswith("/../.."):
            return super().url(appservice, path).replace("/as/second/../..", "")
        return super().url(appservice, path)


@defect("DRAFT-TXN-01", also=("DRAFT-EX-02", "TXN-20"), spec="draft-001")
class TransactionsHaveTodaysPath(OldOutgoing):
    """Transactions come at `/_matrix/app/v1`, which nobody has heard of."""

    def ask(self, appservice: Registration, about: To, method: str, path: str, **more: Any) -> Reply:
        path = f"/_matrix/app/v1{path}" if about is To.TRANSACTION else path
        return super().ask(appservice, about, method, path, **more)


@defect("DRAFT-TXN-02", also=("DRAFT-EX-01",), spec="draft-004")
class PushedEventsHaveTodaysSender(DraftFormat):
    """Pushed events name their sender as `sender` only."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        shown["sender"] = shown.pop("user_id")
        return shown


@defect("DRAFT-TXN-02", also=("DRAFT-EX-02",), spec="draft-001")
class PushedEventsHaveNoTime(DraftFormat):
    """Pushed events have no `origin_server_ts`."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        del shown["origin_server_ts"]
        return shown


@defect(
    "DRAFT-TXN-03",
    also=("RETRY-01", "RETRY-05", "RETRY-10", "TXN-11", "TXN-12", "TXN-13", "TXN-14", "TXN-15", "ORDER-04"),
    spec="draft-001",
)
class FailedTransactionsAreForgotten(Transactions):
    """A transaction that failed is not tried again."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        super().send(appservice, txn_id, body)
        return True


@defect(
    "DRAFT-TXN-03",
    also=("RETRY-01", "RETRY-05", "RETRY-10", "TXN-10", "TXN-11", "TXN-12", "TXN-13", "TXN-14", "TXN-15", "ORDER-04"),
    spec="draft-001",
)
class EventsArePushedAsInFebruary2015(FailedTransactionsAreForgotten):
    """Every transaction has one event and the ID 0, and none is tried again, as homeservers of the time did it."""

    batch = 1

    def next_id(self, appservice: Registration) -> str:
        return "0"


@defect("DRAFT-TXN-04", also=("DRAFT-REG-05",), spec="draft-004")
class AliasesAreOfNoInterest(Interest):
    """A room with an alias in the namespace is of interest only while a ghost is in it."""

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        return False


@defect("DRAFT-TXN-04", "DRAFT-REG-06", spec="draft-001")
class RoomIdsAreOfNoInterest(Interest):
    """A room whose ID is in the namespace is of interest only while a ghost is in it."""

    def by_room_id(self, appservice: Registration, room: Room) -> bool:
        return False


# The client-server API's extensions


class _Anonymous(OldIdentity):
    def asserted(self, call: Call, appservice: Registration) -> Requester:
        who = super().asserted(call, appservice)
        if "/send/" not in call.path:
            return who
        return Requester(self.hs.user_id(appservice.sender_localpart), None, appservice)


@defect("DRAFT-IDENT-01", "DRAFT-TS-01", also=("IDENT-02", "TXN-09", "INV-08"), spec="r0")
class MessagesAreTheSenders(_Anonymous):
    """The `user_id` in the query does not count for messages."""


@defect("DRAFT-IDENT-01", "DRAFT-TS-01", also=("IDENT-02", "DRAFT-EX-02"), spec="draft-001")
class MessagesWithoutIdsAreTheSenders(AskingIdentity):
    """The `user_id` in the query does not count for messages without a transaction ID."""

    def asserted(self, call: Call, appservice: Registration) -> Requester:
        who = super().asserted(call, appservice)
        if not call.path.endswith("/send/m.room.message"):
            return who
        return Requester(self.hs.user_id(appservice.sender_localpart), None, appservice)


@defect("DRAFT-TS-01", also=("DRAFT-EX-01",), spec="draft-004")
class TsInTheQueryIsIgnored(Timestamps):
    """A `ts` in the query is ignored."""

    def of(self, call: Call) -> int | None:
        return None


@defect("DRAFT-TS-01", spec="r0")
class TsIsInSeconds(Timestamps):
    """The time that is asked for is rounded to seconds."""

    def parsed(self, text: str) -> int:
        return super().parsed(text) // 1000 * 1000


@defect("DRAFT-TS-02", spec="draft-003")
class JoinsTakeTs(OldRooms):
    """A join has the time in `ts`."""

    @endpoint("POST", "/join/<room>", waits=True)
    def join_by_name(self, call: Call, room: str) -> JsonObject:
        with self.hs.lock:
            ts = self.hs.timestamps.of(call)
            if ts is None or room not in self.store.rooms:
                return super().join_by_name(call, room)
            user_id = call.requester.user_id
            self.set_membership(self.room(room), user_id, user_id, "join", ts=ts)
            return {"room_id": room}


@defect("DRAFT-TS-02", spec="r0")
class InvitesTakeTs(OldRooms):
    """An invite has the time in `ts`."""

    @endpoint("POST", "/rooms/<room_id>/invite", waits=True)
    def invite(self, call: Call, room_id: str) -> JsonObject:
        with self.hs.lock:
            ts = self.hs.timestamps.of(call)
            if ts is None:
                return super().invite(call, room_id)
            target = call.text("user_id")
            self.set_membership(self.room(room_id), call.requester.user_id, target, "invite", ts=ts)
            return {}


@defect("DRAFT-ADMIN-01", also=("DRAFT-EX-01",), spec="draft-004")
class OnlyUsernameNamesAGhost(DraftAccounts):
    """A ghost is named by the key `username`, as today."""

    def ghost_name(self, call: Call) -> str:
        return call.text("username")


@defect("DRAFT-ADMIN-01", spec="r0")
class WithoutUsernameGhostsAreNamedByChance(UserAccounts):
    """A ghost whose registration has no `username` gets a name that nobody asked for."""

    def ghost_name(self, call: Call) -> str:
        return call.text("username", default=f"hqa-{secrets.token_hex(6)}")


@defect("DRAFT-ADMIN-02", also=("NSALIAS-10",), spec="draft-003")
class AliasesStayWhereTheyAre(Aliases):
    """An alias that a ghost has made cannot be deleted by its appservice's sender."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        super().check_deletion(requester, alias)
        if self.store.aliases[alias][1] != requester.user_id:
            raise MatrixError(403, "M_FORBIDDEN", "that alias is another user's")


@defect("DRAFT-ADMIN-02", spec="draft-003")
class ChangedAliasesLeadWhereTheyLed(Aliases):
    """To change an alias is answered 200 and changes nothing."""

    @endpoint("PUT", "/directory/room/<alias>")
    def set(self, call: Call, alias: str) -> JsonObject:
        return {} if alias in self.store.aliases else super().set(call, alias)


# ID conventions


@defect("DRAFT-IDCONV-01", spec="r0")
class UrisOfUsersBecomeLocalparts(IdConventions):
    """A URI of a user is translated into a localpart."""

    @endpoint("GET", "/_matrix/app/r0/user", authenticated=False)
    def user(self, call: Call) -> JsonObject:
        return {"user_id": self.user_part(self.uri(call))}


@defect("DRAFT-IDCONV-02", spec="r0")
class UrisOfRoomsBecomeRoomIds(IdConventions):
    """A URI of a room is translated into a room ID."""

    @endpoint("GET", "/_matrix/app/r0/alias", authenticated=False)
    def alias(self, call: Call) -> JsonObject:
        return {"alias": super().alias(call)["alias"].replace("#", "!", 1)}


@defect("DRAFT-IDCONV-03", also=("DRAFT-IDCONV-04",), spec="r0")
class UrisBecomeAnything(IdConventions):
    """Every translation of a URI of a user is another."""

    def user_part(self, uri: str) -> str:
        return f"{super().user_part(uri)}-{secrets.token_hex(4)}"


@defect("DRAFT-IDCONV-03", spec="r0")
class RoomsOfANetworkBecomeOne(IdConventions):
    """URIs of rooms on one network are translated into one alias."""

    def alias_part(self, uri: str) -> str:
        return super().alias_part(uri.rpartition("/")[0])


@defect("DRAFT-IDCONV-04", spec="r0")
class UrisOfRoomsAreHashed(IdConventions):
    """URIs of rooms become hashes, while those of users stay readable."""

    def alias_part(self, uri: str) -> str:
        return hashlib.sha256(uri.encode()).hexdigest()[:16]


# The worked example


@defect("DRAFT-EX-01", spec="draft-004")
class PathsAreDecodedBeforeTheyAreSplit(OldPaths):
    """A slash in an ID separates path segments, encoded or not, as homeservers of the time had it."""

    def decoded(self, path: str) -> str:
        return "/".join(part for part in super().decoded(path).replace("\0", "/").split("/"))


@defect("DRAFT-EX-01", spec="draft-004")
class AliasesHaveOneSigil(Aliases):
    """A second `#` in an alias is refused."""

    def check_form(self, alias: str) -> None:
        super().check_form(alias)
        if alias.count("#") > 1:
            raise MatrixError(400, "M_INVALID_PARAM", "that is no alias")


@defect("DRAFT-EX-02", spec="draft-001")
class GhostsAreMadeInLowerCase(Provisioning):
    """A user that is made of an answer has its ID in lower case."""

    def user(self, appservice: Registration, user_id: str, answer: JsonObject) -> None:
        super().user(appservice, user_id.lower(), answer)


@defect("DRAFT-EX-02", spec="draft-001")
class ScrollbackOfTheUnnamedIsLost(Provisioning):
    """A message of an answer whose sender's ID has a capital letter is dropped."""

    def add_message(self, room: Room, event: JsonObject) -> None:
        if event["user_id"].islower():
            super().add_message(room, event)
