"""Defects of area PING: pings that an appservice asks for."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.outgoing import NoResponse, Outgoing, Reply, To
from conformance.reference.ping import Ping
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.store import JsonObject
from conformance.reference.transactions import Transactions
from conformance.reference.web import Call


@defect("PING-01")
class ThePingEndpointIsMissing(Ping):
    """Appservices cannot ask for pings."""

    @endpoint("POST", "/_matrix/client/unstable/org.example/appservice/<appservice_id>/ping", waits=True)
    def ping(self, call: Call, appservice_id: str) -> JsonObject:
        return super().ping(call, appservice_id)


@defect("PING-01")
class PongsAreServerErrors(Ping):
    """A ping that the appservice answers with an empty object is answered with a server error."""

    def check(self, reply: Reply) -> None:
        if reply.json == {}:
            raise MatrixError(500, "M_UNKNOWN", "internal error: the pong is empty")
        super().check(reply)


@defect("PING-02")
class NobodyIsPinged(Ping):
    """A ping call is answered 200 without a ping."""

    def sent(self, appservice: Registration, body: JsonObject) -> Reply:
        return Reply(200, b"{}")


@defect("PING-02")
class PingsHaveNoBody(Ping):
    """Pings have no body."""

    def sent(self, appservice: Registration, body: JsonObject) -> Reply:
        return self.hs.outgoing.ask(appservice, To.PING, "POST", "/ping")


@defect("PING-02", also=("INV-02",))
class PingsAreGets(Ping):
    """Pings are GET requests."""

    def sent(self, appservice: Registration, body: JsonObject) -> Reply:
        return self.hs.outgoing.ask(appservice, To.PING, "GET", "/ping", body=body)


@defect("PING-02")
class PingsComeLate(Ping):
    """A ping call is answered at once, and the ping sent some time later."""

    def sent(self, appservice: Registration, body: JsonObject) -> Reply:
        timer = threading.Timer(1.5, self._later, (appservice, body))
        timer.daemon = True
        timer.start()
        return Reply(200, b"{}")

    def _later(self, appservice: Registration, body: JsonObject) -> None:
        with suppress(NoResponse):
            super().sent(appservice, body)


class _Ids(Ping):
    """Passes on another `transaction_id`."""

    def body(self, call: Call) -> JsonObject:
        body = super().body(call)
        return {"transaction_id": self.passed(body["transaction_id"])} if body else {}

    def passed(self, given: str) -> Any:
        raise NotImplementedError


@defect("PING-03", also=("PING-11", "PING-12", "PING-13"))
class PingsHaveIdsOfTheirOwn(_Ids):
    """The transaction_id of a ping is one that the homeserver makes up."""

    def passed(self, given: str) -> Any:
        return "1"


@defect("PING-03")
class PingsLoseWhatIsNotAscii(_Ids):
    """The transaction_id of a ping has no characters beyond ASCII."""

    def passed(self, given: str) -> Any:
        return given.encode("ascii", "ignore").decode()


@defect("PING-03")
class PingsHaveNumbers(_Ids):
    """A transaction_id of digits becomes a number in the ping."""

    def passed(self, given: str) -> Any:
        return int(given) if given.isdecimal() else given


@defect("PING-03")
class LongIdsOfPingsAreCut(_Ids):
    """The transaction_id of a ping has 128 characters at most."""

    def passed(self, given: str) -> Any:
        return given[:128]


@defect("PING-04")
class PingsNeedAnId(Ping):
    """A ping call without transaction_id is answered 400."""

    def body(self, call: Call) -> JsonObject:
        return {"transaction_id": call.text("transaction_id")}


@defect("PING-04")
class MissingIdsOfPingsAreNull(Ping):
    """The transaction_id of a ping is null where the call has none."""

    def body(self, call: Call) -> JsonObject:
        return {"transaction_id": None, **super().body(call)}


@defect("PING-06", also=("PING-20",))
class TheStatusOfAnAppserviceIsCopied(Ping):
    """A ping call is answered with the error status that the appservice gave."""

    def check(self, reply: Reply) -> None:
        try:
            super().check(reply)
        except MatrixError as error:
            raise MatrixError(reply.status, error.errcode, str(error), error.extra) from error


@defect("PING-06")
class NotFoundIsAPong(Ping):
    """An appservice that answers its ping with 404 counts as reachable: it does not know pings yet."""

    def check(self, reply: Reply) -> None:
        if reply.status != 404:
            super().check(reply)


@defect("PING-06")
class ServerErrorsAreFailedConnections(Ping):
    """An appservice that answers its ping with a server error counts as not connected."""

    def check(self, reply: Reply) -> None:
        if reply.status >= 500:
            raise MatrixError(502, "M_CONNECTION_FAILED", "the appservice is not well")
        super().check(reply)


class _Told(Ping):
    """Tells something else of a refused ping."""

    def check(self, reply: Reply) -> None:
        try:
            super().check(reply)
        except MatrixError as error:
            raise MatrixError(error.status, error.errcode, str(error), self.told(error.extra or {})) from error

    def told(self, extra: JsonObject) -> JsonObject:
        raise NotImplementedError


@defect("PING-07", also=("PING-06", "PING-20"))
class TheBodyOfABadStatusIsParsed(_Told):
    """The body of M_BAD_STATUS is the parsed answer of the appservice."""

    def told(self, extra: JsonObject) -> JsonObject:
        return {**extra, "body": json.loads(extra["body"])}


@defect("PING-07", also=("PING-20",))
class TheBodyOfABadStatusIsTidied(_Told):
    """The body of M_BAD_STATUS is the appservice's answer, parsed and written again."""

    def told(self, extra: JsonObject) -> JsonObject:
        with suppress(ValueError):  # an answer that is no JSON is told as it is
            return {**extra, "body": json.dumps(json.loads(extra["body"]), ensure_ascii=False)}
        return extra


@defect("PING-07")
class TheBodyOfABadStatusIsMisread(_Told):
    """The body of M_BAD_STATUS is the appservice's answer, read as Latin-1."""

    def told(self, extra: JsonObject) -> JsonObject:
        return {**extra, "body": extra["body"].encode().decode("latin-1")}


@defect("PING-07")
class TheStatusOfABadStatusIsText(_Told):
    """The status of M_BAD_STATUS is a string."""

    def told(self, extra: JsonObject) -> JsonObject:
        return {**extra, "status": str(extra["status"])}


@defect("PING-08", also=("PING-18",))
class AClosedPortIsATimeOut(Ping):
    """An appservice that is down is reported as one that takes too long."""

    def unanswered(self, error: NoResponse) -> MatrixError:
        return MatrixError(504, "M_CONNECTION_TIMEOUT", str(error))


@defect("PING-08", also=("PING-18",))
class AClosedPortIsAnInternalError(Ping):
    """That an appservice is down is reported as an internal error."""

    def unanswered(self, error: NoResponse) -> MatrixError:
        return super().unanswered(error) if error.timed_out else MatrixError(500, "M_UNKNOWN", str(error))


@defect("PING-08", also=("PING-18",))
class AClosedPortIsABadStatus(Ping):
    """An appservice that is down is reported as one that has given a bad answer."""

    def unanswered(self, error: NoResponse) -> MatrixError:
        return super().unanswered(error) if error.timed_out else MatrixError(502, "M_BAD_STATUS", str(error))


class _WithoutUrl(Ping):
    @endpoint("POST", "/_matrix/client/v1/appservice/<appservice_id>/ping", waits=True)
    def ping(self, call: Call, appservice_id: str) -> JsonObject:
        if self.pinged(call, appservice_id).url is None:
            return self.answered()
        return super().ping(call, appservice_id)

    def answered(self) -> JsonObject:
        raise NotImplementedError


@defect("PING-10")
class ANullUrlIsAFailedConnection(_WithoutUrl):
    """An appservice without a url is reported as one that is down."""

    def answered(self) -> JsonObject:
        raise MatrixError(502, "M_CONNECTION_FAILED", "there is nothing to connect to")


@defect("PING-10")
class ANullUrlIsAPong(_WithoutUrl):
    """An appservice without a url counts as reachable."""

    def answered(self) -> JsonObject:
        return {"duration_ms": 0}


@defect("PING-11")
class AnyAppserviceMayBePinged(Ping):
    """An appservice may have another pinged."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        other = next((each for each in self.hs.appservices if each.id == appservice_id), None)
        return other if other and call.requester.appservice else super().pinged(call, appservice_id)


@defect("PING-11", also=("PING-14",))
class TheCallerIsPingedWhoeverIsMeant(Ping):
    """An appservice that asks for a ping of another is refused, but pinged itself before."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        caller = call.requester.appservice
        if caller and caller.id != appservice_id and any(each.id == appservice_id for each in self.hs.appservices):
            self.sent(caller, self.body(call))
        return super().pinged(call, appservice_id)


@defect("PING-11")
class AnotherIsNoSuchAppservice(Ping):
    """An appservice that asks for a ping of another is told that there is no such appservice."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        caller = call.requester.appservice
        if caller and caller.id != appservice_id and any(each.id == appservice_id for each in self.hs.appservices):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such appservice")
        return super().pinged(call, appservice_id)


@defect("PING-12")
class AnyUserMayPing(Ping):
    """A human may have an appservice pinged."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        meant = next((each for each in self.hs.appservices if each.id == appservice_id), None)
        return meant if meant and not call.requester.appservice else super().pinged(call, appservice_id)


@defect("PING-12")
class ARefusedHumanPingsAllTheSame(Ping):
    """A human is refused, and a moment later the appservice is pinged."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        meant = next((each for each in self.hs.appservices if each.id == appservice_id), None)
        if meant and not call.requester.appservice:
            threading.Timer(0.1, self.sent, (meant, self.body(call))).start()
        return super().pinged(call, appservice_id)


class _Strangers(Ping):
    """Looks at the token by itself."""

    @endpoint("POST", "/_matrix/client/v1/appservice/<appservice_id>/ping", authenticated=False, waits=True)
    def ping(self, call: Call, appservice_id: str) -> JsonObject:
        self.before(call, appservice_id)
        with self.hs.lock:
            call.requester = self.hs.identity.of(call)
        return super().ping(call, appservice_id)

    def before(self, call: Call, appservice_id: str) -> None:
        raise NotImplementedError


@defect("PING-13")
class StrangersMayPing(_Strangers):
    """A call without a token is refused, but the ping has been sent by then."""

    def before(self, call: Call, appservice_id: str) -> None:
        meant = next((each for each in self.hs.appservices if each.id == appservice_id), None)
        if meant and call.token is None:
            self.sent(meant, self.body(call))


@defect("PING-13")
class StrangersTokensAreForbidden(_Strangers):
    """A ping call with a token that nobody has is answered 403."""

    def before(self, call: Call, appservice_id: str) -> None:
        try:
            with self.hs.lock:
                self.hs.identity.of(call)
        except MatrixError as error:
            raise MatrixError(*((403, "M_FORBIDDEN") if call.token else (401, error.errcode)), str(error)) from error


@defect("PING-15")
class TheIdOfAPingIsNotDecoded(Ping):
    """The id in the path of a ping call is compared as it stands there."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        return super().pinged(call, call.path.split("/")[-2])


@defect("PING-15")
class BlanksInTheIdOfAPingArePlusSigns(Ping):
    """A blank in the id of an appservice has to be a plus sign in the path of a ping call."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        return super().pinged(call, appservice_id.replace(" ", "%20").replace("+", " "))


@defect("PING-16")
class AnUnknownIdBreaks(Ping):
    """A ping call for an unknown id is answered with a server error."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        if not any(each.id == appservice_id for each in self.hs.appservices):
            raise MatrixError(500, "M_UNKNOWN", "internal error: no such key")
        return super().pinged(call, appservice_id)


@defect("PING-16")
class AnUnknownIdIsNotFound(Ping):
    """A ping call for an unknown id is answered 404."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        if not any(each.id == appservice_id for each in self.hs.appservices):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such appservice")
        return super().pinged(call, appservice_id)


@defect("PING-17")
class PingsAndTransactionsShareTheirIds(Outgoing):
    """A transaction whose id a ping has had counts as delivered."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._had: set[tuple[str, str]] = set()

    def ask(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        **more: Any,
    ) -> Reply:
        if about is To.PING:
            self._had.add((appservice.id, str((body or {}).get("transaction_id"))))
        elif about is To.TRANSACTION and (appservice.id, path.rpartition("/")[2]) in self._had:
            return Reply(200, b"{}")
        return super().ask(appservice, about, method, path, body=body, **more)


@defect("PING-17")
class PingsMustNotHaveTheIdOfATransaction(Ping):
    """A ping call is refused whose transaction_id is that of the last transaction."""

    def body(self, call: Call) -> JsonObject:
        body, appservice = super().body(call), call.requester.appservice
        if appservice and body.get("transaction_id") == str(self.store.transactions[appservice.id]):
            raise MatrixError(400, "M_INVALID_PARAM", "there has been that transaction")
        return body


class _Durations(Ping):
    """Tells another duration."""

    @endpoint("POST", "/_matrix/client/v1/appservice/<appservice_id>/ping", waits=True)
    def ping(self, call: Call, appservice_id: str) -> JsonObject:
        return {"duration_ms": self.told(super().ping(call, appservice_id)["duration_ms"])}

    def told(self, milliseconds: int) -> Any:
        raise NotImplementedError


@defect("PING-05")
class DurationsAreInSeconds(_Durations):
    """The duration of a ping is told in seconds."""

    def told(self, milliseconds: int) -> Any:
        return milliseconds // 1000


@defect("PING-05")
class DurationsAreText(_Durations):
    """The duration of a ping is a string."""

    def told(self, milliseconds: int) -> Any:
        return str(milliseconds)


@defect("PING-05")
class DurationsAreInMicroseconds(_Durations):
    """The duration of a ping is told in microseconds."""

    def told(self, milliseconds: int) -> Any:
        return milliseconds * 1000


@defect("PING-09")
class TimeOutsOfPingsAreFailedConnections(Ping):
    """A ping that is never answered is reported as a failed connection."""

    def unanswered(self, error: NoResponse) -> MatrixError:
        return MatrixError(502, "M_CONNECTION_FAILED", str(error))


@defect("PING-09")
class TimeOutsOfPingsHaveNoCode(Ping):
    """A ping that is never answered is reported without saying what went wrong."""

    def unanswered(self, error: NoResponse) -> MatrixError:
        return MatrixError(504, "M_UNKNOWN", str(error)) if error.timed_out else super().unanswered(error)


class _Unasked(Transactions):
    """Appservices are pinged on account of their transactions."""

    def ping(self, appservice: Registration) -> None:
        """Ping an appservice that has not asked for it; whatever it answers."""
        with suppress(NoResponse):
            self.hs.outgoing.ask(appservice, To.PING, "POST", "/ping", body={})


@defect("PING-14")
class AppservicesArePingedBeforeTransactions(_Unasked):
    """The first transaction of an appservice is preceded by a ping."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        if txn_id == "1":
            self.ping(appservice)
        return super().send(appservice, txn_id, body)


@defect("PING-14", also=("PING-19",))
class FailingAppservicesArePinged(_Unasked):
    """An appservice that has failed a transaction is pinged before it is tried again."""

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        self.ping(appservice)
        return super().retried(appservice, txn_id, body, attempt)


@defect("PING-14")
class EachPingIsSentFiveTimes(Ping):
    """Each ping that is asked for is sent five times, and the last answer counts."""

    def sent(self, appservice: Registration, body: JsonObject) -> Reply:
        for _ in range(4):
            super().sent(appservice, body)
        return super().sent(appservice, body)


@defect("PING-18")
class ACutPingIsATimeOut(Ping):
    """A ping whose connection was closed is reported as a time-out."""

    def unanswered(self, error: NoResponse) -> MatrixError:
        if "refused" in str(error):
            return super().unanswered(error)
        return MatrixError(504, "M_CONNECTION_TIMEOUT", str(error))


@defect("PING-18")
class ACutPingIsABadStatus(Ping):
    """A ping whose connection was closed is reported as one that was answered badly."""

    def unanswered(self, error: NoResponse) -> MatrixError:
        if error.timed_out or "refused" in str(error):
            return super().unanswered(error)
        return MatrixError(502, "M_BAD_STATUS", str(error))


class _Recovering(Ping):
    """Pings of an appservice whose first transaction after an outage is not acknowledged yet go otherwise."""

    def sent(self, appservice: Registration, body: JsonObject) -> Reply:
        pusher = self.hs.pushers[appservice.id]
        if pusher.failures and pusher.sending_since is not None:
            return self.recovering(appservice, body)
        return super().sent(appservice, body)

    def recovering(self, appservice: Registration, body: JsonObject) -> Reply:
        """The answer to a ping while the queue recovers."""
        raise MatrixError(500, "M_UNKNOWN", "internal error: already recovering")


@defect("PING-19")
class PingsFailWhileTheQueueRecovers(_Recovering):
    """A ping of an appservice whose failed transaction is being tried again leads to a server error."""


@defect("PING-19")
class TheSecondPingFailsWhileTheQueueRecovers(_Recovering):
    """Of pings of an appservice whose failed transaction is being tried again, only the first succeeds."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._pinged: dict[str, float] = {}

    def recovering(self, appservice: Registration, body: JsonObject) -> Reply:
        since = self.hs.pushers[appservice.id].sending_since
        if since is not None and self._pinged.get(appservice.id) == since:
            return super().recovering(appservice, body)
        self._pinged[appservice.id] = since or 0.0
        return Ping.sent(self, appservice, body)


@defect("PING-20")
class RedirectsOfPingsAreServerErrors(Ping):
    """A ping that is answered with a redirect ends in a server error."""

    def check(self, reply: Reply) -> None:
        if 300 <= reply.status < 400:
            raise MatrixError(500, "M_UNKNOWN", "internal error: no such status")
        super().check(reply)


@defect("PING-06")
class GatewayTimeOutsArePassedOn(Ping):
    """An appservice that answers its ping with a time-out of its own is reported as one that does not answer."""

    def check(self, reply: Reply) -> None:
        if reply.status in (408, 504):
            raise MatrixError(504, "M_CONNECTION_TIMEOUT", "time-out")
        super().check(reply)


@defect("PING-06")
class BusyAppservicesAreWell(Ping):
    """A ping that is answered 429 or 503 counts as answered: the appservice is there."""

    def check(self, reply: Reply) -> None:
        if reply.status not in (429, 503):
            super().check(reply)


@defect("PING-06")
class BadStatusesWithoutJsonAreServerErrors(Ping):
    """A ping that is answered with an error that is no JSON ends in a server error."""

    def check(self, reply: Reply) -> None:
        if reply.status >= 400 and reply.json is None:
            raise ValueError("no JSON")
        super().check(reply)


@defect("PING-12")
class GhostsHaveTheirAppservicePinged(Ping):
    """A ghost's own access token has its appservice pinged."""

    def pinged(self, call: Call, appservice_id: str) -> Registration:
        for each in self.hs.appservices:
            if each.id == appservice_id and self.hs.namespaces.claims(each, "users", call.requester.user_id):
                return each
        return super().pinged(call, appservice_id)


@defect("PING-02", also=("PING-03",))
class PingsAreRememberedByTheirId(Ping):
    """A ping that was answered 200 is not sent again when the appservice asks with the same ID."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._done: dict[str, Reply] = {}

    def sent(self, appservice: Registration, body: JsonObject) -> Reply:
        name = str(body.get("transaction_id"))
        if name in self._done:
            return self._done[name]
        reply = super().sent(appservice, body)
        if reply.status == 200 and "transaction_id" in body:
            self._done[name] = reply
        return reply
