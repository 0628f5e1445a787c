"""Defects of area INV: what holds for a whole run, and that appservices only listen."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import quote

import urllib3

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.events import Format
from conformance.reference.outgoing import NoResponse, Outgoing, Reply, To
from conformance.reference.ping import Ping
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.queries import Queries
from conformance.reference.rooms import Rooms
from conformance.reference.server import Server
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.transactions import Queues, Transactions
from conformance.reference.web import Answer, Call, Errors, answer


class _Bodies(Errors):
    """Changes the bodies of errors of some kind."""

    errcode = ""

    def answer(self, call: Call, error: MatrixError) -> Answer:
        if error.errcode != self.errcode:
            return super().answer(call, error)
        return self.changed(error)

    def changed(self, error: MatrixError) -> Answer:
        raise NotImplementedError


@defect("INV-01")
class ErrorsHaveNoText(Errors):
    """Error answers have no error text."""

    def answer(self, call: Call, error: MatrixError) -> Answer:
        return answer({key: value for key, value in error.body.items() if key != "error"}, error.status)


@defect("INV-01")
class MissingParametersHaveNoErrcode(_Bodies):
    """The answer to a call that lacks a parameter has no errcode."""

    errcode = "M_MISSING_PARAM"

    def changed(self, error: MatrixError) -> Answer:
        return answer({"error": error.body["error"]}, error.status)


@defect("INV-01")
class ErrcodesOfBrokenJsonAreNumbers(_Bodies):
    """The errcode of the answer to a body that is not JSON is a number."""

    errcode = "M_NOT_JSON"

    def changed(self, error: MatrixError) -> Answer:
        return answer({**error.body, "errcode": error.status}, error.status)


@defect("INV-01")
class BrokenJsonIsAnsweredInHtml(_Bodies):
    """The answer to a body that is not JSON is an HTML page."""

    errcode = "M_NOT_JSON"

    def changed(self, error: MatrixError) -> Answer:
        return Answer(error.status, b"<html><body>Bad Request</body></html>", "text/html")


class _Probes(Transactions):
    """Asks for something else before every transaction."""

    path: str

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        with suppress(NoResponse):
            self.hs.outgoing.once(appservice, To.TRANSACTION, "GET", self.path, None, None)
        return super().send(appservice, txn_id, body)


@defect("INV-02")
class AppservicesAreProbed(_Probes):
    """Before each transaction the homeserver looks whether the appservice's url answers."""

    path = "/"


@defect("INV-02")
class TransactionsAreListed(_Probes):
    """Before each transaction the homeserver asks for a list of transactions."""

    path = "/_matrix/app/v1/transactions"


@defect("INV-02")
class AliasQueriesArePosted(Outgoing):
    """Alias queries are made by POST."""

    def once(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: JsonObject | None,
    ) -> Reply:
        return super().once(appservice, about, "POST" if about is To.ALIAS else method, path, query, body)


@defect("INV-03")
class WrongMethodsAreNotFound(Errors):
    """A wrong method is answered 404 like an unknown endpoint."""

    def unknown_method(self) -> MatrixError:
        return self.unknown_path()


@defect("INV-03")
class UnknownEndpointsAreNotFound(Errors):
    """An unknown endpoint is answered 404, but with M_NOT_FOUND."""

    def unknown_path(self) -> MatrixError:
        return MatrixError(404, "M_NOT_FOUND", "there is nothing here")


@defect("INV-03")
class UnknownEndpointsAreBadRequests(Errors):
    """An unknown endpoint is answered 400 M_UNRECOGNIZED, as before v1.6."""

    def unknown_path(self) -> MatrixError:
        return MatrixError(400, "M_UNRECOGNIZED", "unknown endpoint")


class _Content(Rooms):
    """Changes the content of what the users of appservices send."""

    def append(self, room: Room, sender: str, kind: str, content: JsonObject, *args: Any, **more: Any) -> Event:
        account = self.store.accounts.get(sender)
        if account is not None and account.appservice is not None:
            content = self.changed(kind, dict(content))
        return super().append(room, sender, kind, content, *args, **more)

    def changed(self, kind: str, content: JsonObject) -> JsonObject:
        raise NotImplementedError


@defect("INV-04")
class ExternalUrlsAreStripped(_Content):
    """The external_url is taken out of what ghosts send."""

    def changed(self, kind: str, content: JsonObject) -> JsonObject:
        content.pop("external_url", None)
        return content


@defect("INV-04")
class ExternalUrlsOfStateAreStripped(_Content):
    """The external_url is taken out of the state events that ghosts send."""

    def changed(self, kind: str, content: JsonObject) -> JsonObject:
        if kind != "m.room.message":
            content.pop("external_url", None)
        return content


@defect("INV-04")
class ExternalUrlsAreEncoded(_Content):
    """The external_url of what ghosts send is percent-encoded once more."""

    def changed(self, kind: str, content: JsonObject) -> JsonObject:
        if "external_url" in content:
            content["external_url"] = quote(content["external_url"], safe=":/?&=#")
        return content


@defect("INV-04")
class ExternalUrlsAreNotPushed(Format):
    """The external_url of events is left out where they are pushed."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        return {**shown, "content": {key: value for key, value in shown["content"].items() if key != "external_url"}}


class _Answers(Queries):
    """Makes something else of answers to queries of one kind."""

    about = To.ALIAS

    def persistently(self, appservice: Registration, about: To, identifier: str) -> Reply | None:
        reply = super().persistently(appservice, about, identifier)
        return self.taken(reply, identifier) if about is self.about and reply is not None else reply

    def taken(self, reply: Reply, identifier: str) -> Reply:
        raise NotImplementedError


@defect("INV-05")
class DenialsOfAliasesNeedABody(_Answers):
    """The join of an alias fails with a server error when the appservice's 404 has no body."""

    def taken(self, reply: Reply, identifier: str) -> Reply:
        if reply.status == 404 and not reply.body:
            raise MatrixError(502, "M_UNKNOWN", "the appservice's answer is not JSON")
        return reply


@defect("INV-05")
class DenialsOfAliasesNeedAKnownErrcode(_Answers):
    """The join of an alias fails with a server error when the appservice's 404 has an errcode of its own."""

    def taken(self, reply: Reply, identifier: str) -> Reply:
        errcode = (reply.json or {}).get("errcode", "M_NOT_FOUND")
        if reply.status == 404 and errcode.startswith("COM."):
            raise MatrixError(500, "M_UNKNOWN", f"internal error: {errcode}")
        return reply


@defect("INV-05")
class DenialsOfUsersNeedABody(_Answers):
    """A user is created when the appservice's 404 has no body."""

    about = To.USER

    def taken(self, reply: Reply, identifier: str) -> Reply:
        if reply.status == 404 and not reply.body:
            self.store.add_account(identifier)
        return reply


def _has_more(reply: Reply) -> bool:
    """Whether a successful answer has unknown keys."""
    return reply.ok and isinstance(reply.json, dict) and "extra" in reply.json


@defect("INV-06")
class AcknowledgementsAreDecodedStrictly(Transactions):
    """A transaction whose 200 has unknown keys is retried."""

    def acknowledges(self, reply: Reply) -> bool:
        return super().acknowledges(reply) and not _has_more(reply)


@defect("INV-06")
class AnswersAboutUsersAreDecodedStrictly(_Answers):
    """An answer about a user that has unknown keys is taken for a denial."""

    about = To.USER

    def taken(self, reply: Reply, identifier: str) -> Reply:
        if _has_more(reply):
            raise MatrixError(502, "M_UNKNOWN", "the appservice's answer has unknown keys")
        return reply


@defect("INV-06")
class AnswersAboutAliasesAreDecodedStrictly(_Answers):
    """The join of an alias fails when the answer about it has unknown keys."""

    def taken(self, reply: Reply, identifier: str) -> Reply:
        if _has_more(reply):
            raise MatrixError(502, "M_UNKNOWN", "the appservice's answer has unknown keys")
        return reply


@defect("INV-06")
class PongsAreDecodedStrictly(Ping):
    """A ping whose 200 has unknown keys has failed."""

    def check(self, reply: Reply) -> None:
        if _has_more(reply):
            raise MatrixError(502, "M_BAD_STATUS", "the pong has unknown keys")
        super().check(reply)


@defect("INV-07")
class VersionsAreToldOnce(Server):
    """The versions of the specification are told once; later calls are answered with a server error."""

    told = 0

    @endpoint("GET", "/_matrix/client/versions", authenticated=False)
    def supported(self, call: Call) -> JsonObject:
        self.told += 1
        if self.told > 1:
            raise MatrixError(500, "M_UNKNOWN", "internal error: told before")
        return super().supported(call)


@defect("INV-07", needs=("REG-04",))
class EventsReachThreeAppservicesAtMost(Queues):
    """An event is pushed to no more than three appservices."""

    def told(self, event: Event) -> None:
        interested = [
            each for each in self.hs.appservices if each.url is not None and self.hs.interest.in_event(each, event)
        ]
        for appservice in interested[:3]:
            self.put(appservice, "event", self.hs.format.for_appservice(event, appservice))


@defect("INV-08")
class MessagesWaitForAppservices(Rooms):
    """A message is answered once each appservice in the room has answered the transaction with it, or failed to."""

    @endpoint("PUT", "/rooms/<room_id>/send/<kind>/<txn_id>", waits=True)
    def send(self, call: Call, room_id: str, kind: str, txn_id: str) -> JsonObject:
        with self.hs.lock:
            sent = super().send(call, room_id, kind, txn_id)
        while self._is_being_pushed(room_id) and not self.hs.stopping.is_set():
            self.hs.stopping.wait(0.005)
        return sent

    def _is_being_pushed(self, room_id: str) -> bool:
        with self.hs.lock:
            room = self.store.rooms[room_id]
            present = [each for each in self.hs.appservices if each.url and self.hs.interest.by_member(each, room)]
            return any(
                (self.store.queues[each.id].pending or self.store.queues[each.id].waiting)
                and not self.hs.pushers[each.id].failures
                for each in present
            )


class _Judged(Transactions):
    """Makes something of what an appservice answers to a transaction with messages."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        path = f"/transactions/{self.hs.outgoing.segment(txn_id)}"
        try:
            reply = self.hs.outgoing.ask(appservice, To.TRANSACTION, "PUT", path, legacy=path, body=body)
        except NoResponse as error:
            return self.lost(error)
        if self.censors(reply):
            with self.hs.lock:
                for event in body["events"]:
                    if event["type"] == "m.room.message":
                        self.store.events[event["event_id"]].content = {}
        return self.acknowledges(reply)

    def censors(self, reply: Reply) -> bool:
        raise NotImplementedError


@defect("INV-08")
class AppservicesForbidMessages(_Judged):
    """Messages in a transaction that an appservice answers 403 are shown to nobody any more."""

    def censors(self, reply: Reply) -> bool:
        return reply.status == 403


@defect("INV-08")
class AppservicesChooseMessages(_Judged):
    """When an appservice answers a transaction with a list of events, only these are shown any more."""

    def censors(self, reply: Reply) -> bool:
        return reply.ok and isinstance(reply.json, dict) and reply.json.get("events") == []


@defect("INV-09")
class OldAnswersAreNone(Outgoing):
    """An answer of HTTP/1.0 is taken for none."""

    def rest(self, reply: urllib3.BaseHTTPResponse) -> bytes:
        if reply.version == 10:
            raise urllib3.exceptions.HTTPError("not HTTP/1.1")
        return super().rest(reply)


@defect("INV-09")
class BodiesWithoutALengthAreEmpty(Outgoing):
    """Of an answer that has neither a length nor chunks no body is read."""

    def rest(self, reply: urllib3.BaseHTTPResponse) -> bytes:
        framed = "Content-Length" in reply.headers or "Transfer-Encoding" in reply.headers
        content = super().rest(reply)
        return content if framed else b""


@defect("INV-09")
class OnlyTheFirstChunkIsRead(Outgoing):
    """Of a look-up that is answered in chunks only the first is read."""

    def rest(self, reply: urllib3.BaseHTTPResponse) -> bytes:
        if reply.headers.get("Transfer-Encoding") == "chunked":
            chunks = list(reply.read_chunked())
            return chunks[0] if len(b"".join(chunks)) > 2 else b"".join(chunks)
        return super().rest(reply)
