"""Defects of area EPH: typing notices, receipts and presence."""

from __future__ import annotations

from conformance.appservice.registration import Registration
from conformance.reference.accounts import Profiles
from conformance.reference.defects import defect
from conformance.reference.ephemeral import Ephemeral
from conformance.reference.policy import MatrixError
from conformance.reference.store import JsonObject
from conformance.reference.sync import Sync
from conformance.reference.transactions import Queues, Transactions
from conformance.reference.web import Call


class _Items(Ephemeral):
    """What is queued for appservices goes through one method for each type."""

    def push(self, appservice: Registration, item: JsonObject) -> None:
        change = {"m.typing": self.typing, "m.receipt": self.receipt, "m.presence": self.changed_presence}
        changed = change[item["type"]](item)
        if changed is not None:
            super().push(appservice, changed)

    def typing(self, item: JsonObject) -> JsonObject | None:
        """A typing notice as it is pushed; None: not at all."""
        return item

    def receipt(self, item: JsonObject) -> JsonObject | None:
        """A receipt as it is pushed; None: not at all."""
        return item

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        """Presence as it is pushed; None: not at all."""
        return item


class _Receipts(_Items):
    """Receipts are pushed otherwise, one by one."""

    def receipt(self, item: JsonObject) -> JsonObject | None:
        ((event_id, kinds),) = item["content"].items()
        ((kind, users),) = kinds.items()
        ((user_id, data),) = users.items()
        return self.one(item, event_id, kind, user_id, dict(data))

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        """A receipt as it is pushed; None: not at all."""
        return item


def _single(item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject:
    return item | {"content": {event_id: {kind: {user_id: data}}}}


@defect("EPH-01")
class TypingIsNotPushed(_Items):
    """Typing notices are not pushed."""

    def typing(self, item: JsonObject) -> JsonObject | None:
        return None


@defect("EPH-01")
class OnlyTheFirstTypistIsPushed(_Items):
    """A typing notice is pushed when the first user begins to type, not when more do."""

    def typing(self, item: JsonObject) -> JsonObject | None:
        return item if len(item["content"]["user_ids"]) <= 1 else None


@defect("EPH-01")
class GhostsTypeUnseen(Ephemeral):
    """A typing notice leaves out the appservice's own ghosts, and one of which nobody is left is not pushed."""

    def push(self, appservice: Registration, item: JsonObject) -> None:
        if item["type"] == "m.typing" and item["content"]["user_ids"]:
            own = self.hs.namespaces.is_own_user
            users = [each for each in item["content"]["user_ids"] if not own(appservice, each)]
            if not users:
                return
            item = {**item, "content": {"user_ids": users}}
        super().push(appservice, item)


@defect("EPH-01", also=("EPH-07", "EPH-14"))
class EphemeralInterestIsOfTheFirstNamespace(Ephemeral):
    """For ephemeral data only members of the first users namespace count, and the sender user."""

    def interested(self, appservice: Registration, room_id: str, users: list[str]) -> bool:
        room, first = self.store.rooms[room_id], self.hs.namespaces.entries(appservice, "users")[:1]
        if not super().interested(appservice, room_id, users):
            return False
        members = room.members("join")
        ghosts = any(self.hs.namespaces.matches(entry, each) for entry in first for each in members)
        sender = any(self.hs.namespaces.is_sender(appservice, each) for each in members)
        return ghosts or sender or self.hs.interest.by_alias(appservice, room)


@defect("EPH-01")
class TypingIsPushedToTheFirstAppservice(Ephemeral):
    """Typing notices are pushed to the first appservice that they interest."""

    def tell_typing(self, room_id: str, users: list[str]) -> None:
        receivers = [each for each in self.receivers() if self.interested(each, room_id, users)]
        for appservice in receivers[:1]:
            self.push(appservice, self.in_room(room_id, {"type": "m.typing", "content": {"user_ids": users}}))


@defect("EPH-01", also=("EPH-05", "EPH-20"))
class ATypistHasOneRoom(Ephemeral):
    """Who types in one room is not pushed when typing in another too."""

    def tell_typing(self, room_id: str, users: list[str]) -> None:
        elsewhere = {each for other, room in self._rooms.items() if other != room_id for each in room.typing}
        if not users or not elsewhere.issuperset(users):
            super().tell_typing(room_id, users)


@defect("EPH-01")
class TheSenderTypesUnseen(Ephemeral):
    """That the sender user types is not pushed to its appservice, as if it knew that already."""

    def push(self, appservice: Registration, item: JsonObject) -> None:
        if item["type"] == "m.typing":
            is_sender, users = self.hs.namespaces.is_sender, item["content"]["user_ids"]
            item = {**item, "content": {"user_ids": [each for each in users if not is_sender(appservice, each)]}}
        super().push(appservice, item)


@defect("EPH-01")
class GhostsOfOthersTypeUnseen(Ephemeral):
    """A typing notice has humans and the appservice's own users, not those of another appservice."""

    def push(self, appservice: Registration, item: JsonObject) -> None:
        if item["type"] == "m.typing":
            own, users = self.hs.namespaces.is_own_user, item["content"]["user_ids"]
            others = [each for each in self.hs.appservices if each.id != appservice.id]
            seen = [each for each in users if own(appservice, each) or not any(own(other, each) for other in others)]
            item = {**item, "content": {"user_ids": seen}}
        super().push(appservice, item)


@defect("EPH-02")
class TypingNamesNoRoom(_Items):
    """Typing notices are pushed as they stand in a sync, without a room_id."""

    def typing(self, item: JsonObject) -> JsonObject | None:
        return {key: value for key, value in item.items() if key != "room_id"}


@defect("EPH-02")
class TypingNamesItsRoomInItsContent(_Items):
    """The room_id of a typing notice is in its content."""

    def typing(self, item: JsonObject) -> JsonObject | None:
        return {"type": item["type"], "content": item["content"] | {"room_id": item["room_id"]}}


@defect("EPH-02", also=("EPH-22",))
class TypingNamesTheFirstRoom(_Items):
    """Every typing notice names the room in which somebody typed first."""

    _first: str | None = None

    def typing(self, item: JsonObject) -> JsonObject | None:
        self._first = self._first or item["room_id"]
        return item | {"room_id": self._first}


@defect("EPH-03")
class TypingHasTheFederationFormat(_Items):
    """A typing notice has one user_id and typing: true, as it is sent to other servers."""

    def typing(self, item: JsonObject) -> JsonObject | None:
        users = item["content"]["user_ids"]
        content = {"room_id": item["room_id"], "user_id": users[-1] if users else "", "typing": bool(users)}
        return item | {"content": content}


@defect("EPH-03")
class TypistsAreObjects(_Items):
    """user_ids of a typing notice is a list of objects."""

    def typing(self, item: JsonObject) -> JsonObject | None:
        return item | {"content": {"user_ids": [{"user_id": each} for each in item["content"]["user_ids"]]}}


class _TypingEnds(_Items):
    """Some ends of typing are not pushed."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._before: dict[str, int] = {}

    def tell_typing(self, room_id: str, users: list[str]) -> None:
        before = self._before.get(room_id, 0)
        self._before[room_id] = len(users)
        if len(users) > before or self.tells_end(users):
            super().tell_typing(room_id, users)

    def tells_end(self, users: list[str]) -> bool:
        """Whether it is pushed that somebody has stopped and these still type."""
        return False


@defect("EPH-04")
class OnlyStartsOfTypingArePushed(_TypingEnds):
    """It is not pushed when somebody stops typing."""


@defect("EPH-04")
class TimeOutsOfTypingAreNotPushed(Ephemeral):
    """It is not pushed that a typing notice has run out, although clients are told; that somebody stops is."""

    _over = False

    def _typed_enough(self, room_id: str, user_id: str) -> None:
        with self.hs.lock:
            self._over = True
            try:
                super()._typed_enough(room_id, user_id)
            finally:
                self._over = False

    def tell_typing(self, room_id: str, users: list[str]) -> None:
        if not self._over:
            super().tell_typing(room_id, users)


@defect("EPH-04")
class OnlyTheLastEndOfTypingIsPushed(_TypingEnds):
    """It is not pushed when somebody stops typing while others go on."""

    def tells_end(self, users: list[str]) -> bool:
        return not users


@defect("EPH-04")
class AnEmptyListOfTypistsIsNotPushed(_TypingEnds):
    """It is not pushed when the last one stops typing."""

    def tells_end(self, users: list[str]) -> bool:
        return bool(users)


@defect("EPH-05")
class EphemeralInterestIgnoresAliases(Ephemeral):
    """For ephemeral data a room's aliases do not count."""

    def interested(self, appservice: Registration, room_id: str, users: list[str]) -> bool:
        room, interest = self.store.rooms[room_id], self.hs.interest
        return interest.by_member(appservice, room) or interest.by_room_id(appservice, room)


@defect("EPH-06", also=("EPH-22",))
class TypingIsPushedFromAllRooms(Ephemeral):
    """Typing in any room is pushed to all who receive ephemeral data."""

    def tell_typing(self, room_id: str, users: list[str]) -> None:
        for appservice in self.receivers():
            self.push(appservice, self.in_room(room_id, {"type": "m.typing", "content": {"user_ids": users}}))


@defect("EPH-06", also=("EPH-22",))
class TypingIsPushedOfAcquaintances(Ephemeral):
    """Who was in any room of interest has its typing pushed from all rooms."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._known: set[tuple[str, str]] = set()

    def interested(self, appservice: Registration, room_id: str, users: list[str]) -> bool:
        room = self.store.rooms[room_id]
        if super().interested(appservice, room_id, users):
            self._known |= {(appservice.id, member) for member in room.members("join")}
            return True
        return any((appservice.id, user) in self._known for user in users)


@defect("EPH-07")
class ReceiptsAreNotPushed(_Items):
    """Receipts are not pushed."""

    def receipt(self, item: JsonObject) -> JsonObject | None:
        return None


@defect("EPH-07")
class OnlyTheFirstReceiptIsPushed(_Receipts):
    """Of a user's unthreaded receipts in a room only the first is pushed."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._had: dict[tuple[str, str], str] = {}

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        first = self._had.setdefault((item["room_id"], user_id), event_id)
        return item if first == event_id or kind != "m.read" or "thread_id" in data else None


@defect("EPH-05")
class ReceiptsIgnoreAliases(Ephemeral):
    """Receipts are not pushed from rooms that interest an appservice by their alias or their ID only."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        for appservice in self.receivers():
            by_member = self.hs.interest.by_member(appservice, self.store.rooms[room_id])
            if by_member and (kind != "m.read.private" or self.may_see_private(appservice, user_id)):
                self.push(appservice, self.in_room(room_id, {"type": "m.receipt", "content": content}))


@defect("EPH-07")
class ReceiptsOfGhostsAreNotPushed(_Receipts):
    """Public receipts of ghosts are not pushed."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        own = any(self.hs.namespaces.is_own_user(each, user_id) for each in self.hs.appservices)
        return None if own and kind == "m.read" else item


@defect("EPH-07", also=("EPH-13",))
class ReceiptsArePushedToTheFirstAppservice(Ephemeral):
    """Public receipts are pushed to the first appservice that they interest."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        if kind != "m.read":
            super().tell_receipt(room_id, user_id, kind, content)
            return
        receivers = [each for each in self.receivers() if self.interested(each, room_id, [user_id])]
        for appservice in receivers[:1]:
            self.push(appservice, self.in_room(room_id, {"type": "m.receipt", "content": content}))


@defect("EPH-07")
class OneReceiptForAnEventIsPushed(_Receipts):
    """When several users read the same event only the first receipt is pushed."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._had: dict[str, str] = {}

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        first = self._had.setdefault(event_id, user_id)
        return item if first == user_id or kind != "m.read" else None


@defect("EPH-07")
class WaitingReceiptsAreCollapsed(Queues):
    """Of the receipts of a room that wait for the next transaction only the last is pushed, whoever's they are."""

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        if kind == "ephemeral" and item["type"] == "m.receipt":
            with self.hs.lock:
                queue = self.store.queues[appservice.id]
                queue.waiting[:] = [
                    (other, waiting)
                    for other, waiting in queue.waiting
                    if (other, waiting.get("type"), waiting.get("room_id")) != (kind, "m.receipt", item["room_id"])
                ]
        super().put(appservice, kind, item)


@defect("EPH-07")
class FewEphemeralItemsWait(Queues):
    """Of the ephemeral data that wait for the next transaction the newest eight are kept."""

    def put(self, appservice: Registration, kind: str, item: JsonObject) -> None:
        super().put(appservice, kind, item)
        with self.hs.lock:
            waiting = self.store.queues[appservice.id].waiting
            passing = [each for each in waiting if each[0] == "ephemeral"]
            for each in passing[:-8]:
                waiting.remove(each)


class _Marked(Ephemeral):
    """Receipts that are sent to /read_markers are pushed otherwise."""

    #: What the call to /read_markers says that is being answered.
    markers: JsonObject | None = None

    def set_read_markers(self, call: Call, room_id: str) -> JsonObject:
        self.markers = call.json
        try:
            return super().set_read_markers(call, room_id)
        finally:
            self.markers = None


@defect("EPH-07")
class ReadMarkersMakeNoReceipts(_Marked):
    """Receipts that are sent to /read_markers are not pushed, though clients are told."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        if self.markers is None or kind != "m.read":
            super().tell_receipt(room_id, user_id, kind, content)


@defect("EPH-07")
class ReceiptsBesideFullyReadAreNotPushed(_Marked):
    """A receipt in /read_markers is pushed when it comes without an m.fully_read."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        if "m.fully_read" not in (self.markers or {}) or kind != "m.read":
            super().tell_receipt(room_id, user_id, kind, content)


@defect("EPH-07")
class ReceiptsOfTheSenderAreNotPushed(Ephemeral):
    """The sender user's receipts are not pushed to its appservice, as if it knew them already."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        if not any(self.hs.namespaces.is_sender(each, user_id) for each in self.receivers()):
            super().tell_receipt(room_id, user_id, kind, content)


@defect("EPH-07")
class AllReceiptsComeEachTime(Ephemeral):
    """With each receipt all the receipts that were pushed before are pushed again."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._pushed: dict[str, list[JsonObject]] = {}

    def push(self, appservice: Registration, item: JsonObject) -> None:
        pushed = self._pushed.setdefault(appservice.id, [])
        if item["type"] == "m.receipt":
            for each in pushed[-30:]:
                super().push(appservice, each)
            pushed.append(item)
        super().push(appservice, item)


@defect("EPH-07")
class AllReceiptsOfARoomComeEachTime(Ephemeral):
    """With each receipt those of its room that were pushed before are pushed again."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._pushed: dict[tuple[str, str], list[JsonObject]] = {}

    def push(self, appservice: Registration, item: JsonObject) -> None:
        if item["type"] == "m.receipt":
            pushed = self._pushed.setdefault((appservice.id, item["room_id"]), [])
            for each in pushed:
                super().push(appservice, each)
            pushed.append(item)
        super().push(appservice, item)


@defect("EPH-08")
class ReceiptsNameNoRoom(_Items):
    """Receipts are pushed as they stand in a sync, without a room_id."""

    def receipt(self, item: JsonObject) -> JsonObject | None:
        return {key: value for key, value in item.items() if key != "room_id"}


@defect("EPH-08")
class ReceiptsCallTheirRoomRoom(_Items):
    """Receipts name their room in a key of another name."""

    def receipt(self, item: JsonObject) -> JsonObject | None:
        return {"type": item["type"], "content": item["content"], "room": item["room_id"]}


@defect("EPH-09")
class ReceiptsHaveTheFederationFormat(_Receipts):
    """A receipt is pushed by room, type and user, as it is sent to other servers."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        return item | {"content": {item["room_id"]: {kind: {user_id: {"event_ids": [event_id], "data": data}}}}}


@defect("EPH-09")
class ReceiptsAreByUserFirst(_Receipts):
    """A receipt is pushed by event, user and type."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        return item | {"content": {event_id: {user_id: {kind: data}}}}


@defect("EPH-09")
class TimeStampsOfReceiptsAreTexts(_Receipts):
    """The ts of a receipt is a string."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        return _single(item, event_id, kind, user_id, data | {"ts": str(data["ts"])})


@defect("EPH-09")
class TimeStampsOfReceiptsAreSeconds(_Receipts):
    """The ts of a receipt is in seconds."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        return _single(item, event_id, kind, user_id, data | {"ts": data["ts"] // 1000})


@defect("EPH-10")
class ThreadedReceiptsAreNotPushed(_Receipts):
    """Receipts with a thread_id are not pushed."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        return None if "thread_id" in data else item


@defect("EPH-10")
class OnlyReceiptsOfTheMainThreadArePushed(_Receipts):
    """Receipts of threads are not pushed, those of the main timeline are."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        return item if data.get("thread_id", "main") == "main" else None


@defect("EPH-10")
class ReceiptsLoseTheirThread(_Receipts):
    """Receipts of threads are pushed without their thread_id."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        if data.get("thread_id") != "main":
            data.pop("thread_id", None)
        return _single(item, event_id, kind, user_id, data)


@defect("EPH-11", "EPH-13")
class PrivateReceiptsAreLikePublicOnes(Ephemeral):
    """Private receipts are pushed to everybody who gets the public ones."""

    def may_see_private(self, appservice: Registration, user_id: str) -> bool:
        return True


@defect("EPH-11")
class HumansPrivateReceiptsArePushed(Ephemeral):
    """Private receipts of humans are pushed; those of ghosts to their own appservice."""

    def may_see_private(self, appservice: Registration, user_id: str) -> bool:
        is_own = self.hs.namespaces.is_own_user
        return is_own(appservice, user_id) or not any(is_own(each, user_id) for each in self.hs.appservices)


@defect("EPH-11")
class PrivateReceiptsOfHumansBecomePublic(Ephemeral):
    """A human's private receipt is pushed as an m.read."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        owned = any(self.hs.namespaces.is_own_user(each, user_id) for each in self.hs.appservices)
        if kind == "m.read.private" and not owned:
            ((event_id, kinds),) = content.items()
            kind, content = "m.read", {event_id: {"m.read": kinds[kind]}}
        super().tell_receipt(room_id, user_id, kind, content)


@defect("EPH-11", also=("EPH-13",))
class ThreadedPrivateReceiptsArePublic(Ephemeral):
    """Private receipts with a thread_id are pushed to everybody who gets the public ones."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        self._threaded = "thread_id" in next(iter(content.values()))[kind][user_id]
        super().tell_receipt(room_id, user_id, kind, content)

    def may_see_private(self, appservice: Registration, user_id: str) -> bool:
        return self._threaded or super().may_see_private(appservice, user_id)


@defect("EPH-11", "EPH-12", "EPH-13")
class PrivateReceiptsAmongReadMarkersArePublic(_Marked):
    """The m.read.private of /read_markers is taken for an m.read."""

    def receive(self, call: Call, room_id: str, kind: str, event_id: str, data: JsonObject) -> None:
        super().receive(call, room_id, kind if self.markers is None else "m.read", event_id, data)


@defect("EPH-11")
class PrivateReceiptsBesidePublicOnesArePublic(_Marked):
    """When /read_markers has an m.read and an m.read.private both are taken for m.read."""

    def receive(self, call: Call, room_id: str, kind: str, event_id: str, data: JsonObject) -> None:
        super().receive(call, room_id, "m.read" if "m.read" in (self.markers or {}) else kind, event_id, data)


@defect("EPH-12")
class ThreadedPrivateReceiptsAreNotPushed(_Receipts):
    """Private receipts with a thread_id are pushed to nobody."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        return None if kind == "m.read.private" and "thread_id" in data else item


@defect("EPH-12")
class PrivateReceiptsAreNeverPushed(Ephemeral):
    """Private receipts are pushed to nobody."""

    def may_see_private(self, appservice: Registration, user_id: str) -> bool:
        return False


@defect("EPH-12")
class PrivateReceiptsOfTheFirstNamespaceArePushed(Ephemeral):
    """Private receipts are pushed of users of the first namespace only."""

    def may_see_private(self, appservice: Registration, user_id: str) -> bool:
        first = self.hs.namespaces.entries(appservice, "users")[:1]
        return any(self.hs.namespaces.matches(each, user_id) for each in first)


@defect("EPH-12")
class PrivateReceiptsOfGhostsArePushedAsPublic(_Receipts):
    """A ghost's private receipt is pushed to its own appservice as an m.read."""

    def one(self, item: JsonObject, event_id: str, kind: str, user_id: str, data: JsonObject) -> JsonObject | None:
        return _single(item, event_id, "m.read", user_id, data)


@defect("EPH-12")
class PrivateReceiptsAmongReadMarkersAreNotPushed(_Marked):
    """A ghost's m.read.private in /read_markers is not pushed, though it is shown to the ghost."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        if self.markers is None or kind == "m.read":
            super().tell_receipt(room_id, user_id, kind, content)


@defect("EPH-13")
class PrivateReceiptsOfAnyGhostArePushed(Ephemeral):
    """Private receipts of the users of any appservice are pushed to all appservices."""

    def may_see_private(self, appservice: Registration, user_id: str) -> bool:
        return any(self.hs.namespaces.is_own_user(each, user_id) for each in self.hs.appservices)


@defect("EPH-14")
class PresenceIsNotPushed(_Items):
    """Presence is not pushed."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        return None


@defect("EPH-14")
class OnlyPresenceOfGhostsIsPushed(Ephemeral):
    """The presence of humans is not pushed, in whatever rooms they are."""

    def sees_presence(self, appservice: Registration, user_id: str) -> bool:
        return self.hs.namespaces.is_own_user(appservice, user_id)


@defect("EPH-14")
class PresenceLosesItsStatusMessage(_Items):
    """Presence is pushed without its status message."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        return item | {"content": {"presence": item["content"]["presence"]}}


@defect("EPH-14")
class OnlyUnavailableIsPushed(_Items):
    """That somebody is online or offline is not pushed."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        return item if item["content"]["presence"] == "unavailable" else None


@defect("EPH-14")
class OfflineIsNotPushed(_Items):
    """That somebody is offline is not pushed."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        return item if item["content"]["presence"] != "offline" else None


@defect("EPH-14")
class NewStatusMessagesAreNotPushed(_Items):
    """Presence is pushed when it is another one, not when the status message is."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._had: dict[str, str] = {}

    def tell_presence(self, user_id: str, content: JsonObject) -> None:
        before, self._had[user_id] = self._had.get(user_id), content["presence"]
        if before != content["presence"]:
            super().tell_presence(user_id, content)


@defect("EPH-14")
class PresenceWithoutAStatusMessageIsNotPushed(_Items):
    """Presence is pushed when it has a status message."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        return item if "status_msg" in item["content"] else None


@defect("EPH-14")
class PresenceIgnoresTheSender(Ephemeral):
    """The presence of those who share a room with the sender user only is not pushed."""

    def sees_presence(self, appservice: Registration, user_id: str) -> bool:
        rooms = [room for room in self.store.rooms.values() if room.membership(user_id) == "join"]
        covers = self.hs.namespaces.covers
        mates = any(covers(appservice, "users", each) for room in rooms for each in room.members("join"))
        return mates or self.hs.namespaces.is_own_user(appservice, user_id)


@defect("EPH-15")
class PresenceOfGhostsIsRefused(Ephemeral):
    """Presence can be set by humans and by the sender user, not by ghosts: the path is compared with the sender."""

    def set_presence(self, call: Call, user_id: str) -> JsonObject:
        appservice = call.requester.appservice
        if appservice is not None and not self.hs.namespaces.is_sender(appservice, user_id):
            raise MatrixError(403, "M_FORBIDDEN", "that is another user's")
        return super().set_presence(call, user_id)


@defect("EPH-15")
class OnlyPresenceOfRoomMatesIsPushed(Ephemeral):
    """The presence of a ghost who is in no room is not pushed."""

    def sees_presence(self, appservice: Registration, user_id: str) -> bool:
        rooms = [room for room in self.store.rooms.values() if room.membership(user_id) == "join"]
        return any(self.hs.interest.in_room(appservice, room) for room in rooms)


@defect("EPH-15")
class PresenceOfTheFirstNamespaceIsPushed(OnlyPresenceOfRoomMatesIsPushed):
    """Of users in no room the presence is pushed only for those of the first namespace."""

    def sees_presence(self, appservice: Registration, user_id: str) -> bool:
        first = self.hs.namespaces.entries(appservice, "users")[:1]
        own = any(self.hs.namespaces.matches(each, user_id) for each in first)
        return own or super().sees_presence(appservice, user_id)


@defect("EPH-15")
class PresenceOfTheSenderIsNotPushed(Ephemeral):
    """The presence of the sender user is not pushed to its appservice, as if it knew that already."""

    def sees_presence(self, appservice: Registration, user_id: str) -> bool:
        return not self.hs.namespaces.is_sender(appservice, user_id) and super().sees_presence(appservice, user_id)


@defect("EPH-16")
class PresenceHasItsUserInItsContent(_Items):
    """Presence has no sender: the user is in its content."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        return {"type": item["type"], "content": item["content"] | {"user_id": item["sender"]}}


@defect("EPH-16")
class PresenceIsBesideItsContent(_Items):
    """The presence itself is at the top level."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        content = dict(item["content"])
        return item | {"presence": content.pop("presence"), "content": content}


@defect("EPH-16")
class PresenceIsSentByTheServer(_Items):
    """The sender of presence is a user of the homeserver's own."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        return item | {"sender": self.hs.user_id("presence"), "content": item["content"] | {"user_id": item["sender"]}}


@defect("EPH-16")
class LastActiveAgoIsATimeStamp(_Items):
    """last_active_ago is the time at which the user was active."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        return item | {"content": item["content"] | {"last_active_ago": self.hs.clock.now_ms()}}


@defect("EPH-16")
class CurrentlyActiveIsAText(_Items):
    """Who is online has a currently_active that is a string."""

    def changed_presence(self, item: JsonObject) -> JsonObject | None:
        online = item["content"]["presence"] == "online"
        return item | {"content": item["content"] | {"currently_active": "true"}} if online else item


@defect("EPH-17")
class PresenceOfAllUsersIsPushed(Ephemeral):
    """The presence of all local users is pushed."""

    def sees_presence(self, appservice: Registration, user_id: str) -> bool:
        return True


@defect("EPH-17")
class PresenceOfThoseWhoLeftIsPushed(Ephemeral):
    """Who has interested an appservice once goes on doing so."""

    def sees_presence(self, appservice: Registration, user_id: str) -> bool:
        known: set[tuple[str, str]] = self.__dict__.setdefault("known", set())
        if super().sees_presence(appservice, user_id):
            known.add((appservice.id, user_id))
        return (appservice.id, user_id) in known


@defect("EPH-18")
class EverybodyReceivesEphemeralData(Ephemeral):
    """receive_ephemeral is not looked at."""

    def receivers(self) -> list[Registration]:
        return [each for each in self.hs.appservices if each.url is not None]


@defect("EPH-18")
class EphemeralDataAreTheDefault(Ephemeral):
    """Where receive_ephemeral is not given it counts as true."""

    def receivers(self) -> list[Registration]:
        return [
            each for each in self.hs.appservices if each.url is not None and each.extra.get("receive_ephemeral", True)
        ]


@defect("EPH-18")
class AnyReceiveEphemeralIsTrue(Ephemeral):
    """An appservice with receive_ephemeral: false gets ephemeral data."""

    def receivers(self) -> list[Registration]:
        return [each for each in self.hs.appservices if each.url is not None and "receive_ephemeral" in each.extra]


@defect("EPH-19")
class ReadMarkersAreEphemeral(Ephemeral):
    """The marker m.fully_read of a user is pushed as ephemeral data."""

    def set_receipt(self, call: Call, room_id: str, kind: str, event_id: str) -> JsonObject:
        answer = super().set_receipt(call, room_id, kind, event_id)
        if kind == "m.fully_read":
            for appservice in self.receivers():
                if self.interested(appservice, room_id, []):
                    self.push(appservice, self.in_room(room_id, {"type": kind, "content": {"event_id": event_id}}))
        return answer


@defect("EPH-19")
class FullyReadIsAReceipt(Ephemeral):
    """An m.fully_read of /read_markers is pushed as ephemeral data of that type."""

    def set_read_markers(self, call: Call, room_id: str) -> JsonObject:
        answer = super().set_read_markers(call, room_id)
        if "m.fully_read" in call.json:
            content = {"event_id": call.json["m.fully_read"]}
            for appservice in self.receivers():
                if self.interested(appservice, room_id, []):
                    self.push(appservice, self.in_room(room_id, {"type": "m.fully_read", "content": content}))
        return answer


@defect("EPH-19")
class AccountDataIsEphemeral(Profiles):
    """The account data of ghosts is pushed as ephemeral data."""

    def set_account_data(self, call: Call, user_id: str, kind: str, room_id: str = "") -> JsonObject:
        answer = super().set_account_data(call, user_id, kind, room_id)
        for appservice in self.hs.ephemeral.receivers():
            if self.hs.namespaces.is_own_user(appservice, user_id):
                self.hs.ephemeral.push(appservice, {"type": kind, "content": call.json})
        return answer


@defect("EPH-19")
class ToDeviceMessagesAreEphemeral(Sync):
    """Messages to the devices of ghosts are pushed as ephemeral data."""

    def send_to_device(self, call: Call, kind: str, txn_id: str) -> JsonObject:
        for user_id, devices in call.json.get("messages", {}).items():
            for appservice in self.hs.ephemeral.receivers():
                if self.hs.namespaces.is_own_user(appservice, user_id):
                    for content in devices.values():
                        item = {"type": kind, "sender": call.requester.user_id, "content": content}
                        self.hs.ephemeral.push(appservice, item)
        return super().send_to_device(call, kind, txn_id)


@defect("EPH-20")
class EphemeralInterestIgnoresTheSender(Ephemeral):
    """For ephemeral data the sender user does not count as a member of a room."""

    def interested(self, appservice: Registration, room_id: str, users: list[str]) -> bool:
        if super().interested(appservice, room_id, users):
            room, interest = self.store.rooms[room_id], self.hs.interest
            members = [each for each in room.members("join") if not self.hs.namespaces.is_sender(appservice, each)]
            ghosts = any(interest.is_own_user(appservice, each) for each in members)
            return ghosts or interest.by_alias(appservice, room) or interest.by_room_id(appservice, room)
        return False


@defect("EPH-20")
class ReceiptsIgnoreTheSender(Ephemeral):
    """Receipts are not pushed from rooms where only the sender user is."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        room = self.store.rooms[room_id]
        for appservice in self.receivers():
            ghosts = any(self.hs.namespaces.covers(appservice, "users", each) for each in room.members("join"))
            seen = ghosts or self.hs.interest.by_alias(appservice, room)
            if seen and (kind != "m.read.private" or self.may_see_private(appservice, user_id)):
                self.push(appservice, self.in_room(room_id, {"type": "m.receipt", "content": content}))


class _Retries(Transactions):
    """The ephemeral data of a transaction are told otherwise when it is tried again."""

    def retried(self, appservice: Registration, txn_id: str, body: JsonObject, attempt: int) -> tuple[str, JsonObject]:
        txn_id, body = super().retried(appservice, txn_id, body, attempt)
        return txn_id, {**body, "ephemeral": self.anew(body["ephemeral"])} if "ephemeral" in body else body

    def anew(self, items: list[JsonObject]) -> list[JsonObject]:
        """The ephemeral data of a retry."""
        raise NotImplementedError


@defect("EPH-21")
class TypingIsListedAnewInRetries(_Retries):
    """A transaction that is tried again says who types now."""

    def anew(self, items: list[JsonObject]) -> list[JsonObject]:
        return [
            {**item, "content": {"user_ids": self.hs.ephemeral.typists(item["room_id"])}}
            if item["type"] == "m.typing"
            else item
            for item in items
        ]


@defect("EPH-21")
class RetriesNameNoRooms(_Retries):
    """In a transaction that is tried again, typing notices and receipts do not say of which room they are."""

    def anew(self, items: list[JsonObject]) -> list[JsonObject]:
        return [{key: value for key, value in item.items() if key != "room_id"} for item in items]


@defect("EPH-22")
class ReceiptsArePushedFromAllRooms(Ephemeral):
    """Public receipts of any room are pushed to all who receive ephemeral data."""

    def tell_receipt(self, room_id: str, user_id: str, kind: str, content: JsonObject) -> None:
        for appservice in self.receivers():
            if kind != "m.read.private" or self.may_see_private(appservice, user_id):
                self.push(appservice, self.in_room(room_id, {"type": "m.receipt", "content": content}))


@defect("EPH-22", also=("EPH-08",))
class ReceiptsNameTheRoomBefore(_Items):
    """A receipt names the room of the receipt before it."""

    _before: str | None = None

    def receipt(self, item: JsonObject) -> JsonObject | None:
        before, self._before = self._before, item["room_id"]
        return item | {"room_id": before or item["room_id"]}
