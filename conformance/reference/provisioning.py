"""Users and rooms that the homeserver makes out of an appservice's answers (drafts of 15 and 16 January 2015)."""

from __future__ import annotations

from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.policy import Policy
from conformance.reference.store import JsonObject, Room


class Provisioning(Policy):
    """What an answer to a query becomes."""

    # Users

    def user(self, appservice: Registration, user_id: str, answer: JsonObject) -> None:
        """Make a user with the profile of an answer (drafts: User Query)."""
        with self.hs.lock:
            if user_id in self.store.accounts:
                return
            self.store.add_account(user_id, appservice.id)
            for key, value in self.profile(answer).items():
                self.store.set_profile(user_id, key, value)

    def profile(self, answer: JsonObject) -> JsonObject:
        """The profile in an answer, in the words of the client-server API."""
        profile = answer.get("profile")
        given = profile if isinstance(profile, dict) else {}
        words = {"display_name": "displayname", "avatar_url": "avatar_url"}
        return {words[key]: value for key, value in given.items() if key in words}

    # Rooms

    def room(self, appservice: Registration, alias: str, answer: JsonObject) -> None:
        """Make a room with an alias, state and messages of an answer (drafts: Room Alias Query).

        Unknown senders are asked about first, without the homeserver's lock.
        """
        state, events = self.listed(answer, "state"), self.listed(answer, "events")
        for user_id in self.senders([*state, *events]):
            self.ask_about(user_id)
        with self.hs.lock:
            if alias in self.store.aliases:
                return
            room = self.made(appservice, alias)
            self.enter(room, [*state, *events])
            for event in state:
                self.set_state(room, event)
            for event in events:
                self.add_message(room, event)

    def listed(self, answer: JsonObject, key: str) -> list[JsonObject]:
        """The events of a list in an answer that have what an event needs."""
        found = answer.get(key)
        events = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        return [each for each in events if {"content", "user_id", "type"} <= each.keys()]

    def senders(self, events: list[JsonObject]) -> list[str]:
        """Who sent some events, each once."""
        return list(dict.fromkeys(str(event["user_id"]) for event in events))

    def ask_about(self, user_id: str) -> None:
        """Ask about the sender of an event, if it is unknown (drafts: Examples)."""
        self.hs.queries.ensure_user(user_id)

    def made(self, appservice: Registration, alias: str) -> Room:
        """A public room of the appservice's sender user, with the alias and the usual first events."""
        creator, version = self.hs.user_id(appservice.sender_localpart), self.hs.rooms.default_version
        room_id = self.room_id(alias)
        self.store.add_room(room_id, version, [creator])
        room, append = self.store.rooms[room_id], self.hs.rooms.append
        append(room, creator, "m.room.create", {"creator": creator, "room_version": version}, "")
        self.hs.rooms.set_membership(room, creator, creator, "join")
        append(room, creator, "m.room.power_levels", {"users": {creator: 100}}, "")
        self.store.set_alias(alias, room_id, creator)
        append(room, creator, "m.room.aliases", {"aliases": [alias]}, self.hs.server_name)
        append(room, creator, "m.room.join_rules", {"join_rule": "public"}, "")
        append(room, creator, "m.room.history_visibility", {"history_visibility": "shared"}, "")
        return room

    def room_id(self, alias: str) -> str:
        """The room's fixed ID: its alias with another sigil (drafts: Examples)."""
        return f"!{alias[1:]}"

    def enter(self, room: Room, events: list[JsonObject]) -> None:
        """Have the senders of events in the room, as far as there are such users."""
        for user_id in self.senders(events):
            if self.hs.identity.is_registered(user_id):
                self.hs.rooms.append(room, user_id, "m.room.member", {"membership": "join"}, user_id)

    def set_state(self, room: Room, event: JsonObject) -> None:
        """Add a state event of an answer, in place of the homeserver's own where that is of the same kind."""
        key = str(event.get("state_key", ""))
        self.hs.rooms.append(room, event["user_id"], event["type"], event["content"], key, ts=self.time(event))

    def add_message(self, room: Room, event: JsonObject) -> None:
        """Add a message of an answer."""
        self.hs.rooms.append(room, event["user_id"], event["type"], event["content"], ts=self.time(event))

    def time(self, event: JsonObject) -> int | None:
        """When an event of an answer was sent, in milliseconds; None when that is not said."""
        ts: Any = event.get("origin_server_ts")
        return ts if isinstance(ts, int) else None
