"""Defects of area TS: timestamp massaging."""

from __future__ import annotations

from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.accounts import Profiles
from conformance.reference.defects import defect
from conformance.reference.events import Format, Timestamps
from conformance.reference.identity import Requester
from conformance.reference.policy import MatrixError
from conformance.reference.rooms import Rooms
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.sync import Sync
from conformance.reference.transactions import Queues
from conformance.reference.web import Call

_DAY = 24 * 60 * 60 * 1000


def _is_state(call: Call) -> bool:
    return "/state/" in call.path


def _kind(call: Call) -> str:
    """The type of the event that a call to /send or /state makes."""
    return call.path.split("/")[7]


def _asked(call: Call) -> int | None:
    """The ts of an appservice's call that should not obey it."""
    text = call.query.get("ts", "")
    return int(text) if call.requester.appservice is not None and text.isdecimal() else None


class _Changed(Timestamps):
    """An appservice's good ts is taken for another."""

    def of(self, call: Call) -> int | None:
        ts = super().of(call)
        return ts if ts is None else self.changed(call, ts)

    def changed(self, call: Call, ts: int) -> int | None:
        """What the ts is taken for; None for the present."""
        raise NotImplementedError


@defect("TS-01")
class TsOfMessagesIsRounded(_Changed):
    """The ts of a message is rounded to whole seconds."""

    def changed(self, call: Call, ts: int) -> int | None:
        return ts if _is_state(call) else ts // 1000 * 1000


@defect("TS-01")
class TsCountsForKnownTypesOnly(_Changed):
    """The ts of a message of a type that is not the specification's is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return ts if _is_state(call) or _kind(call).startswith("m.") else None


@defect("TS-01", also=("TS-11",))
class AncientTsIsIgnored(_Changed):
    """A ts of more than ten years ago is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return ts if ts > self.hs.clock.now_ms() - 3650 * _DAY else None


@defect("TS-01")
class TsOfEncryptedMessagesIsIgnored(_Changed):
    """The ts of an encrypted message is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None if _kind(call) == "m.room.encrypted" else ts


@defect("TS-01")
class TsOfOpenGhostsIsIgnored(_Changed):
    """The ts of ghosts outside the exclusive namespaces is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        appservice, user, namespaces = call.requester.appservice, call.requester.user_id, self.hs.namespaces
        sender = appservice is not None and namespaces.is_sender(appservice, user)
        return ts if sender or namespaces.claimed("users", user) else None


@defect("TS-01")
class TsOfADeviceIsIgnored(_Changed):
    """The ts of an event that a ghost sends with one of its devices is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return ts if call.requester.device_id is None else None


@defect("TS-01", "TS-02")
class TsIsIgnored(_Changed):
    """The parameter ts is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None


@defect("TS-02")
class TsOfStateIsIgnored(_Changed):
    """The ts of state events is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None if _is_state(call) else ts


@defect("TS-02")
class TsOfStateWithoutAKeyInThePathIsIgnored(_Changed):
    """The ts of state events is ignored when the path has no state key."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None if call.path.partition("/state/")[2] == _kind(call) else ts


@defect("TS-02")
class TsOfStateWithAKeyIsIgnored(_Changed):
    """The ts of state events with a state key is ignored, but for memberships."""

    def changed(self, call: Call, ts: int) -> int | None:
        keyed = "/" in call.path.partition("/state/")[2] and _kind(call) != "m.room.member"
        return None if keyed else ts


@defect("TS-02")
class TsOfStateWithASlashAtTheEndIsIgnored(_Changed):
    """The ts of state events is ignored when the path ends in a slash, before an empty state key."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None if _is_state(call) and call.path.endswith("/") else ts


class _Sticking(Timestamps):
    """An event without ts gets the time of another."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._last: dict[str, int] = {}

    def of(self, call: Call) -> int | None:
        ts = super().of(call)
        key = self.key(call, call.requester)
        if key is not None and ts is not None:
            self._last[key] = ts
        return self._last.pop(key, None) if key is not None and ts is None else ts

    def key(self, call: Call, requester: Requester) -> str | None:
        """What the ts sticks to."""
        raise NotImplementedError


@defect("TS-03")
class TsSticksToTheUser(_Sticking):
    """An event without ts gets the last ts of the same ghost."""

    def key(self, call: Call, requester: Requester) -> str | None:
        return requester.user_id if requester.appservice and not _is_state(call) else None


@defect("TS-03")
class TsSticksToTheAppservice(_Sticking):
    """An event of the sender user without ts gets the last ts of a ghost in the same room."""

    def of(self, call: Call) -> int | None:
        ts = super().of(call)
        return None if ts is not None and "ts" not in call.query and "user_id" in call.query else ts

    def key(self, call: Call, requester: Requester) -> str | None:
        return f"{requester.appservice.id} {call.path.split('/')[5]}" if requester.appservice else None


@defect("TS-03")
class TsSticksToTheState(_Sticking):
    """A state event without ts gets the ts of the state that it replaces."""

    def key(self, call: Call, requester: Requester) -> str | None:
        return call.path if _is_state(call) and requester.appservice else None


@defect("TS-04")
class TsMayBeAnyNumber(Timestamps):
    """A ts of 1.5 or 1e3 is rounded."""

    def parsed(self, text: str) -> int:
        try:
            return int(float(text)) if len(text) < 10 else super().parsed(text)
        except ValueError:
            return super().parsed(text)


@defect("TS-04")
class TsMayBeHexadecimal(Timestamps):
    """A ts of 0x10 is taken for 16."""

    def parsed(self, text: str) -> int:
        return int(text, 16) if text.startswith("0x") else super().parsed(text)


@defect("TS-04")
class UnreadableTsOfStateIsNow(Timestamps):
    """A state event with a ts that is no integer is sent with the present time."""

    def of(self, call: Call) -> int | None:
        try:
            return super().of(call)
        except MatrixError:
            if _is_state(call):
                return None
            raise


@defect("TS-04")
class HugeTsBreaksTheServer(Timestamps):
    """A ts that does not fit into 64 bits is answered with 500."""

    def parsed(self, text: str) -> int:
        if text.isdecimal() and int(text) >= 2**63:
            raise OverflowError("value too large for its column")
        return super().parsed(text)


@defect("TS-04")
class EmptyTsIsTheEpoch(Timestamps):
    """An empty ts is taken for 0."""

    def parsed(self, text: str) -> int:
        return super().parsed(text or "0")


@defect("TS-04")
class RefusedTsIsSentAllTheSame(Rooms):
    """A message with a ts that is no integer is refused, but sent."""

    def send(self, call: Call, room_id: str, kind: str, txn_id: str) -> JsonObject:
        try:
            return super().send(call, room_id, kind, txn_id)
        except MatrixError as error:
            if error.status == 400 and "ts" in call.query:
                del call.query["ts"]
                super().send(call, room_id, kind, txn_id)
            raise


class _Obeying(Timestamps):
    """The ts of some who are no appservices counts."""

    def of(self, call: Call) -> int | None:
        text = call.query.get("ts", "")
        if call.requester.appservice is None and text.isdecimal() and self.obeys(call):
            return int(text)
        return super().of(call)

    def obeys(self, call: Call) -> bool:
        """Whether the ts of such a call counts."""
        raise NotImplementedError

    def is_ghosts(self, call: Call) -> bool:
        """Whether a call is made with a ghost's own token."""
        return self.store.accounts[call.requester.user_id].appservice is not None


@defect("TS-05", "TS-13")
class EverybodyMaySetTheTime(_Obeying):
    """The ts of a message is obeyed whoever sends it."""

    def obeys(self, call: Call) -> bool:
        return not _is_state(call)


@defect("TS-05")
class HumansMaySetTheTimeOfState(_Obeying):
    """The ts of a state event of an ordinary user is obeyed."""

    def obeys(self, call: Call) -> bool:
        return _is_state(call) and not self.is_ghosts(call)


class _Stamping(Rooms):
    """Events of calls that should ignore ts get that time."""

    _stamp: int | None = None

    def append(self, *args: Any, ts: int | None = None, **options: Any) -> Event:
        return super().append(*args, ts=self._stamp if ts is None else ts, **options)


@defect("TS-06")
class JoinsObeyTs(_Stamping):
    """Joins obey ts."""

    def join(self, call: Call, room_id: str) -> JsonObject:
        self._stamp = _asked(call)
        try:
            return super().join(call, room_id)
        finally:
            self._stamp = None


@defect("TS-06")
class KicksObeyTs(_Stamping):
    """Kicks obey ts."""

    def kick(self, call: Call, room_id: str) -> JsonObject:
        self._stamp = _asked(call)
        try:
            return super().kick(call, room_id)
        finally:
            self._stamp = None


@defect("TS-06")
class LeavesObeyTs(_Stamping):
    """Leaves obey ts."""

    def leave(self, call: Call, room_id: str) -> JsonObject:
        self._stamp = _asked(call)
        try:
            return super().leave(call, room_id)
        finally:
            self._stamp = None


@defect("TS-06")
class RedactionsObeyTs(_Stamping):
    """PUT /redact obeys ts."""

    def redact(self, call: Call, room_id: str, event_id: str, txn_id: str) -> JsonObject:
        self._stamp = _asked(call)
        try:
            return super().redact(call, room_id, event_id, txn_id)
        finally:
            self._stamp = None


@defect("TS-06")
class CreatedRoomsObeyTs(_Stamping):
    """The first state of a new room obeys ts."""

    def _furnish(self, room: Room, creator: str, call: Call, alias: str | None) -> None:
        self._stamp = _asked(call)
        try:
            super()._furnish(room, creator, call, alias)
        finally:
            self._stamp = None


@defect("TS-06")
class DisplayNamesObeyTs(Profiles):
    """The membership events that announce a new display name obey the ts of the call that set it."""

    def set_profile(self, call: Call, user_id: str, key: str) -> JsonObject:
        ts = _asked(call)
        if ts is None:
            return super().set_profile(call, user_id, key)
        self.check_own(call, user_id)
        self.store.set_profile(user_id, key, call.json[key])
        for room in self.store.rooms.values():
            if room.membership(user_id) == "join":
                self.hs.rooms.set_membership(room, user_id, user_id, "join", ts=ts)
        return {}


@defect("TS-07")
class TsOfMembersIsIgnored(_Changed):
    """The ts of memberships that are set as state is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None if _is_state(call) and _kind(call) == "m.room.member" else ts


@defect("TS-07")
class TsOfInvitesIsIgnored(_Changed):
    """The ts of invites that are set as state is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None if call.json.get("membership") == "invite" else ts


@defect("TS-07")
class TsOfJoinsIsIgnored(_Changed):
    """The ts of joins that are set as state is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None if _kind(call) == "m.room.member" and call.json.get("membership") == "join" else ts


@defect("TS-07")
class TsOfRoomNicknamesIsIgnored(_Changed):
    """The ts of a ghost's own membership is ignored when it is in the room already."""

    def changed(self, call: Call, ts: int) -> int | None:
        room = self.store.rooms[call.path.split("/")[5]] if _kind(call) == "m.room.member" else None
        own = call.path.endswith(f"/m.room.member/{call.requester.user_id}")
        return None if room and own and room.membership(call.requester.user_id) == "join" else ts


@defect("TS-07")
class OldMembershipsHaveNoEffect(Rooms):
    """A membership with a time before that of the one that it replaces does not take effect."""

    def append(self, room: Room, *args: Any, **options: Any) -> Event:
        before = dict(room.state)
        event = super().append(room, *args, **options)
        replaced = before.get((event.type, event.state_key or ""))
        if event.membership and replaced and event.origin_server_ts < replaced.origin_server_ts:
            room.state[event.type, event.state_key or ""] = replaced
        return event


@defect("TS-08")
class HistoryIsSortedByTime(Rooms):
    """A page of /messages is sorted by time."""

    def messages(self, call: Call, room_id: str) -> JsonObject:
        page = super().messages(call, room_id)
        backwards = call.query.get("dir", "b") != "f"
        page["chunk"].sort(key=lambda event: event["origin_server_ts"], reverse=backwards)
        return page


@defect("TS-08")
class OldEventsAreNotInTheHistory(Rooms):
    """/messages forwards begins with the creation of the room and leaves out what has an earlier time."""

    def messages(self, call: Call, room_id: str) -> JsonObject:
        page, created = super().messages(call, room_id), self.room(room_id).events[0].origin_server_ts
        if call.query.get("dir") == "f":
            page["chunk"] = [event for event in page["chunk"] if event["origin_server_ts"] >= created]
        return page


@defect("TS-08")
class SyncIsSortedByTime(Sync):
    """The timeline of a sync is sorted by time."""

    def joined(self, requester: Requester, room: Room, since: int | None, limit: int) -> JsonObject:
        shown = super().joined(requester, room, since, limit)
        shown.get("timeline", {}).get("events", []).sort(key=lambda event: event["origin_server_ts"])
        return shown


@defect("TS-09")
class PushesTellTheTimeOfReceipt(Format):
    """Pushed events have the time at which they were received, not their own."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        return {**super().for_appservice(event, appservice), "origin_server_ts": self.hs.clock.now_ms()}


@defect("TS-09")
class OldEventsAreNotPushed(Queues):
    """Events whose time is more than a day ago are not pushed."""

    def told(self, event: Event) -> None:
        if event.origin_server_ts > self.hs.clock.now_ms() - _DAY:
            super().told(event)


class _Late(Queues):
    """Some events are pushed after the next."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._held: list[tuple[str, JsonObject]] = []

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        if kind == "event" and self.is_late(item):
            self._held.append((appservice.id, item))
            return
        super().put(appservice, kind, item)
        late = [each for name, each in self._held if name == appservice.id]
        self._held = [each for each in self._held if each[0] != appservice.id]
        for each in late:
            super().put(appservice, "event", each)

    def is_late(self, item: JsonObject) -> bool:
        """Whether an event is held back until there is another."""
        raise NotImplementedError


@defect("TS-09")
class OldEventsArePushedLate(_Late):
    """Events whose time is long ago are pushed after those that come next."""

    def is_late(self, item: JsonObject) -> bool:
        return bool(item["origin_server_ts"] < self.hs.clock.now_ms() - _DAY)


@defect("TS-09")
class FutureEventsArePushedLate(_Late):
    """Events whose time is in the future are pushed after those that come next."""

    def is_late(self, item: JsonObject) -> bool:
        return bool(item["origin_server_ts"] > self.hs.clock.now_ms())


@defect("TS-10")
class TsNeedsAUserId(_Changed):
    """Without user_id ts is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return ts if "user_id" in call.query else None


@defect("TS-10")
class TheSenderCannotSetTheTimeOfState(_Changed):
    """The ts of a state event of the sender user is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None if _is_state(call) and "user_id" not in call.query else ts


@defect("TS-11")
class TsZeroIsNoTs(_Changed):
    """A ts of 0 counts as absent."""

    def changed(self, call: Call, ts: int) -> int | None:
        return ts or None


@defect("TS-11")
class SmallTsIsInSeconds(_Changed):
    """A ts with less than eleven digits is taken for seconds."""

    def changed(self, call: Call, ts: int) -> int | None:
        return ts if ts >= 10**10 else ts * 1000


@defect("TS-12")
class TsIsAtMostNow(_Changed):
    """A ts in the future is taken for the present."""

    def changed(self, call: Call, ts: int) -> int | None:
        return min(ts, self.hs.clock.now_ms())


@defect("TS-12")
class FutureTsOfStateIsIgnored(_Changed):
    """A ts in the future is ignored for state events."""

    def changed(self, call: Call, ts: int) -> int | None:
        return min(ts, self.hs.clock.now_ms()) if _is_state(call) else ts


@defect("TS-13")
class TokensOfGhostsSetTheTime(_Obeying):
    """The ts of a message that a ghost sends by a token of its own is obeyed."""

    def obeys(self, call: Call) -> bool:
        return self.is_ghosts(call) and not _is_state(call)


@defect("TS-13")
class TokensOfGhostsSetTheTimeOfState(_Obeying):
    """The ts of a state event that a ghost sends by a token of its own is obeyed."""

    def obeys(self, call: Call) -> bool:
        return self.is_ghosts(call) and _is_state(call)


@defect("TS-14")
class TsOfRedactionsIsIgnored(_Changed):
    """The ts of a redaction that is sent by /send is ignored."""

    def changed(self, call: Call, ts: int) -> int | None:
        return None if _kind(call) == "m.room.redaction" else ts


@defect("TS-14")
class OldRedactionsHaveNoEffect(Rooms):
    """A redaction with a time before that of its target does not take effect."""

    def redacted(
        self, room: Room, sender: str, target: str, content: JsonObject, ts: int | None, mark: tuple[str, str, str]
    ) -> Event:
        event = self.store.events.get(target)
        if ts is not None and event is not None and ts < event.origin_server_ts:
            return self.append(room, sender, "m.room.redaction", content, ts=ts, redacts=target, transaction=mark)
        return super().redacted(room, sender, target, content, ts, mark)


@defect("TS-12", also=("TS-04",))
class TimeEndsIn2038(Timestamps):
    """Seconds have 32 bits, with a sign: a later `ts` is taken for the last of them."""

    def parsed(self, text: str) -> int:
        return min(super().parsed(text), (2**31 - 1) * 1000)
