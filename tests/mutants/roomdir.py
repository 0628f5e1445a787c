"""Mutants of area ROOMDIR."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment, misc"

from __future__ import annotations

import re

from tests.mutants import mutant


async def _who(servlet, request):
    """Who calls; the real servlet will ask again, which Synapse allows once only."""
    requester = await servlet.auth.get_user_by_req(request)
    request._requester = None
    return requester


def _edit_instead(edit) -> None:
    """Have `edit(servlet, request, network_id, room_id, visibility, right)` answer; `right` is the real one."""
    from synapse.rest.client.directory import ClientAppserviceDirectoryListServer

    right = ClientAppserviceDirectoryListServer._edit

    async def edited(self, request, network_id, room_id, visibility):
        return await edit(self, request, network_id, room_id, visibility, right)

    ClientAppserviceDirectoryListServer._edit = edited


def _store_instead(store) -> None:
    """Have `store(main_store, room_id, appservice_id, network_id, is_public, right)` store the visibility."""
    from synapse.storage.databases.main.room import RoomStore

    right = RoomStore.set_room_is_public_appservice

    async def stored(self, room_id, appservice_id, network_id, is_public):
        await store(self, room_id, appservice_id, network_id, is_public, right)

    RoomStore.set_room_is_public_appservice = stored


def _list_instead(network) -> None:
    """Have `network(body)` say which list a POST /publicRooms with that body gives (a tuple, or None for all)."""
    from synapse.handlers.room_list import EMPTY_THIRD_PARTY_ID, RoomListHandler

    right = RoomListHandler.get_local_public_room_list

    async def listed(self, *args, network_tuple=EMPTY_THIRD_PARTY_ID, **kwargs):
        return await right(self, *args, network_tuple=network(network_tuple), **kwargs)

    RoomListHandler.get_local_public_room_list = listed


@mutant("ROOMDIR-01")
def the_directory_endpoint_is_missing() -> None:
    """Appservices cannot publish rooms."""
    from synapse.rest.client.directory import ClientAppserviceDirectoryListServer

    ClientAppserviceDirectoryListServer.PATTERNS = [re.compile("^/nowhere$")]


@mutant("ROOMDIR-01")
def publishing_has_an_empty_answer() -> None:
    """Publishing a room is answered with a list instead of an object."""

    async def edit(self, request, network_id, room_id, visibility, right):
        status, _ = await right(self, request, network_id, room_id, visibility)
        return status, []

    _edit_instead(edit)


@mutant("ROOMDIR-02")
def any_user_may_publish() -> None:
    """Whoever has a token may publish in an appservice's directory."""

    async def edit(self, request, network_id, room_id, visibility, right):
        requester = await _who(self, request)
        owner = requester.app_service_id or "hq main"
        await self.directory_handler.edit_published_appservice_room_list(owner, network_id, room_id, visibility)
        return 200, {}

    _edit_instead(edit)


@mutant("ROOMDIR-02")
def a_refused_human_publishes_nevertheless() -> None:
    """A human is refused, but the room is published before."""

    async def edit(self, request, network_id, room_id, visibility, right):
        if not (await _who(self, request)).app_service_id:
            await self.directory_handler.edit_published_appservice_room_list("hq main", network_id, room_id, visibility)
        return await right(self, request, network_id, room_id, visibility)

    _edit_instead(edit)


@mutant("ROOMDIR-03")
def strangers_may_publish() -> None:
    """Publishing needs no token."""
    from synapse.api.errors import InvalidClientCredentialsError

    async def edit(self, request, network_id, room_id, visibility, right):
        try:
            return await right(self, request, network_id, room_id, visibility)
        except InvalidClientCredentialsError:
            return 200, {}

    _edit_instead(edit)


@mutant("ROOMDIR-03")
def an_unknown_token_counts_as_missing() -> None:
    """Publishing with an unknown token is refused as if there was none."""
    from synapse.api.errors import InvalidClientCredentialsError, MissingClientTokenError

    async def edit(self, request, network_id, room_id, visibility, right):
        try:
            return await right(self, request, network_id, room_id, visibility)
        except InvalidClientCredentialsError as error:
            raise MissingClientTokenError from error

    _edit_instead(edit)


@mutant("ROOMDIR-04")
def published_rooms_are_in_the_main_list() -> None:
    """A room that an appservice publishes is in the homeserver's own list as well."""

    async def store(self, room_id, appservice_id, network_id, is_public, right):
        await right(self, room_id, appservice_id, network_id, is_public)
        if is_public:
            await self.set_room_is_public(room_id, True)

    _store_instead(store)


@mutant("ROOMDIR-04")
def get_lists_all_networks() -> None:
    """GET /publicRooms gives the rooms of all lists."""
    from synapse.rest.client.room import PublicRoomListRestServlet

    async def everything(self, request):
        await _who(self, request)
        return 200, await self.hs.get_room_list_handler().get_local_public_room_list(limit=100, network_tuple=None)

    PublicRoomListRestServlet.on_GET = everything


@mutant("ROOMDIR-05")
def the_instance_is_ignored() -> None:
    """third_party_instance_id is ignored: the main list is given."""
    from synapse.types import ThirdPartyInstanceID

    _list_instead(lambda network: network and ThirdPartyInstanceID(None, None))


@mutant("ROOMDIR-05")
def entries_lack_a_key() -> None:
    """Entries of an appservice's list have no world_readable."""
    from synapse.handlers.room_list import EMPTY_THIRD_PARTY_ID, RoomListHandler

    right = RoomListHandler.get_local_public_room_list

    async def listed(self, *args, network_tuple=EMPTY_THIRD_PARTY_ID, **kwargs):
        found = await right(self, *args, network_tuple=network_tuple, **kwargs)
        if not network_tuple or not network_tuple.appservice_id:
            return found
        without = [{key: entry[key] for key in entry if key != "world_readable"} for entry in found["chunk"]]
        return {**found, "chunk": without}

    RoomListHandler.get_local_public_room_list = listed


@mutant("ROOMDIR-06")
def all_networks_are_only_the_main_one() -> None:
    """include_all_networks is ignored: the main list is given."""
    from synapse.types import ThirdPartyInstanceID

    _list_instead(lambda network: network or ThirdPartyInstanceID(None, None))


@mutant("ROOMDIR-07")
def published_rooms_cannot_be_withdrawn() -> None:
    """Visibility private is answered 200 and changes nothing."""

    async def store(self, room_id, appservice_id, network_id, is_public, right):
        if is_public:
            await right(self, room_id, appservice_id, network_id, is_public)

    _store_instead(store)


@mutant("ROOMDIR-07")
def withdrawing_a_room_withdraws_all() -> None:
    """Visibility private empties the whole list of the appservice."""

    async def store(self, room_id, appservice_id, network_id, is_public, right):
        await right(self, room_id, appservice_id, network_id, is_public)
        if not is_public:
            mine = {"appservice_id": appservice_id, "network_id": network_id}
            await self.db_pool.simple_delete("appservice_room_list", mine, "withdraw_all")

    _store_instead(store)


@mutant("ROOMDIR-08")
def lists_are_shared_by_appservices() -> None:
    """Appservices with the same network_id share one list."""
    from synapse.types import ThirdPartyInstanceID

    async def store(self, room_id, appservice_id, network_id, is_public, right):
        await right(self, room_id, "anybody", network_id, is_public)

    _store_instead(store)
    own = ThirdPartyInstanceID
    _list_instead(lambda network: own("anybody", network.network_id) if network and network.network_id else network)


@mutant("ROOMDIR-08")
def lists_are_shared_by_networks() -> None:
    """An appservice has one list for all of its networks."""
    from synapse.types import ThirdPartyInstanceID

    async def store(self, room_id, appservice_id, network_id, is_public, right):
        await right(self, room_id, appservice_id, "any", is_public)

    _store_instead(store)
    own = ThirdPartyInstanceID
    _list_instead(lambda network: own(network.appservice_id, "any") if network and network.network_id else network)


def _any_visibility(meaning: str) -> None:
    """Any visibility is accepted, and what is unknown has a meaning."""
    from synapse.http.servlet import parse_json_object_from_request
    from synapse.rest.client.directory import ClientAppserviceDirectoryListServer

    async def put(self, request, network_id, room_id):
        visibility = parse_json_object_from_request(request).get("visibility", "public")
        if visibility not in ("public", "private"):
            visibility = meaning
        return await self._edit(request, network_id, room_id, visibility)

    ClientAppserviceDirectoryListServer.on_PUT = put


@mutant("ROOMDIR-09")
def any_visibility_is_public() -> None:
    """An unknown visibility is taken for public."""
    _any_visibility("public")


@mutant("ROOMDIR-09")
def a_refused_visibility_withdraws() -> None:
    """An unknown visibility is refused, but the room is withdrawn."""
    from synapse.api.errors import SynapseError
    from synapse.rest.client.directory import ClientAppserviceDirectoryListServer

    put = ClientAppserviceDirectoryListServer.on_PUT

    async def withdrawn(self, request, network_id, room_id):
        try:
            return await put(self, request, network_id, room_id)
        except SynapseError:
            if request.requester is None:
                await self._edit(request, network_id, room_id, "private")
            raise

    ClientAppserviceDirectoryListServer.on_PUT = withdrawn


@mutant("ROOMDIR-10")
def one_flag_for_both_lists() -> None:
    """Withdrawing a room from an appservice's list takes it off the main list too."""

    async def store(self, room_id, appservice_id, network_id, is_public, right):
        await right(self, room_id, appservice_id, network_id, is_public)
        if not is_public:
            await self.set_room_is_public(room_id, False)

    _store_instead(store)


@mutant("ROOMDIR-11")
def an_unknown_room_breaks_publishing() -> None:
    """Publishing an unknown room is answered 500."""

    async def store(self, room_id, appservice_id, network_id, is_public, right):
        if await self.get_room(room_id) is None:
            raise RuntimeError("broken on purpose")
        await right(self, room_id, appservice_id, network_id, is_public)

    _store_instead(store)


@mutant("ROOMDIR-11")
def a_dangling_entry_breaks_the_lists() -> None:
    """Once an unknown room was published, the lists cannot be read."""
    dangling: list[str] = []

    async def store(self, room_id, appservice_id, network_id, is_public, right):
        if await self.get_room(room_id) is None:
            dangling.append(room_id)
        await right(self, room_id, appservice_id, network_id, is_public)

    def network(network):
        if dangling and network is None:
            raise RuntimeError("broken on purpose")
        return network

    _store_instead(store)
    _list_instead(network)
