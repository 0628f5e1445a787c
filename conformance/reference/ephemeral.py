"""Typing notices, receipts and presence, for clients and appservices.

(CS: Typing notifications, Receipts, Fully read markers, Presence; AS: Pushing ephemeral data.)
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import JsonObject
from conformance.reference.web import Call

#: The types of receipts; a private one is for its own user (and that user's appservice).
_RECEIPTS = ("m.read", "m.read.private")
_PRIVATE = "m.read.private"


@dataclass
class _RoomNews:
    """What is passing in a room: who types, the receipts of all, and when that changed."""

    typing: list[str] = field(default_factory=list)
    typing_since: int = 0
    receipts: list[tuple[int, JsonObject]] = field(default_factory=list)


class Ephemeral(Policy):
    """What is not kept, and who is told of it. It is lost in a restart."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._rooms: dict[str, _RoomNews] = {}
        self._presence: dict[str, tuple[int, JsonObject]] = {}
        self._timers: dict[tuple[str, str], threading.Timer] = {}

    def _room(self, room_id: str) -> _RoomNews:
        return self._rooms.setdefault(room_id, _RoomNews())

    # Typing

    @endpoint("PUT", "/rooms/<room_id>/typing/<user_id>")
    def set_typing(self, call: Call, room_id: str, user_id: str) -> JsonObject:
        """Say that one types, for some milliseconds, or no longer."""
        self.hs.profiles.check_own(call, user_id)
        self.hs.rooms.readable(call, room_id)
        typing = call.json.get("typing") is True
        timeout = call.json.get("timeout", 30000)
        self._stop_timer(room_id, user_id)
        if typing and isinstance(timeout, int):
            timer = threading.Timer(min(timeout, 120_000) / 1000, self._typed_enough, (room_id, user_id))
            timer.daemon = True
            self._timers[room_id, user_id] = timer
            timer.start()
        self._type(room_id, user_id, typing)
        return {}

    def _stop_timer(self, room_id: str, user_id: str) -> None:
        timer = self._timers.pop((room_id, user_id), None)
        if timer is not None:
            timer.cancel()

    def _typed_enough(self, room_id: str, user_id: str) -> None:
        with self.hs.lock:
            if not self.hs.stopping.is_set():
                self._type(room_id, user_id, False)

    def _type(self, room_id: str, user_id: str, typing: bool) -> None:
        room = self._room(room_id)
        if typing == (user_id in room.typing):
            return
        room.typing = [*(each for each in room.typing if each != user_id), *([user_id] if typing else [])]
        room.typing_since = self.store.next_number()
        self.tell_typing(room_id, room.typing)
        self.hs.news.notify_all()

    def tell_typing(self, room_id: str, users: list[str]) -> None:
        """Tell appservices who types in a room now: the whole list each time (m.typing)."""
        for appservice in self.receivers():
            if self.interested(appservice, room_id, users):
                self.push(appservice, self.in_room(room_id, {"type": "m.typing", "content": {"user_ids": users}}))

    def typists(self, room_id: str) -> list[str]:
        """Who types in a room now."""
        return self._room(room_id).typing

    # Receipts

    @endpoint("POST", "/rooms/<room_id>/receipt/<kind>/<event_id>")
    def set_receipt(self, call: Call, room_id: str, kind: str, event_id: str) -> JsonObject:
        """Say how far one has read."""
        self.hs.rooms.readable(call, room_id)
        if kind == "m.fully_read":
            return {}
        if kind not in _RECEIPTS:
            raise MatrixError(400, "M_INVALID_PARAM", f"there are no receipts of type {kind}")
        thread = {"thread_id": call.text("thread_id")} if "thread_id" in call.json else {}
        self.receive(call, room_id, kind, event_id, thread)
        return {}

    @endpoint("POST", "/rooms/<room_id>/read_markers")
    def set_read_markers(self, call: Call, room_id: str) -> JsonObject:
        """Say how far one has read, in all the ways at once; the marker `m.fully_read` itself is nobody's business."""
        self.hs.rooms.readable(call, room_id)
        for kind in _RECEIPTS:
            if kind in call.json:
                self.receive(call, room_id, kind, call.text(kind), {})
        return {}

    def receive(self, call: Call, room_id: str, kind: str, event_id: str, data: JsonObject) -> None:
        """Take a receipt of whoever calls, by whatever way it came."""
        user_id = call.requester.user_id
        content = {event_id: {kind: {user_id: {"ts": self.hs.clock.now_ms(), **data}}}}
        self._room(room_id).receipts.append((self.store.next_number(), content))
        self.tell_receipt(room_id, user_id, kind, content)
        self.hs.news.notify_all()

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        """Tell appservices of a receipt, threaded or not; of a private one only that of the user's namespaces."""
        for appservice in self.receivers():
            if not self.interested(appservice, room_id, [user_id]):
                continue
            if kind == _PRIVATE and not self.may_see_private(appservice, user_id):
                continue
            self.push(appservice, self.in_room(room_id, {"type": "m.receipt", "content": content}))

    def may_see_private(self, appservice: Registration, user_id: str) -> bool:
        """Whether a private receipt of a user is for an appservice."""
        return self.hs.namespaces.is_own_user(appservice, user_id)

    # Presence

    @endpoint("PUT", "/presence/<user_id>/status")
    def set_presence(self, call: Call, user_id: str) -> JsonObject:
        """Say whether one is there."""
        self.hs.profiles.check_own(call, user_id)
        state = call.text("presence")
        if state not in ("online", "offline", "unavailable"):
            raise MatrixError(400, "M_INVALID_PARAM", f"there is no presence {state}")
        content: JsonObject = {"presence": state}
        if isinstance(call.json.get("status_msg"), str):
            content["status_msg"] = call.json["status_msg"]
        self._presence[user_id] = (self.store.next_number(), content)
        self.tell_presence(user_id, content)
        self.hs.news.notify_all()
        return {}

    @endpoint("GET", "/presence/<user_id>/status")
    def presence(self, call: Call, user_id: str) -> JsonObject:
        """Whether somebody is there."""
        return self._presence.get(user_id, (0, {"presence": "offline"}))[1]

    def tell_presence(self, user_id: str, content: JsonObject) -> None:
        """Tell appservices of a user's presence."""
        for appservice in self.receivers():
            if self.sees_presence(appservice, user_id):
                self.push(appservice, {"type": "m.presence", "sender": user_id, "content": content})

    def sees_presence(self, appservice: Registration, user_id: str) -> bool:
        """An appservice sees its own users, and those who are in a room that interests it."""
        if self.hs.namespaces.is_own_user(appservice, user_id):
            return True
        rooms = [room for room in self.store.rooms.values() if room.membership(user_id) == "join"]
        return any(self.hs.interest.in_room(appservice, room) for room in rooms)

    # To whom

    def receivers(self) -> list[Registration]:
        """The appservices that asked for it with `receive_ephemeral` (since v1.13)."""
        return [
            each for each in self.hs.appservices if each.url is not None and each.extra.get("receive_ephemeral") is True
        ]

    def interested(self, appservice: Registration, room_id: str, users: list[str]) -> bool:
        """Whether an appservice is told what users do in a room: by the same rules as of events."""
        return self.hs.interest.in_room(appservice, self.store.rooms[room_id])

    def in_room(self, room_id: str, item: JsonObject) -> JsonObject:
        """An item in the client format, with the room that it is of."""
        return {"room_id": room_id, **item}

    def push(self, appservice: Registration, item: JsonObject) -> None:
        """Queue an item for an appservice."""
        self.hs.queues.put(appservice, "ephemeral", item)

    def of_room(self, room_id: str, user_id: str, since: int) -> list[JsonObject]:
        """What passed in a room, as a user may see it in a sync."""
        room = self._room(room_id)
        events: list[JsonObject] = []
        if room.typing_since > since:
            events.append({"type": "m.typing", "content": {"user_ids": room.typing}})
        for number, content in room.receipts:
            ((_, kinds),) = content.items()
            ((kind, users),) = kinds.items()
            if number > since and (kind != _PRIVATE or user_id in users):
                events.append({"type": "m.receipt", "content": content})
        return events

    def presence_of(self, users: set[str], since: int) -> list[JsonObject]:
        """The presence of users that changed, for a sync."""
        return [
            {"type": "m.presence", "sender": user_id, "content": content}
            for user_id, (number, content) in self._presence.items()
            if user_id in users and number > since
        ]
