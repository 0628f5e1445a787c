"""Defects of area INTEREST: which events are pushed."""

from __future__ import annotations

import re
from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.events import Format
from conformance.reference.interest import Interest
from conformance.reference.policy import MatrixError
from conformance.reference.rooms import Powers, Rooms
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.transactions import Queues, Transactions
from conformance.reference.web import Call


def _is_of_a_later_entry(policy: Interest, appservice: Registration, user_id: str) -> bool:
    """Whether the first exclusive entry of the users namespaces is not the one that covers a user."""
    namespaces = policy.hs.namespaces
    exclusive = [entry for entry in namespaces.entries(appservice, "users") if entry.exclusive]
    return any(namespaces.matches(entry, user_id) for entry in exclusive[1:])


def _was(event: Event, membership: str) -> bool:
    """Whether a membership event ends such a membership."""
    return (event.prev_content or {}).get("membership") == membership


class _Losing(Interest):
    """Events that should be pushed are lost."""

    def in_event(self, appservice: Registration, event: Event) -> bool:
        lost = self.loses(appservice, event, self.store.rooms[event.room_id])
        return not lost and super().in_event(appservice, event)

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        """Whether an event is lost."""
        raise NotImplementedError

    def is_about_own(self, appservice: Registration, event: Event, *memberships: str) -> bool:
        """Whether an event gives one of the appservice's users (not its sender) one of these memberships."""
        covered = self.hs.namespaces.covers(appservice, "users", event.state_key or "")
        return covered and event.membership in memberships


class _Gaining(Interest):
    """Events that should not be pushed are."""

    def in_event(self, appservice: Registration, event: Event) -> bool:
        gained = self.gains(appservice, event, self.store.rooms[event.room_id])
        return gained or super().in_event(appservice, event)

    def gains(self, appservice: Registration, event: Event, room: Room) -> bool:
        """Whether an event is pushed although it interests nobody."""
        raise NotImplementedError


@defect("INTEREST-01", also=("ORDER-06",))
class InvitesForGhostsAreNotPushed(Interest):
    """An invite for a ghost is not pushed."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        covered = self.hs.namespaces.covers(appservice, "users", event.state_key or "")
        return not (event.membership == "invite" and covered) and super().by_target(appservice, event, room)


@defect("INTEREST-01")
class OnlyTheFirstUsersEntryMakesTargets(Interest):
    """Of the exclusive users namespaces only the first entry is asked about who is invited."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        forgotten = event.membership == "invite" and _is_of_a_later_entry(self, appservice, event.state_key or "")
        return not forgotten and super().by_target(appservice, event, room)


@defect("INTEREST-01")
class InvitesOfNewRoomsAreNotPushed(Rooms):
    """An invite that is given while a room is created is not pushed."""

    _creating = False

    def invite_first(self, room: Room, creator: str, invited: list[str]) -> None:
        self._creating = True
        super().invite_first(room, creator, invited)
        self._creating = False

    def tell(self, event: Event) -> None:
        if not self._creating:
            super().tell(event)


@defect("INTEREST-01")
class SecondInvitesAreNotPushed(Interest):
    """An invite of a ghost that had a membership of the room before is not pushed."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        again = event.membership == "invite" and event.prev_content is not None
        return not again and super().by_target(appservice, event, room)


@defect("INTEREST-01")
class InvitesAsStateAreNotPushed(Rooms):
    """An invite that is sent as state is not pushed."""

    _as_state = False

    def _membership_as_state(self, room: Room, sender: str, target: str, content: JsonObject, ts: int | None) -> Event:
        self._as_state = content.get("membership") == "invite"
        try:
            return super()._membership_as_state(room, sender, target, content, ts)
        finally:
            self._as_state = False

    def tell(self, event: Event) -> None:
        if not self._as_state:
            super().tell(event)


@defect("INTEREST-02")
class OnlyMembersOfTheFirstUsersEntryCount(Interest):
    """Of the exclusive users namespaces only the first entry makes the rooms of its users interesting."""

    def by_member(self, appservice: Registration, room: Room) -> bool:
        return any(
            self.is_own_user(appservice, member) and not _is_of_a_later_entry(self, appservice, member)
            for member in self.members(room)
        )


@defect("INTEREST-02", also=("INTEREST-30",))
class GhostsThatCameBackDoNotCount(Interest):
    """A ghost that left a room and joined it again does not make it interesting."""

    def members(self, room: Room) -> list[str]:
        gone = {event.state_key for event in room.events if event.membership in ("leave", "ban")}
        return [member for member in super().members(room) if member not in gone]


@defect("INTEREST-02")
class OnlyFiveMembersCount(Interest):
    """Of the members of a room only the first five are looked at."""

    def members(self, room: Room) -> list[str]:
        return super().members(room)[:5]


@defect("INTEREST-02")
class TheFirstLeaveEndsTheInterest(Interest):
    """When one of several ghosts of an appservice leaves a room, the others do not make it interesting any more."""

    def by_member(self, appservice: Registration, room: Room) -> bool:
        return not any(self._left(appservice, room, event) for event in room.events[:-1]) and super().by_member(
            appservice, room
        )

    def _left(self, appservice: Registration, room: Room, event: Event) -> bool:
        user = event.state_key or ""
        was_inside = (event.prev_content or {}).get("membership") == "join" and event.membership in ("leave", "ban")
        return was_inside and self.is_own_user(appservice, user) and room.membership(user) != "join"


@defect("INTEREST-02", also=("INTEREST-09",))
class WithTheSenderGoTheGhosts(Interest):
    """When the sender user leaves a room, the ghosts that are still there do not make it interesting."""

    def by_member(self, appservice: Registration, room: Room) -> bool:
        sender = self.hs.user_id(appservice.sender_localpart)
        return room.membership(sender) != "leave" and super().by_member(appservice, room)


@defect("INTEREST-02", also=("INTEREST-03",))
class RoomsWithATombstoneAreDead(Interest):
    """Nothing is pushed from a room that has a tombstone."""

    def in_room(self, appservice: Registration, room: Room) -> bool:
        return not room.content("m.room.tombstone") and super().in_room(appservice, room)


@defect("INTEREST-02")
class EncryptedRoomsPushCiphertextOnly(_Losing):
    """From a room that is encrypted only encrypted messages are pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return bool(room.content("m.room.encryption")) and event.type == "m.room.message"


@defect("INTEREST-02")
class MessagesNeedAVisibleHistory(_Losing):
    """Messages of rooms whose history is for members are pushed only where the sender user is one of them."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        hidden = room.content("m.room.history_visibility").get("history_visibility") in ("joined", "invited")
        sender = self.hs.user_id(appservice.sender_localpart)
        return hidden and not event.is_state and room.membership(sender) != "join"


@defect("INTEREST-02")
class MessagesOfPrivateRoomsAreNotPushed(_Losing):
    """Messages are pushed only from rooms that anybody may join."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        private = room.content("m.room.join_rules").get("join_rule") != "public"
        return private and not event.is_state and not self.by_alias(appservice, room)


@defect("INTEREST-02")
class StateOfPrivateRoomsIsNotPushed(_Losing):
    """State is pushed only from rooms that anybody may join."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        private = room.content("m.room.join_rules").get("join_rule") == "invite"
        return private and event.type == "m.room.topic"


@defect("INTEREST-02", also=("TXN-19",))
class RoomsWithADomainAreOfNoInterest(Interest):
    """Rooms whose ID has a server name, as up to version 11, are not made interesting by their members."""

    def by_member(self, appservice: Registration, room: Room) -> bool:
        return ":" not in room.room_id and super().by_member(appservice, room)


@defect("INTEREST-02")
class SpacesAreNoRooms(_Losing):
    """Messages of spaces are not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return not event.is_state and "type" in room.content("m.room.create")


@defect("INTEREST-03")
class StateEventsAreNotPushed(_Losing):
    """State events other than memberships are not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.is_state and event.membership is None


@defect("INTEREST-03")
class StateWithAStateKeyIsNotPushed(_Losing):
    """State events with a state key are not pushed, but for memberships."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return bool(event.state_key) and event.membership is None


@defect("INTEREST-03")
class EmptyStateIsNotPushed(_Losing):
    """State events without content are not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.is_state and not event.content


@defect("INTEREST-03")
class RoomSettingsAreNotPushed(_Losing):
    """Of the state of Matrix only what an appservice is likely to bridge is pushed."""

    LIKELY = ("name", "topic", "power_levels", "join_rules", "history_visibility", "member", "create")

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        likely = event.type.removeprefix("m.room.") in self.LIKELY
        return event.is_state and event.type.startswith("m.") and not likely


@defect("INTEREST-04")
class MembershipsOfHumansAreNotPushed(_Losing):
    """Memberships of users outside the namespaces are not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.membership is not None and not self.is_own_user(appservice, event.state_key or "")


@defect("INTEREST-04")
class UnbansOfHumansAreNotPushed(_Losing):
    """The end of a ban of a user outside the namespaces is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        unban = (event.prev_content or {}).get("membership") == "ban"
        return event.membership == "leave" and unban and not self.is_own_user(appservice, event.state_key or "")


def _is_profile_change(event: Event) -> bool:
    return event.membership == "join" and _was(event, "join")


@defect("INTEREST-04")
class NewNamesOfHumansAreNotPushed(_Losing):
    """The membership event that announces a new display name of a human is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return _is_profile_change(event) and not self.is_own_user(appservice, event.sender)


@defect("INTEREST-04")
class KnocksOfHumansAreNotPushed(_Losing):
    """That a human knocks at a room is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.membership == "knock" and not self.is_own_user(appservice, event.sender)


@defect("INTEREST-05")
class CustomMessagesAreNotPushed(_Losing):
    """Only messages of types that begin with m. are pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return not event.is_state and not event.type.startswith("m.")


@defect("INTEREST-05")
class EncryptedMessagesAreNotPushed(_Losing):
    """Messages that the appservice could not decrypt are not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.type == "m.room.encrypted"


@defect("INTEREST-05")
class RelationsAreNotPushed(Format):
    """Events are pushed without their m.relates_to."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        shown["content"] = {key: value for key, value in shown["content"].items() if key != "m.relates_to"}
        return shown


@defect("INTEREST-05")
class EmptyStringsAreNotPushed(Format):
    """Events are pushed without those parts of their content that are empty strings."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        return {**shown, "content": self._pruned(shown["content"])}

    def _pruned(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: self._pruned(each) for key, each in value.items() if each != ""}


@defect("INTEREST-05")
class EditsAreNotPushed(_Losing):
    """Messages that replace another are not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        relation = event.content.get("m.relates_to")
        return isinstance(relation, dict) and relation.get("rel_type") == "m.replace"


@defect("INTEREST-05")
class NoticesAreNotPushed(_Losing):
    """Notices are not pushed: bots must not answer them."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.type == "m.room.message" and event.content.get("msgtype") == "m.notice"


@defect("INTEREST-06")
class RedactionsAreNotPushed(_Losing):
    """Redactions are not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.type == "m.room.redaction"


@defect("INTEREST-06")
class RedactionsOfStateAreNotPushed(_Losing):
    """The redaction of a state event is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.type == "m.room.redaction" and self.store.events[event.redacts or ""].is_state


@defect("INTEREST-07")
class EchoesAreSuppressed(_Losing):
    """Messages of an appservice's own ghosts are not pushed to it."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return not event.is_state and self.hs.namespaces.covers(appservice, "users", event.sender)


@defect("INTEREST-07")
class SendersInterestNobodyInTheirOwnEvents(_Losing):
    """What the only ghost of a room sends is not pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        covers = self.hs.namespaces.covers
        others = [member for member in self.members(room) if member != event.sender]
        alone = not any(covers(appservice, "users", each) for each in others)
        return not event.is_state and covers(appservice, "users", event.sender) and alone


@defect("INTEREST-07")
class StateOfGhostsIsNotPushed(_Losing):
    """State other than memberships that a ghost sets is not pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        own = self.hs.namespaces.covers(appservice, "users", event.sender)
        return own and event.is_state and event.membership is None


@defect("INTEREST-07")
class MessagesOfTheSenderAreNotPushed(_Losing):
    """What the sender user says is not pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return not event.is_state and self.hs.namespaces.is_sender(appservice, event.sender)


@defect("INTEREST-07")
class NewNamesOfGhostsAreNotPushed(_Losing):
    """The membership event that announces a new display name of a ghost is not pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return _is_profile_change(event) and self.is_own_user(appservice, event.sender)


@defect("INTEREST-07")
class RedactionsOfGhostsAreNotPushed(_Losing):
    """A redaction by a ghost is not pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.type == "m.room.redaction" and self.is_own_user(appservice, event.sender)


@defect("INTEREST-07")
class WhatGhostsSendByTheirOwnTokensIsNotPushed(_Losing):
    """What a ghost sends by a token of its own is not pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        by_login = event.transaction is not None and bool(event.transaction[1])
        return by_login and self.is_own_user(appservice, event.sender)


@defect("INTEREST-07")
class HumansThatGhostsRemoveAreNotPushed(_Losing):
    """What a ghost does to the membership of a human is not pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        target = event.state_key or ""
        own = self.is_own_user(appservice, event.sender)
        return event.membership is not None and own and not self.is_own_user(appservice, target)


@defect("INTEREST-07")
class StateOfTheSenderIsNotPushed(_Losing):
    """State that the sender user sets in a room with ghosts is not pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        own = self.hs.namespaces.is_sender(appservice, event.sender)
        return own and event.is_state and event.membership is None


@defect("INTEREST-08")
class TheSenderIsNoTarget(Interest):
    """An invite for the sender user is not pushed."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        target = event.state_key or ""
        return not self.hs.namespaces.is_sender(appservice, target) and super().by_target(appservice, event, room)


@defect("INTEREST-08")
class BansOfTheSenderAreNotPushed(Interest):
    """The sender user is the appservice's in invites only: its ban is not pushed."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        sender = self.hs.namespaces.is_sender(appservice, event.state_key or "")
        return not (sender and event.membership == "ban") and super().by_target(appservice, event, room)


@defect("INTEREST-08")
class LeavesAndKicksOfTheSenderAreNotPushed(Interest):
    """The event by which the sender user leaves a room, where it is alone of its appservice, is not pushed."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        sender = self.hs.namespaces.is_sender(appservice, event.state_key or "")
        return not (sender and event.membership == "leave") and super().by_target(appservice, event, room)


@defect("INTEREST-09")
class TheSenderIsNoMember(Interest):
    """The sender user as a member does not make a room interesting."""

    def by_member(self, appservice: Registration, room: Room) -> bool:
        return any(self.hs.namespaces.covers(appservice, "users", member) for member in self.members(room))


@defect("INTEREST-09")
class TheSenderCountsOnceItHasSpoken(Interest):
    """The sender user as a member makes a room interesting only once it has sent something there."""

    def members(self, room: Room) -> list[str]:
        senders = {self.hs.user_id(each.sender_localpart) for each in self.hs.appservices}
        speakers = {event.sender for event in room.events if not event.is_state}
        return [member for member in super().members(room) if member not in senders or member in speakers]


@defect("INTEREST-09", also=("INTEREST-16",))
class StateOfTheSendersRoomsIsNotPushed(_Losing):
    """Where only the sender user is a member, state is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        if not event.is_state or self.by_target(appservice, event, room) or self.by_alias(appservice, room):
            return False
        is_sender = self.hs.namespaces.is_sender
        ghosts = [m for m in self.members(room) if self.is_own_user(appservice, m) and not is_sender(appservice, m)]
        return not ghosts and not self.by_room_id(appservice, room)


@defect("INTEREST-10")
class AliasesAreForQueriesOnly(Interest):
    """The aliases of a room do not make it interesting."""

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        return False


@defect("INTEREST-10")
class OnlyExclusiveAliasesCount(Interest):
    """Aliases in namespaces that are not exclusive do not make a room interesting."""

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        aliases = [alias for alias, (room_id, _) in self.store.aliases.items() if room_id == room.room_id]
        return any(self.hs.namespaces.claims(appservice, "aliases", alias) for alias in aliases)


@defect("INTEREST-10")
class ExclusiveAliasesDoNotCount(Interest):
    """Aliases in exclusive namespaces do not make a room interesting."""

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        aliases = [alias for alias, (room_id, _) in self.store.aliases.items() if room_id == room.room_id]
        namespaces = self.hs.namespaces
        return any(
            namespaces.covers(appservice, "aliases", alias) and not namespaces.claims(appservice, "aliases", alias)
            for alias in aliases
        )


@defect("INTEREST-10")
class OneDeletedAliasEndsTheInterest(Interest):
    """When one of the aliases of a room is deleted, the others do not make it interesting any more."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._seen: dict[str, set[str]] = {}

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        now = {alias for alias, (room_id, _) in self.store.aliases.items() if room_id == room.room_id}
        seen = self._seen.setdefault(room.room_id, set())
        seen |= now
        return seen == now and super().by_alias(appservice, room)


@defect("INTEREST-10")
class StateOfRoomsWithAnAliasIsNotPushed(_Losing):
    """By its alias a room is interesting for its messages and memberships only."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        otherwise = self.by_member(appservice, room) or self.by_room_id(appservice, room)
        return event.is_state and event.membership is None and not otherwise


@defect("INTEREST-11")
class AliasesCountAsTheyWereAtFirst(Interest):
    """Whether a room's aliases make it interesting is decided while it is created."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._decided: dict[tuple[str, str], bool] = {}

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        decision = super().by_alias(appservice, room)
        if room.content("m.room.history_visibility"):
            return self._decided.setdefault((appservice.id, room.room_id), decision)
        return decision


@defect("INTEREST-11")
class OnlyCanonicalAliasesCount(Interest):
    """An alias makes a room interesting only when it is the canonical one."""

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        alias = room.content("m.room.canonical_alias").get("alias", "")
        return alias in self.store.aliases and self.hs.namespaces.covers(appservice, "aliases", alias)


@defect("INTEREST-11")
class AliasesStayWithTheirFirstRoom(Interest):
    """An alias that was taken from one room and given to another does not make that one interesting."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._first: dict[str, str] = {}

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        return any(
            room_id == room.room_id == self._first.setdefault(alias, room_id)
            and self.hs.namespaces.covers(appservice, "aliases", alias)
            for alias, (room_id, _) in self.store.aliases.items()
        )


@defect("INTEREST-12")
class RemovedAliasesCount(Interest):
    """An alias that a room once had keeps it interesting."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._found: set[tuple[str, str]] = set()

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        key = (appservice.id, room.room_id)
        if super().by_alias(appservice, room):
            self._found.add(key)
        return key in self._found


@defect("INTEREST-13")
class RoomsNamespacesAreNotUsed(Interest):
    """The rooms namespaces do not make a room interesting."""

    def by_room_id(self, appservice: Registration, room: Room) -> bool:
        return False


@defect("INTEREST-13")
class RoomIdsWithoutAServerNameMatchNothing(Interest):
    """The rooms namespaces are asked only about rooms whose ID has a server name."""

    def by_room_id(self, appservice: Registration, room: Room) -> bool:
        return ":" in room.room_id and super().by_room_id(appservice, room)


@defect("INTEREST-13")
class StateOfRoomsWithAnIdIsNotPushed(_Losing):
    """By its ID a room is interesting for its messages only."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        by_target = self.by_target(appservice, event, room)
        otherwise = by_target or self.by_member(appservice, room) or self.by_alias(appservice, room)
        return event.is_state and not otherwise


@defect("INTEREST-14")
class AnyRoomsNamespaceMeansAllRooms(Interest):
    """An appservice with any rooms namespace gets every room."""

    def by_room_id(self, appservice: Registration, room: Room) -> bool:
        return bool(self.hs.namespaces.entries(appservice, "rooms"))


@defect("INTEREST-14")
class NewRoomsGoToWhoeverHasRoomsNamespaces(_Gaining):
    """The creation event of every room is pushed to an appservice with any rooms namespace."""

    def gains(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.type == "m.room.create" and bool(self.hs.namespaces.entries(appservice, "rooms"))


@defect("INTEREST-15", also=("INTEREST-12", "INTEREST-20", "INTEREST-21", "INTEREST-22", "INTEREST-31"))
class AnyAliasesNamespaceMeansAllRooms(Interest):
    """An appservice with any aliases namespace gets every room."""

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        return bool(self.hs.namespaces.entries(appservice, "aliases"))


@defect("INTEREST-15")
class InvitesGoToWhoeverHasAliasesNamespaces(_Gaining):
    """Every invite is pushed to every appservice with any aliases namespace."""

    def gains(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.membership == "invite" and bool(self.hs.namespaces.entries(appservice, "aliases"))


@defect("INTEREST-15")
class MissingRoomsNamespacesMatchEveryRoom(Interest):
    """An appservice whose registration has no list of rooms gets every room."""

    def by_room_id(self, appservice: Registration, room: Room) -> bool:
        only_rooms_missing = appservice.rooms is None and appservice.users is not None
        return only_rooms_missing or super().by_room_id(appservice, room)


@defect("INTEREST-16")
class TheFirstInterestedAppserviceConsumesWhatGhostsSay(_Losing):
    """A message of a ghost is pushed to the first interested appservice only."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        account = self.store.accounts.get(event.sender)
        interested = [each for each in self.hs.appservices if self.by_member(each, room)]
        return not event.is_state and bool(account and account.appservice) and interested[:1] != [appservice]


@defect("INTEREST-16")
class GhostsOfOthersAreNotHeard(_Losing):
    """Messages of a ghost are not pushed to other appservices than its own."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        account = self.store.accounts.get(event.sender)
        owner = account.appservice if account else None
        return not event.is_state and owner not in (None, appservice.id)


@defect("INTEREST-16")
class TheSenderAmongGhostsOfOthersDoesNotCount(Interest):
    """An appservice that has only its sender user in a room gets nothing when another's ghosts are there."""

    def by_member(self, appservice: Registration, room: Room) -> bool:
        namespaces, members = self.hs.namespaces, self.members(room)
        own = any(namespaces.covers(appservice, "users", member) for member in members)
        others = any(namespaces.claimed("users", member, by_other_than=appservice) for member in members)
        return (own or not others) and super().by_member(appservice, room)


@defect("INTEREST-17")
class TheFirstInterestedAppserviceConsumesInvites(_Losing):
    """An invite is pushed to the first appservice only whose user is invited."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        interested = [each for each in self.hs.appservices if self.by_target(each, event, room)]
        return event.membership == "invite" and bool(interested) and interested[0] is not appservice


@defect("INTEREST-17")
class ExclusiveNamespacesHideInvites(_Losing):
    """An invite for a user in somebody's exclusive namespace is pushed to nobody else."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        target = event.state_key or ""
        return event.membership == "invite" and self.hs.namespaces.claimed("users", target, by_other_than=appservice)


@defect("INTEREST-17")
class MembersInterestTheirOwnersOnly(Interest):
    """A member in somebody's exclusive namespace makes a room interesting to nobody else."""

    def by_member(self, appservice: Registration, room: Room) -> bool:
        return any(
            self.is_own_user(appservice, member)
            and not self.hs.namespaces.claimed("users", member, by_other_than=appservice)
            for member in self.members(room)
        )


@defect("INTEREST-17")
class ExclusiveNamespacesHideKicks(Interest):
    """Kicks and bans of a user in somebody's exclusive namespace are pushed to nobody else by their target."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        claimed = self.hs.namespaces.claimed("users", event.state_key or "", by_other_than=appservice)
        hidden = event.membership in ("leave", "ban") and claimed
        return not hidden and super().by_target(appservice, event, room)


@defect("INTEREST-18", also=("ORDER-06",))
class OnlyInvitesHaveATarget(_Losing):
    """Bans and kicks do not reach the appservice of their target."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.sender != event.state_key and self.is_about_own(appservice, event, "ban", "leave")


@defect("INTEREST-18")
class UnbansOfGhostsAreNotPushed(_Losing):
    """The end of a ghost's ban is not pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        unban = (event.prev_content or {}).get("membership") == "ban"
        return unban and self.is_about_own(appservice, event, "leave")


@defect("INTEREST-18", also=("ORDER-06",))
class KicksAreJudgedAfterThem(_Losing):
    """The event by which a ghost is removed from a room is not pushed: it has left by then."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        kick = (event.prev_content or {}).get("membership") == "join" and event.sender != event.state_key
        return kick and self.is_about_own(appservice, event, "leave")


@defect("INTEREST-18")
class RefusedInvitesAreNotPushed(Interest):
    """The event by which an invited ghost refuses is not pushed."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        refusal = event.membership == "leave" and event.sender == event.state_key and _was(event, "invite")
        return not refusal and super().by_target(appservice, event, room)


@defect("INTEREST-18")
class WithdrawnInvitesAreNotPushed(Interest):
    """The event by which the invite of a ghost is withdrawn is not pushed."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        withdrawal = event.membership == "leave" and event.sender != event.state_key and _was(event, "invite")
        return not withdrawal and super().by_target(appservice, event, room)


@defect("INTEREST-18")
class BansOfJoinedGhostsAreNotPushed(Interest):
    """The ban of the only ghost in a room is judged when it has taken effect, so it is not pushed."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        return not (event.membership == "ban" and _was(event, "join")) and super().by_target(appservice, event, room)


@defect("INTEREST-18")
class RefusedKnocksOfGhostsAreNotPushed(Interest):
    """The event by which a ghost that has knocked is refused is not pushed."""

    def by_target(self, appservice: Registration, event: Event, room: Room) -> bool:
        return not _was(event, "knock") and super().by_target(appservice, event, room)


@defect("INTEREST-19")
class LeavesAreJudgedAfterThem(_Losing):
    """The event by which the only ghost leaves a room is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        own = event.sender == event.state_key and self.is_about_own(appservice, event, "leave")
        return own and _was(event, "join") and not self.in_room(appservice, room)


@defect("INTEREST-20")
class FormerMembersCount(Interest):
    """A room that a ghost has once joined stays interesting."""

    def members(self, room: Room) -> list[str]:
        return [str(event.state_key) for event in room.events if event.membership == "join"]


@defect("INTEREST-20")
class RemovedMembersCount(Interest):
    """A room from which a ghost was kicked stays interesting."""

    def members(self, room: Room) -> list[str]:
        joined = {event.state_key for event in room.events if event.membership == "join"}
        gone = [key for key in room.members("leave") if room.state["m.room.member", key].sender != key]
        return [*super().members(room), *(key for key in gone if key in joined)]


@defect("INTEREST-21")
class InvitedMembersCount(Interest):
    """A room is interesting as soon as a ghost has been invited."""

    def members(self, room: Room) -> list[str]:
        return [*room.members("join"), *room.members("invite")]


@defect("INTEREST-21", also=("INTEREST-02",))
class WhoWasInvitedNeverCounts(Interest):
    """A ghost that was invited does not make a room interesting by joining it."""

    def members(self, room: Room) -> list[str]:
        invited = {event.state_key for event in room.events if event.membership == "invite"}
        return [member for member in super().members(room) if member not in invited]


@defect("INTEREST-22")
class MentionsCount(_Gaining):
    """A message that mentions one of the appservice's users is pushed."""

    def gains(self, appservice: Registration, event: Event, room: Room) -> bool:
        mentioned = event.content.get("m.mentions", {}).get("user_ids", ())
        return any(self.is_own_user(appservice, user_id) for user_id in mentioned)


@defect("INTEREST-22")
class TextsAreSearchedForIds(_Gaining):
    """A message whose text has an ID of the namespaces is pushed."""

    def gains(self, appservice: Registration, event: Event, room: Room) -> bool:
        words = re.findall(r"[@#][^\s:'\"]+:[\w.-]+", str(event.content.get("formatted_body")))
        return not event.is_state and any(self.is_own_user(appservice, word) for word in words)


@defect("INTEREST-23", also=("INTEREST-17",))
class OnlyExclusiveUsersEntriesCount(Interest):
    """Users in namespaces that are not exclusive make nothing interesting."""

    def is_own_user(self, appservice: Registration, user_id: str) -> bool:
        namespaces = self.hs.namespaces
        claimed = namespaces.is_sender(appservice, user_id) or namespaces.claims(appservice, "users", user_id)
        return claimed and super().is_own_user(appservice, user_id)


@defect("INTEREST-23")
class HumansMakeNothingInteresting(Interest):
    """Users of the namespaces who registered themselves make nothing interesting."""

    def is_own_user(self, appservice: Registration, user_id: str) -> bool:
        account = self.store.accounts.get(user_id)
        human = account is not None and account.appservice is None
        return not human and super().is_own_user(appservice, user_id)


@defect("INTEREST-26")
class RefusedStateIsPushed(Powers):
    """State is pushed before it is authorised."""

    def check_send(self, room: Room, sender: str, kind: str, content: JsonObject, state_key: str | None) -> None:
        try:
            super().check_send(room, sender, kind, content, state_key)
        except MatrixError:
            if state_key is not None:
                refused = Event(f"$refused{sender}", room.room_id, kind, sender, content, 0, state_key)
                self.hs.queues.told(refused)
            raise


@defect("INTEREST-26")
class RefusedMessagesArePushed(Powers):
    """Messages of those who are not in the room are pushed, and refused afterwards."""

    def check_send(self, room: Room, sender: str, kind: str, content: JsonObject, state_key: str | None) -> None:
        if state_key is None and room.membership(sender) != "join":
            self.hs.queues.told(Event(f"$refused{sender}", room.room_id, kind, sender, content, 0))
        super().check_send(room, sender, kind, content, state_key)


@defect("INTEREST-27")
class RoomsCreatedByGhostsAreLost(_Losing):
    """Nothing of a room that a ghost has created is pushed to its appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return any(self.hs.namespaces.covers(appservice, "users", each) for each in room.creators)


@defect("INTEREST-27")
class CreatorsDoNotCountAsMembers(Interest):
    """A ghost that has created a room does not count as its member."""

    def members(self, room: Room) -> list[str]:
        return [member for member in super().members(room) if member not in room.creators]


@defect("INTEREST-28")
class BlockedInvitesArePushed(Rooms):
    """An invite that is refused because the ghost blocks invites is pushed all the same."""

    def invite(self, call: Call, room_id: str) -> JsonObject:
        try:
            return super().invite(call, room_id)
        except MatrixError as error:
            if error.errcode == "M_INVITE_BLOCKED":
                sender, target = call.requester.user_id, call.text("user_id")
                content = {"membership": "invite"}
                with self.hs.lock:
                    self.hs.queues.told(Event("$refused", room_id, "m.room.member", sender, content, 0, target))
            raise


@defect("INTEREST-29")
class IgnoredUsersAreNotPushed(_Losing):
    """What is sent by a user whom a ghost in the room ignores is not pushed to the ghost's appservice."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        ghosts = [member for member in self.members(room) if self.is_own_user(appservice, member)]
        return any(event.sender in self.ignored(ghost) for ghost in ghosts)

    def ignored(self, user_id: str) -> JsonObject:
        """Whom a user ignores."""
        data = self.store.accounts[user_id].data[""].get("m.ignored_user_list", {})
        ignored: JsonObject = data.get("ignored_users", {})
        return ignored


@defect("INTEREST-29")
class InvitesOfIgnoredUsersAreNotPushed(IgnoredUsersAreNotPushed):
    """An invite by a user whom the invited ghost ignores is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return self.is_about_own(appservice, event, "invite") and event.sender in self.ignored(str(event.state_key))


@defect("INTEREST-29")
class GhostsWhomSomebodyIgnoresAreNotPushed(IgnoredUsersAreNotPushed):
    """What a ghost says is not pushed when somebody in the room ignores the ghost."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return any(event.sender in self.ignored(member) for member in self.members(room))


@defect("INTEREST-30")
class TheFirstMessageAfterAJoinIsLost(_Losing):
    """The message that follows the join of a ghost is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return not event.is_state and self.is_about_own(appservice, room.events[-2], "join")


@defect("INTEREST-30")
class JoinsOfGhostsAreNotPushed(_Losing):
    """The join of a ghost that was not invited is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        return event.prev_content is None and self.is_about_own(appservice, event, "join")


@defect("INTEREST-30", also=("INTEREST-09",))
class TheFirstMessageAfterTheSendersJoinIsLost(_Losing):
    """The first message after the sender user has joined is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        before = room.events[-2] if len(room.events) > 1 else event
        joined = before.membership == "join" and self.hs.namespaces.is_sender(appservice, before.state_key or "")
        return joined and not event.is_state


@defect("INTEREST-30")
class TheFirstMessageAfterAnInvitedGhostsJoinIsLost(_Losing):
    """The first message after a ghost that was invited has joined is not pushed."""

    def loses(self, appservice: Registration, event: Event, room: Room) -> bool:
        before = room.events[-2] if len(room.events) > 1 else event
        return self.is_about_own(appservice, before, "join") and _was(before, "invite") and not event.is_state


@defect("INTEREST-31")
class RemoteUsersAreTargets(Interest):
    """Users of other servers whom a users namespace matches make an event interesting."""

    def is_own_user(self, appservice: Registration, user_id: str) -> bool:
        covered = self.hs.namespaces.covers(appservice, "users", user_id)
        return covered or super().is_own_user(appservice, user_id)


@defect("INTEREST-21")
class JoinsBringTheHistory(Queues):
    """When a ghost joins a room, what was said there before is pushed as well."""

    def told(self, event: Event) -> None:
        room = self.store.rooms[event.room_id]
        for appservice in self.hs.appservices:
            joins = event.membership == "join" and self.hs.interest.by_target(appservice, event, room)
            for earlier in room.events if joins and appservice.url is not None else ():
                if not earlier.is_state:
                    self.put(appservice, "event", self.hs.format.for_appservice(earlier, appservice))
        super().told(event)


@defect("INTEREST-02", also=("INTEREST-19", "INTEREST-20", "INTEREST-21"))
class InterestIsLookedAtWhenItIsSent(Transactions):
    """What waits for an appservice is thrown away when its room interests it no more at the time of sending."""

    def body(self, appservice: Registration, items: list[tuple[str, JsonObject]]) -> JsonObject:
        body = super().body(appservice, items)
        body["events"] = [each for each in body["events"] if self._still(appservice, each)]
        return body

    def _still(self, appservice: Registration, event: JsonObject) -> bool:
        room = self.store.rooms[event["room_id"]]
        membership = event["type"] == "m.room.member" and self.hs.namespaces.is_own_user(appservice, event["state_key"])
        return membership or self.hs.interest.in_room(appservice, room)


@defect("INTEREST-02")
class OldRoomsAreNotPushed(Queues):
    """Nothing is pushed of rooms of a version before 10."""

    def told(self, event: Event) -> None:
        version = self.store.rooms[event.room_id].version
        if not version.isdecimal() or int(version) >= 10:
            super().told(event)


@defect("INTEREST-12", also=("INTEREST-20",))
class RoomsWithAnyAliasStayInteresting(Interest):
    """A room that had an alias of the namespace is interesting for as long as it has any alias."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._had: set[tuple[str, str]] = set()

    def by_alias(self, appservice: Registration, room: Room) -> bool:
        if super().by_alias(appservice, room):
            self._had.add((appservice.id, room.room_id))
            return True
        return (appservice.id, room.room_id) in self._had and bool(self.store.aliases_of(room.room_id))


@defect("INTEREST-20", also=("INTEREST-12",))
class OneOfSeveralWhoLeftStillCounts(Interest):
    """Of several ghosts that have left only the last is taken off the list of members."""

    def members(self, room: Room) -> list[str]:
        joined = super().members(room)
        left = [
            event for (kind, _), event in room.state.items() if kind == "m.room.member" and event.membership == "leave"
        ]
        before = [each for each in left if (each.prev_content or {}).get("membership") == "join"]
        return joined + [str(each.state_key) for each in sorted(before, key=lambda each: each.position)[:-1]]


@defect("INTEREST-20", also=("INTEREST-21",))
class WhoRefusedAnInviteCounts(Interest):
    """A ghost that has refused an invite counts as a member."""

    def members(self, room: Room) -> list[str]:
        events = [event for (kind, _), event in room.state.items() if kind == "m.room.member"]
        refused = [each for each in events if each.membership == "leave" and each.sender == each.state_key]
        invited = [each for each in refused if (each.prev_content or {}).get("membership") == "invite"]
        return super().members(room) + [str(each.state_key) for each in invited]


@defect("INTEREST-21", also=("INTEREST-20",))
class WhoIsInvitedAtFirstCounts(Interest):
    """Those for whom a room is made count as its members."""

    def members(self, room: Room) -> list[str]:
        first = [event for event in room.events[:12] if event.type == "m.room.member" and event.membership == "invite"]
        return super().members(room) + [str(each.state_key) for each in first if len(first) > 1]
