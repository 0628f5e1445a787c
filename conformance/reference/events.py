"""What others get to see of an event, and what is left of it after a redaction (CS: Room event format, Redactions)."""

from __future__ import annotations

from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.identity import Requester
from conformance.reference.policy import MatrixError, Policy
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.web import Call

#: What survives a redaction, by type (room version 11 and later; earlier versions keep a little less).
_KEPT: dict[str, tuple[str, ...]] = {
    "m.room.member": ("membership", "join_authorised_via_users_server"),
    "m.room.join_rules": ("join_rule", "allow"),
    "m.room.power_levels": (
        "ban", "events", "events_default", "invite", "kick", "redact", "state_default", "users", "users_default",
    ),
    "m.room.history_visibility": ("history_visibility",),
    "m.room.redaction": ("redacts",),
}  # fmt: skip


class Format(Policy):
    """The client format of events, for clients and appservices alike."""

    def event(self, event: Event) -> JsonObject:
        """The format of the client-server API with a room ID; nothing of the federation format (ClientEvent)."""
        shown: JsonObject = {
            "event_id": event.event_id,
            "room_id": event.room_id,
            "type": event.type,
            "sender": event.sender,
            "origin_server_ts": event.origin_server_ts,
            "content": event.content,
            "unsigned": self.unsigned(event),
        }
        if event.state_key is not None:
            shown["state_key"] = event.state_key
        if event.type == "m.room.redaction" and event.redacts is not None:
            shown |= self.redacts(event)
        return shown

    def redacts(self, event: Event) -> JsonObject:
        """The target of a redaction: at top level and in the content (room version 11)."""
        return {"redacts": event.redacts, "content": {**event.content, "redacts": event.redacts}}

    def unsigned(self, event: Event) -> JsonObject:
        """What the homeserver knows beside the event itself: its age, and the state that it replaced."""
        unsigned: JsonObject = {"age": max(0, self.hs.clock.now_ms() - event.origin_server_ts)}
        if event.replaces is not None:
            unsigned["replaces_state"] = event.replaces
        if event.prev_content is not None:
            unsigned["prev_content"] = event.prev_content
        if event.redacted_by is not None:
            unsigned["redacted_because"] = self.event(self.store.events[event.redacted_by])
        return unsigned

    def for_client(self, event: Event, requester: Requester) -> JsonObject:
        """The event with its transaction ID for the device that sent it, and without for all others."""
        shown = self.event(event)
        if event.transaction is not None and event.transaction[:2] == (requester.user_id, requester.device_id or ""):
            shown["unsigned"]["transaction_id"] = event.transaction[2]
        return shown

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        """The event as it is pushed (AS: Pushing events): as clients see it, without transaction ID."""
        return self.event(event)

    def survives(self, event: Event, room: Room) -> JsonObject:
        """What a redaction leaves of an event's content."""
        if event.type == "m.room.create":
            return event.content
        return {key: value for key, value in event.content.items() if key in _KEPT.get(event.type, ())}


class Timestamps(Policy):
    """`ts` on two endpoints (AS: Timestamp massaging, since v1.3)."""

    def of(self, call: Call) -> int | None:
        """The time that an appservice asks for, in milliseconds; None without `ts`, and for everybody else.

        :raises MatrixError: 400 for what is no integer.
        """
        if call.requester.appservice is None or "ts" not in call.query:
            return None
        return self.parsed(call.query["ts"])

    def parsed(self, text: str) -> int:
        """An integer that canonical JSON can hold; the distant past and the future are times like any other."""
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal()) or len(digits) > 16 or int(digits) >= 2**53:
            raise MatrixError(400, "M_INVALID_PARAM", "ts is no time stamp")
        return int(text)

    def applied(self, ts: int | None) -> int:
        """The time of an event that is being sent: now unless told otherwise. Its place in the room is its turn."""
        return self.hs.clock.now_ms() if ts is None else ts


class ClientTransactions(Policy):
    """Client transaction IDs (CS: Transaction identifiers)."""

    def scope(self, requester: Requester) -> str:
        """What a transaction ID is unique in: a device; for appservices, which may have none, the user they act as."""
        return requester.party

    def earlier(self, call: Call, txn_id: str) -> JsonObject | None:
        """The answer to the same call with the same transaction ID before."""
        return self.store.answers.get(self._key(call, txn_id))

    def remember(self, call: Call, txn_id: str, answer: JsonObject) -> JsonObject:
        """Keep an answer for repetitions of the call."""
        self.store.remember_answer(self._key(call, txn_id), answer)
        return answer

    def mark(self, call: Call, txn_id: str) -> tuple[str, str, str]:
        """What an event remembers of the call that sent it."""
        return (call.requester.user_id, call.requester.device_id or "", txn_id)

    def _key(self, call: Call, txn_id: str) -> str:
        path: Any = call.path.rpartition("/")[0]
        return f"{self.scope(call.requester)} {path} {txn_id}"
