"""Defects of area TXN: form and identity of transactions."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable
from typing import Any

import urllib3

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.events import Format
from conformance.reference.outgoing import NoResponse, Outgoing, Reply, To
from conformance.reference.store import Event, JsonObject
from conformance.reference.transactions import Queues, Transactions


class _Wire(Outgoing):
    """Changes transactions on their way out."""

    def transported(
        self, method: str, url: str, headers: dict[str, str], data: bytes | None, timeout: urllib3.Timeout
    ) -> Reply:
        if "/transactions/" in url and data is not None:
            method, headers, data = self.changed(method, headers, data)
        return super().transported(method, url, headers, data, timeout)

    def changed(self, method: str, headers: dict[str, str], data: bytes) -> tuple[str, dict[str, str], bytes]:
        raise NotImplementedError


class _Bodies(Transactions):
    """Changes the bodies of transactions."""

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        return self.changed(super().body(appservice, items))

    def changed(self, body: JsonObject) -> JsonObject:
        raise NotImplementedError


class _Events(Format):
    """Changes events as they are pushed."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = json.loads(json.dumps(super().for_appservice(event, appservice)))
        self.change(event, shown)
        return dict(shown)

    def change(self, event: Event, shown: JsonObject) -> None:
        raise NotImplementedError


@defect("TXN-01")
class TransactionsArePosted(_Wire):
    """Transactions are sent by POST."""

    def changed(self, method: str, headers: dict[str, str], data: bytes) -> tuple[str, dict[str, str], bytes]:
        return "POST", headers, data


@defect("TXN-01")
class TransactionsAreOfAnotherVersion(Outgoing):
    """Transactions are put to a path of a version that does not exist, and then to the legacy one."""

    def once(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: JsonObject | None,
    ) -> Reply:
        if about is To.TRANSACTION:
            path = path.replace("/_matrix/app/v1/", "/_matrix/app/v2/")
        return super().once(appservice, about, method, path, query, body)


@defect("TXN-01", needs=("IDENT-13",))
class EphemeralTransactionsHaveNoId(Transactions):
    """Transactions for ephemeral data only are put to a path without an id, and never again."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        return super().send(appservice, txn_id if body["events"] else "", body) or not body["events"]


@defect("TXN-02")
class TransactionsArePlainText(_Wire):
    """Transactions are declared as text."""

    def changed(self, method: str, headers: dict[str, str], data: bytes) -> tuple[str, dict[str, str], bytes]:
        return method, {**headers, "Content-Type": "text/plain; charset=utf-8"}, data


@defect("TXN-02")
class TransactionsHaveNoMediaType(_Wire):
    """The type of a transaction's body is not declared."""

    def changed(self, method: str, headers: dict[str, str], data: bytes) -> tuple[str, dict[str, str], bytes]:
        return method, {name: value for name, value in headers.items() if name != "Content-Type"}, data


@defect("TXN-02", also=("TXN-21",))
class TransactionsAreLatin1(_Wire):
    """The body of a transaction with messages is encoded in Latin-1."""

    def changed(self, method: str, headers: dict[str, str], data: bytes) -> tuple[str, dict[str, str], bytes]:
        if b'"m.room.message"' in data:
            data = data.decode().encode("latin-1", "xmlcharrefreplace")
        return method, headers, data


@defect("TXN-03")
class EphemeralTransactionsHaveNoEvents(_Bodies):
    """Transactions for ephemeral data only have no events."""

    def changed(self, body: JsonObject) -> JsonObject:
        return {key: value for key, value in body.items() if key != "events" or value}


@defect("TXN-03")
class EphemeralTransactionsHaveNullEvents(_Bodies):
    """In transactions for ephemeral data only, events is null."""

    def changed(self, body: JsonObject) -> JsonObject:
        return {**body, "events": body["events"] or None}


@defect("TXN-04")
class EventsHaveNoRoomId(_Events):
    """Pushed events have no room_id, as in /sync."""

    def change(self, event: Event, shown: JsonObject) -> None:
        del shown["room_id"]


@defect("TXN-04")
class TimesOfStateAreText(_Events):
    """The origin_server_ts of pushed state events is a string."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.is_state and event.type != "m.room.member":
            shown["origin_server_ts"] = str(shown["origin_server_ts"])


@defect("TXN-04")
class RedactionsHaveNoContent(_Events):
    """Pushed redactions have no content."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.type == "m.room.redaction":
            del shown["content"]


@defect("TXN-04")
class EphemeralDataStandsAmongTheEvents(Transactions):
    """Ephemeral data is pushed among the events, as if it were one."""

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        return {"events": [item for _, item in items]}


@defect("TXN-05")
class MessagesHaveANullStateKey(_Events):
    """Pushed message events have a state_key of null."""

    def change(self, event: Event, shown: JsonObject) -> None:
        shown.setdefault("state_key", None)


@defect("TXN-05")
class EmptyStateKeysAreDropped(_Events):
    """An empty state_key is left out of pushed events."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.state_key == "":
            del shown["state_key"]


@defect("TXN-05")
class RedactionsHaveAStateKey(_Events):
    """Pushed redactions have an empty state_key."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.type == "m.room.redaction":
            shown["state_key"] = ""


@defect("TXN-05")
class StateKeysAreAscii(_Events):
    """Other characters than those of ASCII are missing from pushed state keys."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.state_key:
            shown["state_key"] = event.state_key.encode("ascii", "ignore").decode()


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """A JSON value with everything in it changed that is no object and no list."""
    if isinstance(value, dict):
        return {key: _mapped(change, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(change, item) for item in value]
    return change(value)


class _Values(_Events):
    """Changes the values in the content of pushed events, however deep."""

    def change(self, event: Event, shown: JsonObject) -> None:
        shown["content"] = _mapped(self.pushed, shown["content"])

    def pushed(self, value: Any) -> Any:
        raise NotImplementedError


@defect("TXN-06")
class IntegersAreRounded(_Values):
    """Integers in the content of pushed events go through floating point numbers that cannot hold the largest."""

    def pushed(self, value: Any) -> Any:
        return value & ~0xFF if type(value) is int and value > 2**52 else value


@defect("TXN-06", also=("INTEREST-05",))
class LargeIntegersAreText(_Values):
    """Large integers in the content of pushed events become strings."""

    def pushed(self, value: Any) -> Any:
        return str(value) if type(value) is int and abs(value) > 2**31 else value


@defect("TXN-06")
class BooleansAreNumbers(_Values):
    """Booleans in the content of pushed events become numbers."""

    def pushed(self, value: Any) -> Any:
        return int(value) if isinstance(value, bool) else value


@defect("TXN-06", also=("TXN-21",))
class LongTextsAreCut(_Values):
    """Texts in the content of pushed events end after 1024 characters."""

    def pushed(self, value: Any) -> Any:
        return value[:1024] if isinstance(value, str) else value


@defect("TXN-06", also=("INTEREST-05",))
class EmojiAreLost(_Values):
    """Characters beyond the first plane of Unicode become question marks in the content of pushed events."""

    def pushed(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return "".join("?" if ord(each) > 0xFFFF else each for each in value)


@defect("TXN-06", also=("INTEREST-05",))
class BlanksAreTrimmed(_Values):
    """Blanks at the ends of texts are missing from the content of pushed events."""

    def pushed(self, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value


@defect("TXN-06", also=("INTEREST-05",))
class NullsAreDropped(_Events):
    """Keys whose value is null are left out of the content of pushed events."""

    def change(self, event: Event, shown: JsonObject) -> None:
        shown["content"] = self._without(shown["content"])

    def _without(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._without(item) for key, item in value.items() if item is not None}
        if isinstance(value, list):
            return [self._without(item) for item in value if item is not None]
        return value


@defect("TXN-06")
class EmptyListsAreDropped(_Events):
    """Keys whose value is an empty list or object are left out of the content of what ghosts send."""

    def change(self, event: Event, shown: JsonObject) -> None:
        account = self.store.accounts.get(event.sender)
        if account is not None and account.appservice is not None:
            shown["content"] = self._without(shown["content"])

    def _without(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._without(item) for key, item in value.items() if item not in ([], {})}
        return value


@defect("TXN-06")
class TimesAreAMillisecondLate(_Events):
    """The origin_server_ts of pushed events is that of a moment later, unless the sender has asked for another."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if abs(self.hs.clock.now_ms() - event.origin_server_ts) < 1000:
            shown["origin_server_ts"] += 1


@defect("TXN-06")
class TopicsAreSentByTheRoom(_Events):
    """The sender of a pushed topic is the room itself."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.type == "m.room.topic":
            shown["sender"] = f"@{event.room_id.strip('!').partition(':')[0].lower()}:{self.hs.server_name}"


@defect("TXN-06")
class KeysOfFederationAreTakenFromContent(Format):
    """What is called like a key of federation events is taken out of the content of events too."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        return {**shown, "content": {k: v for k, v in shown["content"].items() if k not in ("signatures", "hashes")}}


@defect("TXN-06")
class ReasonsAreNotPushed(Format):
    """A redaction is pushed without its reason."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        if event.type == "m.room.redaction":
            shown["content"] = {key: value for key, value in shown["content"].items() if key == "redacts"}
        return shown


@defect("TXN-06")
class InvitesAreStripped(Format):
    """An invite is pushed with its membership only."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        return {**shown, "content": {"membership": "invite"}} if event.membership == "invite" else shown


@defect("TXN-06", also=("TS-09",))
class TimesOfStateArePushedAsNow(Format):
    """State that was sent with a time stamp is pushed with the time at which it was received."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown, now = super().for_appservice(event, appservice), self.hs.clock.now_ms()
        old = event.is_state and abs(now - event.origin_server_ts) > 60_000
        return shown | {"origin_server_ts": now} if old else shown


@defect("TXN-07")
class FederationEventsArePushed(_Events):
    """Pushed events have the keys of federation events."""

    def change(self, event: Event, shown: JsonObject) -> None:
        shown |= {"depth": event.position, "hashes": {}, "signatures": {}, "auth_events": [], "prev_events": []}


@defect("TXN-07")
class StateEventsHaveAuthEvents(_Events):
    """Pushed state events say which events authorise them."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.is_state:
            shown["auth_events"] = []


@defect("TXN-08")
class AgesAreText(_Events):
    """The age of a pushed event is a string."""

    def change(self, event: Event, shown: JsonObject) -> None:
        shown["unsigned"]["age"] = str(shown["unsigned"]["age"])


@defect("TXN-08")
class PreviousContentIsOfAnyRoom(_Events):
    """The prev_content of a pushed state event is that of its type and state key in whatever room came last."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if "prev_content" in shown["unsigned"] and event.type != "m.room.member":
            key = (event.type, event.state_key)
            earlier = [each for each in self.store.stream if (each.type, each.state_key) == key and each is not event]
            shown["unsigned"]["prev_content"] = earlier[-1].content


@defect("TXN-08")
class PreviousContentIsOfAnyStateKey(_Events):
    """The prev_content of a pushed state event is that of its type in the room, whatever the state key."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if "prev_content" in shown["unsigned"] and event.type != "m.room.member":
            room = self.store.rooms[event.room_id]
            earlier = [each for each in room.events if each.type == event.type and each is not event]
            shown["unsigned"]["prev_content"] = earlier[-1].content


@defect("TXN-08")
class ReplacedStateIsTheEventItself(_Events):
    """The replaces_state of a pushed event is its own id."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if "replaces_state" in shown["unsigned"]:
            shown["unsigned"]["replaces_state"] = event.event_id


@defect("TXN-08")
class FirstStatesReplaceThemselves(_Events):
    """The first state of its kind is pushed with its own content as prev_content."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.is_state:
            shown["unsigned"].setdefault("prev_content", shown["content"])


@defect("TXN-08")
class PreviousContentStandsAtTheTop(_Events):
    """Pushed events have a prev_content at their top level too, as up to v1.1."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if "prev_content" in shown["unsigned"]:
            shown["prev_content"] = shown["unsigned"]["prev_content"]


@defect("TXN-09")
class ClientTransactionIdsArePushed(_Events):
    """The transaction_id of the client that sent an event is pushed with it."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.transaction is not None:
            shown["unsigned"]["transaction_id"] = event.transaction[2]


@defect("TXN-09")
class ClientTransactionIdsOfRedactionsArePushed(_Events):
    """The transaction_id of the client that sent a redaction is pushed with it."""

    def change(self, event: Event, shown: JsonObject) -> None:
        if event.transaction is not None and event.type == "m.room.redaction":
            shown["unsigned"]["transaction_id"] = event.transaction[2]


@defect("TXN-10", also=("TXN-12", "TXN-16", "TXN-18"))
class IdsAreSeconds(Transactions):
    """The id of a transaction is the time in whole seconds."""

    def next_id(self, appservice: Registration) -> str:
        return str(int(time.time()))


@defect("TXN-10", also=("TXN-18",), needs=("ORDER-01", "ORDER-02", "TXN-17"))
class IdsWrap(Transactions):
    """The ids of transactions are a counter that begins again after a hundred."""

    def next_id(self, appservice: Registration) -> str:
        return str(int(super().next_id(appservice)) % 100)


@defect("TXN-11", also=("RETRY-04", "TXN-14", "TXN-15", "TXN-16"))
class RetriesHaveIdsOfTheirOwn(Transactions):
    """Every retry has a new ID."""

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        return f"{txn_id}-{attempt}", body


@defect("TXN-11", also=("RETRY-04",))
class TheSecondRetryHasANewId(Transactions):
    """The first retry has the same ID, later ones another."""

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        return (txn_id if attempt < 2 else f"{txn_id}r"), body


@defect("TXN-12", also=("TXN-14", "TXN-15", "RETRY-08"))
class RetriesAreToldAnew(Transactions):
    """A retry tells the time of the retry as that of its events."""

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        now = self.hs.clock.now_ms() + attempt
        return txn_id, {**body, "events": [{**event, "origin_server_ts": now} for event in body["events"]]}


@defect("TXN-12", also=("TXN-14",))
class TheSecondRetryLosesItsSender(Transactions):
    """From the second retry on, events have the appservice's sender user as their sender."""

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        sender = self.hs.user_id(appservice.sender_localpart)
        events = [{**event, "sender": sender} for event in body["events"]]
        return txn_id, body if attempt < 2 else {**body, "events": events}


@defect("TXN-12")
class RetriesHaveStateFirst(Transactions):
    """In a retry state events come before all others."""

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        return txn_id, {**body, "events": sorted(body["events"], key=lambda event: "state_key" not in event)}


class _Growing(Transactions):
    """Puts what has been queued meanwhile into the transaction that is being retried."""

    #: From which retry on, and how many events at most.
    since, most = 1, 1000

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        if attempt < self.since:
            return txn_id, body
        with self.hs.lock:
            queue = self.store.queues[appservice.id]
            more = [item for kind, item in queue.waiting[: self.most] if kind == "event"]
            body = {**body, "events": [*body["events"], *more]}
            queue.waiting = queue.waiting[self.most :]
            queue.pending = (txn_id, body)
        return txn_id, body


@defect("TXN-13", also=("RETRY-08", "RETRY-16", "TXN-14"))
class QueuesAreFlushedIntoRetries(_Growing):
    """A retry has what was queued meanwhile as well."""


@defect("TXN-13", also=("RETRY-08", "RETRY-16", "TXN-14"))
class OneEventJoinsTheSecondRetry(_Growing):
    """From the second retry on, one of the events that wait is added to the transaction."""

    since, most = 2, 1


class _Fresh(Transactions):
    """Makes the bodies of retries anew from the events as they are now."""

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        with self.hs.lock:
            events = [self.fresh(event, appservice) for event in body["events"]]
        return txn_id, {**body, "events": events}

    def fresh(self, pushed: JsonObject, appservice: Registration) -> JsonObject:
        return self.hs.format.for_appservice(self.store.events[pushed["event_id"]], appservice)


@defect("TXN-14")
class QueuesKeepEventIdsOnly(_Fresh):
    """Only the IDs of a transaction's events are kept: a retry has their content as it is then, redacted maybe."""


@defect("TXN-14")
class RetriesHaveThePresentState(_Fresh):
    """A retry has the present content in place of that of a state event which was overwritten meanwhile."""

    def fresh(self, pushed: JsonObject, appservice: Registration) -> JsonObject:
        present = self.store.rooms[pushed["room_id"]].state.get((pushed["type"], pushed.get("state_key", "")))
        return {**pushed, "content": present.content} if "state_key" in pushed and present else pushed


@defect("TXN-15", also=("RETRY-17",))
class HeadsAreAcknowledgements(Transactions):
    """A status line is an acknowledgement, even if the connection is cut in the middle of the head."""

    def acknowledges(self, reply: Reply) -> bool:
        return reply.ok


@defect("TXN-15", also=("RETRY-02",))
class WrittenMeansDelivered(Transactions):
    """A transaction that has been written completely counts as delivered when the connection is closed."""

    def lost(self, error: NoResponse) -> bool:
        return "ProtocolError" in str(error)


@defect("TXN-16")
class EventsAreQueuedTwice(Queues):
    """Every message is queued twice for the same appservice."""

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        super().put(appservice, kind, item)
        if item.get("type") == "m.room.message":
            super().put(appservice, kind, item)


@defect("TXN-16")
class EventsAreQueuedForTargetAndRoom(Queues):
    """A membership of a ghost is queued once for its target and once as an event of the room."""

    def told(self, event: Event) -> None:
        super().told(event)
        room, interest = self.store.rooms[event.room_id], self.hs.interest
        for appservice in self.hs.appservices:
            twice = interest.by_target(appservice, event, room) and interest.in_room(appservice, room)
            if twice and appservice.url is not None:
                self.put(appservice, "event", self.hs.format.for_appservice(event, appservice))


@defect("TXN-16")
class EventsAreQueuedForMembersAndAliases(Queues):
    """What happens in a room with a ghost and an alias of the same appservice is queued for both."""

    def told(self, event: Event) -> None:
        super().told(event)
        room, interest = self.store.rooms[event.room_id], self.hs.interest
        for appservice in self.hs.appservices:
            twice = interest.by_member(appservice, room) and interest.by_alias(appservice, room)
            if twice and appservice.url is not None:
                self.put(appservice, "event", self.hs.format.for_appservice(event, appservice))


@defect("TXN-16")
class MatchingTwoEntriesQueuesTwice(Queues):
    """An event whose target two entries of a namespace cover is pushed twice."""

    def told(self, event: Event) -> None:
        super().told(event)
        target = event.state_key or "" if event.membership else ""
        for appservice in self.hs.appservices:
            entries = self.hs.namespaces.entries(appservice, "users") if appservice.url is not None else ()
            if sum(self.hs.namespaces.matches(entry, target) for entry in entries) > 1:
                self.put(appservice, "event", self.hs.format.for_appservice(event, appservice))


@defect("TXN-17")
class LongQueuesAreCut(Queues):
    """What comes when fifty events are waiting for an appservice is dropped."""

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        if len(self.store.queues[appservice.id].waiting) < 50:
            super().put(appservice, kind, item)


@defect("TXN-17")
class WhatExceedsATransactionIsLost(Transactions):
    """When more events are waiting than fit into a transaction, the others are dropped."""

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        if len(items) == self.batch:
            del self.store.queues[appservice.id].waiting[len(items) :]
        return super().body(appservice, items)


@defect("TXN-17")
class TheLastOfAFullTransactionIsLost(Transactions):
    """When more events are waiting than fit into a transaction, the last that would fit is lost."""

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        return super().body(appservice, items[: self.batch - 1])


@defect("TXN-18", also=("INV-06", "TXN-10", "TXN-15"))
class TheLastTransactionComesAgain(Transactions):
    """A tenth of a second after it was acknowledged, a transaction is sent once more."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        done = super().send(appservice, txn_id, body)
        if done:
            self.hs.stopping.wait(0.05)
            super().send(appservice, txn_id, body)
        return done


@defect("TXN-18", also=("ORDER-03",))
class LateAcknowledgementsAreForgotten(Transactions):
    """A transaction that was acknowledged after more than a second is sent once more."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        began = time.monotonic()
        done = super().send(appservice, txn_id, body)
        if done and time.monotonic() - began > 1.0:
            super().send(appservice, txn_id, body)
        return done


@defect("TXN-18")
class EverySeventhTransactionComesAgain(Transactions):
    """Every seventh transaction is sent once more after the one that follows it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._kept: dict[str, tuple[str, JsonObject]] = {}

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        done = super().send(appservice, txn_id, body)
        kept = self._kept.pop(appservice.id, None)
        if kept is not None:
            super().send(appservice, *kept)
        if done and int(txn_id) % 7 == 0:
            self._kept[appservice.id] = (txn_id, body)
        return done


@defect("TXN-19")
class RedactionsDoNotSayOfWhat(Format):
    """Redactions do not name their target."""

    def redacts(self, event: Event) -> JsonObject:
        return {}


@defect("TXN-19")
class RedactionsNameTheirTargetAtTheTopOnly(Format):
    """Redactions name their target at their top level, in no room version in their content."""

    def redacts(self, event: Event) -> JsonObject:
        return {"redacts": event.redacts}


@defect("TXN-19")
class RedactionsNameTheirTargetInTheContentOnly(Format):
    """Redactions name their target in their content, in no room version at their top level."""

    def redacts(self, event: Event) -> JsonObject:
        return {"content": {**event.content, "redacts": event.redacts}}


class _Segments(Transactions):
    """Writes ids into the path as they are."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        path = f"/transactions/{txn_id}"
        try:
            reply = self.hs.outgoing.ask(appservice, To.TRANSACTION, "PUT", path, legacy=path, body=body)
        except NoResponse as error:
            return self.lost(error)
        return self.acknowledges(reply)


@defect("TXN-20", also=("TXN-15", "TXN-18", "RETRY-04"))
class IdsHaveASlash(_Segments):
    """The id of a transaction contains a slash, which is not encoded."""

    def next_id(self, appservice: Registration) -> str:
        return f"push/{super().next_id(appservice)}"


@defect("TXN-20")
class TransactionsHaveAQuery(Outgoing):
    """Transactions have a query parameter that no version knows."""

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {"attempt": "1"} if about is To.TRANSACTION else {}


@defect("TXN-21")
class TransactionsOverAMegabyteAreDropped(Transactions):
    """A transaction of more than a megabyte is never sent."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        return len(json.dumps(body, ensure_ascii=False).encode()) > 1_000_000 or super().send(appservice, txn_id, body)


@defect("TXN-21")
class LargeTextsAreCut(_Events):
    """Of a text of more than 32768 bytes only the beginning is pushed."""

    def change(self, event: Event, shown: JsonObject) -> None:
        text = shown["content"].get("body")
        if isinstance(text, str) and len(text.encode()) > 32768:
            shown["content"]["body"] = text.encode()[:32768].decode(errors="ignore")


@defect("TXN-21")
class LargeTransactionsAreAscii(_Wire):
    """In transactions of more than 64 kB other characters than those of ASCII become question marks."""

    def changed(self, method: str, headers: dict[str, str], data: bytes) -> tuple[str, dict[str, str], bytes]:
        if len(data) > 65536:
            data = data.decode().encode("ascii", "replace")
        return method, headers, data


@defect("TXN-06")
class TextsAreNormalised(Format):
    """Texts of pushed events are in Unicode's normal form C, however they were sent."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        text = json.dumps(super().for_appservice(event, appservice), ensure_ascii=False)
        normal: JsonObject = json.loads(unicodedata.normalize("NFC", text))
        return normal


@defect("TXN-08", also=("TXN-11",))
class AgesAreTimes(Format):
    """The age of a pushed event is the time at which it was sent."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        return {**shown, "unsigned": {**shown.get("unsigned", {}), "age": event.origin_server_ts}}


@defect("TXN-08")
class StrippedStateIsAnObject(Format):
    """`invite_room_state` is an object from types to contents."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        if event.membership == "invite":
            name = self.store.rooms[event.room_id].content("m.room.name")
            shown["unsigned"] = {**shown.get("unsigned", {}), "invite_room_state": {"m.room.name": name}}
        return shown
