"""HTTP registration of appservices, as it was until May 2015 (drafts: Registration, Unregister)."""

from __future__ import annotations

import re
import secrets
from typing import Any

from conformance.appservice.registration import Namespace, Registration
from conformance.dialects import Admission, Entries
from conformance.reference.namespaces import compiled
from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import JsonObject
from conformance.reference.web import Call

#: The base path that the endpoints are written with; the dialect has its own.
PREFIX = "/_matrix/appservice/v1"


class Enrolments(Policy):
    """Who may register as an appservice, and what it gets for it."""

    of_drafts = True

    @property
    def admission(self) -> Admission:
        """The form of registrations."""
        assert self.hs.dialect.admission is not None
        return self.hs.dialect.admission

    @endpoint("POST", f"{PREFIX}/register", authenticated=False)
    def register(self, call: Call) -> JsonObject:
        """Take an appservice on, or take its new registration; its `hs_token`. Events are pushed from now on."""
        as_token = self.known_token(call)
        url = call.text("url")
        namespaces = self.namespaces(call.json.get("namespaces", {}))
        before = self.hs.identity.appservice(as_token)
        registration = Registration(
            code="",
            id=before.id if before else f"registered-{secrets.token_hex(4)}",
            url=url,
            as_token=as_token,
            hs_token=self.hs_token(before),
            sender_localpart=before.sender_localpart if before else self.new_sender(),
            **namespaces,
        )
        self.store.add_account(self.hs.user_id(registration.sender_localpart), registration.id)
        self.taken(registration)
        return {"hs_token": self.told_token(registration)}

    def known_token(self, call: Call) -> str:
        """The `as_token` of a registration, which the administrator must have stored.

        :raises MatrixError: 401 without a token, 403 with one that is not stored.
        """
        as_token = call.json.get("as_token")
        if not isinstance(as_token, str) or not as_token:
            raise MatrixError(401, "M_MISSING_TOKEN", "an as_token is needed")
        if not self.is_stored(as_token):
            raise MatrixError(403, "M_FORBIDDEN", "the administrator has not stored that as_token")
        return as_token

    def is_stored(self, as_token: str) -> bool:
        """Whether the administrator has stored a token."""
        return any(each.as_token == as_token for each in self.hs.stored)

    def namespaces(self, given: Any) -> dict[str, Any]:
        """The namespaces of a registration.

        :raises MatrixError: 400 for what has not the form of this draft, or is no regular expression.
        """
        if not isinstance(given, dict) or not all(isinstance(each, list) for each in given.values()):
            raise MatrixError(400, "M_BAD_JSON", "namespaces are lists")
        return {
            kind: tuple(self.entry(each) for each in entries)
            for kind, entries in given.items()
            if kind in self.admission.lists
        }

    def entry(self, given: Any) -> Namespace:
        """An entry of a list of namespaces. A string is the appservice's alone.

        :raises MatrixError: 400; see :meth:`namespaces`.
        """
        namespace = self.read(given)
        if not isinstance(namespace.regex, str) or not self.is_regex(namespace.regex):
            raise MatrixError(400, "M_INVALID_PARAM", "namespaces do not conform to regex")
        return namespace

    def read(self, given: Any) -> Namespace:
        """An entry in the form of this draft."""
        if self.admission.entries is not Entries.OBJECTS:
            return Namespace(given, exclusive=True)
        if not isinstance(given, dict) or not isinstance(given.get("exclusive"), bool):
            raise MatrixError(400, "M_BAD_JSON", "an entry has regex and exclusive")
        return Namespace(given.get("regex", ""), given["exclusive"])

    def is_regex(self, text: str) -> bool:
        """Whether a text is a regular expression."""
        try:
            compiled(text)
        except re.error:
            return False
        return True

    def hs_token(self, before: Registration | None) -> str:
        """The token of an appservice: the same when it registers again."""
        return before.hs_token if before else secrets.token_urlsafe(24)

    def told_token(self, registration: Registration) -> str:
        """What the appservice is told to be the homeserver's token."""
        return registration.hs_token

    def new_sender(self) -> str:
        """The localpart of a user who acts when an appservice names nobody."""
        return f"appservice-{secrets.token_hex(6)}"

    def taken(self, registration: Registration) -> None:
        """Serve a registration from now on."""
        self.hs.add_appservice(registration)

    @endpoint("POST", f"{PREFIX}/unregister", authenticated=False)
    def unregister(self, call: Call) -> JsonObject:
        """Let an appservice go: nothing is pushed to it any more (drafts: Unregister)."""
        self.let_go(self.leaving(call))
        return {}

    def leaving(self, call: Call) -> Registration:
        """The appservice that an unregistration is about.

        :raises MatrixError: 401 without a token, 403 with one that nobody has registered with.
        """
        registration = self.hs.identity.appservice(self.known_token(call))
        if registration is None:
            raise MatrixError(403, "M_FORBIDDEN", "nobody has registered with that as_token")
        return registration

    def let_go(self, registration: Registration) -> None:
        """End a registration."""
        self.hs.drop_appservice(registration)
