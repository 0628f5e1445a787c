"""Defects of area REG: what a registration file must do."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3

from conformance.appservice.registration import Namespace, Registration
from conformance.reference.defects import defect
from conformance.reference.homeserver import Registrations
from conformance.reference.interest import Interest
from conformance.reference.namespaces import Namespaces, compiled
from conformance.reference.outgoing import NoResponse, Outgoing, Reply
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.queries import Queries
from conformance.reference.server import Server
from conformance.reference.store import Event, JsonObject
from conformance.reference.transactions import Queues
from conformance.reference.web import Call


@defect("REG-01")
class OnlyTheFirstRegistrationIsLoaded(Registrations):
    """Of several registration files only the first is loaded."""

    def loaded(self, given: Sequence[Registration]) -> list[Registration]:
        return super().loaded(given)[:1]


@defect("REG-01")
class OnlyTenRegistrationsAreLoaded(Registrations):
    """No more than ten registration files are loaded."""

    def loaded(self, given: Sequence[Registration]) -> list[Registration]:
        return super().loaded(given)[:10]


@defect("REG-01")
class RegistrationsWithoutAUrlAreNotLoaded(Registrations):
    """A registration whose url is null is not loaded."""

    def loaded(self, given: Sequence[Registration]) -> list[Registration]:
        return [each for each in super().loaded(given) if each.url is not None]


@defect("REG-01", "REG-02")
class RegistrationsWithoutUsersAreNotLoaded(Registrations):
    """A registration whose namespaces lack users is not loaded."""

    def loaded(self, given: Sequence[Registration]) -> list[Registration]:
        return [each for each in super().loaded(given) if each.users is not None]


@defect("REG-02", also=("INTEREST-13",))
class WithoutUsersNothingIsOfInterest(Interest):
    """An appservice whose namespaces lack users is interested in nothing."""

    def in_event(self, appservice: Registration, event: Event) -> bool:
        return appservice.users is not None and super().in_event(appservice, event)


@defect("REG-02")
class WithoutRoomsNothingIsOfInterest(Interest):
    """An appservice whose namespaces lack rooms is interested in nothing."""

    def in_event(self, appservice: Registration, event: Event) -> bool:
        return appservice.rooms is not None and super().in_event(appservice, event)


def _without_path(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@defect("REG-03")
class ThePathOfAUrlIsLost(Outgoing):
    """The path of an appservice's url is dropped."""

    def url(self, appservice: Registration, path: str) -> str:
        return urljoin(appservice.url or "", path)


@defect("REG-03")
class ThePathOfAUrlLosesItsLastSegmentInAliasQueries(Outgoing):
    """In alias queries the last segment of the path of an appservice's url is dropped, as a relative link does it."""

    def url(self, appservice: Registration, path: str) -> str:
        if "/rooms/" in path:
            return urljoin(appservice.url or "", path.lstrip("/"))
        return super().url(appservice, path)


@defect("REG-03")
class ThePathOfAUrlIsLostInPings(Outgoing):
    """The path of an appservice's url is dropped for pings only."""

    def url(self, appservice: Registration, path: str) -> str:
        url = super().url(appservice, path)
        return _without_path(url) + path if path.endswith("/ping") else url


@defect("REG-03")
class ThePathOfAUrlIsLostInUserQueries(Outgoing):
    """The path of an appservice's url is dropped for user queries only."""

    def url(self, appservice: Registration, path: str) -> str:
        url = super().url(appservice, path)
        return _without_path(url) + path if "/users/" in path else url


@defect("REG-04")
class AUrlWithAFinalSlashIsUseless(Queues):
    """Nothing is pushed to an appservice whose url ends in a slash."""

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        if not (appservice.url or "").endswith("/"):
            super().put(appservice, kind, item)


@defect("REG-05")
class AliasesOfANullUrlAreAServerError(Queries):
    """The join of an unknown alias of an appservice without a url fails with an internal error."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        for appservice in self.hs.appservices:
            without = appservice.url is None and kind == "aliases"
            if without and self.hs.namespaces.covers(appservice, kind, identifier):
                raise MatrixError(500, "M_UNKNOWN", "internal error: there is no url to ask")
        return super().asked(kind, identifier)


@defect("REG-05")
class UsersOfANullUrlAreAServerError(Queries):
    """The invite of an unknown user of an appservice without a url fails with an internal error."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        for appservice in self.hs.appservices:
            without = appservice.url is None and kind == "users"
            if without and self.hs.namespaces.covers(appservice, kind, identifier):
                raise MatrixError(500, "M_UNKNOWN", "internal error: there is no url to ask")
        return super().asked(kind, identifier)


@defect("REG-05")
class EventsForANullUrlAreAServerError(Queues):
    """What an appservice without a url is interested in fails with an internal error once it has been queued."""

    def told(self, event: Event) -> None:
        super().told(event)
        for appservice in self.hs.appservices:
            if appservice.url is None and self.hs.interest.in_event(appservice, event):
                raise MatrixError(500, "M_UNKNOWN", "internal error: there is no url to push to")


class _FewerClaims(Namespaces):
    def claims(self, appservice: Registration, kind: str, identifier: str) -> bool:
        if kind != "users":
            return super().claims(appservice, kind, identifier)
        entries = self.claiming(self.entries(appservice, kind))
        return any(each.exclusive and self.matches(each, identifier) for each in entries)

    def claiming(self, entries: tuple[Namespace, ...]) -> Iterable[Namespace]:
        raise NotImplementedError


@defect("REG-08")
class OnlyTheFirstEntryReservesNames(_FewerClaims):
    """Of a list of users only the first entry reserves names, the others are as if they were not exclusive."""

    def claiming(self, entries: tuple[Namespace, ...]) -> Iterable[Namespace]:
        return entries[:1]


@defect("REG-08")
class EverySecondEntryReservesNothing(_FewerClaims):
    """Of a list of users every second entry is as if it were not exclusive."""

    def claiming(self, entries: tuple[Namespace, ...]) -> Iterable[Namespace]:
        return entries[::2]


@defect("REG-08")
class OpenEntriesEndTheList(_FewerClaims):
    """No entry of a list of users reserves names that comes after one that is not exclusive."""

    def claiming(self, entries: tuple[Namespace, ...]) -> Iterable[Namespace]:
        return takewhile(lambda each: each.exclusive, entries)


class _OtherRegexes(Namespaces):
    def matches(self, entry: Namespace, identifier: str) -> bool:
        return compiled(self.regex(entry.regex)).fullmatch(identifier) is not None

    def regex(self, text: str) -> str:
        raise NotImplementedError


@defect("REG-09", also=("NSUSER-13", "NSALIAS-16", "NSALIAS-19"))
class BackslashesAreLost(_OtherRegexes):
    """The backslash before a dot in a regex is lost when the file is read."""

    def regex(self, text: str) -> str:
        return text.replace("\\.", ".")


@defect("REG-09")
class EscapedDotsAreTakenLiterally(_OtherRegexes):
    """An escaped dot in a regex is taken literally: the backslash itself is looked for."""

    def regex(self, text: str) -> str:
        return text.replace(r"\.dot", r"\\.dot")


@defect("REG-09")
class EscapedDotsAreSkipped(_OtherRegexes):
    """An escaped dot in a regex matches nothing at all as well as a dot."""

    def regex(self, text: str) -> str:
        return text.replace(r"\.dot", r"\.?dot")


class _Classes(Namespaces):
    """Regular expressions with a bracket class are read otherwise."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        if "[[:digit:]]" in entry.regex:
            regex = entry.regex.replace("[[:digit:]]", self.meaning())
            return compiled(regex).fullmatch(identifier) is not None
        return super().matches(entry, identifier)

    def meaning(self) -> str:
        """What stands for the class of the digits."""
        raise NotImplementedError


@defect("REG-10")
class BracketClassesAreSets(_Classes):
    """A bracket class is taken for the set of the characters that it is written with."""

    def meaning(self) -> str:
        return r"[\[:digt]\]"


@defect("REG-10")
class DigitsMayBeLetters(_Classes):
    """The class of the digits has the letters as well."""

    def meaning(self) -> str:
        return "[0-9a-z]"


@defect("REG-10")
class DigitsBeginWithOne(_Classes):
    """The class of the digits has no zero."""

    def meaning(self) -> str:
        return "[1-9]"


@defect("REG-11", also=("ADMIN-01", "ADMIN-02", "NSUSER-01", "NSUSER-02", "NSUSER-04", "NSUSER-08"))
class SigilsOfUsersAreStripped(Namespaces):
    """User IDs are matched without their sigil."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        return super().matches(entry, identifier.removeprefix("@"))


@defect("REG-11", also=("INTEREST-10", "NSALIAS-01", "NSALIAS-02", "NSALIAS-07"))
class SigilsOfAliasesAreStripped(Namespaces):
    """Aliases are matched without their sigil."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        return super().matches(entry, identifier.removeprefix("#"))


@defect("REG-12", also=("NSUSER-13", "NSALIAS-16", "NSALIAS-19"))
class ServerNamesAreNotMatched(Namespaces):
    """IDs are matched without the server name."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        return super().matches(entry, identifier.partition(":")[0])


@defect("REG-12")
class ServerNamesAreNotMatchedForInterest(Interest):
    """Whether an event is of interest is found out without the server name of its target."""

    def is_own_user(self, appservice: Registration, user_id: str) -> bool:
        localpart, _, _ = user_id.partition(":")
        covered = self.hs.namespaces.covers(appservice, "users", localpart)
        return super().is_own_user(appservice, user_id) and (covered or user_id == self._sender(appservice))

    def _sender(self, appservice: Registration) -> str:
        return self.hs.user_id(appservice.sender_localpart)


@defect("REG-13")
class AnybodyCanRegisterAnAppservice(Server):
    """The registration endpoint of the drafts is still there, and gives out an hs_token."""

    @endpoint("POST", "/_matrix/appservice/v1/register", authenticated=False)
    def register(self, call: Call) -> JsonObject:
        return {"hs_token": secrets.token_hex(16)}


@defect("REG-13")
class UsersCanRegisterAnAppservice(Server):
    """Whoever is logged in can make a token an as_token by the registration endpoint of the drafts."""

    @endpoint("POST", "/_matrix/appservice/v1/register")
    def register(self, call: Call) -> JsonObject:
        token, name = call.text("as_token"), secrets.token_hex(8)
        self.hs.appservices.append(Registration(name, name, None, token, secrets.token_hex(16), name))
        return {}


@defect("REG-13")
class AnybodyCanUnregisterAnAppservice(Queues):
    """The endpoint that ended an appservice is still there: what is to be pushed next after it was called is lost."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ended: set[str] = set()

    @endpoint("POST", "/_matrix/appservice/v1/unregister", authenticated=False)
    def unregister(self, call: Call) -> JsonObject:
        self._ended.add(call.text("as_token"))
        return {}

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        if appservice.as_token in self._ended:
            self._ended.discard(appservice.as_token)
        else:
            super().put(appservice, kind, item)


@defect("REG-06", "REG-07")
class RegistrationsMayExcludeEachOther(Registrations):
    """Neither tokens nor ids of registrations are compared."""

    def loaded(self, given: Sequence[Registration]) -> list[Registration]:
        return list(given)


@defect("REG-07")
class OnlyTokensAreUnique(Registrations):
    """Two registrations may have the same id, if their tokens differ."""

    def loaded(self, given: Sequence[Registration]) -> list[Registration]:
        super().loaded([replace(each, id=each.as_token) for each in given])
        return list(given)


@defect("REG-06")
class OnlyIdsAreUnique(Registrations):
    """Two registrations may have the same as_token, if their ids differ."""

    def loaded(self, given: Sequence[Registration]) -> list[Registration]:
        super().loaded([replace(each, as_token=each.id) for each in given])
        return list(given)


class _Unreachable(Outgoing):
    """Urls of some form do not work."""

    def transported(
        self, method: str, url: str, headers: dict[str, str], data: bytes | None, timeout: urllib3.Timeout
    ) -> Reply:
        if not self.works(urlsplit(url)):
            raise NoResponse("no such host")
        return super().transported(method, url, headers, data, timeout)

    def works(self, url: SplitResult) -> bool:
        """Whether an appservice is found at a url."""
        raise NotImplementedError


@defect("REG-14")
class ColonsEndHosts(_Unreachable):
    """What stands before the first colon of an authority is taken for the host, so that IPv6 addresses are none."""

    def works(self, url: SplitResult) -> bool:
        return not url.netloc.startswith("[")


@defect("REG-14")
class RegistrationsWithIpv6AddressesAreNotLoaded(Registrations):
    """A registration whose url has an IPv6 address is not loaded."""

    def loaded(self, given: Sequence[Registration]) -> list[Registration]:
        return [each for each in super().loaded(given) if "[" not in (each.url or "")]


@defect("REG-15")
class NamesAreNotResolved(_Unreachable):
    """The host of a url has to be an address."""

    def works(self, url: SplitResult) -> bool:
        return not (url.hostname or "").isalpha()
