"""Variants: homeservers that differ from the reference where the specification leaves them free."""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from typing import Any

from conformance.appservice.registration import Namespace, Registration
from conformance.reference.defects import variant
from conformance.reference.events import Format
from conformance.reference.interest import Interest
from conformance.reference.namespaces import Namespaces, compiled
from conformance.reference.outgoing import Outgoing, Reply, To
from conformance.reference.queries import Queries
from conformance.reference.rooms import Rooms
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.thirdparty import ThirdParty
from conformance.reference.transactions import Backoff, Transactions
from conformance.reference.web import Answer, Call, Connections, Errors

# Transactions


@variant("batches-of-one")
class BatchesOfOne(Transactions):
    """Every transaction has one event."""

    batch = 1


@variant("batches-of-fifty")
class BatchesOfFifty(Transactions):
    """A transaction waits for company for a moment and has at most fifty events."""

    batch = 50

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        self.hs.stopping.wait(0.05)
        return super().send(appservice, txn_id, body)


@variant("timestamps-as-ids")
class TimestampsAsIds(Transactions):
    """Transaction IDs are the time in nanoseconds."""

    def next_id(self, appservice: Registration) -> str:
        return str(time.time_ns())


@variant("hashes-as-ids")
class HashesAsIds(Transactions):
    """Transaction IDs are hashes, with characters that have to be encoded."""

    def next_id(self, appservice: Registration) -> str:
        text = f"{appservice.id} {self.store.transactions[appservice.id]} {time.time_ns()}"
        return f"h+/={hashlib.sha256(text.encode()).hexdigest()}"


@variant("ages-change")
class AgesChange(Transactions):
    """The age of an event is told anew on every retry."""

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        copy = json.loads(json.dumps(body))
        for event in copy["events"]:
            event["unsigned"]["age"] = max(0, self.hs.clock.now_ms() - event["origin_server_ts"])
        return txn_id, copy


@variant("ephemeral-always")
class EphemeralAlways(Transactions):
    """Every transaction has a list of ephemeral data, under the unstable name too, and lists of other things."""

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        body = {"ephemeral": [], **super().body(appservice, items)}
        unstable = {"de.sorunome.msc2409.ephemeral": body["ephemeral"], "de.sorunome.msc2409.to_device": []}
        return {**body, **unstable, "org.matrix.msc3202.device_lists": {"changed": [], "left": []}}


@variant("ephemeral-apart")
class EphemeralApart(Transactions):
    """A transaction has events or ephemeral data, never both."""

    def chosen(self, queue: Any) -> int:
        kinds = [kind for kind, _ in queue.waiting[: self.batch]]
        return next((place for place, kind in enumerate(kinds) if kind != kinds[0]), len(kinds))


# Events


@variant("extra-keys")
class ExtraKeys(Format):
    """Events, transactions and errors have keys that nobody has heard of."""

    def event(self, event: Event) -> JsonObject:
        shown = super().event(event)
        shown["unsigned"]["org.example.score"] = 7
        # Old names of the same things, which some homeservers still add.
        return {**shown, "org.example.extra": {"of": ["any", "kind"]}, "user_id": event.sender, "age": 1}


@variant("extra-keys")
class ExtraKeysInTransactions(Transactions):
    """Transactions with unknown keys."""

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        return {**super().body(appservice, items), "org.example.extra": {"events": []}}


@variant("extra-keys")
class ExtraKeysInErrors(Errors):
    """Errors with unknown keys."""

    def answer(self, call: Call, error: Any) -> Answer:
        error.extra = {**(error.extra or {}), "org.example.extra": None}
        return super().answer(call, error)


@variant("nothing-unsigned")
class NothingUnsigned(Format):
    """Events have no `unsigned`."""

    def event(self, event: Event) -> JsonObject:
        return {key: value for key, value in super().event(event).items() if key != "unsigned"}

    def for_client(self, event: Event, requester: object) -> JsonObject:
        return self.event(event)


@variant("membership-of-readers")
class MembershipOfReaders(Format):
    """`unsigned` tells the membership of the appservice's sender user at the time of the event."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        shown["unsigned"]["membership"] = "leave"
        return shown


@variant("old-rooms")
class OldRooms(Rooms):
    """Rooms are of version 10 unless asked otherwise: their IDs have a domain, their creators a power level."""

    default_version = "10"


# Namespaces


@variant("anchored-at-the-start")
class AnchoredAtTheStart(Namespaces):
    """Regular expressions match from the start of an ID, and need not reach its end."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        return compiled(entry.regex).match(identifier) is not None


@variant("not-anchored")
class NotAnchored(Namespaces):
    """Regular expressions match anywhere in an ID."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        return compiled(entry.regex).search(identifier) is not None


@variant("not-anchored-nor-cased")
class NotAnchoredNorCased(Namespaces):
    """Regular expressions match anywhere in an ID, and capitals are the same as small letters."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        pattern = compiled(entry.regex)
        return re.compile(pattern.pattern, re.IGNORECASE).search(identifier) is not None


@variant("linear-time-regexes")
class LinearTimeRegexes(Namespaces):
    """Regular expressions match anywhere, and classes are of ASCII, as in engines that never backtrack."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        return re.compile(compiled(entry.regex).pattern, re.ASCII).search(identifier) is not None


@variant("regexes-of-the-c-library")
class RegexesOfTheCLibrary(Namespaces):
    """Regular expressions match anywhere, and a dot matches a line break too, as POSIX has it."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        return re.compile(compiled(entry.regex).pattern, re.DOTALL).search(identifier) is not None


@variant("senders-interest")
class SendersInterest(Interest):
    """An event interests the appservice of its sender too, joined or not (as up to v1.4)."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        return self.is_own_user(appservice, event.sender) or super().by_target(appservice, event, room)


# Failure


@variant("jittered-backoff")
class JitteredBackoff(Backoff):
    """The backoff is a tenth longer or shorter than it should be, by chance."""

    def delay(self, failures: int) -> float:
        return super().delay(failures) * random.uniform(0.9, 1.1)


@variant("backoff-capped-at-a-minute")
class BackoffCappedAtAMinute(Backoff):
    """Nobody is ever left alone for more than a minute."""

    cap = 60.0


# Requests to appservices


@variant("token-in-the-query-too")
class TokenInTheQueryToo(Outgoing):
    """For the sake of old appservices the `hs_token` is sent in the query as well."""

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        return {"access_token": self.token(appservice)}


@variant("falls-back-for-unrecognized-only")
class FallsBackForUnrecognizedOnly(Outgoing):
    """The legacy routes are tried only where the present one is said to be unknown."""

    def falls_back(self, about: To, reply: Reply) -> bool:
        code = reply.json.get("errcode") if isinstance(reply.json, dict) else None
        return reply.status in (404, 405) and code in (None, "M_UNRECOGNIZED")


@variant("spaced-json")
class SpacedJson(Outgoing):
    """Bodies are indented, in another order of keys, all in ASCII, and their type has a parameter."""

    def encoded(self, body: JsonObject) -> bytes:
        return json.dumps(body, indent=2, sort_keys=True).encode()

    def content_type(self) -> str:
        return "application/json; charset=utf-8"


# Queries


@variant("queries-repeated")
class QueriesRepeated(Queries):
    """Every query is made twice, whatever was answered first."""

    def once(self, appservice: Registration, about: To, identifier: str) -> Reply:
        super().once(appservice, about, identifier)
        return super().once(appservice, about, identifier)


@variant("metadata-kept-for-ever")
class MetadataKeptForEver(ThirdParty):
    """What an appservice once said about a network is never asked for again."""

    kept = 1e9


@variant("metadata-never-kept")
class MetadataNeverKept(ThirdParty):
    """What an appservice says about a network is asked for each time."""

    kept = 0.0

    def network_of(self, instance_id: str) -> tuple[str, str]:
        for appservice in self.hs.appservices:
            for protocol in appservice.protocols if appservice.url is not None else ():
                self.metadata(appservice, protocol)
        return super().network_of(instance_id)


# Connections


@variant("connections-never-kept")
class ConnectionsNeverKept(Connections):
    """Every connection of a client is closed after its answer."""

    keep_alive = False


@variant("slow", slow=True)
class Slow(Connections):
    """Every call takes 200 ms longer."""

    delay = 0.2
