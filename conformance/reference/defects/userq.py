"""Defects of area USERQ: what appservices are asked about users."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.defects.unanswered import (
    AskedOnce,
    CutsAreFinal,
    NotInTime,
    SecondAnswersAreLost,
    TimeOutsAreFinal,
)
from conformance.reference.outgoing import NoResponse, Outgoing, Reply, To
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.queries import Queries
from conformance.reference.rooms import Rooms
from conformance.reference.store import JsonObject
from conformance.reference.web import Call


class _Users(Queries):
    """Asks about users in another way; about aliases as it should."""

    def ask(self, kind: str, about: To, identifier: str) -> None:
        if about is To.USER:
            self.ask_about_user(identifier)
        else:
            super().ask(kind, about, identifier)

    def ask_about_user(self, user_id: str) -> None:
        super().ask("users", To.USER, user_id)

    def by_itself(self, user_id: str) -> None:
        """Create a user whom nobody has created."""
        owner = next(iter(super().asked("users", user_id)), None)
        with self.hs.lock:
            if owner is not None and user_id not in self.store.accounts:
                self.store.add_account(user_id, owner.id)


@defect("USERQ-01", also=("AUTH-02", "INV-06", "RETRY-13"))
class UsersAreNeverAskedAbout(_Users):
    """Nobody is asked about unknown users."""

    def ask_about_user(self, user_id: str) -> None:
        return


@defect("USERQ-01", also=("AUTH-02", "RETRY-13"))
class UsersAreAskedAboutByPost(Queries):
    """User queries are POST requests."""

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        if about is not To.USER:
            return super().once(appservice, about, identifier)
        return self.hs.outgoing.ask(appservice, about, "POST", f"/users/{self.hs.outgoing.segment(identifier)}")


@defect("USERQ-01", also=("LEGACY-01", "LEGACY-11"))
class UsersAreAskedAboutOnTheLegacyRoute(Queries):
    """User queries go to the legacy route."""

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        if about is not To.USER:
            return super().once(appservice, about, identifier)
        path = f"/users/{self.hs.outgoing.segment(identifier)}"
        return self.hs.outgoing.once(appservice, about, "GET", path, None, None)


class _InThePath(Queries):
    """Writes user IDs into paths in another way."""

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        if about is not To.USER:
            return super().once(appservice, about, identifier)
        path = f"/users/{self.written(identifier)}"
        return self.hs.outgoing.ask(appservice, about, "GET", path, legacy=path)

    def written(self, user_id: str) -> str:
        raise NotImplementedError


@defect("USERQ-02")
class UserIdsLosePlusSigns(_InThePath):
    """A plus sign in a user ID becomes a blank in the query."""

    def written(self, user_id: str) -> str:
        return quote(user_id.replace("+", " "), safe="")


@defect("USERQ-02")
class UserIdsAreEncodedTwice(_InThePath):
    """What is not plain in the localpart of a user ID is encoded twice."""

    def written(self, user_id: str) -> str:
        localpart, _, domain = user_id.partition(":")
        plain = localpart.replace("-", "")[1:].isalnum()
        return quote(localpart if plain else quote(localpart, safe="@"), safe="") + quote(f":{domain}", safe="")


@defect("USERQ-02")
class UserIdsAreUnquoted(_InThePath):
    """An equals sign with two digits in a user ID is decoded as the escape it looks like."""

    def written(self, user_id: str) -> str:
        return quote(user_id.replace("=20", " "), safe="")


@defect("USERQ-02")
class SlashesCutUserIds(_InThePath):
    """A query ends at the slash of a user ID."""

    def written(self, user_id: str) -> str:
        return quote(user_id.partition("/")[0], safe="")


@defect("USERQ-03", also=("USERQ-04", "USERQ-17"))
class EveryUnknownUserIsAskedAbout(Queries):
    """All appservices are asked about every unknown user."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        everybody = [each for each in self.hs.appservices if each.url is not None]
        return everybody if kind == "users" else super().asked(kind, identifier)


@defect("USERQ-03")
class UsersOfNobodyAreAskedAbout(Queries):
    """The first appservice is asked about unknown users whom no namespace covers."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        found = super().asked(kind, identifier)
        return found or (self.hs.appservices[:1] if kind == "users" else [])


@defect("USERQ-04", also=("LEGACY-01", "LEGACY-11"))
class AllAreAskedAboutUsersOfOne(Queries):
    """All appservices are asked about an unknown user whom some namespace covers."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        found = super().asked(kind, identifier)
        if kind != "users" or not found:
            return found
        return [*found, *(each for each in self.hs.appservices if each.url is not None and each not in found)]


@defect("USERQ-04")
class TheNextAppserviceIsAskedToo(Queries):
    """When an appservice does not know a user, the one registered after it is asked too."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        found = super().asked(kind, identifier)
        if kind != "users" or not found:
            return found
        place = self.hs.appservices.index(found[-1])
        return [*found, *(each for each in self.hs.appservices[place + 1 : place + 2] if each.url is not None)]


@defect("USERQ-05")
class OpenNamespacesOfUsersAreNotAskedAbout(Queries):
    """Only exclusive namespaces of users count for queries."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        found = super().asked(kind, identifier)
        if kind != "users":
            return found
        return [each for each in found if self.hs.namespaces.claimed("users", identifier, by_other_than=None)]


class _KnownUsers(Queries):
    """Asks about users that exist."""

    def ensure_user(self, user_id: str) -> None:
        with self.hs.lock:
            known = user_id in self.store.accounts
        if known and self.asks_about(user_id):
            for appservice in self.chosen(user_id):
                with suppress(NoResponse):
                    self.once(appservice, To.USER, user_id)
        super().ensure_user(user_id)

    def asks_about(self, user_id: str) -> bool:
        return True

    def chosen(self, user_id: str) -> list[Registration]:
        return self.asked("users", user_id)


@defect("USERQ-06")
class UsersThatExistAreAskedAbout(_KnownUsers):
    """Every invite causes a query, whether the user exists or not."""


@defect("USERQ-06")
class TheKnownAreAskedAboutLater(_KnownUsers):
    """The invite of a user that exists is followed by a query."""

    def ensure_user(self, user_id: str) -> None:
        timer = threading.Timer(0.1, super().ensure_user, (user_id,))
        timer.daemon = True
        if user_id in self.store.accounts:
            timer.start()
        else:
            super().ensure_user(user_id)


class _Locked(Queries):
    """Keeps locks while it waits for the answer to a user query."""

    def ensure_user(self, user_id: str) -> None:
        with self.hs.lock:
            super().ensure_user(user_id)


@defect("USERQ-07", "USERQ-16", also=("USERQ-09", "USERQ-14", "USERQ-15", "USERQ-18", "RETRY-10", "INV-05", "INV-06"))
class TheHomeserverIsLockedDuringUserQueries(_Locked):
    """Nothing else happens while the answer to a user query is waited for."""


@defect("USERQ-08", also=("USERQ-12", "USERQ-13"))
class InvitesAreAnsweredBeforeTheQuery(Rooms):
    """An invite is answered at once, and the query sent afterwards."""

    @endpoint("POST", "/rooms/<room_id>/invite", waits=True)
    def invite(self, call: Call, room_id: str) -> JsonObject:
        user_id = call.text("user_id")
        with self.hs.lock:
            room, sender = self.room(room_id), call.requester.user_id
            self.hs.powers.check_membership(room, sender, user_id, "invite")
            known = user_id in self.store.accounts

        def later() -> None:
            with suppress(MatrixError):
                self.hs.queries.ensure_user(user_id)
            with self.hs.lock:
                if user_id in self.store.accounts:
                    self.set_membership(room, sender, user_id, "invite")

        if known:
            return super().invite(call, room_id)
        threading.Thread(target=later, daemon=True).start()
        return {}


@defect("USERQ-09", also=("USERQ-14", "USERQ-15"))
class TheUserOfAQueryIsStillUnknown(Rooms):
    """Whether a user exists is looked up before the query and not after it."""

    @endpoint("POST", "/rooms/<room_id>/invite", waits=True)
    def invite(self, call: Call, room_id: str) -> JsonObject:
        known = call.text("user_id") in self.store.accounts
        if not known:
            self.hs.queries.ensure_user(call.text("user_id"))
            raise MatrixError(404, "M_NOT_FOUND", "there is no such user")
        return super().invite(call, room_id)


@defect("USERQ-09", also=("USERQ-14", "USERQ-15"))
class InvitesAfterAQueryAreForgotten(Rooms):
    """The invite of a user that had to be asked about is answered 200, and nothing happens."""

    @endpoint("POST", "/rooms/<room_id>/invite", waits=True)
    def invite(self, call: Call, room_id: str) -> JsonObject:
        if call.text("user_id") in self.store.accounts:
            return super().invite(call, room_id)
        self.hs.queries.ensure_user(call.text("user_id"))
        self.check_invitable(call.text("user_id"))
        return {}


@defect("USERQ-10")
class UsersThatArePromisedAreCreated(_Users):
    """When an appservice says that a user exists, the homeserver creates it."""

    def ask_about_user(self, user_id: str) -> None:
        self._confirmed = False
        super().ask_about_user(user_id)
        if self._confirmed:
            self.by_itself(user_id)

    def exists(self, reply: Reply) -> bool:
        self._confirmed = super().exists(reply)
        return self._confirmed


@defect("USERQ-10")
class UsersThatArePromisedAreReserved(UsersThatArePromisedAreCreated):
    """A user that an appservice has promised is created by the homeserver a moment later."""

    def by_itself(self, user_id: str) -> None:
        timer = threading.Timer(0.05, super().by_itself, (user_id,))
        timer.daemon = True
        timer.start()


@defect("USERQ-11", also=("USERQ-07", "USERQ-08", "USERQ-09", "USERQ-10", "USERQ-12", "USERQ-14", "USERQ-15"))
class UnknownUsersOfANamespaceAreCreated(_Users):
    """A user of whom an appservice knows nothing is created all the same."""

    def ask_about_user(self, user_id: str) -> None:
        self._denied = False
        super().ask_about_user(user_id)
        if self._denied:
            self.by_itself(user_id)

    def exists(self, reply: Reply) -> bool:
        self._denied = self._denied or reply.status == 404
        return super().exists(reply)


@defect("USERQ-11")
class UnknownUsersAreServerErrors(_Users):
    """The invite of a user of whom an appservice knows nothing is answered with a server error."""

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        reply = super().once(appservice, about, identifier)
        if about is To.USER and reply.status == 404:
            raise MatrixError(500, "M_UNKNOWN", "internal error: no such user")
        return reply


@defect("USERQ-12")
class UsersAreAskedAboutOnce(AskedOnce):
    """A user query without a response is not tried again."""

    about = To.USER


@defect("USERQ-12")
class UserQueriesThatTimeOutAreFinal(TimeOutsAreFinal):
    """A user query that was never answered is not tried again, while one that was cut is."""

    about = To.USER


@defect("USERQ-12")
class UserQueriesThatAreCutAreFinal(CutsAreFinal):
    """A user query that was cut is not tried again, while one that was never answered is."""

    about = To.USER


@defect("USERQ-13")
class InvitesTimeOutAsGateways(NotInTime):
    """An invite whose query is never answered is answered 504."""

    about = To.USER


@defect("USERQ-13")
class InvitesOfTheSilentAreNotFound(NotInTime):
    """An invite whose query is never answered is answered as if the user did not exist."""

    about = To.USER
    status, errcode = 404, "M_NOT_FOUND"


@defect("USERQ-13", also=("USERQ-12",))
class InvitesWaitForEver(Outgoing):
    """A user query is waited for without a limit."""

    patience = {**Outgoing.patience, To.USER: 1e6}


@defect("USERQ-14")
class LateUsersAreNoUsers(SecondAnswersAreLost):
    """A user whom the appservice creates only when it is asked again is not found."""

    about = To.USER


@defect("USERQ-15")
class InvitesArePushedBeforeTheQuery(Rooms):
    """An unknown user is invited first, and asked about then."""

    @endpoint("POST", "/rooms/<room_id>/invite", waits=True)
    def invite(self, call: Call, room_id: str) -> JsonObject:
        user_id = call.text("user_id")
        with self.hs.lock:
            unknown = user_id not in self.store.accounts
            if unknown and any(self.hs.queries.asked("users", user_id)):
                self.set_membership(self.room(room_id), call.requester.user_id, user_id, "invite")
        if unknown:
            self.hs.queries.ensure_user(user_id)
            self.check_invitable(user_id)
            return {}
        return super().invite(call, room_id)


@defect("USERQ-16")
class InvitesQueueUpBehindAQuery(Queries):
    """Whoever is invited waits until no user query is open."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._one_at_a_time = threading.Lock()

    def ensure_user(self, user_id: str) -> None:
        with self._one_at_a_time:
            super().ensure_user(user_id)


@defect("USERQ-17")
class SenderUsersAreAskedAbout(_KnownUsers):
    """An appservice is asked about its own sender user."""

    def asks_about(self, user_id: str) -> bool:
        return any(self.chosen(user_id))

    def chosen(self, user_id: str) -> list[Registration]:
        senders = self.hs.namespaces
        return [each for each in self.hs.appservices if each.url is not None and senders.is_sender(each, user_id)]


@defect("USERQ-17", also=("IDENT-19",))
class SenderUsersCannotBeInvited(Rooms):
    """An appservice's sender user is no user that can be invited."""

    def check_invitable(self, user_id: str) -> None:
        super().check_invitable(user_id)
        if any(self.hs.namespaces.is_sender(each, user_id) for each in self.hs.appservices):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such user")


@defect("USERQ-18")
class PushesWaitForUserQueries(Outgoing):
    """Nothing is pushed to anybody while a user query is open."""

    patience = {**Outgoing.patience, To.USER: 60.0}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._busy = threading.Lock()

    def ask(self, appservice: Registration, about: To, method: str, path: str, **more: Any) -> Reply:
        if about is To.USER:
            with self._busy:
                return super().ask(appservice, about, method, path, **more)
        if about is To.TRANSACTION:
            with self._busy:
                pass
        return super().ask(appservice, about, method, path, **more)


@defect("USERQ-18")
class PushesToOneWaitForUserQueries(PushesWaitForUserQueries):
    """The appservice that is registered first gets nothing while a user query to another is open."""

    def ask(self, appservice: Registration, about: To, method: str, path: str, **more: Any) -> Reply:
        if about is To.TRANSACTION and appservice is not self.hs.appservices[0]:
            return Outgoing.ask(self, appservice, about, method, path, **more)
        return super().ask(appservice, about, method, path, **more)


@defect("USERQ-01")
class InvitesToNewRoomsAskNobody(Rooms):
    """Nobody is asked about unknown users who are invited when a room is created."""

    def create(self, call: Call) -> JsonObject:
        with self.hs.lock:
            for user_id in call.json.get("invite", ()):
                self.check_invitable(str(user_id))
        return super().create(call)


@defect("USERQ-01")
class InvitesByGhostsAskNobody(Rooms):
    """Nobody is asked about unknown users whom an appservice invites."""

    def invite(self, call: Call, room_id: str) -> JsonObject:
        if call.requester.appservice is not None:
            with self.hs.lock:
                self.check_invitable(call.text("user_id"))
        return super().invite(call, room_id)


@defect("USERQ-09")
class OnlyTheFirstInviteWaits(Queries):
    """Who invites a user about whom an appservice is being asked is told at once that there is no such user."""

    def ensure_user(self, user_id: str) -> None:
        if user_id not in self.open:
            super().ensure_user(user_id)


@defect("USERQ-11")
class UsersAreCreatedWhenTheAppserviceFails(_Users):
    """The homeserver creates the user itself when the appservice answers with a server error."""

    def exists(self, reply: Reply) -> bool:
        return super().exists(reply) or reply.status >= 500

    def confirmed(self, appservice: Registration, about: To, identifier: str, reply: Reply) -> None:
        if about is To.USER and reply.status >= 500:
            self.by_itself(identifier)


@defect("USERQ-11")
class UsersOnceUnknownCannotBeInvited(Rooms):
    """A user whom nobody knew once cannot be invited, though it has been registered since."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._unknown: set[str] = set()

    def check_invitable(self, user_id: str) -> None:
        if not self.hs.identity.is_registered(user_id):
            self._unknown.add(user_id)
        if user_id in self._unknown:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such user")
        super().check_invitable(user_id)


@defect("USERQ-05")
class UsersAreAskedOfOneOnly(Queries):
    """Of several appservices that may know a user only the first is asked."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        return super().asked(kind, identifier)[: 1 if kind == "users" else None]


@defect("USERQ-01")
class OnlyTheFirstOfManyIsAskedAbout(Rooms):
    """When a room is made for several unknown users, appservices are asked about the first only."""

    @endpoint("POST", "/createRoom", waits=True)
    def create(self, call: Call) -> JsonObject:
        invited = [str(each) for each in call.json.get("invite", ())]
        unknown = [each for each in invited if each not in self.store.accounts]
        if len(unknown) > 1:
            left = [each for each in invited if each not in unknown[1:]]
            call.body = json.dumps({**call.json, "invite": left}).encode()
        return super().create(call)
