"""Defects of area LEGACY: old appservices and their routes."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.outgoing import NoResponse, Outgoing, Reply, To
from conformance.reference.ping import Ping
from conformance.reference.policy import MatrixError
from conformance.reference.queries import Queries
from conformance.reference.store import JsonObject
from conformance.reference.transactions import Transactions


class _Routes(Outgoing):
    """Chooses routes in another way."""

    def ask(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        *,
        legacy: str | None = None,
        query: dict[str, str] | None = None,
        body: JsonObject | None = None,
    ) -> Reply:
        def on(route: str) -> Reply:
            return self.once(appservice, about, method, route, query, body)

        if legacy is None or not self.is_meant(appservice, about, path):
            return super().ask(appservice, about, method, path, legacy=legacy, query=query, body=body)
        return self.chosen(appservice, about, f"/_matrix/app/v1{path}", legacy, on)

    def is_meant(self, appservice: Registration, about: To, path: str) -> bool:
        return True

    def chosen(self, appservice: Registration, about: To, current: str, legacy: str, on: Any) -> Reply:
        reply: Reply = on(legacy)
        return reply


class _LegacyFirst(_Routes):
    """Calls the legacy route, and the present one when that is no success."""

    def chosen(self, appservice: Registration, about: To, current: str, legacy: str, on: Any) -> Reply:
        reply: Reply = on(legacy)
        return reply if reply.ok else on(current)


@defect("LEGACY-01", also=("LEGACY-11", "ALIASQ-01"))
class AliasesAreAskedAboutOnTheLegacyRouteFirst(_LegacyFirst):
    """Queries about aliases go to the legacy route first."""

    def is_meant(self, appservice: Registration, about: To, path: str) -> bool:
        return about is To.ALIAS


@defect("LEGACY-01", also=("LEGACY-11", "3PN-02"))
class MetadataIsFetchedFromTheLegacyRouteFirst(_LegacyFirst):
    """Metadata of protocols is fetched from the legacy route first."""

    def is_meant(self, appservice: Registration, about: To, path: str) -> bool:
        return about is To.PROTOCOL


@defect("LEGACY-01", also=("LEGACY-11", "ALIASQ-15", "ALIASQ-17"))
class BothRoutesAreTriedAtOnce(_Routes):
    """Queries about aliases go to both routes at the same time."""

    def is_meant(self, appservice: Registration, about: To, path: str) -> bool:
        return about is To.ALIAS

    def chosen(self, appservice: Registration, about: To, current: str, legacy: str, on: Any) -> Reply:
        other: list[Reply] = []

        def also_there() -> None:
            with suppress(NoResponse):
                other.append(on(legacy))

        thread = threading.Thread(target=also_there, daemon=True)
        thread.start()
        reply: Reply = on(current)
        thread.join()
        return reply if reply.ok or not other else other[0]


class _FallsBack(Outgoing):
    """Falls back less often."""

    kinds: tuple[To, ...] = ()
    statuses: tuple[int, ...] = ()

    def falls_back(self, about: To, reply: Reply) -> bool:
        meant = about in self.kinds and (not self.statuses or reply.status in self.statuses)
        return not meant and super().falls_back(about, reply)


@defect("LEGACY-02", also=("AUTH-01",))
class NoLegacyRouteForTransactions(_FallsBack):
    """Transactions are never sent on the legacy route."""

    kinds = (To.TRANSACTION,)


@defect("LEGACY-02")
class NoLegacyRouteAfterServerErrors(_FallsBack):
    """Transactions that are answered with a 5xx are not sent on the legacy route."""

    kinds, statuses = (To.TRANSACTION,), (500, 501)


@defect("LEGACY-02")
class NoLegacyRouteAfterNotImplemented(_FallsBack):
    """Transactions that are answered 501 are not sent on the legacy route."""

    kinds, statuses = (To.TRANSACTION,), (501,)


@defect("LEGACY-03")
class NoLegacyRouteForUsers(_FallsBack):
    """Queries about users are not repeated on the legacy route."""

    kinds = (To.USER,)


@defect("LEGACY-03")
class UnknownUsersAreUnknownOnAllRoutes(_FallsBack):
    """A 404 to a query about a user means that there is none, also when it says that the route is not known."""

    kinds, statuses = (To.USER,), (404,)


@defect("LEGACY-04")
class NoLegacyRouteForAliases(_FallsBack):
    """Queries about aliases are not repeated on the legacy route."""

    kinds = (To.ALIAS,)


@defect("LEGACY-04")
class LegacyAnswersAboutAliasesAreIgnored(Queries):
    """Queries about aliases are repeated on the legacy route, but the answer there does not count."""

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        if about is not To.ALIAS:
            return super().once(appservice, about, identifier)
        path = f"/rooms/{self.hs.outgoing.segment(identifier)}"
        first = self.hs.outgoing.ask(appservice, about, "GET", path)
        if not first.ok and self.hs.outgoing.once(appservice, about, "GET", path, None, None).ok:
            raise MatrixError(404, "M_NOT_FOUND", "no such alias")
        return first


@defect("LEGACY-05")
class NoLegacyRouteForMetadata(_FallsBack):
    """Metadata is not fetched from the legacy route."""

    kinds = (To.PROTOCOL,)


class _AfterRefusal(_Routes):
    """Repeats on the legacy route otherwise than on the present one."""

    kinds: tuple[To, ...] = ()

    def is_meant(self, appservice: Registration, about: To, path: str) -> bool:
        return about in self.kinds

    def chosen(self, appservice: Registration, about: To, current: str, legacy: str, on: Any) -> Reply:
        reply: Reply = on(current)
        return self.instead(reply, legacy, on) if self.falls_back(about, reply) else reply

    def instead(self, refused: Reply, legacy: str, on: Any) -> Reply:
        raise NotImplementedError


@defect("LEGACY-05")
class MetadataOfTheLegacyRouteIsThrownAway(_AfterRefusal):
    """Metadata is fetched from the legacy route, and not given to clients."""

    kinds = (To.PROTOCOL,)

    def instead(self, refused: Reply, legacy: str, on: Any) -> Reply:
        on(legacy)
        return refused


@defect("LEGACY-05")
class LegacyMetadataWithoutThePrefix(_AfterRefusal):
    """Metadata is looked for at `/thirdparty/protocol/`, which is on no appservice."""

    kinds = (To.PROTOCOL,)

    def instead(self, refused: Reply, legacy: str, on: Any) -> Reply:
        reply: Reply = on(legacy.removeprefix("/_matrix/app/unstable"))
        return reply


class _LookUps(Outgoing):
    """Repeats look-ups otherwise."""

    about: To
    reverse = False

    def once(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: JsonObject | None,
    ) -> Reply:
        meant = about is self.about and path.startswith("/_matrix/app/unstable/")
        if meant and (path.endswith(("/user", "/location")) is self.reverse):
            path, query = self.changed(path, query or {})
            if not path:
                return Reply(404, b"{}")
        return super().once(appservice, about, method, path, query, body)

    def changed(self, path: str, query: dict[str, str]) -> tuple[str, dict[str, str]]:
        """Another path and query; an empty path: no request at all."""
        return "", query


@defect("LEGACY-06")
class NoLegacyRouteForLookUpsOfUsers(_LookUps):
    """Look-ups of users are not repeated on the legacy route."""

    about = To.THIRD_PARTY_USER


@defect("LEGACY-06")
class LegacyLookUpsOfUsersLoseTheirFields(_LookUps):
    """Look-ups of users are repeated on the legacy route without their fields."""

    about = To.THIRD_PARTY_USER

    def changed(self, path: str, query: dict[str, str]) -> tuple[str, dict[str, str]]:
        return path, {}


@defect("LEGACY-06")
class LegacyLookUpsOfUsersLoseAField(_LookUps):
    """Look-ups of users are repeated on the legacy route with the first field only."""

    about = To.THIRD_PARTY_USER

    def changed(self, path: str, query: dict[str, str]) -> tuple[str, dict[str, str]]:
        return path, dict(list(query.items())[:1])


@defect("LEGACY-07")
class LegacyLookUpsOfLocationsWithoutThePrefix(_LookUps):
    """Look-ups of locations are repeated at `/thirdparty/location/`, which is on no appservice."""

    about = To.THIRD_PARTY_LOCATION

    def changed(self, path: str, query: dict[str, str]) -> tuple[str, dict[str, str]]:
        return path.removeprefix("/_matrix/app/unstable"), query


@defect("LEGACY-07")
class LegacyLookUpsOfLocationsAreEncodedTwice(_LookUps):
    """Look-ups of locations are repeated on the legacy route with fields that are encoded twice."""

    about = To.THIRD_PARTY_LOCATION

    def changed(self, path: str, query: dict[str, str]) -> tuple[str, dict[str, str]]:
        return path, {key: quote(value, safe="") for key, value in query.items()}


@defect("LEGACY-08")
class NoLegacyRouteForReverseLookUpsOfUsers(_LookUps):
    """Reverse look-ups of users are not repeated on the legacy route."""

    about, reverse = To.THIRD_PARTY_USER, True


@defect("LEGACY-08")
class LegacyReverseLookUpsNameTheUserOtherwise(_LookUps):
    """Reverse look-ups of users are repeated on the legacy route with `user_id` in place of `userid`."""

    about, reverse = To.THIRD_PARTY_USER, True

    def changed(self, path: str, query: dict[str, str]) -> tuple[str, dict[str, str]]:
        return path, {"user_id": query["userid"]}


@defect("LEGACY-09")
class NoLegacyRouteForReverseLookUpsOfAliases(_LookUps):
    """Reverse look-ups of aliases are not repeated on the legacy route."""

    about, reverse = To.THIRD_PARTY_LOCATION, True


@defect("LEGACY-09")
class LegacyReverseLookUpsLoseTheAlias(_LookUps):
    """Reverse look-ups of aliases are repeated on the legacy route without the alias."""

    about, reverse = To.THIRD_PARTY_LOCATION, True

    def changed(self, path: str, query: dict[str, str]) -> tuple[str, dict[str, str]]:
        return path, {}


class _Repeated(Outgoing):
    """Repeats transactions otherwise."""

    def once(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: JsonObject | None,
    ) -> Reply:
        if about is To.TRANSACTION and not path.startswith("/_matrix/"):
            method, path, body = self.changed(method, path, body or {})
        return super().once(appservice, about, method, path, query, body)

    def changed(self, method: str, path: str, body: JsonObject) -> tuple[str, str, JsonObject]:
        raise NotImplementedError


@defect("LEGACY-10", also=("TXN-10", "TXN-11", "TXN-15", "TXN-16", "RETRY-04", "RETRY-08"))
class LegacyTransactionsHaveIdsOfTheirOwn(_Repeated):
    """A transaction gets another ID on the legacy route."""

    def changed(self, method: str, path: str, body: JsonObject) -> tuple[str, str, JsonObject]:
        return method, f"{path}-old", body


@defect("LEGACY-10", also=("TXN-01", "TXN-13", "TXN-14"))
class LegacyTransactionsArePosted(_Repeated):
    """Transactions on the legacy route are POST requests."""

    def changed(self, method: str, path: str, body: JsonObject) -> tuple[str, str, JsonObject]:
        return "POST", path, body


@defect("LEGACY-10", also=("TXN-11", "TXN-12", "TXN-13", "TXN-14", "TXN-15"))
class LegacyEventsAreTimedInSeconds(_Repeated):
    """Events on the legacy route have their `origin_server_ts` in seconds."""

    def changed(self, method: str, path: str, body: JsonObject) -> tuple[str, str, JsonObject]:
        events = [{**each, "origin_server_ts": each["origin_server_ts"] // 1000} for each in body["events"]]
        return method, path, {**body, "events": events}


@defect("LEGACY-11", also=("LEGACY-13", "TXN-10", "TXN-16", "TXN-18"))
class EverythingGoesToBothRoutes(Transactions):
    """Transactions that were accepted on the present route are sent on the legacy one too."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        done = super().send(appservice, txn_id, body)
        path = f"/transactions/{self.hs.outgoing.segment(txn_id)}"
        with suppress(NoResponse):
            if done:
                self.hs.outgoing.once(appservice, To.TRANSACTION, "PUT", path, None, body)
        return done


@defect("LEGACY-11", also=("LEGACY-01",))
class AcceptedMetadataIsFetchedAgain(_Routes):
    """Metadata that the present route has given is fetched from the legacy route as well."""

    def is_meant(self, appservice: Registration, about: To, path: str) -> bool:
        return about is To.PROTOCOL

    def chosen(self, appservice: Registration, about: To, current: str, legacy: str, on: Any) -> Reply:
        reply: Reply = on(current)
        other: Reply = on(legacy)
        return reply if reply.ok else other


@defect("LEGACY-12", also=("LEGACY-02", "LEGACY-10"))
class LegacyRoutesAreRememberedForEver(Outgoing):
    """Where a transaction was accepted on the legacy route once, the present one is never tried again."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.old: set[str] = set()

    def ask(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        *,
        legacy: str | None = None,
        query: dict[str, str] | None = None,
        body: JsonObject | None = None,
    ) -> Reply:
        if about is not To.TRANSACTION or legacy is None:
            return super().ask(appservice, about, method, path, legacy=legacy, query=query, body=body)
        if appservice.id in self.old:
            return self.once(appservice, about, method, legacy, query, body)
        reply = self.once(appservice, about, method, f"/_matrix/app/v1{path}", query, body)
        if not self.falls_back(about, reply):
            return reply
        reply = self.once(appservice, about, method, legacy, query, body)
        if reply.ok:
            self.old.add(appservice.id)
        return reply


@defect("LEGACY-13", also=("TXN-10", "TXN-16", "TXN-18"))
class RefusalsCountThoughTheLegacyRouteAccepts(Transactions):
    """A transaction that the present route refused has failed, also when the legacy one accepted it."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        path = f"/transactions/{self.hs.outgoing.segment(txn_id)}"
        try:
            first = self.hs.outgoing.ask(appservice, To.TRANSACTION, "PUT", path, body=body)
            if not self.hs.outgoing.falls_back(To.TRANSACTION, first):
                return self.acknowledges(first)
            self.hs.outgoing.once(appservice, To.TRANSACTION, "PUT", path, None, body)
        except NoResponse as error:
            return self.lost(error)
        return False


@defect("LEGACY-13", also=("TXN-10", "TXN-16", "TXN-18"))
class LegacyTransactionsAreSentOnceMore(Transactions):
    """A transaction that was accepted on the legacy route is sent there a second time."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        path = f"/transactions/{self.hs.outgoing.segment(txn_id)}"
        try:
            first = self.hs.outgoing.ask(appservice, To.TRANSACTION, "PUT", path, body=body)
            if not self.hs.outgoing.falls_back(To.TRANSACTION, first):
                return self.acknowledges(first)
            reply = self.hs.outgoing.once(appservice, To.TRANSACTION, "PUT", path, None, body)
            if reply.ok:
                reply = self.hs.outgoing.once(appservice, To.TRANSACTION, "PUT", path, None, body)
        except NoResponse as error:
            return self.lost(error)
        return self.acknowledges(reply)


class _Pings(Ping):
    """Pings elsewhere."""

    elsewhere = ""

    def sent(self, appservice: Registration, body: JsonObject) -> Reply:
        reply = super().sent(appservice, body)
        if reply.status != 404:
            return reply
        return self.hs.outgoing.once(appservice, To.PING, "POST", self.elsewhere, None, body)


@defect("LEGACY-14")
class PingsFallBack(_Pings):
    """A ping that is answered 404 is tried at `/ping`."""

    elsewhere = "/ping"


@defect("LEGACY-14")
class PingsFallBackToTheUnstableRoute(_Pings):
    """A ping that is answered 404 is tried below the prefix of unstable routes."""

    elsewhere = "/_matrix/app/unstable/fi.mau.msc2659/ping"


@defect("LEGACY-14")
class UnknownPingsAreGood(Ping):
    """An appservice that does not know pings is well: it has answered."""

    def check(self, reply: Reply) -> None:
        if not (isinstance(reply.json, dict) and reply.json.get("errcode") == "M_UNRECOGNIZED"):
            super().check(reply)


@defect("LEGACY-02")
class LegacyTransactionsNeedAnErrcode(Outgoing):
    """The legacy route of transactions is not tried when the 404 is not JSON."""

    def falls_back(self, about: To, reply: Reply) -> bool:
        return super().falls_back(about, reply) and (reply.status != 404 or isinstance(reply.json, dict))


@defect("LEGACY-02", also=("LEGACY-03", "LEGACY-04"))
class NoLegacyRouteForUnknownMethods(Outgoing):
    """Where the present route is answered 405, the legacy one is not tried."""

    def falls_back(self, about: To, reply: Reply) -> bool:
        return super().falls_back(about, reply) and reply.status != 405
