"""What clients are told: `/sync` (CS: Syncing)."""

from __future__ import annotations

import json
import time

from conformance.reference.identity import Requester
from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.web import Call

#: Milliseconds that a sync waits for news at most.
_LONGEST = 60_000


class Sync(Policy):
    """A user's view of its rooms, from the beginning or from where another sync ended."""

    @endpoint("GET", "/sync", waits=True)
    def sync(self, call: Call) -> JsonObject:
        """What is new since `since`; waits for something for `timeout` milliseconds."""
        since = self.position(call.query.get("since"))
        timeout = call.query.get("timeout", "0").partition(".")[0]
        wait = min(int(timeout), _LONGEST) / 1000 if timeout.isdecimal() else 0.0
        deadline = time.monotonic() + wait
        with self.hs.news:
            wanted = self.filter(call)
            while True:
                news, found = self.news(call.requester, since, wanted)
                left = deadline - time.monotonic()
                if found or since is None or left <= 0 or self.hs.stopping.is_set():
                    return news
                self.hs.news.wait(left)

    def position(self, since: str | None) -> int | None:
        """Where the last sync ended.

        :raises MatrixError: 400 for what never was such a place.
        """
        if since is None:
            return None
        digits = since.removeprefix("s")
        if not digits.isdecimal():
            raise MatrixError(400, "M_INVALID_PARAM", "since is no next_batch")
        return int(digits)

    def filter(self, call: Call) -> JsonObject:
        """The filter, given in full or by its id."""
        text = call.query.get("filter")
        if text is None:
            return {}
        if text.startswith("{"):
            try:
                parsed: JsonObject = json.loads(text)
            except ValueError as error:
                raise MatrixError(400, "M_INVALID_PARAM", "the filter is no JSON") from error
            return parsed
        return self.hs.profiles.filter_of(call.requester.user_id, text)

    def news(self, requester: Requester, since: int | None, wanted: JsonObject) -> tuple[JsonObject, bool]:
        """The answer to a sync, and whether there is anything in it."""
        rules = wanted.get("room", {})
        limit = int(rules.get("timeline", {}).get("limit", 20))
        sections: dict[str, JsonObject] = {"join": {}, "invite": {}, "leave": {}}
        for room in self.rooms(requester.user_id):
            if "rooms" in rules and room.room_id not in rules["rooms"]:
                continue
            membership = room.membership(requester.user_id)
            if membership == "join" and (shown := self.joined(requester, room, since, limit)):
                sections["join"][room.room_id] = shown
            if membership == "invite" and self.is_new(room.state["m.room.member", requester.user_id], since):
                sections["invite"][room.room_id] = {"invite_state": {"events": self.stripped(room)}}
            if membership in ("leave", "ban") and since is not None:
                own = room.state["m.room.member", requester.user_id]
                if self.is_new(own, since):
                    event = self.hs.format.for_client(own, requester)
                    sections["leave"][room.room_id] = {"timeline": {"events": [event]}, "state": {"events": []}}
        answer: JsonObject = {"next_batch": f"s{self.store.position}", "rooms": sections}
        to_device = self.to_device(requester, since or 0)
        answer["to_device"] = {"events": to_device}
        silent = "*" in wanted.get("presence", {}).get("not_types", ())
        presence = [] if silent else self.presence(requester, since or 0)
        answer["presence"] = {"events": presence}
        return answer, bool(any(sections.values()) or to_device or presence)

    def rooms(self, user_id: str) -> list[Room]:
        """The rooms that a user has to do with."""
        return [room for room in self.store.rooms.values() if room.membership(user_id) is not None]

    def is_new(self, event: Event, since: int | None) -> bool:
        """Whether an event came after a position."""
        return since is None or event.position > since

    def joined(self, requester: Requester, room: Room, since: int | None, limit: int) -> JsonObject:
        """A joined room: its last events in their order, and the state before them. Empty when nothing is new."""
        own = room.state["m.room.member", requester.user_id]
        fresh = since is None or (own.position > since and (own.prev_content or {}).get("membership") != "join")
        events = [event for event in self.hs.rooms.history(room) if fresh or event.position > (since or 0)]
        passing = self.hs.ephemeral.of_room(room.room_id, requester.user_id, since or 0)
        if not events and not passing:
            return {}
        shown = events[-limit:] if limit > 0 else []
        timeline = [self.hs.format.for_client(event, requester) for event in shown]
        first = shown[0].position if shown else self.store.position + 1
        state = [event for event in room.state.values() if event.position < first and (fresh or event in events)]
        return {
            "timeline": {
                "events": timeline,
                "limited": len(shown) < len(events),
                "prev_batch": f"t{len(room.events) - len(shown)}",
            },
            "state": {"events": [self.hs.format.for_client(event, requester) for event in state]},
            "ephemeral": {"events": passing},
            "account_data": {"events": []},
        }

    def stripped(self, room: Room) -> list[JsonObject]:
        """What the invited may know of a room."""
        return [
            {"type": event.type, "state_key": event.state_key, "sender": event.sender, "content": event.content}
            for event in room.state.values()
        ]

    def to_device(self, requester: Requester, since: int) -> list[JsonObject]:
        """The messages for the requester's device, and no other (CS: Send-to-Device messaging)."""
        if requester.device_id is None:
            return []
        messages = self.store.to_device[requester.user_id, requester.device_id]
        return [message for number, message in messages if number > since]

    def presence(self, requester: Requester, since: int) -> list[JsonObject]:
        """The presence of those with whom the user shares a room."""
        rooms = [room for room in self.rooms(requester.user_id) if room.membership(requester.user_id) == "join"]
        return self.hs.ephemeral.presence_of({user for room in rooms for user in room.members()}, since)

    @endpoint("PUT", "/sendToDevice/<kind>/<txn_id>")
    def send_to_device(self, call: Call, kind: str, txn_id: str) -> JsonObject:
        """Send messages to devices; `*` is all of a user's."""
        if (before := self.hs.client_transactions.earlier(call, txn_id)) is not None:
            return before
        for user_id, devices in call.json.get("messages", {}).items():
            account = self.store.accounts.get(user_id)
            for device_id, content in devices.items() if account else ():
                message = {"type": kind, "sender": call.requester.user_id, "content": content}
                for each in account.devices if device_id == "*" and account else [device_id]:
                    self.store.add_to_device(user_id, each, message)
        self.hs.news.notify_all()
        return self.hs.client_transactions.remember(call, txn_id, {})
