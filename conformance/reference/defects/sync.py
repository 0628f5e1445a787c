"""Defects of area SYNC: /sync and /events for ghosts."""

from __future__ import annotations

from typing import Any

from conformance.reference.defects import defect
from conformance.reference.identity import Requester
from conformance.reference.policy import endpoint
from conformance.reference.rooms import forbidden
from conformance.reference.store import JsonObject, Room
from conformance.reference.sync import Sync
from conformance.reference.web import Call


class _Showing(Sync):
    """The sync of an appservice's user shows too much."""

    def news(self, requester: Requester, since: int | None, wanted: JsonObject) -> tuple[JsonObject, bool]:
        answer, found = super().news(requester, since, wanted)
        if requester.appservice is not None:
            self.add(answer["rooms"], requester, since)
        return answer, found

    def add(self, sections: JsonObject, requester: Requester, since: int | None) -> None:
        """Add to the rooms of a sync."""
        raise NotImplementedError

    def users_of_same(self, requester: Requester) -> list[str]:
        """The other users of the requester's appservice."""
        appservice = requester.appservice
        namespaces = self.hs.namespaces
        users = [each for each in self.store.accounts if appservice and namespaces.is_own_user(appservice, each)]
        return [each for each in users if each != requester.user_id]


@defect("SYNC-01")
class AppservicesCannotSync(Sync):
    """/sync is refused to appservices."""

    def sync(self, call: Call) -> JsonObject:
        if call.requester.appservice is not None:
            raise forbidden("not for appservices")
        return super().sync(call)


@defect("SYNC-01", also=("SYNC-03",))
class SinceIsIgnoredForAppservices(Sync):
    """A sync of an appservice begins at the beginning each time."""

    def sync(self, call: Call) -> JsonObject:
        if call.requester.appservice is not None:
            call.query.pop("since", None)
        return super().sync(call)


@defect("SYNC-01")
class GhostsGetNoNews(Sync):
    """A ghost's sync shows its rooms as they are, and nothing new from next_batch on."""

    def joined(self, requester: Requester, room: Room, since: int | None, limit: int) -> JsonObject:
        if requester.appservice is not None and since is not None:
            return {}
        return super().joined(requester, room, since, limit)


class _Hiding(Sync):
    """The sync of a ghost lacks a section."""

    section: str

    def news(self, requester: Requester, since: int | None, wanted: JsonObject) -> tuple[JsonObject, bool]:
        answer, found = super().news(requester, since, wanted)
        if requester.appservice is not None:
            answer["rooms"][self.section] = {}
        return answer, found


@defect("SYNC-01")
class GhostsSeeNoInvites(_Hiding):
    """A ghost's sync does not show that it has been invited."""

    section = "invite"


@defect("SYNC-01")
class GhostsDoNotSeeThatTheyWereRemoved(_Hiding):
    """A ghost's sync does not show that it has been removed from a room."""

    section = "leave"


@defect("SYNC-02")
class SyncHasTheRoomsOfAllGhosts(_Showing):
    """A ghost's sync has the rooms of all users of its appservice."""

    def add(self, sections: JsonObject, requester: Requester, since: int | None) -> None:
        for user_id in self.users_of_same(requester):
            for room in self.rooms(user_id):
                if room.membership(user_id) == "join":
                    sections["join"].setdefault(room.room_id, {})


@defect("SYNC-02")
class SyncHasTheInvitesOfAllGhosts(_Showing):
    """A ghost's sync has the invites of all users of its appservice."""

    def add(self, sections: JsonObject, requester: Requester, since: int | None) -> None:
        for user_id in self.users_of_same(requester):
            for room in self.rooms(user_id):
                if room.membership(user_id) == "invite":
                    sections["invite"].setdefault(room.room_id, {})


@defect("SYNC-02")
class SyncHasTheNewsOfTheSender(_Showing):
    """What happens in the rooms of the sender user is in the incremental syncs of all ghosts."""

    def add(self, sections: JsonObject, requester: Requester, since: int | None) -> None:
        appservice = requester.appservice
        if appservice is None or since is None:
            return
        sender = Requester(self.hs.user_id(appservice.sender_localpart), None, appservice)
        for room in self.rooms(sender.user_id):
            if room.membership(sender.user_id) == "join" and (shown := self.joined(sender, room, since, 10)):
                sections["join"].setdefault(room.room_id, shown)


@defect("SYNC-03")
class SyncIgnoresTheDevice(Sync):
    """A sync with device_id has no to-device messages."""

    def to_device(self, requester: Requester, since: int) -> list[JsonObject]:
        return [] if requester.appservice is not None else super().to_device(requester, since)


@defect("SYNC-03")
class SyncTakesTheFirstDevice(Sync):
    """A sync with device_id has what was sent to the ghost's first device."""

    def to_device(self, requester: Requester, since: int) -> list[JsonObject]:
        if requester.appservice is not None and requester.device_id is not None:
            first = next(iter(self.store.accounts[requester.user_id].devices))
            requester = Requester(requester.user_id, first, requester.appservice)
        return super().to_device(requester, since)


@defect("SYNC-03")
class SyncHasTheMessagesForAllDevices(Sync):
    """A sync with device_id has what was sent to any device of the ghost."""

    def to_device(self, requester: Requester, since: int) -> list[JsonObject]:
        if requester.appservice is None:
            return super().to_device(requester, since)
        devices = self.store.accounts[requester.user_id].devices
        found: list[JsonObject] = []
        for device_id in devices:
            found += super().to_device(Requester(requester.user_id, device_id, requester.appservice), since)
        return found


@defect("SYNC-04")
class TheEventsEndpointBreaks(Sync):
    """The deprecated /events is answered with 500 for a ghost."""

    @endpoint("GET", "/events")
    def events(self, call: Call) -> Any:
        """Fail."""
        raise RuntimeError("no such stream")


@defect("SYNC-01")
class GhostsSyncsAreNotWoken(Sync):
    """A sync of a ghost that waits for news is answered when its time is over, however early there is some."""

    @endpoint("GET", "/sync", waits=True)
    def sync(self, call: Call) -> JsonObject:
        wait = call.query.get("timeout", "0").partition(".")[0]
        if call.requester.appservice is None or not wait.isdecimal():
            return super().sync(call)
        call.query["timeout"] = "0"
        answer = super().sync(call)
        if any(answer["rooms"].values()) or answer["to_device"]["events"] or wait == "0" or "since" not in call.query:
            return answer
        self.hs.stopping.wait(int(wait) / 1000)
        return super().sync(call)


@defect("SYNC-02")
class SyncsOfGhostsAreKeptTogether(Sync):
    """A sync that was just answered to one ghost is answered to another of its appservice who asks with equal words."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._kept: dict[tuple[Any, ...], JsonObject] = {}

    @endpoint("GET", "/sync", waits=True)
    def sync(self, call: Call) -> JsonObject:
        appservice = call.requester.appservice
        if appservice is None or "since" in call.query or "filter" in call.query or "device_id" in call.query:
            return super().sync(call)
        words = sorted(pair for pair in call.query.items() if pair[0] != "user_id")
        place = (appservice.id, self.store.position, *words)
        if place not in self._kept:
            self._kept[place] = super().sync(call)
        return self._kept[place]


@defect("SYNC-03")
class ToDeviceMessagesComeAgain(Sync):
    """Messages to a ghost's device are in every one of its syncs, from the beginning."""

    def to_device(self, requester: Requester, since: int) -> list[JsonObject]:
        return super().to_device(requester, 0 if requester.appservice is not None else since)
