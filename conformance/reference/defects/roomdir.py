"""Defects of area ROOMDIR: the published rooms of appservices."""

from __future__ import annotations

from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.directory import RoomLists
from conformance.reference.identity import Identity, Requester
from conformance.reference.policy import MatrixError
from conformance.reference.store import JsonObject
from conformance.reference.web import Call


@defect("ROOMDIR-01")
class AppservicesCannotPublish(RoomLists):
    """There is no endpoint for an appservice's published rooms."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        raise self.hs.errors.unknown_path()


@defect("ROOMDIR-01")
class PublishingIsAnsweredWithAList(RoomLists):
    """Publishing a room is answered with a list instead of an object."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> Any:
        super().publish_for_network(call, network, room_id)
        return []


@defect("ROOMDIR-01")
class SendersPublishTheirOwnRoomsOnly(RoomLists):
    """An appservice may publish only rooms that its sender user is in."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        if self.hs.rooms.room(room_id).membership(call.requester.user_id) != "join":
            raise MatrixError(403, "M_FORBIDDEN", "you are not in the room")
        return super().publish_for_network(call, network, room_id)


@defect("ROOMDIR-01")
class NetworksAreNamedByTheirProtocol(RoomLists):
    """A room is published for a whole protocol; network IDs are not known."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        appservice = call.requester.appservice
        if appservice is None or network not in appservice.protocols:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such protocol")
        metadata = self.hs.third_party.metadata(appservice, network) or {}
        for instance in metadata.get("instances", ()):
            super().publish_for_network(call, instance["network_id"], room_id)
        return {}


@defect("ROOMDIR-01")
class GhostsCannotPublish(RoomLists):
    """An appservice can publish rooms as its sender user only."""

    def check_appservice(self, call: Call) -> None:
        super().check_appservice(call)
        appservice, user = call.requester.appservice, call.requester.user_id
        if appservice is not None and not self.hs.namespaces.is_sender(appservice, user):
            raise MatrixError(403, "M_FORBIDDEN", "only the sender user may")


@defect("ROOMDIR-02")
class AnybodyMayPublish(RoomLists):
    """Whoever has a token may publish, on a list that belongs to nobody."""

    def check_appservice(self, call: Call) -> None:
        pass


@defect("ROOMDIR-02")
class MembersMayPublish(RoomLists):
    """The members of a room may publish it on the appservices' lists."""

    def owner(self, network: str) -> Registration:
        """The first appservice with that network."""
        metadata = self.hs.third_party.metadata
        for each in self.hs.appservices:
            for protocol in each.protocols if each.url is not None else ():
                instances = (metadata(each, protocol) or {}).get("instances", ())
                if any(instance["network_id"] == network for instance in instances):
                    return each
        return self.hs.appservices[0]

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        room = self.store.rooms.get(room_id)
        if call.requester.appservice is None and room is not None and call.requester.user_id in room.members():
            self.store.publish(self.list_of(self.owner(network).id, network), room_id, True)
            return {}
        return super().publish_for_network(call, network, room_id)


@defect("ROOMDIR-02")
class HumansWhoAreRefusedPublish(MembersMayPublish):
    """A human who publishes a room for an appservice is refused, but the room is listed."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        result = super().publish_for_network(call, network, room_id)
        self.check_appservice(call)
        return result


class Publishers(Identity):
    """Who may publish, as a rule of its own."""

    def of(self, call: Call) -> Requester:
        if "/directory/list/appservice/" in call.path:
            return self.publisher(call)
        return super().of(call)

    def publisher(self, call: Call) -> Requester:
        """Who publishes."""
        return super().of(call)


@defect("ROOMDIR-03")
class StrangersMayPublish(Publishers):
    """Publishing needs no token."""

    def publisher(self, call: Call) -> Requester:
        if call.token is None:
            first = self.hs.appservices[0]
            return Requester(self.hs.user_id(first.sender_localpart), None, first)
        return super().publisher(call)


@defect("ROOMDIR-03")
class UnknownTokensCountAsMissing(Publishers):
    """Publishing with an unknown token is refused as if there was none."""

    def publisher(self, call: Call) -> Requester:
        try:
            return super().publisher(call)
        except MatrixError as error:
            raise MatrixError(401, "M_MISSING_TOKEN", error.error) from error


@defect("ROOMDIR-03")
class UnknownTokensAreForbidden(Publishers):
    """Publishing with an unknown token is refused with 403 M_FORBIDDEN."""

    def publisher(self, call: Call) -> Requester:
        try:
            return super().publisher(call)
        except MatrixError as error:
            if error.errcode == "M_UNKNOWN_TOKEN":
                raise MatrixError(403, "M_FORBIDDEN", "only appservices may do that") from error
            raise


@defect("ROOMDIR-04")
class PublishedRoomsAreInTheMainList(RoomLists):
    """A room that an appservice publishes is in the homeserver's own list as well."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        result = super().publish_for_network(call, network, room_id)
        if self.visibility(call) == "public":
            self.store.publish("", room_id, True)
        return result


@defect("ROOMDIR-04")
class GetListsAllNetworks(RoomLists):
    """GET /publicRooms gives the rooms of all lists."""

    _everything = False

    def public_rooms(self, call: Call) -> JsonObject:
        self._everything = call.method == "GET"
        return super().public_rooms(call)

    def chosen(self, body: JsonObject) -> list[str]:
        return super().chosen({"include_all_networks": True} if self._everything else body)


@defect("ROOMDIR-05")
class TheInstanceIsIgnored(RoomLists):
    """`third_party_instance_id` is ignored: the homeserver's own list is given."""

    def chosen(self, body: JsonObject) -> list[str]:
        return super().chosen({key: value for key, value in body.items() if key != "third_party_instance_id"})


@defect("ROOMDIR-05")
class InstancesListOneRoom(RoomLists):
    """Of an instance's published rooms only the first one is listed."""

    def chosen(self, body: JsonObject) -> list[str]:
        found = super().chosen(body)
        return found[:1] if body.get("third_party_instance_id") else found


@defect("ROOMDIR-05")
class NamedRoomsOfInstancesLackAKey(RoomLists):
    """The entry of a room with a name has no `world_readable` in an instance's list."""

    def public_rooms(self, call: Call) -> JsonObject:
        page = super().public_rooms(call)
        if call.method == "POST" and call.json.get("third_party_instance_id"):
            for entry in page["chunk"]:
                if "name" in entry:
                    del entry["world_readable"]
        return page


@defect("ROOMDIR-05")
class ListsOfInstancesHaveOnePage(RoomLists):
    """The pages of an instance's list after the first are empty."""

    def public_rooms(self, call: Call) -> JsonObject:
        page = super().public_rooms(call)
        if call.method == "POST" and call.json.get("third_party_instance_id") and call.json.get("since"):
            page["chunk"] = []
        return page


@defect("ROOMDIR-06")
class AllNetworksAreOnlyTheMainOne(RoomLists):
    """`include_all_networks` is ignored: the homeserver's own list is given."""

    def chosen(self, body: JsonObject) -> list[str]:
        return super().chosen({key: value for key, value in body.items() if key != "include_all_networks"})


@defect("ROOMDIR-06")
class AllNetworksAreWithoutTheMainList(RoomLists):
    """With `include_all_networks` the rooms of the homeserver's own list are left out."""

    def chosen(self, body: JsonObject) -> list[str]:
        found = super().chosen(body)
        return [each for each in found if each not in self.store.lists[""]] if "include_all_networks" in body else found


@defect("ROOMDIR-07")
class PublishedRoomsCannotBeWithdrawn(RoomLists):
    """The visibility private is answered 200 and changes nothing."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        self.check_appservice(call)
        return super().publish_for_network(call, network, room_id) if self.visibility(call) == "public" else {}


@defect("ROOMDIR-07")
class WithdrawingARoomWithdrawsAll(RoomLists):
    """The visibility private empties the whole list of the network."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        result = super().publish_for_network(call, network, room_id)
        appservice = call.requester.appservice
        name = self.list_of(appservice.id if appservice else "", network)
        for each in list(self.store.lists[name]) if self.visibility(call) == "private" else ():
            self.store.publish(name, each, False)
        return result


@defect("ROOMDIR-08")
class ListsAreSharedByAppservices(RoomLists):
    """Appservices with the same `network_id` share one list."""

    def list_of(self, appservice_id: str, network: str) -> str:
        return super().list_of("anybody", network)


@defect("ROOMDIR-08")
class ListsAreSharedByNetworks(RoomLists):
    """An appservice has one list for all of its networks."""

    def list_of(self, appservice_id: str, network: str) -> str:
        return super().list_of(appservice_id, "any")


class _Leaving(RoomLists):
    """A publication takes the room off the lists of all other instances."""

    #: Which visibility does.
    visibility_that_does: str

    def publish_for_network(self, call: Call, network: str, room_id: str) -> Any:
        if self.visibility(call) == self.visibility_that_does:
            for name in list(self.store.lists):
                if name:
                    self.store.publish(name, room_id, False)
        return super().publish_for_network(call, network, room_id)


@defect("ROOMDIR-08")
class RoomsAreOnTheLastListOnly(_Leaving):
    """A room that is published on an appservice's list is taken off all others."""

    visibility_that_does = "public"


@defect("ROOMDIR-08")
class RoomsAreWithdrawnFromAllLists(_Leaving):
    """A room that is withdrawn from an appservice's list is taken off all others."""

    visibility_that_does = "private"


@defect("ROOMDIR-09")
class AnyVisibilityIsPublic(RoomLists):
    """An unknown visibility is taken for public."""

    def visibility(self, call: Call) -> str:
        return "private" if call.text("visibility") == "private" else "public"


@defect("ROOMDIR-09")
class AnyVisibilityIsPrivate(RoomLists):
    """An unknown visibility is taken for private."""

    def visibility(self, call: Call) -> str:
        return "public" if call.text("visibility") == "public" else "private"


@defect("ROOMDIR-09")
class AMissingVisibilityIsPublic(RoomLists):
    """A missing visibility is taken for public."""

    def visibility(self, call: Call) -> str:
        return super().visibility(call) if "visibility" in call.json else "public"


@defect("ROOMDIR-09")
class UnknownVisibilitiesWithdraw(RoomLists):
    """An unknown visibility is refused, but the room is withdrawn."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        appservice = call.requester.appservice
        if appservice is not None and call.json.get("visibility") not in ("public", "private"):
            self.store.publish(self.list_of(appservice.id, network), room_id, False)
        return super().publish_for_network(call, network, room_id)


@defect("ROOMDIR-09")
class RoomsWithoutVisibilityAreListed(RoomLists):
    """A missing visibility is refused, but the room is listed."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        appservice = call.requester.appservice
        if appservice is not None and "visibility" not in call.json:
            self.store.publish(self.list_of(appservice.id, network), room_id, True)
        return super().publish_for_network(call, network, room_id)


@defect("ROOMDIR-10")
class WithdrawnRoomsLeaveTheMainListToo(RoomLists):
    """Taking a room off an appservice's list takes it off the homeserver's own list."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        result = super().publish_for_network(call, network, room_id)
        if self.visibility(call) == "private":
            self.store.publish("", room_id, False)
        return result


@defect("ROOMDIR-10")
class RoomsAreOnOneListOnly(RoomLists):
    """Publishing a room for an appservice takes it off the homeserver's own list."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        result = super().publish_for_network(call, network, room_id)
        self.store.publish("", room_id, False)
        return result


@defect("ROOMDIR-11")
class UnknownRoomsBreakPublishing(RoomLists):
    """Publishing an unknown room is answered 500."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        self.store.rooms[room_id]
        return super().publish_for_network(call, network, room_id)


@defect("ROOMDIR-11")
class RoomsOfOtherServersBreakPublishing(RoomLists):
    """Publishing a room of another server is answered 500."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        if ":" in room_id and not self.hs.is_local(room_id):
            raise RuntimeError("the room is not here")
        return super().publish_for_network(call, network, room_id)


@defect("ROOMDIR-11")
class UnknownRoomsBreakTheLists(RoomLists):
    """Once an unknown room was published, no list that it is in can be read."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        appservice = call.requester.appservice
        if appservice is not None and room_id not in self.store.rooms:
            self.store.publish(self.list_of(appservice.id, network), room_id, True)
            return {}
        return super().publish_for_network(call, network, room_id)

    def chosen(self, body: JsonObject) -> list[str]:
        return [self.store.rooms[each].room_id for each in super().chosen(body)]


@defect("ROOMDIR-05", also=("ROOMDIR-07",))
class NetworksHaveOneRoom(RoomLists):
    """The list of a network has only the room that was published last."""

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        appservice = call.requester.appservice
        if appservice is not None and self.visibility(call) == "public":
            name = self.list_of(appservice.id, network)
            for each in list(self.store.lists[name]):
                self.store.publish(name, each, False)
        return super().publish_for_network(call, network, room_id)


@defect("ROOMDIR-07")
class WithdrawnRoomsStayAway(RoomLists):
    """A room that was withdrawn from a network's list cannot be published there again, though that is answered 200."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._withdrawn: set[tuple[str, str]] = set()

    def publish_for_network(self, call: Call, network: str, room_id: str) -> JsonObject:
        if self.visibility(call) == "private":
            self._withdrawn.add((network, room_id))
        elif (network, room_id) in self._withdrawn:
            return {}
        return super().publish_for_network(call, network, room_id)
