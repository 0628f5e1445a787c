"""Variants: homeservers that differ from the reference where the specification leaves them free."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import secrets
import threading
import time
from typing import Any

import nacl.bindings
import nacl.exceptions
import nacl.signing

from conformance.appservice.registration import Namespace, Registration
from conformance.homeserver.keys import canonical
from conformance.reference.accounts import Accounts
from conformance.reference.defects import variant
from conformance.reference.devices import Devices, Keys
from conformance.reference.ephemeral import Ephemeral
from conformance.reference.events import Format
from conformance.reference.interest import Interest
from conformance.reference.namespaces import Namespaces, compiled
from conformance.reference.outgoing import Outgoing, Reply, To
from conformance.reference.policy import MatrixError
from conformance.reference.queries import Queries
from conformance.reference.rooms import Rooms
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.thirdparty import ThirdParty
from conformance.reference.transactions import Backoff, Transactions
from conformance.reference.web import Answer, Call, Connections, Errors, Paths, answer

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
        events = self.store.rooms[event.room_id].events
        shown["unsigned"]["org.example.before"] = [each.event_id for each in events if each.position < event.position][
            -2:
        ]
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


@variant("backoff-by-six", loses=("RETRY-14", "EPH-21", "PING-19"))  # V4 comes to them too late
class BackoffBySix(Backoff):
    """Each gap is six times the one before."""

    factor = 6.0


@variant("gentle-backoff")
class GentleBackoff(Backoff):
    """Each gap is little longer than the one before."""

    factor = 1.15


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


@variant("metadata-fetched-beside", loses=("*",))
class MetadataFetchedBeside(ThirdParty):
    """Metadata is fetched while the list is answered already, which shows what is known by then."""

    def metadata(self, appservice: Registration, protocol: str) -> Any:
        known: dict[tuple[str, str], Any] = self.__dict__.setdefault("known", {})
        key = (appservice.id, protocol)
        if key not in known:
            known[key] = None
            inherited = super().metadata

            def fetch() -> None:
                known[key] = inherited(appservice, protocol)

            threading.Thread(target=fetch, daemon=True).start()
        return known[key]


@variant("look-ups-in-one-direction", loses=("3PN-16", "3PN-17", "LEGACY-08", "LEGACY-09"))
class LookUpsInOneDirection(Paths):
    """There are no reverse look-ups, and what is not there is answered 404 without an errcode, as before v1.6."""

    def of(self, path: str) -> set[str]:
        return set() if path.endswith(("/thirdparty/user", "/thirdparty/location")) else super().of(path)


@variant("look-ups-in-one-direction")
class UnknownEndpointsWithoutErrcode(Errors):
    """The errors of endpoints that are not there have no errcode."""

    def answer(self, call: Call, error: Any) -> Answer:
        found = super().answer(call, error)
        return answer({}, 404) if error.errcode == "M_UNRECOGNIZED" and found.status == 404 else found


# Accounts, devices and presence


@variant("names-are-generated")
class NamesAreGenerated(Accounts):
    """Without a username the homeserver makes one, for appservices too, and of no namespace."""

    _made: str | None = None

    def ghost_name(self, call: Call) -> str:
        if "username" in call.json:
            return super().ghost_name(call)
        self._made = f"user-{secrets.token_hex(6)}"
        return self._made

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        if localpart != self._made:
            super().check_ghost_name(appservice, localpart)


@variant("logins-make-devices-anew")
class LoginsMakeDevicesAnew(Accounts):
    """A login with the ID of a known device makes that device anew, without its name."""

    def logged_in(self, call: Call, user_id: str) -> JsonObject:
        device_id = call.json.get("device_id")
        if isinstance(device_id, str) and device_id in self.store.accounts[user_id].devices:
            self.store.drop_device(user_id, device_id)
        return super().logged_in(call, user_id)


@variant("devices-are-deleted-elsewhere")
class DevicesAreDeletedElsewhere(Devices):
    """Humans delete their devices where they log in: here it is 405."""

    def unauthorised(self, call: Call) -> Answer | None:
        if call.requester.appservice is None:
            raise MatrixError(405, "M_UNRECOGNIZED", "devices are managed elsewhere")
        return super().unauthorised(call)


@variant("device-ids-are-plain")
class DeviceIdsArePlain(Devices):
    """New device IDs have letters, digits and little else."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        if not re.fullmatch(r"[\w.=-]+", device_id):
            raise MatrixError(400, "M_INVALID_PARAM", "no device ID")
        return super().put(call, device_id)


@variant("device-ids-are-plain")
class DeviceIdsOfLoginsArePlain(Accounts):
    """So have those of logins."""

    def logged_in(self, call: Call, user_id: str) -> JsonObject:
        if not re.fullmatch(r"[\w.=-]+", str(call.json.get("device_id", "new"))):
            raise MatrixError(400, "M_INVALID_PARAM", "no device ID")
        return super().logged_in(call, user_id)


@variant("callers-are-online")
class CallersAreOnline(Ephemeral):
    """Who has just called is online, whatever he says."""

    def tell_presence(self, user_id: str, content: JsonObject) -> None:
        content["presence"] = "online"
        super().tell_presence(user_id, content)


@variant("typing-lasts")
class TypingLasts(Ephemeral):
    """Who types does so for half a minute at least, unless told otherwise."""

    def set_typing(self, call: Call, room_id: str, user_id: str) -> JsonObject:
        answer = super().set_typing(call, room_id, user_id)
        timer = self._timers.get((room_id, user_id))
        if timer is not None:
            self._stop_timer(room_id, user_id)
        return answer


# Keys


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _verify(content: JsonObject, owner: str, key_id: str, public: str) -> None:
    """Check a signature of an object.

    :raises MatrixError: 400: it is wrong, or there is none.
    """
    try:
        signature = _decoded(content["signatures"][owner][key_id])
        nacl.signing.VerifyKey(_decoded(public)).verify(canonical(content), signature)
    except (KeyError, ValueError, nacl.exceptions.CryptoError) as error:
        raise MatrixError(400, "M_INVALID_SIGNATURE", f"no signature of {key_id}") from error


@variant("keys-are-checked")
class KeysAreChecked(Keys):
    """Public keys must be points of the curve, and signatures right, of one-time, device and cross-signing keys."""

    def check_owner(self, call: Call, keys: dict[str, JsonObject]) -> None:
        for key in keys.values():
            for public in key["keys"].values():
                if not nacl.bindings.crypto_core_ed25519_is_valid_point(_decoded(public)):
                    raise MatrixError(400, "M_INVALID_PARAM", f"{public} is no public key")
        super().check_owner(call, keys)
        master = keys.get("master") or self.store.accounts[call.requester.user_id].signing_keys.get("master")
        for use, key in keys.items():
            if use != "master":
                ((name, public),) = master["keys"].items() if master else (("", ""),)
                _verify(key, call.requester.user_id, name, public)

    def upload(self, call: Call) -> JsonObject:
        user_id, device_id = call.requester.user_id, self.device(call)
        device = call.json.get("device_keys") or self.store.accounts[user_id].keys.get(device_id)
        name = f"ed25519:{device_id}"
        for key in (call.json.get("device_keys"), *(call.json.get("one_time_keys") or {}).values()):
            if key is not None:
                _verify(key, user_id, name, device["keys"][name] if device else "")
        return super().upload(call)


# Connections


@variant("connections-never-kept")
class ConnectionsNeverKept(Connections):
    """Every connection of a client is closed after its answer."""

    keep_alive = False


@variant("slow", slow=True)
class Slow(Connections):
    """Every call takes 200 ms longer."""

    delay = 0.2
