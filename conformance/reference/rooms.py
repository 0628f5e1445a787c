"""Rooms: their creation, their members and their events (CS: Rooms, Room events)."""

from __future__ import annotations

import secrets
from typing import Any

from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.web import Call

#: Room versions that can be made; 12 is the default (CS, since v1.16).
VERSIONS = ("6", "9", "10", "11", "12")
DEFAULT_VERSION = "12"

#: The power of the creators of rooms since version 12: more than any number.
_ABOVE_ALL = 2**53

#: Events with a whole state key or membership of one's own take their level from elsewhere.
_CONTENT_KEYS_OF_CREATE = ("m.federate", "type", "predecessor")

_PRESETS: dict[str, tuple[str, str]] = {
    "public_chat": ("public", "shared"),
    "private_chat": ("invite", "shared"),
    "trusted_private_chat": ("invite", "shared"),
}


def forbidden(error: str) -> MatrixError:
    """403 M_FORBIDDEN."""
    return MatrixError(403, "M_FORBIDDEN", error)


class Powers(Policy):
    """What who may do in a room (room versions: Authorization rules, as far as one homeserver needs them)."""

    def level(self, room: Room, user_id: str) -> int:
        """A user's power level."""
        if user_id in room.creators and int(room.version) >= 12:
            return _ABOVE_ALL
        levels = room.content("m.room.power_levels")
        if not levels:
            return 100 if user_id in room.creators else 0
        value = levels.get("users", {}).get(user_id, levels.get("users_default", 0))
        return int(value)

    def needed(self, room: Room, action: str, default: int) -> int:
        """The level that an action needs: invite, kick, ban, redact."""
        return int(room.content("m.room.power_levels").get(action, default))

    def to_send(self, room: Room, kind: str, is_state: bool) -> int:
        """The level that sending an event needs."""
        levels = room.content("m.room.power_levels")
        default = levels.get("state_default", 50) if is_state else levels.get("events_default", 0)
        return int(levels.get("events", {}).get(kind, default)) if levels else 0

    def check_send(self, room: Room, sender: str, kind: str, content: JsonObject, state_key: str | None) -> None:
        """Whether an event that is no membership may be sent.

        :raises MatrixError: 403 M_FORBIDDEN.
        """
        if room.membership(sender) != "join":
            raise forbidden(f"{sender} is not in the room")
        if self.level(room, sender) < self.to_send(room, kind, state_key is not None):
            raise forbidden(f"{sender} may not send {kind}")
        if state_key is not None and state_key.startswith("@") and state_key != sender:
            raise forbidden("that state is another user's")
        if kind == "m.room.create":
            raise forbidden("a room is created once")

    def check_membership(self, room: Room, sender: str, target: str, membership: str) -> None:
        """Whether `sender` may give `target` that membership.

        :raises MatrixError: 403 M_FORBIDDEN.
        """
        before = room.membership(target)
        rule = room.content("m.room.join_rules").get("join_rule", "invite")
        if membership == "join":
            allowed = before in ("join", "invite") or (rule == "public" and before != "ban") or not room.state
            if sender != target or not (allowed or (target in room.creators and before is None)):
                raise forbidden(f"{target} may not join")
        elif membership == "knock":
            if sender != target or rule not in ("knock", "knock_restricted") or before in ("join", "invite", "ban"):
                raise forbidden(f"{target} may not knock")
        elif membership == "leave" and sender == target:
            if before not in ("join", "invite", "knock"):
                raise forbidden(f"{target} is not in the room")
        else:
            self._check_power_over(room, sender, target, membership, before)

    def _check_power_over(self, room: Room, sender: str, target: str, membership: str, before: str | None) -> None:
        if room.membership(sender) != "join":
            raise forbidden(f"{sender} is not in the room")
        power = self.level(room, sender)
        if membership == "invite":
            if before in ("join", "ban") or power < self.needed(room, "invite", 0):
                raise forbidden(f"{sender} may not invite {target}")
            return
        action = "ban" if membership == "ban" or before == "ban" else "kick"
        if membership not in ("leave", "ban") or power < self.needed(room, action, 50):
            raise forbidden(f"{sender} may not {action} {target}")
        if sender != target and power <= self.level(room, target):
            raise forbidden(f"{target} is as powerful as {sender}")


class Rooms(Policy):
    """Making rooms and appending events to them."""

    default_version = DEFAULT_VERSION

    def room(self, room_id: str) -> Room:
        """A room.

        :raises MatrixError: 404 M_NOT_FOUND.
        """
        room = self.store.rooms.get(room_id)
        if room is None:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such room")
        return room

    def append(
        self,
        room: Room,
        sender: str,
        kind: str,
        content: JsonObject,
        state_key: str | None = None,
        *,
        ts: int | None = None,
        redacts: str | None = None,
        transaction: tuple[str, str, str] | None = None,
    ) -> Event:
        """Append an authorised event, and tell everybody whom it interests."""
        before = room.state.get((kind, state_key)) if state_key is not None else None
        event = Event(
            event_id=f"${secrets.token_urlsafe(32)}",
            room_id=room.room_id,
            type=kind,
            sender=sender,
            content=content,
            origin_server_ts=self.hs.timestamps.applied(ts),
            state_key=state_key,
            redacts=redacts,
            replaces=before.event_id if before else None,
            prev_content=before.content if before else None,
            transaction=transaction,
        )
        event = self.store.add_event(event)
        self.tell(event)
        return event

    def tell(self, event: Event) -> None:
        """Tell everybody whom an event interests."""
        self.hs.told(event)

    def set_membership(
        self, room: Room, sender: str, target: str, membership: str, *, ts: int | None = None, **content: Any
    ) -> Event:
        """Change a membership, if the sender may."""
        self.hs.powers.check_membership(room, sender, target, membership)
        if membership in ("join", "invite") and (account := self.store.accounts.get(target)):
            content = {
                key: account.profile[key] for key in ("displayname", "avatar_url") if key in account.profile
            } | content
        return self.append(room, sender, "m.room.member", {"membership": membership, **content}, target, ts=ts)

    def announce_profile(self, user_id: str) -> None:
        """Tell a user's rooms of its new profile."""
        for room in self.store.rooms.values():
            if room.membership(user_id) == "join":
                self.set_membership(room, user_id, user_id, "join")

    # Creation

    @endpoint("POST", "/createRoom", waits=True)
    def create(self, call: Call) -> JsonObject:
        """Make a room and its first events, in the order of the specification (CS: Creation)."""
        body, creator = call.json, call.requester.user_id
        invited = [str(each) for each in body.get("invite", ())]
        for user_id in invited:
            self.hs.queries.ensure_user(user_id)
        with self.hs.lock:
            self.hs.limits.check(call.requester, "create")
            alias = None
            if body.get("room_alias_name") is not None:
                alias = f"#{call.text('room_alias_name')}:{self.hs.server_name}"
                self.hs.aliases.check_new(call.requester, alias)
            for user_id in invited:
                self.check_invitable(user_id)
            room = self._made(call, creator)
            self._furnish(room, creator, call, alias)
            self.invite_first(room, creator, invited)
            if body.get("visibility") == "public":
                self.store.publish("", room.room_id, True)
            return {"room_id": room.room_id}

    def invite_first(self, room: Room, creator: str, invited: list[str]) -> None:
        """Invite those whom the creation of a room names."""
        for user_id in invited:
            self.set_membership(room, creator, user_id, "invite")

    def _made(self, call: Call, creator: str) -> Room:
        version = call.text("room_version", default=self.default_version)
        if version not in VERSIONS:
            raise MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", f"no rooms of version {version} here")
        name = secrets.token_urlsafe(32)
        if int(version) < 12:
            name = f"{name[:18]}:{self.hs.server_name}"
        self.store.add_room(f"!{name}", version, [creator])
        room = self.store.rooms[f"!{name}"]
        content = call.json.get("creation_content")
        content = dict(content) if isinstance(content, dict) else {}
        content["room_version"] = version
        if int(version) < 11:
            content["creator"] = creator
        self.append(room, creator, "m.room.create", content, "")
        self.set_membership(room, creator, creator, "join")
        return room

    def _furnish(self, room: Room, creator: str, call: Call, alias: str | None) -> None:
        body = call.json
        preset = body.get("preset", "public_chat" if body.get("visibility") == "public" else "private_chat")
        if preset not in _PRESETS:
            raise MatrixError(400, "M_INVALID_PARAM", f"there is no preset {preset}")
        users = {} if int(room.version) >= 12 else {creator: 100}
        if preset == "trusted_private_chat":
            users |= {str(each): 100 for each in body.get("invite", ())}
        levels: JsonObject = {
            "users": users,
            "users_default": 0,
            "events": {},
            "events_default": 0,
            "state_default": 50,
        }
        levels |= {"ban": 50, "kick": 50, "redact": 50, "invite": 0}
        override = body.get("power_level_content_override")
        self.append(room, creator, "m.room.power_levels", levels | (override if isinstance(override, dict) else {}), "")
        if alias is not None:
            self.store.set_alias(alias, room.room_id, creator)
            self.append(room, creator, "m.room.canonical_alias", {"alias": alias}, "")
        join_rule, visibility = _PRESETS[preset]
        self.append(room, creator, "m.room.join_rules", {"join_rule": join_rule}, "")
        self.append(room, creator, "m.room.history_visibility", {"history_visibility": visibility}, "")
        for event in body.get("initial_state", ()):
            self.append(room, creator, event["type"], event["content"], event.get("state_key", ""))
        for key in ("name", "topic"):
            if isinstance(body.get(key), str):
                self.append(room, creator, f"m.room.{key}", {key: body[key]}, "")

    # Memberships

    @endpoint("POST", "/join/<room>", waits=True)
    def join_by_name(self, call: Call, room: str) -> JsonObject:
        """Join by room ID or alias; an unknown alias is asked for at appservices first."""
        room_id = self.hs.aliases.resolved(room) if room.startswith("#") else room
        with self.hs.lock:
            return self.join(call, room_id)

    @endpoint("POST", "/rooms/<room_id>/join")
    def join(self, call: Call, room_id: str) -> JsonObject:
        """Join a room."""
        self.hs.limits.check(call.requester, "join")
        room, user_id = self.room(room_id), call.requester.user_id
        if room.membership(user_id) != "join":
            self.set_membership(room, user_id, user_id, "join")
        return {"room_id": room_id}

    @endpoint("POST", "/knock/<room_id>")
    def knock(self, call: Call, room_id: str) -> JsonObject:
        """Ask to be let in (CS: Knocking on rooms)."""
        self.set_membership(self.room(room_id), call.requester.user_id, call.requester.user_id, "knock")
        return {"room_id": room_id}

    @endpoint("POST", "/rooms/<room_id>/leave")
    def leave(self, call: Call, room_id: str) -> JsonObject:
        """Leave a room, or refuse an invite."""
        self.set_membership(self.room(room_id), call.requester.user_id, call.requester.user_id, "leave")
        return {}

    @endpoint("POST", "/rooms/<room_id>/forget")
    def forget(self, call: Call, room_id: str) -> JsonObject:
        """Forget a room, which shows nowhere here."""
        return {}

    @endpoint("POST", "/rooms/<room_id>/invite", waits=True)
    def invite(self, call: Call, room_id: str) -> JsonObject:
        """Invite somebody; an unknown user is asked for at appservices first."""
        user_id = call.text("user_id")
        with self.hs.lock:
            room = self.room(room_id)
            self.hs.powers.check_membership(room, call.requester.user_id, user_id, "invite")
        self.hs.queries.ensure_user(user_id)
        with self.hs.lock:
            self.hs.limits.check(call.requester, "invite")
            self.check_invitable(user_id)
            self.set_membership(room, call.requester.user_id, user_id, "invite")
        return {}

    def check_invitable(self, user_id: str) -> None:
        """Whether somebody can be invited: a user of this homeserver who does not block invites.

        :raises MatrixError: 404 M_NOT_FOUND, 403 M_INVITE_BLOCKED, or 403 for users of other servers.
        """
        if not self.hs.is_local(user_id):
            raise forbidden("there is no federation here")
        if not self.hs.identity.is_registered(user_id):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such user")
        if self.hs.profiles.blocks_invites(user_id):
            raise MatrixError(403, "M_INVITE_BLOCKED", "that user takes no invites")

    @endpoint("POST", "/rooms/<room_id>/kick")
    def kick(self, call: Call, room_id: str) -> JsonObject:
        """Remove somebody who is in the room or invited."""
        room, target = self.room(room_id), call.text("user_id")
        if room.membership(target) not in ("join", "invite", "knock"):
            raise forbidden(f"{target} is not in the room")
        self.set_membership(room, call.requester.user_id, target, "leave")
        return {}

    @endpoint("POST", "/rooms/<room_id>/ban")
    def ban(self, call: Call, room_id: str) -> JsonObject:
        """Ban somebody, who need not be in the room."""
        self.set_membership(self.room(room_id), call.requester.user_id, call.text("user_id"), "ban")
        return {}

    @endpoint("POST", "/rooms/<room_id>/unban")
    def unban(self, call: Call, room_id: str) -> JsonObject:
        """Lift a ban."""
        room, target = self.room(room_id), call.text("user_id")
        if room.membership(target) != "ban":
            raise forbidden(f"{target} is not banned")
        self.set_membership(room, call.requester.user_id, target, "leave")
        return {}

    # Events

    @endpoint("PUT", "/rooms/<room_id>/send/<kind>/<txn_id>")
    def send(self, call: Call, room_id: str, kind: str, txn_id: str) -> JsonObject:
        """Send a message event; a redaction too (since v1.18)."""
        if (before := self.hs.client_transactions.earlier(call, txn_id)) is not None:
            return before
        self.hs.limits.check(call.requester, "message")
        ts, room, sender = self.hs.timestamps.of(call), self.room(room_id), call.requester.user_id
        self.hs.powers.check_send(room, sender, kind, call.json, None)
        mark = self.hs.client_transactions.mark(call, txn_id)
        if kind == "m.room.redaction":
            event = self.redacted(room, sender, call.text("redacts"), call.json, ts, mark)
        else:
            event = self.append(room, sender, kind, call.json, ts=ts, transaction=mark)
        return self.hs.client_transactions.remember(call, txn_id, {"event_id": event.event_id})

    @endpoint("PUT", "/rooms/<room_id>/redact/<event_id>/<txn_id>")
    def redact(self, call: Call, room_id: str, event_id: str, txn_id: str) -> JsonObject:
        """Redact an event."""
        if (before := self.hs.client_transactions.earlier(call, txn_id)) is not None:
            return before
        room, sender = self.room(room_id), call.requester.user_id
        self.hs.powers.check_send(room, sender, "m.room.redaction", call.json, None)
        mark = self.hs.client_transactions.mark(call, txn_id)
        event = self.redacted(room, sender, event_id, call.json, None, mark)
        return self.hs.client_transactions.remember(call, txn_id, {"event_id": event.event_id})

    def redacted(
        self, room: Room, sender: str, target: str, content: JsonObject, ts: int | None, mark: tuple[str, str, str]
    ) -> Event:
        """Append a redaction and take its target's content away."""
        event = self.store.events.get(target)
        if event is None or event.room_id != room.room_id:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such event")
        powerful = self.hs.powers.level(room, sender) >= self.hs.powers.needed(room, "redact", 50)
        if event.sender != sender and not powerful:
            raise forbidden("that event is another user's")
        redaction = self.append(room, sender, "m.room.redaction", content, ts=ts, redacts=target, transaction=mark)
        self.store.redact(target, self.hs.format.survives(event, room), redaction.event_id)
        return redaction

    @endpoint("PUT", "/rooms/<room_id>/state/<kind>")
    @endpoint("PUT", "/rooms/<room_id>/state/<kind>/<key:state_key>")
    def set_state(self, call: Call, room_id: str, kind: str, state_key: str = "") -> JsonObject:
        """Send a state event, membership events among them."""
        self.hs.limits.check(call.requester, "message")
        ts, room, sender = self.hs.timestamps.of(call), self.room(room_id), call.requester.user_id
        if kind == "m.room.member":
            event = self._membership_as_state(room, sender, state_key, call.json, ts)
        else:
            self.hs.powers.check_send(room, sender, kind, call.json, state_key)
            self._check_aliases(room, kind, call.json)
            event = self.append(room, sender, kind, call.json, state_key, ts=ts)
        return {"event_id": event.event_id}

    def _membership_as_state(self, room: Room, sender: str, target: str, content: JsonObject, ts: int | None) -> Event:
        membership = content.get("membership")
        if membership not in ("join", "invite", "leave", "ban"):
            raise MatrixError(400, "M_BAD_JSON", "that is no membership")
        if membership == "invite":
            self.check_invitable(target)
        rest = {key: value for key, value in content.items() if key != "membership"}
        return self.set_membership(room, sender, target, membership, ts=ts, **rest)

    def _check_aliases(self, room: Room, kind: str, content: JsonObject) -> None:
        alias = content.get("alias") if kind == "m.room.canonical_alias" else None
        if alias is not None and self.store.aliases.get(str(alias), ("",))[0] != room.room_id:
            raise MatrixError(400, "M_BAD_ALIAS", "that alias does not point at this room")

    # Reading

    def readable(self, call: Call, room_id: str) -> Room:
        """A room that the requester may read: one that it has joined.

        :raises MatrixError: 403 M_FORBIDDEN.
        """
        room = self.store.rooms.get(room_id)
        if room is None or room.membership(call.requester.user_id) != "join":
            raise forbidden(f"{call.requester.user_id} is not in the room")
        return room

    @endpoint("GET", "/rooms/<room_id>/state")
    def state(self, call: Call, room_id: str) -> list[JsonObject]:
        """All present state."""
        room = self.readable(call, room_id)
        return [self.hs.format.for_client(event, call.requester) for event in room.state.values()]

    @endpoint("GET", "/rooms/<room_id>/state/<kind>")
    @endpoint("GET", "/rooms/<room_id>/state/<kind>/<key:state_key>")
    def state_event(self, call: Call, room_id: str, kind: str, state_key: str = "") -> JsonObject:
        """A piece of present state: its content, or the whole event with `format=event`."""
        event = self.readable(call, room_id).state.get((kind, state_key))
        if event is None:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such state")
        if call.query.get("format") == "event":
            return self.hs.format.for_client(event, call.requester)
        return event.content

    @endpoint("GET", "/rooms/<room_id>/members")
    def members(self, call: Call, room_id: str) -> JsonObject:
        """All membership events."""
        room = self.readable(call, room_id)
        events = [event for (kind, _), event in room.state.items() if kind == "m.room.member"]
        return {"chunk": [self.hs.format.for_client(event, call.requester) for event in events]}

    @endpoint("GET", "/rooms/<room_id>/joined_members")
    def joined_members(self, call: Call, room_id: str) -> JsonObject:
        """Who is in a room; for an appservice it is enough that any of its users is (CS: /joined_members)."""
        room = self.store.rooms.get(room_id)
        if room is None or not self.may_list(call, room):
            raise forbidden(f"{call.requester.user_id} is not in the room")
        return {"joined": {user_id: self._card(room, user_id) for user_id in room.members()}}

    def may_list(self, call: Call, room: Room) -> bool:
        """Whether the requester may see who is in a room."""
        joined, appservice = room.members(), call.requester.appservice
        if appservice is not None and any(self.hs.namespaces.is_own_user(appservice, each) for each in joined):
            return True
        return call.requester.user_id in joined

    def _card(self, room: Room, user_id: str) -> JsonObject:
        content = room.content("m.room.member", user_id)
        names = {"displayname": "display_name", "avatar_url": "avatar_url"}
        return {shown: content[key] for key, shown in names.items() if key in content}

    @endpoint("GET", "/joined_rooms")
    def joined_rooms(self, call: Call) -> JsonObject:
        """The rooms that the user is in."""
        user_id = call.requester.user_id
        return {
            "joined_rooms": [each.room_id for each in self.store.rooms.values() if each.membership(user_id) == "join"]
        }

    @endpoint("GET", "/rooms/<room_id>/event/<event_id>")
    def event(self, call: Call, room_id: str, event_id: str) -> JsonObject:
        """One event."""
        self.readable(call, room_id)
        event = self.store.events.get(event_id)
        if event is None or event.room_id != room_id:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such event")
        return self.hs.format.for_client(event, call.requester)

    @endpoint("GET", "/rooms/<room_id>/messages")
    def messages(self, call: Call, room_id: str) -> JsonObject:
        """A room's history in its order, page by page."""
        events = self.history(self.readable(call, room_id))
        backwards = call.query.get("dir", "b") != "f"
        limit = min(int(call.query.get("limit", "10")), 1000)
        start = int(call.query.get("from", f"t{len(events) if backwards else 0}").removeprefix("t"))
        end = max(0, start - limit) if backwards else min(len(events), start + limit)
        chunk = events[end:start][::-1] if backwards else events[start:end]
        page: JsonObject = {
            "start": f"t{start}",
            "chunk": [self.hs.format.for_client(event, call.requester) for event in chunk],
        }
        if end not in (0, len(events)):
            page["end"] = f"t{end}"
        return page

    def history(self, room: Room) -> list[Event]:
        """A room's events in the order in which they were sent, whatever their time stamps."""
        return room.events
