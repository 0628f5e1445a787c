"""Questions to appservices about users and aliases that the homeserver does not know (AS: Querying)."""

from __future__ import annotations

from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.outgoing import NoResponse, Reply, To
from conformance.reference.policy import MatrixError, Policy


class Queries(Policy):
    """Whom to ask, how often, and what the client is told. The homeserver's lock is never held meanwhile."""

    #: How often an appservice that gives no response is asked.
    tries = 3
    #: Seconds, before scaling, between two of these.
    pause = 2.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: The IDs that appservices are being asked about now, once for each query.
        self.open: list[str] = []

    def ensure_user(self, user_id: str) -> None:
        """Ask about a user unless the homeserver knows it. Who exists afterwards is for the caller to see.

        :raises MatrixError: 408 when an appservice gave no response.
        """
        with self.hs.lock:
            known = not self.hs.is_local(user_id) or user_id in self.store.accounts
        if not known:
            self.ask("users", To.USER, user_id)

    def ask_about_alias(self, alias: str) -> None:
        """Ask about an unknown alias.

        :raises MatrixError: 408 when an appservice gave no response.
        """
        if self.hs.is_local(alias):
            self.ask("aliases", To.ALIAS, alias)

    def ask(self, kind: str, about: To, identifier: str) -> None:
        """Ask those whose namespaces cover the ID, exclusively or not, until one says that it exists.

        :raises MatrixError: 408 when one of them gave no response and no other knew the ID.
        """
        silent = False
        for appservice in self.asked(kind, identifier):
            reply = self.persistently(appservice, about, identifier)
            if reply is None:
                silent = True
            elif self.exists(reply):
                self.confirmed(appservice, about, identifier, reply)
                return
        if silent:
            raise self.timed_out()

    def confirmed(self, appservice: Registration, about: To, identifier: str, reply: Reply) -> None:
        """An appservice has said that a user or an alias exists: it has made it itself."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        """Whom to ask: those with such a namespace and with a url."""
        return [
            each
            for each in self.hs.appservices
            if each.url is not None and self.hs.namespaces.covers(each, kind, identifier)
        ]

    def exists(self, reply: Reply) -> bool:
        """Whether an answer says that there is such a user or alias: 200, with whatever body."""
        return reply.status == 200

    def timed_out(self) -> MatrixError:
        """What the client is told when an appservice did not respond: 408."""
        return MatrixError(408, "M_UNKNOWN", "an appservice did not respond")

    def persistently(self, appservice: Registration, about: To, identifier: str) -> Reply | None:
        """Ask several times; None when there was never a response."""
        self.open.append(identifier)
        try:
            return self._persistently(appservice, about, identifier)
        finally:
            self.open.remove(identifier)

    def _persistently(self, appservice: Registration, about: To, identifier: str) -> Reply | None:
        for attempt in range(self.tries):
            if attempt and self.hs.stopping.wait(self.hs.clock.scaled(self.pause)):
                return None
            try:
                return self.once(appservice, about, identifier)
            except NoResponse:
                continue
        return None

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        """Ask once.

        :raises NoResponse: no response.
        """
        kind = "users" if about is To.USER else "rooms"
        path = f"/{kind}/{self.hs.outgoing.segment(identifier)}"
        return self.hs.outgoing.ask(appservice, about, "GET", path, legacy=path)
