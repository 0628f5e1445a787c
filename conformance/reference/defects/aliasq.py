"""Defects of area ALIASQ: what appservices are asked about room aliases."""

from __future__ import annotations

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
from conformance.reference.directory import Aliases
from conformance.reference.outgoing import Outgoing, Reply, To
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.queries import Queries
from conformance.reference.rooms import Rooms
from conformance.reference.store import Event, JsonObject
from conformance.reference.web import Call


class _Aliases(Queries):
    """Asks about aliases in another way; about users as it should."""

    def ask(self, kind: str, about: To, identifier: str) -> None:
        if about is To.ALIAS:
            self.ask_about(identifier)
        else:
            super().ask(kind, about, identifier)

    def ask_about(self, alias: str) -> None:
        super().ask("aliases", To.ALIAS, alias)


class _InThePath(Queries):
    """Asks about aliases by another request."""

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        if about is not To.ALIAS:
            return super().once(appservice, about, identifier)
        path = f"/rooms/{self.written(identifier)}"
        return self.hs.outgoing.ask(appservice, about, self.method(), path, legacy=path)

    def method(self) -> str:
        return "GET"

    def written(self, alias: str) -> str:
        return quote(alias, safe="")


class _Asking(Rooms):
    """Nobody is asked about the unknown alias of some joins."""

    def join_by_name(self, call: Call, room: str) -> JsonObject:
        if room.startswith("#") and self.is_local(call) and self.hs.aliases.lookup(room) is None:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such alias")
        return super().join_by_name(call, room)

    def is_local(self, call: Call) -> bool:
        """Whether the homeserver's own directory decides."""
        raise NotImplementedError


@defect("ALIASQ-01")
class JoinsOfGhostsAskNobody(_Asking):
    """Nobody is asked about the unknown alias of an appservice's join."""

    def is_local(self, call: Call) -> bool:
        return call.requester.appservice is not None


@defect("ALIASQ-01")
class JoinsByWayOfServersAskNobody(_Asking):
    """Nobody is asked about the unknown alias of a join that names servers."""

    def is_local(self, call: Call) -> bool:
        return bool({"via", "server_name"} & call.query.keys())


@defect("ALIASQ-01", also=("AUTH-03", "INV-06"))
class AliasesAreNeverAskedAbout(_Aliases):
    """Nobody is asked about unknown aliases."""

    def ask_about(self, alias: str) -> None:
        return


@defect("ALIASQ-01", also=("AUTH-03",))
class AliasesAreAskedAboutByPost(_InThePath):
    """Alias queries are POST requests."""

    def method(self) -> str:
        return "POST"


class _Later(_Aliases):
    def later(self, alias: str, seconds: float) -> None:
        def ask() -> None:
            with suppress(MatrixError):
                Queries.ask(self, "aliases", To.ALIAS, alias)

        timer = threading.Timer(seconds, ask)
        timer.daemon = True
        timer.start()


@defect("ALIASQ-01", "ALIASQ-08", also=("ALIASQ-06", "ALIASQ-07", "ALIASQ-13", "ALIASQ-14", "ALIASQ-15", "ALIASQ-17"))
class AliasQueriesComeLate(_Later):
    """The join of an unknown alias is answered 404, and the query sent some time later."""

    def ask_about(self, alias: str) -> None:
        self.later(alias, 0.3)


@defect("ALIASQ-02")
class HashesInAliasesAreNotEncoded(_InThePath):
    """A hash inside an alias stands in the query as it is, so that the rest is lost."""

    def written(self, alias: str) -> str:
        return "%23" + quote(alias[1:], safe="#")


@defect("ALIASQ-02")
class HashesInAliasesAreEncodedTwice(_InThePath):
    """A hash inside an alias is encoded twice."""

    def written(self, alias: str) -> str:
        return "%23" + quote(alias[1:].replace("#", "%23"), safe="")


@defect("ALIASQ-02")
class BlanksInAliasesBecomePlusSigns(_InThePath):
    """A blank in an alias is a plus sign in the query."""

    def written(self, alias: str) -> str:
        return quote(alias, safe="").replace("%20", "+")


@defect("ALIASQ-02")
class PercentSignsInAliasesAreTakenForEscapes(_InThePath):
    """A percent sign with two digits in an alias is taken for an escape and not encoded again."""

    def written(self, alias: str) -> str:
        return quote(alias, safe="").replace("%252f", "%2f").replace("%2520", "%20")


@defect("ALIASQ-02")
class AliasesAreInLatin1(_InThePath):
    """Characters of an alias beyond ASCII are encoded in Latin-1 where that has them."""

    def written(self, alias: str) -> str:
        return quote(alias, safe="").replace(quote("é"), quote("é", encoding="latin-1"))


@defect("ALIASQ-03", also=("ALIASQ-04",))
class EveryUnknownAliasIsAskedAbout(Queries):
    """All appservices are asked about every unknown alias."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        everybody = [each for each in self.hs.appservices if each.url is not None]
        return everybody if kind == "aliases" else super().asked(kind, identifier)


@defect("ALIASQ-03")
class AliasesOfNobodyAreAskedAbout(Queries):
    """The first appservice is asked about unknown aliases that no namespace covers."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        found = super().asked(kind, identifier)
        return found or (self.hs.appservices[:1] if kind == "aliases" else [])


@defect("ALIASQ-03")
class UnknownAliasesAreServerErrors(Aliases):
    """The join of an alias that nobody knows is answered with a server error."""

    def resolved(self, alias: str) -> str:
        if alias not in self.store.aliases and not any(self.hs.queries.asked("aliases", alias)):
            raise MatrixError(500, "M_UNKNOWN", "internal error: no such alias")
        return super().resolved(alias)


@defect("ALIASQ-04")
class AllAreAskedAboutAliasesOfOne(Queries):
    """All appservices are asked about an unknown alias that some namespace covers."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        found = super().asked(kind, identifier)
        if kind != "aliases" or not found:
            return found
        return [*found, *(each for each in self.hs.appservices if each.url is not None and each not in found)]


@defect("ALIASQ-04")
class TheNextIsAskedAboutAliasesToo(Queries):
    """When an appservice does not know an alias, the one registered after it is asked too."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        found = super().asked(kind, identifier)
        if kind != "aliases" or not found:
            return found
        place = self.hs.appservices.index(found[-1])
        return [*found, *(each for each in self.hs.appservices[place + 1 : place + 2] if each.url is not None)]


@defect("ALIASQ-05")
class OpenNamespacesOfAliasesAreNotAskedAbout(Queries):
    """Only exclusive namespaces of aliases count for queries."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        found = super().asked(kind, identifier)
        if kind != "aliases":
            return found
        return [each for each in found if self.hs.namespaces.claimed("aliases", identifier)]


class _Resolved(Aliases):
    """Looks again after a query in another way."""

    def resolved(self, alias: str) -> str:
        room_id = self.lookup(alias)
        if room_id is not None:
            return room_id
        rooms = set(self.store.rooms)
        self.hs.queries.ask_about_alias(alias)
        room_id = self.looked_up(alias, rooms)
        if room_id is None:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such alias")
        return room_id

    def looked_up(self, alias: str, before: set[str]) -> str | None:
        raise NotImplementedError


@defect("ALIASQ-06", "ALIASQ-07", "ALIASQ-17", also=("ALIASQ-15", "ALIASQ-18"))
class TheAliasOfAQueryIsStillUnknown(_Resolved):
    """That an alias is unknown is remembered from before the query."""

    def looked_up(self, alias: str, before: set[str]) -> str | None:
        return None


@defect("ALIASQ-06", also=("ALIASQ-15", "ALIASQ-17", "ALIASQ-18"))
class RoomsOfAQueryAreNotEntered(_Resolved):
    """The join of a room that was created during the query is answered 404."""

    def looked_up(self, alias: str, before: set[str]) -> str | None:
        room_id = self.lookup(alias)
        return room_id if room_id in before else None


@defect("ALIASQ-06", "ALIASQ-07", also=("ALIASQ-18",))
class JoinsAfterAQueryAreForgotten(Rooms):
    """The join that caused a query is answered 200, and nobody joins."""

    @endpoint("POST", "/join/<room>", waits=True)
    def join_by_name(self, call: Call, room: str) -> JsonObject:
        if room.startswith("#") and room not in self.store.aliases:
            return {"room_id": self.hs.aliases.resolved(room)}
        return super().join_by_name(call, room)


@defect("ALIASQ-07", also=("ALIASQ-18",))
class OnlyNewRoomsAreEntered(_Resolved):
    """The join of a room that was there before the query is answered 404."""

    def looked_up(self, alias: str, before: set[str]) -> str | None:
        room_id = self.lookup(alias)
        return None if room_id in before else room_id


@defect("ALIASQ-08", also=("ALIASQ-06", "ALIASQ-07", "ALIASQ-13", "ALIASQ-14", "ALIASQ-15", "ALIASQ-16", "ALIASQ-17"))
class JoinsDoNotWaitForQueries(_Later):
    """The join of an unknown alias is answered as soon as the query has been sent."""

    def ask_about(self, alias: str) -> None:
        self.later(alias, 0.0)
        self.hs.stopping.wait(0.05)


@defect(
    "ALIASQ-09", "ALIASQ-16", also=("ALIASQ-06", "ALIASQ-07", "ALIASQ-15", "ALIASQ-17", "RETRY-10", "INV-05", "INV-06")
)
class TheHomeserverIsLockedDuringAliasQueries(Queries):
    """Nothing else happens while the answer to an alias query is waited for."""

    def ask_about_alias(self, alias: str) -> None:
        with self.hs.lock:
            super().ask_about_alias(alias)


@defect("ALIASQ-10", also=("ALIASQ-01", "ALIASQ-03", "ALIASQ-11", "ALIASQ-12", "ALIASQ-14"))
class UnknownAliasesBecomeRooms(_Aliases):
    """A room is made for an alias of which an appservice knows nothing."""

    def ask_about(self, alias: str) -> None:
        self.refused = False
        super().ask_about(alias)
        with self.hs.lock:
            if self.refused and alias not in self.store.aliases:
                self.store.set_alias(alias, next(reversed(self.store.rooms)), "@nobody:localhost")

    def exists(self, reply: Reply) -> bool:
        self.refused = reply.status == 404
        return super().exists(reply)

    refused = False


@defect("ALIASQ-10")
class RefusedQueriesAreServerErrors(_Aliases):
    """The join of an alias of which an appservice knows nothing is answered with a server error."""

    def ask_about(self, alias: str) -> None:
        self.refused = False
        super().ask_about(alias)
        if alias not in self.store.aliases and self.refused:
            raise MatrixError(500, "M_UNKNOWN", "internal error: no such alias")

    def exists(self, reply: Reply) -> bool:
        self.refused = reply.status == 404
        return super().exists(reply)

    refused = False


class _Promises(_Aliases):
    """Does something else when an appservice has promised an alias that it did not make."""

    promised = False

    def ask_about(self, alias: str) -> None:
        self.promised = False
        super().ask_about(alias)
        if self.promised and alias not in self.store.aliases:
            self.broken(alias)

    def exists(self, reply: Reply) -> bool:
        self.promised = super().exists(reply)
        return self.promised

    def broken(self, alias: str) -> None:
        raise NotImplementedError


@defect("ALIASQ-11", also=("ALIASQ-08",))
class BrokenPromisesAreAskedAboutForEver(_Promises):
    """An alias that was promised and not made is asked about again and again."""

    def broken(self, alias: str) -> None:
        if not self.hs.stopping.wait(0.2):
            self.ask_about(alias)


@defect("ALIASQ-11")
class BrokenPromisesAreKept(_Promises):
    """For an alias that was promised and not made any room will do."""

    def broken(self, alias: str) -> None:
        with self.hs.lock:
            public = [
                room_id
                for room_id, room in self.store.rooms.items()
                if room.content("m.room.join_rules").get("join_rule") == "public"
            ]
            self.store.set_alias(alias, public[-1], "@nobody:localhost")


@defect("ALIASQ-12")
class ForbiddenIsSuccess(_Promises):
    """An alias query that is answered 403 makes the homeserver make the room itself."""

    def exists(self, reply: Reply) -> bool:
        self.promised = reply.status == 403
        return Queries.exists(self, reply)

    def broken(self, alias: str) -> None:
        BrokenPromisesAreKept.broken(self, alias)  # type: ignore[arg-type]


@defect("ALIASQ-12")
class ForbiddenIsAServerError(_Promises):
    """The join of an alias whose query is answered 403 is answered with a server error."""

    def exists(self, reply: Reply) -> bool:
        self.promised = reply.status == 403
        return Queries.exists(self, reply)

    def broken(self, alias: str) -> None:
        raise MatrixError(502, "M_UNKNOWN", "the appservice refused the query")


@defect("ALIASQ-13")
class AliasesAreAskedAboutOnce(AskedOnce):
    """An alias query without a response is not tried again."""

    about = To.ALIAS


@defect("ALIASQ-13")
class AliasQueriesThatTimeOutAreFinal(TimeOutsAreFinal):
    """An alias query that was never answered is not tried again, while one that was cut is."""

    about = To.ALIAS


@defect("ALIASQ-13")
class AliasQueriesThatAreCutAreFinal(CutsAreFinal):
    """An alias query that was cut is not tried again, while one that was never answered is."""

    about = To.ALIAS


@defect("ALIASQ-14")
class JoinsTimeOutAsGateways(NotInTime):
    """A join whose query is never answered is answered 504."""

    about = To.ALIAS


@defect("ALIASQ-14")
class AliasesOfTheSilentAreNotFound(NotInTime):
    """A join whose query is never answered is answered as if the alias did not exist."""

    about = To.ALIAS
    status, errcode = 404, "M_NOT_FOUND"


@defect("ALIASQ-14", also=("ALIASQ-13",))
class JoinsWaitForEver(Outgoing):
    """An alias query is waited for without a limit."""

    patience = {**Outgoing.patience, To.ALIAS: 1e6}


@defect("ALIASQ-15")
class LateAliasesAreNoAliases(SecondAnswersAreLost):
    """The join of an alias that the appservice makes only when it is asked again is answered 408."""

    about = To.ALIAS

    def too_late(self) -> Reply | None:
        raise self.timed_out()


@defect("ALIASQ-16", also=("ALIASQ-17",))
class OneAliasQueryAtATime(_Aliases):
    """An alias query waits until no other is open."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._one_at_a_time = threading.Lock()

    def ask_about(self, alias: str) -> None:
        with self._one_at_a_time:
            super().ask_about(alias)


@defect("ALIASQ-16")
class OneJoinAtATime(Aliases):
    """Joins by alias wait until no alias query is open."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._one_at_a_time = threading.Lock()

    def resolved(self, alias: str) -> str:
        with self._one_at_a_time:
            return super().resolved(alias)


@defect("ALIASQ-17")
class OnlyTheFirstWhoWaitsGetsIn(_Aliases):
    """Who joins an alias about which somebody is being asked is told that it does not exist."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[str] = set()

    def ask_about(self, alias: str) -> None:
        with self.hs.lock:
            if alias in self._open:
                return
            self._open.add(alias)
        try:
            super().ask_about(alias)
        finally:
            self._open.discard(alias)


@defect("ALIASQ-18", also=("INTEREST-03", "INTEREST-09", "INTEREST-10", "INTEREST-11", "INTEREST-30"))
class JoinsByAliasAreNotPushed(Rooms):
    """The join that caused an alias query is not pushed."""

    @endpoint("POST", "/join/<room>", waits=True)
    def join_by_name(self, call: Call, room: str) -> JsonObject:
        self._asking = room.startswith("#") and room not in self.store.aliases
        room_id = self.hs.aliases.resolved(room) if room.startswith("#") else room
        with self.hs.lock:
            self._quiet = self._asking
            try:
                return self.join(call, room_id)
            finally:
                self._quiet = False

    _asking = _quiet = False

    def tell(self, event: Event) -> None:
        if not self._quiet:
            super().tell(event)
        else:
            self.hs.news.notify_all()


@defect("ALIASQ-19")
class TheAppserviceKnowsBetter(Aliases):
    """The join of an alias that exists fails when the appservice says that it does not."""

    def resolved(self, alias: str) -> str:
        for appservice in self.hs.queries.asked("aliases", alias) if alias in self.store.aliases else ():
            reply = self.hs.queries.persistently(appservice, To.ALIAS, alias)
            if reply is not None and reply.status == 404 and appservice.id == "hq-query":
                raise MatrixError(404, "M_NOT_FOUND", "there is no such alias")
        return super().resolved(alias)


@defect("ALIASQ-02")
class AliasesAreLowered(Queries):
    """The alias of a query is written in lower case."""

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        return super().once(appservice, about, identifier.lower() if about is To.ALIAS else identifier)


@defect("ALIASQ-10")
class AliasesOnceUnknownStayUnknown(Aliases):
    """An alias of which an appservice knew nothing once cannot be joined, though it has been made since."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._unknown: set[str] = set()

    def resolved(self, alias: str) -> str:
        if alias in self._unknown:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such alias")
        try:
            return super().resolved(alias)
        except MatrixError as error:
            if error.status == 404:
                self._unknown.add(alias)
            raise


@defect("ALIASQ-12")
class JoinsOfUnauthorizedQueriesAreServerErrors(Queries):
    """A query that the appservice answers with 401 makes the join fail with a server error."""

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        reply = super().once(appservice, about, identifier)
        if about is To.ALIAS and reply.status == 401:
            raise MatrixError(500, "M_UNKNOWN", "internal error: the appservice does not know its homeserver")
        return reply


@defect("ALIASQ-05", also=("NSALIAS-19",))
class AliasesAreAskedOfOneOnly(Queries):
    """Of several appservices that may have an alias only the first is asked."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        return super().asked(kind, identifier)[: 1 if kind == "aliases" else None]
