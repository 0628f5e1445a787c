"""Defects of area AUTH: how the homeserver shows an appservice who it is, and how one did so up to v1.3."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode

import urllib3

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect, variant
from conformance.reference.identity import Identity, Requester
from conformance.reference.outgoing import Outgoing, Reply, To
from conformance.reference.policy import MatrixError
from conformance.reference.server import Server
from conformance.reference.store import JsonObject
from conformance.reference.thirdparty import ThirdParty
from conformance.reference.transactions import Transactions
from conformance.reference.web import Call

_LOOKUPS = (To.PROTOCOL, To.THIRD_PARTY_USER, To.THIRD_PARTY_LOCATION)
_QUERIES = (To.USER, To.ALIAS)

#: What holds since a later version only.
_SINCE_V1_4 = (
    "AUTH-01", "AUTH-02", "AUTH-03", "AUTH-04", "AUTH-05", "AUTH-06", "AUTH-07", "AUTH-09",
    "TXN-19",
    "PING-01", "PING-02", "PING-03", "PING-04", "PING-06", "PING-07", "PING-08",
    "PING-10", "PING-11", "PING-12", "PING-13", "PING-15", "PING-16", "PING-17",
    "IDENT-08", "IDENT-20",
    "TS-14",
    "INTEREST-08", "INTEREST-09", "INTEREST-28", "INTEREST-31",
    "ADMIN-07", "ADMIN-08", "ADMIN-09", "ADMIN-16", "ADMIN-17", "ADMIN-18", "ADMIN-19", "ADMIN-20",
    "SYNC-03",
    "INV-03",
    "RETRY-14",
    "LEGACY-14",
    *(f"EPH-{number:02}" for number in range(1, 23)),
    "PING-05", "PING-09", "PING-14", "PING-18", "PING-19", "PING-20",
    *(f"DEVICE-{number:02}" for number in range(1, 18)),
    *(f"XSIGN-{number:02}" for number in range(1, 5)),
)  # fmt: skip


@variant("speaks-v1-3", loses=_SINCE_V1_4)
class ClaimsV13(Server):
    """The homeserver claims v1.1 to v1.3, and shows its token in the query as it was done then, and in no header."""

    versions = ("v1.1", "v1.2", "v1.3")


@variant("speaks-v1-3")
class ShowsTheTokenInTheQuery(Outgoing):
    """The `hs_token` is sent in the query, and in no header."""

    def headers(self, appservice: Registration, about: To) -> dict[str, str]:
        return {}

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {"access_token": self.token(appservice)}


class _Wire(Outgoing):
    """Changes requests of some kind on their way out."""

    part = "/"

    def transported(
        self, method: str, url: str, headers: dict[str, str], data: bytes | None, timeout: urllib3.Timeout
    ) -> Reply:
        if self.part in url and self.is_meant(url, data):
            url, headers = self.changed(url, headers)
        return super().transported(method, url, headers, data, timeout)

    def is_meant(self, url: str, data: bytes | None) -> bool:
        return True

    def changed(self, url: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        return url, {name: value for name, value in headers.items() if name != "Authorization"}


class _Headers(Outgoing):
    """Sends other credentials with requests of some kinds."""

    kinds: tuple[To, ...] = tuple(To)

    def headers(self, appservice: Registration, about: To) -> dict[str, str]:
        return self.credentials(appservice) if about in self.kinds else super().headers(appservice, about)

    def credentials(self, appservice: Registration) -> dict[str, str]:
        return {}


@defect("AUTH-01")
class TransactionsHaveNoToken(_Headers):
    """Transactions carry no Authorization header."""

    kinds = (To.TRANSACTION,)


@defect("AUTH-01")
class TransactionsHaveTwoTokens(_Wire):
    """Transactions carry the Authorization header twice."""

    part = "/transactions/"

    def changed(self, url: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        doubled = urllib3.HTTPHeaderDict(headers)
        doubled.add("Authorization", headers["Authorization"])
        return url, doubled  # type: ignore[return-value]


@defect("AUTH-01")
class TransactionsHaveABareToken(_Headers):
    """The Authorization header of transactions has no scheme."""

    kinds = (To.TRANSACTION,)

    def credentials(self, appservice: Registration) -> dict[str, str]:
        return {"Authorization": appservice.hs_token}


@defect("AUTH-01", needs=("IDENT-13",))
class EphemeralTransactionsHaveNoToken(_Wire):
    """Transactions without events, for ephemeral data, carry no Authorization header."""

    part = "/transactions/"

    def is_meant(self, url: str, data: bytes | None) -> bool:
        return b'"events": []' in (data or b"")


@defect("AUTH-01", also=("LEGACY-10",), needs=("INV-08",))
class LegacyTransactionsHaveNoToken(_Wire):
    """Transactions that are sent again on the legacy route carry no Authorization header there."""

    part = "/transactions/"

    def is_meant(self, url: str, data: bytes | None) -> bool:
        return "/_matrix/app/" not in url


@defect("AUTH-02")
class UserQueriesHaveNoToken(_Headers):
    """User queries carry no Authorization header."""

    kinds = (To.USER,)


@defect("AUTH-02", also=("LEGACY-10",))
class LegacyUserQueriesHaveNoToken(_Wire):
    """User queries that are repeated on the legacy route carry no Authorization header there."""

    part = "/users/"

    def is_meant(self, url: str, data: bytes | None) -> bool:
        return "/_matrix/app/" not in url


@defect("AUTH-03")
class AliasQueriesHaveNoToken(_Headers):
    """Room alias queries carry no Authorization header."""

    kinds = (To.ALIAS,)


@defect("AUTH-03", "AUTH-10")
class AliasQueriesHaveTheAsToken(_Headers):
    """Room alias queries carry the as_token in place of the hs_token."""

    kinds = (To.ALIAS,)

    def credentials(self, appservice: Registration) -> dict[str, str]:
        return {"Authorization": f"Bearer {appservice.as_token}"}


@defect("AUTH-04")
class LookupsHaveNoToken(_Headers):
    """Third-party look-ups carry no Authorization header."""

    kinds = _LOOKUPS


@defect("AUTH-04")
class LocationLookupsHaveNoToken(_Wire):
    """Third-party look-ups of the locations of a protocol, and only these, carry no Authorization header."""

    part = "/thirdparty/location/"


@defect("AUTH-04")
class ReverseLookupsHaveNoToken(_Wire):
    """Reverse third-party look-ups of users, and only these, carry no Authorization header."""

    part = "/thirdparty/user?"


@defect("AUTH-05")
class PingsHaveNoToken(_Headers):
    """Pings carry no Authorization header."""

    kinds = (To.PING,)


@defect("AUTH-05")
class PingsHaveAnotherScheme(_Headers):
    """The Authorization header of pings has another scheme than Bearer."""

    kinds = (To.PING,)

    def credentials(self, appservice: Registration) -> dict[str, str]:
        return {"Authorization": f"Token {appservice.hs_token}"}


@defect("AUTH-06")
class AllGetTheTokenOfTheFirst(Outgoing):
    """The hs_token of the first appservice is shown to all."""

    def token(self, appservice: Registration) -> str:
        return self.hs.appservices[0].hs_token


@defect("AUTH-06")
class AllGetTheTokenOfTheLast(Outgoing):
    """The hs_token of the last appservice is shown to all."""

    def token(self, appservice: Registration) -> str:
        return self.hs.appservices[-1].hs_token


@defect("AUTH-06")
class QueriesShowTheTokenOfTheFirst(_Headers):
    """Queries to any appservice show the hs_token of the first; everything else is right."""

    kinds = _QUERIES

    def credentials(self, appservice: Registration) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.hs.appservices[0].hs_token}"}


@defect("AUTH-07", also=("AUTH-09",))
class TheQueryHasAnotherToken(Outgoing):
    """A stale token is sent in the query beside the header."""

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {"access_token": "stale"}


@defect("AUTH-07", also=("AUTH-09", "AUTH-10"))
class PingsHaveTheAsTokenInTheQuery(Outgoing):
    """Pings have the as_token in the query beside the hs_token in the header."""

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {"access_token": appservice.as_token} if about is To.PING else {}


class _Old(ShowsTheTokenInTheQuery):
    """Leaves the token out of requests of some kinds."""

    kinds: tuple[To, ...] = ()

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {} if about in self.kinds else super().query(appservice, about)


@defect("AUTH-08", on="speaks-v1-3")
class OldTransactionsHaveNoToken(_Old):
    """A homeserver of v1.3 sends transactions without the token in the query."""

    kinds = (To.TRANSACTION,)


@defect("AUTH-08", on="speaks-v1-3")
class OldQueriesHaveNoToken(_Old):
    """A homeserver of v1.3 queries users and room aliases without the token in the query."""

    kinds = _QUERIES


@defect("AUTH-08", on="speaks-v1-3")
class OldTokensAreSentInAHeader(ShowsTheTokenInTheQuery):
    """A homeserver of v1.3 sends its token as later ones do, in the header and not in the query."""

    def headers(self, appservice: Registration, about: To) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(appservice)}"}

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {}


@defect("AUTH-08", "AUTH-10", on="speaks-v1-3")
class OldLookupsHaveTheAsToken(ShowsTheTokenInTheQuery):
    """A homeserver of v1.3 sends the as_token in the query of third-party look-ups."""

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {"access_token": appservice.as_token} if about in _LOOKUPS else super().query(appservice, about)


@defect("AUTH-09")
class TokensStandInUrls(Outgoing):
    """The hs_token stands in every URL, beside the header."""

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {"access_token": self.token(appservice)}


@defect("AUTH-09")
class TokensStandInUrlsOfLookups(Outgoing):
    """The hs_token stands in the URLs of third-party look-ups, beside the header."""

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {"access_token": self.token(appservice)} if about in _LOOKUPS else {}


@defect("AUTH-10")
class LookupsForwardTheClientsToken(ThirdParty):
    """A third-party look-up forwards the token of the client that caused it."""

    def fields(self, call: Call) -> dict[str, str]:
        return {**super().fields(call), "on_behalf_of": call.token or ""}


@defect("AUTH-10")
class LookupsForwardTheWholeQuery(ThirdParty):
    """A third-party look-up forwards all parameters of the client's, the access token among them if it stands there."""

    def fields(self, call: Call) -> dict[str, str]:
        tokens = {name: value for name, value in call.query.items() if name == "access_token"}
        return {**super().fields(call), **tokens}


@defect("AUTH-10")
class TransactionsNameTheAsToken(Outgoing):
    """Transactions have the as_token in a header of their own."""

    def headers(self, appservice: Registration, about: To) -> dict[str, str]:
        plain = super().headers(appservice, about)
        return {**plain, "X-Appservice-Token": appservice.as_token} if about is To.TRANSACTION else plain


@defect("AUTH-10", needs=("IDENT-13",))
class TransactionsHoldTheRegistration(Transactions):
    """Transactions for ephemeral data hold what the homeserver knows of the appservice, its as_token included."""

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        body = super().body(appservice, items)
        if "ephemeral" in body:
            body["org.example.appservice"] = {"id": appservice.id, "token": appservice.as_token}
        return body


@defect("AUTH-11", also=("IDENT-17", "ADMIN-08", "ADMIN-16"))
class BothTokensAuthenticate(Identity):
    """Both tokens stand in one table: the hs_token authenticates requests to the homeserver too."""

    def appservice(self, token: str) -> Registration | None:
        return next((each for each in self.hs.appservices if token in (each.as_token, each.hs_token)), None)


@defect("AUTH-11", also=("IDENT-17",))
class GhostsAuthenticateByTheHsToken(Identity):
    """Where a call asserts the identity of a ghost, the hs_token will do."""

    def by_access_token(self, call: Call, token: str) -> Requester:
        appservice = next((each for each in self.hs.appservices if each.hs_token == token), None)
        if appservice is not None and "user_id" in call.query:
            return self.asserted(call, appservice)
        return super().by_access_token(call, token)


@defect("AUTH-11", also=("IDENT-17",))
class HsTokensAreForbidden(Identity):
    """An hs_token is refused to clients, but with 403, as if it were a token that authenticates somebody."""

    def by_access_token(self, call: Call, token: str) -> Requester:
        if any(each.hs_token == token for each in self.hs.appservices):
            raise MatrixError(403, "M_FORBIDDEN", "that token is for the other direction")
        return super().by_access_token(call, token)


@defect("AUTH-12", also=("AUTH-09",))
class TokensArePastedIntoUrls(Outgoing):
    """The hs_token stands in every URL, not percent-encoded."""

    def once(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: JsonObject | None,
    ) -> Reply:
        parameters = urlencode(query or {}, quote_via=quote)
        pasted = f"{parameters}{'&' if parameters else ''}access_token={self.token(appservice)}"
        return super().once(appservice, about, method, f"{path}?{pasted}", None, body)


class _Mangled(Outgoing):
    mangled: Callable[[str], str]

    def token(self, appservice: Registration) -> str:
        return type(self).mangled(appservice.hs_token)


@defect("AUTH-12")
class TokensAreEncodedInHeaders(_Mangled):
    """The hs_token is percent-encoded in the header."""

    mangled = quote


@defect("AUTH-12")
class PlusSignsOfTokensAreBlanks(_Mangled):
    """A plus sign of the hs_token becomes a blank, as in forms."""

    mangled = unquote_plus


@defect("AUTH-12")
class TokensEndAtAnEqualsSign(Outgoing):
    """Only what comes before the first equals sign of the hs_token is sent."""

    def token(self, appservice: Registration) -> str:
        return appservice.hs_token.partition("=")[0]


@defect("AUTH-01", needs=("TXN-11",))
class RetriesHaveNoToken(Outgoing):
    """A transaction that is tried again has no Authorization header."""

    def headers(self, appservice: Registration, about: To) -> dict[str, str]:
        headers, pusher = super().headers(appservice, about), self.hs.pushers.get(appservice.id)
        return {} if about is To.TRANSACTION and pusher is not None and pusher.failures else headers


@defect("AUTH-02", "AUTH-03", needs=("USERQ-12", "ALIASQ-13"))
class RepeatedQueriesHaveNoToken(Outgoing):
    """A query about a user or an alias that is asked again has no Authorization header."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._asked: set[str] = set()
        self._repeating = threading.local()

    def ask(self, appservice: Registration, about: To, method: str, path: str, **more: Any) -> Reply:
        self._repeating.it = about in _QUERIES and path in self._asked
        self._asked.add(path)
        return super().ask(appservice, about, method, path, **more)

    def headers(self, appservice: Registration, about: To) -> dict[str, str]:
        return {} if self._repeating.it else super().headers(appservice, about)
