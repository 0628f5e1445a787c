"""Aliases and published rooms (CS: Room aliases, Published room directory; AS: Published room directories)."""

from __future__ import annotations

from conformance.reference.identity import LONGEST_ID, Requester
from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import JsonObject, Room
from conformance.reference.web import Call


def exclusive(error: str) -> MatrixError:
    """400 M_EXCLUSIVE."""
    return MatrixError(400, "M_EXCLUSIVE", error)


class Aliases(Policy):
    """Who may make and delete which alias (AS: Server admin style permissions)."""

    def resolved(self, alias: str) -> str:
        """The room of an alias; appservices are asked about one that is unknown (AS: Querying).

        :raises MatrixError: 404 M_NOT_FOUND; 408 when an appservice did not answer.
        """
        room_id = self.lookup(alias)
        if room_id is None:
            self.hs.queries.ask_about_alias(alias)
            room_id = self.lookup(alias)
        if room_id is None:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such alias")
        return room_id

    def lookup(self, alias: str) -> str | None:
        """The room of an alias in the homeserver's own directory."""
        found = self.store.aliases.get(alias)
        return found[0] if found else None

    def check_new(self, requester: Requester, alias: str) -> None:
        """Whether the requester may make an alias.

        :raises MatrixError: 400 for what is no local alias, 400 M_EXCLUSIVE, 409 for one that there is already.
        """
        self.check_form(alias)
        self.check_making(requester, alias)
        if alias in self.store.aliases:
            raise MatrixError(409, "M_ROOM_IN_USE", "that alias is taken")

    def check_form(self, alias: str) -> None:
        """An alias of this homeserver.

        :raises MatrixError: 400 M_INVALID_PARAM.
        """
        if (
            not alias.startswith("#")
            or not self.hs.is_local(alias)
            or len(alias.encode()) > LONGEST_ID
            or "\0" in alias
        ):
            raise MatrixError(400, "M_INVALID_PARAM", "that is no alias of this homeserver")

    def check_making(self, requester: Requester, alias: str) -> None:
        """Who may make an alias depends on namespaces only.

        :raises MatrixError: 400 M_EXCLUSIVE.
        """
        self.check_exclusive(requester, alias)

    def check_exclusive(self, requester: Requester, alias: str) -> None:
        """Exclusive namespaces are their appservices' alone, and appservices are held to their own namespaces.

        :raises MatrixError: 400 M_EXCLUSIVE.
        """
        namespaces, appservice = self.hs.namespaces, requester.appservice
        if appservice is not None and not namespaces.covers(appservice, "aliases", alias):
            raise exclusive("that alias is outside the appservice's namespaces")
        if namespaces.claimed("aliases", alias, by_other_than=appservice):
            raise exclusive("that alias is an appservice's")

    @endpoint("PUT", "/directory/room/<alias>")
    def set(self, call: Call, alias: str) -> JsonObject:
        """Point a new alias at a room."""
        self.check_new(call.requester, alias)
        room = self.hs.rooms.room(call.text("room_id"))
        self.store.set_alias(alias, room.room_id, call.requester.user_id)
        return {}

    @endpoint("GET", "/directory/room/<alias>", authenticated=False, waits=True)
    def get(self, call: Call, alias: str) -> JsonObject:
        """The room of an alias."""
        self.check_form(alias)
        return {"room_id": self.resolved(alias), "servers": [self.hs.server_name]}

    @endpoint("DELETE", "/directory/room/<alias>")
    def delete(self, call: Call, alias: str) -> JsonObject:
        """Delete an alias."""
        if alias not in self.store.aliases:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such alias")
        self.check_deletion(call.requester, alias)
        self.store.drop_alias(alias)
        return {}

    def check_deletion(self, requester: Requester, alias: str) -> None:
        """An appservice has full control over its namespaces; humans delete their own, or those of their rooms.

        :raises MatrixError: 400 M_EXCLUSIVE; 403 M_FORBIDDEN.
        """
        self.check_exclusive(requester, alias)
        room_id, creator = self.store.aliases[alias]
        if requester.appservice is not None or requester.user_id == creator:
            return
        room = self.store.rooms[room_id]
        needed = self.hs.powers.to_send(room, "m.room.canonical_alias", True)
        if room.membership(requester.user_id) != "join" or self.hs.powers.level(room, requester.user_id) < needed:
            raise MatrixError(403, "M_FORBIDDEN", "that alias is another user's")

    @endpoint("GET", "/rooms/<room_id>/aliases")
    def of_room(self, call: Call, room_id: str) -> JsonObject:
        """The aliases of a room."""
        self.hs.rooms.readable(call, room_id)
        return {"aliases": [alias for alias, (target, _) in self.store.aliases.items() if target == room_id]}


class RoomLists(Policy):
    """The homeserver's list of published rooms, and one for each network of each appservice."""

    def list_of(self, appservice_id: str, network: str) -> str:
        """The name of an appservice's list: each appservice and network has its own."""
        return f"{appservice_id}\0{network}"

    @endpoint("PUT", "/directory/list/appservice/<network>/<room_id>")
    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        """Publish a room on an appservice's list, or take it off (AS: Published room directories)."""
        self.check_appservice(call)
        listed = self.visibility(call) == "public"
        self.hs.rooms.room(room_id)
        appservice = call.requester.appservice
        self.store.publish(self.list_of(appservice.id if appservice else "", network), room_id, listed)
        return {}

    def check_appservice(self, call: Call) -> None:
        """Only appservices have such lists.

        :raises MatrixError: 403 M_FORBIDDEN.
        """
        if call.requester.appservice is None:
            raise MatrixError(403, "M_FORBIDDEN", "only appservices may do that")

    def visibility(self, call: Call) -> str:
        """`public` or `private`, which must be said.

        :raises MatrixError: 400.
        """
        visibility = call.text("visibility")
        if visibility not in ("public", "private"):
            raise MatrixError(400, "M_INVALID_PARAM", "visibility is public or private")
        return visibility

    @endpoint("PUT", "/directory/list/room/<room_id>")
    def publish(self, call: Call, room_id: str) -> JsonObject:
        """Publish a room on the homeserver's own list, or take it off."""
        room = self.hs.rooms.readable(call, room_id)
        listed = call.text("visibility", default="public") == "public"
        self.store.publish("", room.room_id, listed)
        return {}

    @endpoint("GET", "/directory/list/room/<room_id>", authenticated=False)
    def published(self, call: Call, room_id: str) -> JsonObject:
        """Whether a room is on the homeserver's own list."""
        self.hs.rooms.room(room_id)
        return {"visibility": "public" if room_id in self.store.lists[""] else "private"}

    @endpoint("GET", "/publicRooms", authenticated=False)
    @endpoint("POST", "/publicRooms")
    def public_rooms(self, call: Call) -> JsonObject:
        """A list of published rooms, page by page."""
        body = call.json if call.method == "POST" else call.query
        rooms = [room for room_id in self.chosen(body) if (room := self.store.rooms.get(room_id)) is not None]
        limit = max(1, min(int(body.get("limit") or 200), 500))
        since = str(body.get("since") or "0")
        start = int(since) if since.isdecimal() else 0
        page: JsonObject = {
            "chunk": [self.entry(room) for room in rooms[start : start + limit]],
            "total_room_count_estimate": len(rooms),
        }
        if start + limit < len(rooms):
            page["next_batch"] = str(start + limit)
        return page

    def chosen(self, body: JsonObject) -> list[str]:
        """The rooms asked for: the homeserver's own list, an instance's, or all (CS: POST /publicRooms)."""
        lists = self.store.lists
        instance = body.get("third_party_instance_id")
        if body.get("include_all_networks") is True:
            if instance:
                raise MatrixError(400, "M_INVALID_PARAM", "an instance and all networks exclude each other")
            return list(dict.fromkeys(room for rooms in list(lists.values()) for room in rooms))
        if instance:
            return list(lists[self.list_of(*self.hs.third_party.network_of(str(instance)))])
        return list(lists[""])

    def entry(self, room: Room) -> JsonObject:
        """A room as it is listed."""
        entry: JsonObject = {
            "room_id": room.room_id,
            "num_joined_members": len(room.members()),
            "world_readable": room.content("m.room.history_visibility").get("history_visibility") == "world_readable",
            "guest_can_join": room.content("m.room.guest_access").get("guest_access") == "can_join",
            "join_rule": room.content("m.room.join_rules").get("join_rule", "invite"),
        }
        texts = {
            "name": room.content("m.room.name").get("name"),
            "topic": room.content("m.room.topic").get("topic"),
            "canonical_alias": room.content("m.room.canonical_alias").get("alias"),
        }
        return entry | {key: value for key, value in texts.items() if value}
