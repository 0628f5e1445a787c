"""Pings (AS: Pinging, since v1.7)."""

from __future__ import annotations

import time

from conformance.appservice.registration import Registration
from conformance.reference.outgoing import NoResponse, Reply, To
from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import JsonObject
from conformance.reference.web import Call


class Ping(Policy):
    """An appservice has itself called by the homeserver."""

    @endpoint("POST", "/_matrix/client/v1/appservice/<appservice_id>/ping", waits=True)
    def ping(self, call: Call, appservice_id: str) -> JsonObject:
        """Call the appservice and say how long it took."""
        appservice = self.pinged(call, appservice_id)
        if appservice.url is None:
            raise MatrixError(400, "M_URL_NOT_SET", "the appservice has no url")
        began = time.monotonic()
        try:
            reply = self.sent(appservice, self.body(call))
        except NoResponse as error:
            raise self.unanswered(error) from error
        self.check(reply)
        return {"duration_ms": round((time.monotonic() - began) * 1000)}

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        """The appservice to be pinged, which must be the one that asks.

        :raises MatrixError: 403 M_FORBIDDEN.
        """
        appservice = call.requester.appservice
        if appservice is None or appservice.id != appservice_id:
            raise MatrixError(403, "M_FORBIDDEN", "an appservice may have itself pinged, and nobody else")
        return appservice

    def body(self, call: Call) -> JsonObject:
        """The ping: the call's `transaction_id`, if it has one."""
        return {"transaction_id": call.text("transaction_id")} if "transaction_id" in call.json else {}

    def sent(self, appservice: Registration, body: JsonObject) -> Reply:
        """The appservice's answer; pings have no legacy route.

        :raises NoResponse: there is none.
        """
        return self.hs.outgoing.ask(appservice, To.PING, "POST", "/ping", body=body)

    def check(self, reply: Reply) -> None:
        """Whether the appservice is well.

        :raises MatrixError: 502 M_BAD_STATUS, with the answer's status and body.
        """
        if reply.status != 200:
            text = reply.body.decode(errors="replace")
            told = {"status": reply.status, "body": text}
            raise MatrixError(502, "M_BAD_STATUS", "the ping was refused", told)

    def unanswered(self, error: NoResponse) -> MatrixError:
        """504 M_CONNECTION_TIMEOUT when nothing came in time, else 502 M_CONNECTION_FAILED."""
        if error.timed_out:
            return MatrixError(504, "M_CONNECTION_TIMEOUT", str(error))
        return MatrixError(502, "M_CONNECTION_FAILED", str(error))
