"""Who calls (CS: Client authentication; AS: Identity assertion)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from conformance.appservice.registration import Registration
from conformance.reference.policy import MatrixError, Policy
from conformance.reference.web import Call

#: The form of a user ID, leniently: what comes before the first colon, and a server name.
_USER_ID = re.compile(r"@[^:\0]+:[^:\s]+(:\d+)?")

#: Bytes of the longest user ID (CS appendices: User identifiers).
LONGEST_ID = 255


@dataclass(frozen=True)
class Requester:
    """Who calls, and with which right."""

    user_id: str
    device_id: str | None
    #: The appservice whose `as_token` was used; None for access tokens, those of ghosts too.
    appservice: Registration | None

    @property
    def party(self) -> str:
        """What client transaction IDs and rate limits are counted by."""
        return f"{self.user_id} {self.device_id or ''}"


class Identity(Policy):
    """From a call's token and query to who calls."""

    def of(self, call: Call) -> Requester:
        """Who calls an endpoint that needs a token.

        :raises MatrixError: 401 without a token or with one that nobody has, and what identity assertion refuses.
        """
        token = self.token(call)
        if token is None:
            raise MatrixError(401, "M_MISSING_TOKEN", "an access token is needed")
        appservice = self.appservice(token)
        if appservice is not None:
            return self.asserted(call, appservice)
        return self.by_access_token(call, token)

    def ask_first(self, call: Call) -> None:
        """Ask appservices about users before it is known who calls: nobody is (drafts did; see IDENT-04)."""

    def token(self, call: Call) -> str | None:
        """The token that a call authenticates with."""
        return call.token

    def appservice(self, token: str) -> Registration | None:
        """The appservice whose `as_token` that is. An `hs_token` is for the other direction."""
        for each in self.hs.appservices:
            if each.as_token == token:
                return each
        return None

    def by_access_token(self, call: Call, token: str) -> Requester:
        """Whose access token it is. `user_id` and `device_id` in the query mean nothing then, for ghosts neither."""
        found = self.store.tokens.get(token)
        if found is None:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "nobody has that token")
        return Requester(*found, None)

    def asserted(self, call: Call, appservice: Registration) -> Requester:
        """Whom an appservice acts as: `user_id` in the query, its sender user without (AS: Identity assertion)."""
        sender = self.hs.user_id(appservice.sender_localpart)
        user_id = call.query.get("user_id", sender)
        if user_id != sender:
            self.check_user(appservice, user_id)
        return Requester(user_id, self.device(call, user_id), appservice)

    def check_user(self, appservice: Registration, user_id: str) -> None:
        """The user must be local, covered by the appservice's `users`, exclusive or not, and registered.

        :raises MatrixError: 400 for what is no user ID, else 403 M_FORBIDDEN.
        """
        if not _USER_ID.fullmatch(user_id) or len(user_id.encode()) > LONGEST_ID:
            raise MatrixError(400, "M_INVALID_PARAM", "user_id is no user ID")
        if not self.may_be(appservice, user_id):
            raise MatrixError(403, "M_FORBIDDEN", "user_id is outside the appservice's namespaces")
        if not self.is_registered(user_id):
            raise MatrixError(403, "M_FORBIDDEN", "the appservice has not registered that user")

    def may_be(self, appservice: Registration, user_id: str) -> bool:
        """Whether the appservice's namespaces let it act as a user."""
        return self.hs.namespaces.is_own_user(appservice, user_id)

    def is_registered(self, user_id: str) -> bool:
        """Whether there is such a user."""
        account = self.store.accounts.get(user_id)
        return account is not None and not account.deactivated

    def device(self, call: Call, user_id: str) -> str | None:
        """The device that an appservice acts with, which must be the user's (AS: Identity assertion, since v1.17).

        :raises MatrixError: 400 M_UNKNOWN_DEVICE.
        """
        device_id = call.query.get("device_id")
        if device_id is not None and device_id not in self.store.accounts[user_id].devices:
            raise MatrixError(400, "M_UNKNOWN_DEVICE", "the user has no such device")
        return device_id
