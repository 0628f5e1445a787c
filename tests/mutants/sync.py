"""Mutants of area SYNC."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from tests.mutants import mutant


async def _who(servlet, request):
    """Who calls; the real servlet will ask again, which Synapse allows once only."""
    requester = await servlet.auth.get_user_by_req(request)
    request._requester = None
    return requester


def _claim_v117() -> None:
    """Have Synapse claim a version that it does not, so that the rows of that version are judged."""
    from synapse.rest.client.versions import VersionsRestServlet

    answer = VersionsRestServlet.on_GET

    async def claimed(self, request):
        status, body = await answer(self, request)
        return status, {**body, "versions": [*body["versions"], "v1.17"]}

    VersionsRestServlet.on_GET = claimed


@mutant("SYNC-01")
def appservices_cannot_sync() -> None:
    """/sync is refused to appservices."""
    from synapse.api.errors import AuthError
    from synapse.rest.client.sync import SyncRestServlet

    answer = SyncRestServlet.on_GET

    async def refused(self, request):
        requester = await _who(self, request)
        if requester.app_service_id:
            raise AuthError(403, "not for appservices")
        return await answer(self, request)

    SyncRestServlet.on_GET = refused


@mutant("SYNC-01")
def since_is_ignored_for_appservices() -> None:
    """A sync of an appservice begins at the beginning each time."""
    from synapse.rest.client.sync import SyncRestServlet

    answer = SyncRestServlet.on_GET

    async def forgetful(self, request):
        if (await _who(self, request)).app_service_id:
            request.args.pop(b"since", None)
        return await answer(self, request)

    SyncRestServlet.on_GET = forgetful


def _rooms_of_others(store, user_id):
    """Whose rooms are shown too: all other users of the user's appservice."""
    return [each for each in store.get_app_services() if each.is_user_in_namespace(user_id)]


@mutant("SYNC-02")
def a_sync_shows_the_rooms_of_all_ghosts() -> None:
    """A ghost's sync has the rooms of all users of its appservice."""
    from synapse.rest.client.sync import SyncRestServlet

    answer = SyncRestServlet.on_GET

    async def union(self, request):
        requester = await _who(self, request)
        status, body = await answer(self, request)
        for service in _rooms_of_others(self.store, requester.user.to_string()):
            sql = "SELECT user_id, room_id FROM local_current_membership WHERE membership = 'join'"
            rows = await self.store.db_pool.execute("union", sql)
            for user_id, room_id in rows:
                if service.is_interested_in_user(user_id):
                    body.setdefault("rooms", {}).setdefault("join", {}).setdefault(room_id, {})
        return status, body

    SyncRestServlet.on_GET = union


@mutant("SYNC-02")
def a_sync_shows_the_invites_of_all_ghosts() -> None:
    """A ghost's sync has the invites of all users of its appservice."""
    from synapse.rest.client.sync import SyncRestServlet

    answer = SyncRestServlet.on_GET

    async def union(self, request):
        requester = await _who(self, request)
        status, body = await answer(self, request)
        for service in _rooms_of_others(self.store, requester.user.to_string()):
            sql = "SELECT user_id, room_id FROM local_current_membership WHERE membership = 'invite'"
            rows = await self.store.db_pool.execute("union", sql)
            for user_id, room_id in rows:
                if service.is_interested_in_user(user_id):
                    body.setdefault("rooms", {}).setdefault("invite", {}).setdefault(room_id, {})
        return status, body

    SyncRestServlet.on_GET = union


@mutant("SYNC-03")
def a_sync_ignores_the_device() -> None:
    """A sync with device_id shows no to-device messages."""
    _claim_v117()
    from synapse.handlers.sync import SyncHandler

    generate = SyncHandler._generate_sync_entry_for_to_device

    async def deviceless(self, sync_result_builder):
        object.__setattr__(sync_result_builder.sync_config, "device_id", None)
        await generate(self, sync_result_builder)

    SyncHandler._generate_sync_entry_for_to_device = deviceless


@mutant("SYNC-03")
def a_sync_takes_the_first_device() -> None:
    """A sync with device_id shows what was sent to the user's first device."""
    _claim_v117()
    from synapse.handlers.sync import SyncHandler

    generate = SyncHandler._generate_sync_entry_for_to_device

    async def first(self, sync_result_builder):
        devices = await self.store.get_devices_by_user(sync_result_builder.sync_config.user.to_string())
        object.__setattr__(sync_result_builder.sync_config, "device_id", min(devices, default=None))
        await generate(self, sync_result_builder)

    SyncHandler._generate_sync_entry_for_to_device = first


@mutant("SYNC-04")
def the_events_endpoint_breaks() -> None:
    """The deprecated /events is answered 500 for a ghost."""
    from synapse.rest.client.events import EventStreamRestServlet

    async def broken(self, request):
        raise RuntimeError("broken on purpose")

    EventStreamRestServlet.on_GET = broken
