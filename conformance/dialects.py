"""How a homeserver of each era speaks: routes in both directions, tokens, namespaces, registration, events.

Everything that differs between the present specification and the drafts of 2015 is an attribute or a method of
:class:`Dialect`. The client, the fleet and the preflight ask it, and no check has to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from conformance.appservice.registration import Namespace, Registration
from conformance.appservice.routes import MODERN_TABLE, Kind, Table
from conformance.catalogue.versions import Version

#: The client-server API's present version. The client writes every path below it; a dialect moves it.
CLIENT: Final = "/_matrix/client/v3"

BY_APPSERVICE: Final = "m.login.application_service"
BY_PASSWORD: Final = "m.login.password"

_ALL_LISTS: Final = ("users", "aliases", "rooms")


class Entries(StrEnum):
    """How the entries of a list of namespaces are written."""

    BARE = "strings without sigil"
    STRINGS = "strings with sigil"
    OBJECTS = "objects"


@dataclass(frozen=True)
class Admission:
    """HTTP registration of appservices: what may stand in its body (drafts: Registration)."""

    #: What stands before `/register` and `/unregister`.
    base: str
    entries: Entries
    #: The lists of namespaces that there are. The others are sent empty: homeservers of the time wanted all three.
    lists: tuple[str, ...]

    def body(self, registration: Registration) -> dict[str, Any]:
        """The body with which an appservice registers itself."""
        given = {kind: getattr(registration, kind) or () for kind in self.lists}
        return {
            "url": registration.url,
            "as_token": registration.as_token,
            "namespaces": {kind: self.written(given.get(kind, ())) for kind in _ALL_LISTS},
        }

    def written(self, entries: tuple[Namespace, ...]) -> list[Any]:
        """A list of namespaces.

        Strings cannot say that they are not exclusive, so that such users and aliases are left out.
        """
        if self.entries is Entries.OBJECTS:
            return [{"exclusive": each.exclusive, "regex": each.regex} for each in entries]
        own = [each.regex for each in entries if each.exclusive or each.regex.startswith("!")]
        return [regex.lstrip("@#!") for regex in own] if self.entries is Entries.BARE else own


@dataclass(frozen=True)
class Dialect:
    """How homeservers of one era speak. The defaults are the present specification."""

    name: str = "modern"

    # Homeserver to appservice
    #: The routes below the registered url.
    table: Table = MODERN_TABLE
    #: How appservices are registered over HTTP; None: by files.
    admission: Admission | None = None
    #: Whether two transactions with the same ID are the same.
    distinct_ids: bool = True
    #: Whether every pushed event has an `event_id`.
    event_ids: bool = True
    #: What a 200 to a user query and to an alias query carries; empty: the appservice makes the entity itself.
    user_answer: tuple[str, ...] = ()
    alias_answer: tuple[str, ...] = ()

    # Client-server API
    #: What its paths begin with.
    client: str = CLIENT
    #: Whether tokens are sent as the query parameter `access_token`, not in a header.
    token_in_query: bool = False
    #: Whether there is `GET /_matrix/client/versions`.
    lists_versions: bool = True
    #: Whether there is `GET /account/whoami`.
    has_whoami: bool = True
    #: Whether appservices can be pinged.
    has_ping: bool = True
    #: Whether a room is created with a `preset`; before it was the `visibility` that decided who may join.
    has_presets: bool = True
    #: The keys of a registration that name a human, and a ghost: where both are known, both are sent.
    human_names: tuple[str, ...] = ("username",)
    ghost_names: tuple[str, ...] = ("username",)
    #: Further keys of a registration by a human, and by an appservice.
    human_keys: Mapping[str, Any] = field(default_factory=dict)
    ghost_keys: Mapping[str, Any] = field(default_factory=lambda: {"inhibit_login": True})
    #: Whether a login names the user in an `identifier`.
    has_identifiers: bool = True
    #: Whether who sets state is told the ID of the event.
    names_state: bool = True
    #: Where an event is read.
    event_path: str = "/rooms/{room}/event/{event}"
    #: Parameters of every request for a room's history.
    history: Mapping[str, str] = field(default_factory=dict)
    #: The key of an event that names its sender.
    sender_key: str = "sender"

    @property
    def is_modern(self) -> bool:
        """Whether it is the present specification."""
        return self.name == "modern"

    # Calls

    @property
    def ready_path(self) -> str:
        """What a homeserver that has started answers 200."""
        return "/_matrix/client/versions" if self.lists_versions else self.placed(f"{CLIENT}/login")

    def placed(self, path: str) -> str:
        """A path below :data:`CLIENT` where this dialect has it; any other path as it is."""
        return self.client + path[len(CLIENT) :] if path.startswith(CLIENT) else path

    def admin_path(self, action: str) -> str:
        """Where an appservice registers or unregisters itself.

        :raises LookupError: it cannot.
        """
        if self.admission is None:
            raise LookupError(f"{self.name} has no HTTP registration of appservices")
        return f"{self.admission.base}/{action}"

    # Bodies

    def human(self, localpart: str, password: str) -> dict[str, Any]:
        """What a human sends to register."""
        return {**self.human_keys, **dict.fromkeys(self.human_names, localpart), "password": password}

    def ghost(self, localpart: str) -> dict[str, Any]:
        """What an appservice sends to register a ghost."""
        return {"type": BY_APPSERVICE, **dict.fromkeys(self.ghost_names, localpart), **self.ghost_keys}

    def login(self, kind: str, user: str, **content: Any) -> dict[str, Any]:
        """What is sent to log in."""
        named = {"identifier": {"type": "m.id.user", "user": user}} if self.has_identifiers else {"user": user}
        return {"type": kind, **named, **content}

    def room(self, content: dict[str, Any]) -> dict[str, Any]:
        """What is sent to create a room, from what is sent today."""
        if self.has_presets or "preset" not in content:
            return content
        rest = {key: value for key, value in content.items() if key != "preset"}
        return {"visibility": "public" if content["preset"] == "public_chat" else "private", **rest}

    # Events

    def seen(self, event: dict[str, Any]) -> dict[str, Any]:
        """An event that a client was shown, with the `sender` that it has today."""
        return (
            event if "sender" in event or self.sender_key not in event else event | {"sender": event[self.sender_key]}
        )

    def with_bases(self, client: str | None, appservice: str | None) -> Dialect:
        """The same with other base paths; None leaves them as they are."""
        admission = self.admission
        if admission is not None and appservice is not None:
            admission = replace(admission, base=appservice)
        return replace(self, client=client or self.client, admission=admission)


MODERN: Final = Dialect()

_OLD_KINDS: Final = (Kind.TRANSACTION, Kind.USER, Kind.ALIAS)

_ROUTES: Final[Table] = (
    ("PUT", "/transactions/", Kind.TRANSACTION, False),
    ("GET", "/users/", Kind.USER, False),
    ("GET", "/rooms/", Kind.ALIAS, False),
    # What is asked at today's path is answered all the same, so that one requirement is broken and no other.
    *(row for row in MODERN_TABLE if row[1].startswith("/_matrix/app/v1/") and row[2] in _OLD_KINDS),
)

#: Before the client-server API's r0, as homeservers of 2015 had it.
_V1: Final = Dialect(
    table=_ROUTES,
    distinct_ids=False,
    event_ids=False,
    client="/_matrix/client/api/v1",
    token_in_query=True,
    lists_versions=False,
    has_whoami=False,
    has_ping=False,
    has_presets=False,
    human_names=("user",),
    ghost_names=("user", "username"),
    human_keys={"type": BY_PASSWORD},
    ghost_keys={},
    has_identifiers=False,
    names_state=False,
    event_path="/events/{event}",
    history={"from": "END"},
    sender_key="user_id",
)

_APPSERVICE_V1: Final = "/_matrix/appservice/v1"

DIALECTS: Final[dict[str, Dialect]] = {
    each.name: each
    for each in (
        MODERN,
        replace(
            _V1,
            name="draft-003",
            admission=Admission(_APPSERVICE_V1, Entries.BARE, ("users", "aliases")),
            user_answer=("profile",),
        ),
        replace(
            _V1,
            name="draft-001",
            admission=Admission(_APPSERVICE_V1, Entries.STRINGS, _ALL_LISTS),
            user_answer=("profile",),
            alias_answer=("events", "state"),
        ),
        replace(_V1, name="draft-000", admission=Admission(_APPSERVICE_V1, Entries.STRINGS, _ALL_LISTS)),
        replace(_V1, name="draft-004", admission=Admission(_APPSERVICE_V1, Entries.OBJECTS, ("users", "aliases"))),
        Dialect(
            name="r0",
            table=_ROUTES,
            client="/_matrix/client/r0",
            token_in_query=True,
            has_whoami=False,
            has_ping=False,
            ghost_names=("user", "username"),
            ghost_keys={},
            has_identifiers=False,
            event_path="/events/{event}",
        ),
    )
}


def dialect_of(version: Version | None) -> Dialect:
    """The dialect of a version of the specification; None, the newest that is claimed, is the modern one."""
    return MODERN if version is None else DIALECTS[version.dialect]
