"""The reference homeserver in the dialects of 2015 and of r0: the policies that take the places of the present ones."""

from __future__ import annotations

import re
import secrets
from typing import Any

from conformance.appservice.registration import Namespace, Registration
from conformance.dialects import BY_APPSERVICE, BY_PASSWORD, Dialect, Entries
from conformance.reference.accounts import Accounts
from conformance.reference.enrolments import PREFIX
from conformance.reference.events import Format
from conformance.reference.identity import LONGEST_ID, Identity, Requester
from conformance.reference.namespaces import Namespaces
from conformance.reference.outgoing import Outgoing, Reply, To
from conformance.reference.policy import CLIENT, MatrixError, Policy, endpoint
from conformance.reference.queries import Queries
from conformance.reference.rooms import Rooms
from conformance.reference.server import Server
from conformance.reference.store import Event, JsonObject
from conformance.reference.web import Call, Paths

#: What a localpart may not have; that capitals are none of it is how people were called on IRC.
_LOCALPART = re.compile(r"[^\s:\0]+")

#: Endpoints that came later, below the base path.
_LATER = ("/account/whoami", "/rooms/<room_id>/event/<event_id>")


class OldPaths(Paths):
    """Where the client-server API was, and what of it there was."""

    def of(self, path: str) -> set[str]:
        """The base path of the dialect; nothing beside it but the registration of appservices."""
        if path.startswith(PREFIX):
            admission = self.hs.dialect.admission
            return {admission.base + path[len(PREFIX) :]} if admission else set()
        if not path.startswith(CLIENT):
            return {path} if self.hs.dialect.lists_versions else set()
        rest = path[len(CLIENT) :]
        return set() if rest in _LATER else {self.hs.dialect.client + rest}


class OldOutgoing(Outgoing):
    """Requests to appservices without `/_matrix/app`, and with the token in the query."""

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
        """Call an appservice right below its url (drafts: Home Server -> Application Service)."""
        return self.once(appservice, about, method, path, query, body)

    def headers(self, appservice: Registration, about: To) -> dict[str, str]:
        """No token in a header."""
        return {}

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        """The `hs_token` as `access_token` (drafts: Pushing)."""
        return {"access_token": self.token(appservice)}


class OldIdentity(Identity):
    """Tokens stood in the query."""

    def token(self, call: Call) -> str | None:
        """The query parameter `access_token` (drafts: Identity assertion)."""
        return call.query.get("access_token")


class AskingIdentity(OldIdentity):
    """Identity assertion of an unknown ghost makes the homeserver ask the appservice about it (drafts: User Query)."""

    def ask_first(self, call: Call) -> None:
        """Ask about an unknown user that an appservice asserts, unless it acts while it is being asked about that one.

        :raises MatrixError: 408 when the appservice gave no response.
        """
        user_id = call.query.get("user_id", "")
        with self.hs.lock:
            appservice = self.appservice(self.token(call) or "")
            unknown = appservice is not None and self.may_be(appservice, user_id) and not self.is_registered(user_id)
        if unknown and user_id not in self.hs.queries.open:
            self.hs.queries.ensure_user(user_id)


class UserAccounts(Accounts):
    """Registrations name the user by its localpart in the key `user` (drafts: Server admin style permissions)."""

    def ghost_name(self, call: Call) -> str:
        """`user`, or what it is called since 2016."""
        return call.text("user") if "user" in call.json else call.text("username")


class DraftAccounts(UserAccounts):
    """Registration and login of the client-server API's v1: one step, of a type."""

    @endpoint("POST", "/register", authenticated=False)
    def register(self, call: Call) -> Any:
        """Registration of humans by password, and of ghosts by `as_token`.

        :raises MatrixError: 400 for other types.
        """
        kind = call.text("type")
        if kind == BY_APPSERVICE:
            return self.register_ghost(call, self.appservice_of(call))
        if kind == BY_PASSWORD:
            return self.register_human(call)
        raise MatrixError(400, "M_UNKNOWN", f"there is no registration of type {kind}")

    def register_human(self, call: Call) -> Any:
        """A user who registers itself."""
        localpart = call.text("user", default=f"user-{secrets.token_hex(6)}")
        password = call.text("password")
        self.check_human_name(localpart)
        self.check_form(localpart)
        self.check_free(localpart)
        return self.created(call, localpart, None, password, False)

    def check_form(self, localpart: str) -> None:
        """Capitals are as good as any.

        :raises MatrixError: 400 M_INVALID_USERNAME.
        """
        if not _LOCALPART.fullmatch(localpart) or len(self.hs.user_id(localpart).encode()) > LONGEST_ID:
            raise MatrixError(400, "M_INVALID_USERNAME", "that is no legal name")


class DraftFormat(Format):
    """The events of the client-server API's v1: `user_id`, and everything at top level."""

    def event(self, event: Event) -> JsonObject:
        """An event as it was shown in 2015."""
        shown = super().event(event)
        unsigned = shown.pop("unsigned")
        shown["user_id"] = shown.pop("sender")
        return {**shown, **unsigned}

    def redacts(self, event: Event) -> JsonObject:
        """The target of a redaction, at top level."""
        return {"redacts": event.redacts}

    def for_client(self, event: Event, requester: Requester) -> JsonObject:
        """The event; nobody is told of transaction IDs."""
        return self.event(event)


class OldRooms(Rooms):
    """The room API of 2015."""

    default_version = "10"

    @endpoint("PUT", "/rooms/<room_id>/send/<kind>")
    @endpoint("POST", "/rooms/<room_id>/send/<kind>")
    def send_once(self, call: Call, room_id: str, kind: str) -> JsonObject:
        """Send a message without a transaction ID (drafts: Examples)."""
        return self.send(call, room_id, kind, secrets.token_hex(8))

    @endpoint("GET", "/events/<event_id>")
    def single_event(self, call: Call, event_id: str) -> JsonObject:
        """One event, wherever it is."""
        event = self.store.events.get(event_id)
        if event is None:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such event")
        return self.event(call, event.room_id, event_id)

    @endpoint("GET", "/rooms/<room_id>/messages")
    def messages(self, call: Call, room_id: str) -> JsonObject:
        """A room's history; `END` is where it ends."""
        if call.query.get("from") == "END":
            del call.query["from"]
        return super().messages(call, room_id)


class OldServer(Server):
    """The versions of 2016."""

    versions = ("r0.0.1", "r0.1.0")


class ProvisioningQueries(Queries):
    """What an answer carries is made by the homeserver (drafts of 15 and 16 January 2015)."""

    def confirmed(self, appservice: Registration, about: To, identifier: str, reply: Reply) -> None:
        """Make the user, or the room, out of the answer."""
        answer = reply.json if isinstance(reply.json, dict) else {}
        if about is To.USER:
            self.hs.provisioning.user(appservice, identifier, answer)
        elif self.hs.dialect.alias_answer:
            self.hs.provisioning.room(appservice, identifier, answer)


class BareNamespaces(Namespaces):
    """Namespaces of the first draft: what they match has no sigil (drafts: Registration)."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        """Whether a regular expression covers an ID without its sigil."""
        return super().matches(entry, identifier[1:])


def policies_of(dialect: Dialect) -> tuple[type[Policy], ...]:
    """The policies that a dialect replaces."""
    if dialect.is_modern:
        return ()
    old: tuple[type[Policy], ...] = (OldPaths, OldOutgoing, OldRooms)
    if dialect.admission is None:
        return (*old, OldIdentity, UserAccounts, OldServer)
    drafts = (*old, AskingIdentity, DraftAccounts, DraftFormat)
    queries = (ProvisioningQueries,) if dialect.user_answer else ()
    return (*drafts, *queries, *((BareNamespaces,) if dialect.admission.entries is Entries.BARE else ()))
