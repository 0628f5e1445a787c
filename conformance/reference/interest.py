"""Which events interest which appservice (AS: Registration)."""

from __future__ import annotations

from conformance.appservice.registration import Registration
from conformance.reference.policy import Policy
from conformance.reference.store import Event, Room


class Interest(Policy):
    """Interest of appservices in events; an appservice is told of all that any of these rules gives it."""

    def in_event(self, appservice: Registration, event: Event) -> bool:
        """Whether an event that has just taken effect is pushed."""
        room = self.store.rooms[event.room_id]
        return self.by_target(appservice, event, room) or self.in_room(appservice, room)

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        """`users`: one of the appservice's users is the target of the event, that is of a membership."""
        return event.membership is not None and self.is_own_user(appservice, event.state_key or "")

    def in_room(self, appservice: Registration, room: Room) -> bool:
        """Whether all events of a room are pushed."""
        return self.by_member(appservice, room) or self.by_alias(appservice, room) or self.by_room_id(appservice, room)

    def by_member(self, appservice: Registration, room: Room) -> bool:
        """`users`: one of the appservice's users is a joined member of the room."""
        return any(self.is_own_user(appservice, member) for member in self.members(room))

    def members(self, room: Room) -> list[str]:
        """The members who count: those who have joined."""
        return room.members("join")

    def is_own_user(self, appservice: Registration, user_id: str) -> bool:
        """Local users only, and the sender user like any other of them."""
        return self.hs.namespaces.is_own_user(appservice, user_id)

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        """`aliases`: the room has such an alias now."""
        covers = self.hs.namespaces.covers
        return any(covers(appservice, "aliases", alias) for alias in self.store.aliases_of(room.room_id))

    def by_room_id(self, appservice: Registration, room: Room) -> bool:
        """`rooms`: the room has such an ID."""
        return self.hs.namespaces.covers(appservice, "rooms", room.room_id)
