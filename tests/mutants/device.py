"""Mutants of areas DEVICE and XSIGN."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from collections import Counter

from tests.mutants import mutant
from tests.mutants._tools import claim_newest


def _acting_instead(act) -> None:
    """Have `act(auth, request, token, right)` say who an appservice acts as, with which device."""
    from synapse.api.auth.base import BaseAuth

    claim_newest()
    right = BaseAuth.get_appservice_user

    async def acting(self, request, access_token):
        return await act(self, request, access_token, right)

    BaseAuth.get_appservice_user = acting


def _with_device(auth, requester, device_id):
    from synapse.types import create_requester

    service = auth.store.get_app_service_by_id(requester.app_service_id)
    return create_requester(requester.user, app_service=service, device_id=device_id)


def _named(request) -> str | None:
    """The device that a request names."""
    found = request.args.pop(b"device_id", None)
    return found[0].decode() if found else None


@mutant("DEVICE-01", also=("DEVICE-02", "DEVICE-03", "DEVICE-15"))
def a_device_is_ignored() -> None:
    """A device_id is ignored."""

    async def act(auth, request, token, right):
        _named(request)
        return await right(auth, request, token)

    _acting_instead(act)


@mutant("DEVICE-01", also=("DEVICE-15",))
def any_device_is_the_first() -> None:
    """Whichever of a ghost's devices is named, the first is acted as."""

    async def act(auth, request, token, right):
        requester = await right(auth, request, token)
        if requester is not None and requester.device_id:
            devices = await auth.store.get_devices_by_user(requester.user.to_string())
            requester = _with_device(auth, requester, sorted(devices)[0])
        return requester

    _acting_instead(act)


@mutant("DEVICE-02", also=("DEVICE-03",))
def unknown_devices_are_taken() -> None:
    """A device that the user does not have is acted as all the same."""

    async def act(auth, request, token, right):
        device = _named(request)
        requester = await right(auth, request, token)
        return _with_device(auth, requester, device) if requester is not None and device else requester

    _acting_instead(act)


@mutant("DEVICE-02")
def devices_are_remembered() -> None:
    """A device that was known once is acted as after it has been removed."""
    known: set[tuple[str, str]] = set()

    async def act(auth, request, token, right):
        device = request.args.get(b"device_id", [b""])[0].decode()
        user = request.args.get(b"user_id", [b""])[0].decode()
        if (user, device) in known:
            _named(request)
            return _with_device(auth, await right(auth, request, token), device)
        requester = await right(auth, request, token)
        if requester is not None and requester.device_id:
            known.add((user, device))
        return requester

    _acting_instead(act)


@mutant("DEVICE-02")
def unknown_devices_are_forbidden() -> None:
    """A device that the user does not have is refused with 403."""
    from synapse.api.errors import AuthError, Codes

    async def act(auth, request, token, right):
        try:
            return await right(auth, request, token)
        except AuthError as error:
            if error.errcode == Codes.UNKNOWN_DEVICE:
                raise AuthError(403, "no such device") from error
            raise

    _acting_instead(act)


@mutant("DEVICE-03")
def devices_of_all_ghosts_are_everybodys() -> None:
    """A ghost may act as the device of another ghost of the same appservice."""

    async def act(auth, request, token, right):
        device = request.args.get(b"device_id", [b""])[0].decode()
        service = auth.store.get_app_service_by_token(token)
        owners = await auth.store.db_pool.simple_select_onecol("devices", {"device_id": device}, "user_id")
        if device and service and any(map(service.is_user_in_namespace, owners)):
            _named(request)
            return _with_device(auth, await right(auth, request, token), device)
        return await right(auth, request, token)

    _acting_instead(act)


@mutant("DEVICE-05", also=("DEVICE-15",))
def the_only_device_is_acted_as() -> None:
    """A user with one device acts as that when none is named."""

    async def act(auth, request, token, right):
        requester = await right(auth, request, token)
        if requester is not None and not requester.device_id and b"user_id" in request.args:
            devices = list(await auth.store.get_devices_by_user(requester.user.to_string()))
            if len(devices) == 1:
                requester = _with_device(auth, requester, devices[0])
        return requester

    _acting_instead(act)


def _put_instead(put) -> None:
    """Have `put(servlet, request, device_id, right)` create or rename a device."""
    from synapse.rest.client.devices import DeviceRestServlet

    claim_newest()
    right = DeviceRestServlet.on_PUT

    async def on_PUT(self, request, device_id):
        return await put(self, request, device_id, right)

    DeviceRestServlet.on_PUT = on_PUT


async def _who(servlet, request):
    """Who calls; the real servlet will ask again, which Synapse allows once only."""
    requester = await servlet.auth.get_user_by_req(request)
    request._requester = None
    return requester


@mutant("DEVICE-06")
def new_devices_are_answered_200() -> None:
    """PUT for a new device is answered 200."""

    async def put(servlet, request, device_id, right):
        _, answer = await right(servlet, request, device_id)
        return 200, answer

    _put_instead(put)


@mutant("DEVICE-06", also=("DEVICE-16",))
def a_device_is_new_once() -> None:
    """PUT for a device that was removed before is answered 200, as if it were there."""
    had: set[tuple[str, str]] = set()

    async def put(servlet, request, device_id, right):
        requester = await _who(servlet, request)
        status, answer = await right(servlet, request, device_id)
        key = (requester.user.to_string(), device_id)
        status = 200 if status == 201 and key in had else status
        had.add(key)
        return status, answer

    _put_instead(put)


@mutant("DEVICE-07", also=("DEVICE-08",))
def devices_keep_their_first_name() -> None:
    """PUT for a device that is there changes nothing."""
    from synapse.handlers.device import DeviceHandler

    claim_newest()
    plain = DeviceHandler.upsert_device

    async def upsert(self, user_id, device_id, display_name=None):
        if await self.store.get_device(user_id, device_id):
            return False
        return await plain(self, user_id, device_id, display_name)

    DeviceHandler.upsert_device = upsert


@mutant("DEVICE-08")
def an_update_without_a_name_takes_it() -> None:
    """An update without display_name takes a device's name away."""
    from synapse.handlers.device import DeviceHandler

    claim_newest()
    plain = DeviceHandler.upsert_device

    async def upsert(self, user_id, device_id, display_name=None):
        return await plain(self, user_id, device_id, display_name or "")

    DeviceHandler.upsert_device = upsert


@mutant("DEVICE-09")
def anybody_creates_devices() -> None:
    """PUT for a device that is not there creates it, whoever asks."""

    async def put(servlet, request, device_id, right):
        requester = await _who(servlet, request)
        if not requester.app_service_id:
            await servlet.device_handler.upsert_device(requester.user.to_string(), device_id)
        return await right(servlet, request, device_id)

    _put_instead(put)


@mutant("DEVICE-09")
def an_empty_update_creates_a_device() -> None:
    """PUT with a ghost's own token creates a device and is then answered 404."""
    from synapse.api.errors import NotFoundError

    async def put(servlet, request, device_id, right):
        requester = await _who(servlet, request)
        try:
            return await right(servlet, request, device_id)
        except NotFoundError:
            await servlet.device_handler.store.store_device(requester.user.to_string(), device_id, None)
            raise

    _put_instead(put)


def _authenticated(servlet_name: str, method: str, when) -> None:
    """Have a deletion by an appservice need interactive authentication when `when(requester)` says so."""
    from synapse.api.errors import InteractiveAuthIncompleteError
    from synapse.rest.client import devices

    claim_newest()
    servlet = getattr(devices, servlet_name)
    right = getattr(servlet, method)

    async def deleted(self, request, **named):
        requester = await _who(self, request)
        if requester.app_service_id and when(requester):
            raise InteractiveAuthIncompleteError("x", {"session": "x", "flows": [{"stages": ["m.login.password"]}]})
        return await right(self, request, **named)

    from synapse.rest.client._base import interactive_auth_handler

    setattr(servlet, method, interactive_auth_handler(deleted))


@mutant("DEVICE-10", also=("DEVICE-13", "DEVICE-14", "DEVICE-16"))
def a_deletion_is_authenticated() -> None:
    """The deletion of a device by its appservice needs interactive authentication."""
    _authenticated("DeviceRestServlet", "on_DELETE", lambda requester: True)


@mutant("DEVICE-10")
def a_deletion_by_a_device_is_authenticated() -> None:
    """A deletion needs interactive authentication when the appservice acts as a device."""
    _authenticated("DeviceRestServlet", "on_DELETE", lambda requester: requester.device_id)


@mutant("DEVICE-11", also=("DEVICE-14",))
def a_deletion_of_several_is_authenticated() -> None:
    """The deletion of several devices by their appservice needs interactive authentication."""
    _authenticated("DeleteDevicesRestServlet", "on_POST", lambda requester: True)


@mutant("DEVICE-12")
def humans_delete_devices() -> None:
    """Nobody is authenticated for the deletion of several devices."""
    from synapse.handlers.auth import AuthHandler

    claim_newest()
    plain = AuthHandler.validate_user_via_ui_auth

    async def validate(self, requester, request, body, description, can_skip_ui_auth=False):
        if "device(s)" not in description:
            return await plain(self, requester, request, body, description, can_skip_ui_auth)
        return {}, "x"

    AuthHandler.validate_user_via_ui_auth = validate


def _deleted_instead(delete) -> None:
    """Have `delete(handler, user_id, device_ids, right)` delete devices."""
    from synapse.handlers.device import DeviceHandler

    claim_newest()
    right = DeviceHandler.delete_devices

    async def deleted(self, user_id, device_ids):
        await delete(self, user_id, list(device_ids), right)

    DeviceHandler.delete_devices = deleted


@mutant("DEVICE-11", also=("DEVICE-14",))
def only_the_first_is_deleted() -> None:
    """Of several devices that are to be deleted the first is."""

    async def delete(handler, user_id, device_ids, right):
        await right(handler, user_id, device_ids[:1])

    _deleted_instead(delete)


@mutant("DEVICE-13")
def unknown_devices_cannot_be_deleted() -> None:
    """The deletion of a device that is not there is answered 500."""

    async def delete(handler, user_id, device_ids, right):
        if len(device_ids) == 1:
            assert await handler.store.get_device(user_id, device_ids[0])
        await right(handler, user_id, device_ids)

    _deleted_instead(delete)


@mutant("DEVICE-13", also=("DEVICE-16",))
def a_device_is_deleted_whosever_it_is() -> None:
    """The deletion of a device deletes those of the same id of all ghosts."""

    async def delete(handler, user_id, device_ids, right):
        for device in device_ids:
            for owner in await handler.store.db_pool.simple_select_onecol("devices", {"device_id": device}, "user_id"):
                await right(handler, owner, [device])
        await right(handler, user_id, device_ids)

    _deleted_instead(delete)


@mutant("DEVICE-14")
def tokens_outlive_their_device() -> None:
    """The tokens of a device that is deleted stay valid."""
    from synapse.handlers.auth import AuthHandler

    claim_newest()

    async def kept(self, *args, **kwargs):
        return None

    AuthHandler.delete_access_tokens_for_devices = kept
    AuthHandler.delete_access_tokens_for_user = kept


@mutant("DEVICE-14", also=("DEVICE-16",))
def all_tokens_end_with_a_device() -> None:
    """When a device is deleted all tokens of its user end."""

    async def delete(handler, user_id, device_ids, right):
        await right(handler, user_id, device_ids)
        await handler._auth_handler.delete_access_tokens_for_user(user_id)

    _deleted_instead(delete)


@mutant("DEVICE-15")
def keys_are_those_of_the_user() -> None:
    """The count of keys that an upload is answered with is that of all devices of the user."""
    from synapse.rest.client.keys import KeyUploadServlet

    claim_newest()
    plain = KeyUploadServlet.on_POST

    async def on_POST(self, request, **named):
        requester = await _who(self, request)
        status, answer = await plain(self, request, **named)
        store, counts = self.e2e_keys_handler.store, Counter[str]()
        for device in await store.get_devices_by_user(requester.user.to_string()):
            for algorithm, count in (await store.count_e2e_one_time_keys(requester.user.to_string(), device)).items():
                counts[algorithm] = counts.get(algorithm, 0) + count
        return status, {**answer, "one_time_key_counts": counts}

    KeyUploadServlet.on_POST = on_POST


@mutant("DEVICE-16")
def ids_of_devices_are_unique() -> None:
    """A device cannot have the id of another user's."""
    from synapse.api.errors import SynapseError

    async def put(servlet, request, device_id, right):
        requester = await _who(servlet, request)
        store = servlet.device_handler.store
        owners = await store.db_pool.simple_select_onecol("devices", {"device_id": device_id}, "user_id")
        if any(each != requester.user.to_string() for each in owners):
            raise SynapseError(409, "there is such a device")
        return await right(servlet, request, device_id)

    _put_instead(put)


# Cross-signing


def _keys_instead(upload) -> None:
    """Have `upload(servlet, request, requester, right)` answer an upload of cross-signing keys."""
    from synapse.rest.client._base import interactive_auth_handler
    from synapse.rest.client.keys import SigningKeyUploadServlet

    claim_newest()
    right = SigningKeyUploadServlet.on_POST

    async def on_POST(self, request):
        return await upload(self, request, await _who(self, request), right)

    SigningKeyUploadServlet.on_POST = interactive_auth_handler(on_POST)


def _ask():
    from synapse.api.errors import InteractiveAuthIncompleteError

    return InteractiveAuthIncompleteError("x", {"session": "x", "flows": [{"stages": ["m.login.password"]}]})


@mutant("XSIGN-01", also=("XSIGN-02",))
def the_first_key_is_authenticated() -> None:
    """The first keys of a ghost need interactive authentication."""

    async def upload(servlet, request, requester, right):
        if (
            requester.app_service_id
            and not (await servlet.e2e_keys_handler.check_cross_signing_setup(requester.user.to_string()))[0]
        ):
            raise _ask()
        return await right(servlet, request)

    _keys_instead(upload)


@mutant("XSIGN-02")
def another_key_is_authenticated() -> None:
    """Other keys of a ghost need interactive authentication."""

    async def upload(servlet, request, requester, right):
        if (
            requester.app_service_id
            and (await servlet.e2e_keys_handler.check_cross_signing_setup(requester.user.to_string()))[0]
        ):
            raise _ask()
        return await right(servlet, request)

    _keys_instead(upload)


@mutant("XSIGN-02")
def another_key_is_authenticated_for_devices() -> None:
    """Other keys of a ghost need interactive authentication when it acts as a device."""

    async def upload(servlet, request, requester, right):
        if requester.app_service_id and requester.device_id:
            raise _ask()
        return await right(servlet, request)

    _keys_instead(upload)


@mutant("XSIGN-02", also=("XSIGN-04",))
def another_key_is_not_taken() -> None:
    """Other keys of a ghost are accepted and dropped."""

    async def upload(servlet, request, requester, right):
        if (
            requester.app_service_id
            and (await servlet.e2e_keys_handler.check_cross_signing_setup(requester.user.to_string()))[0]
        ):
            return 200, {}
        return await right(servlet, request)

    _keys_instead(upload)


@mutant("XSIGN-03")
def humans_replace_their_keys() -> None:
    """Nobody is authenticated when keys are replaced."""
    from synapse.handlers.auth import AuthHandler

    claim_newest()
    plain = AuthHandler.validate_user_via_ui_auth

    async def validate(self, requester, request, body, description, can_skip_ui_auth=False):
        if "signing key" not in description:
            return await plain(self, requester, request, body, description, can_skip_ui_auth)
        return {}, "x"

    AuthHandler.validate_user_via_ui_auth = validate


@mutant("XSIGN-04")
def ghosts_upload_each_others_keys() -> None:
    """An appservice uploads the keys of whichever of its users the keys are of."""
    from synapse.handlers.e2e_keys import E2eKeysHandler

    claim_newest()
    plain = E2eKeysHandler.upload_signing_keys_for_user

    async def upload(self, user_id, keys):
        owner = keys.get("master_key", {}).get("user_id", user_id)
        services = self.store.get_app_services()
        both = any(each.is_user_in_namespace(user_id) and each.is_user_in_namespace(owner) for each in services)
        return await plain(self, owner if both else user_id, keys)

    E2eKeysHandler.upload_signing_keys_for_user = upload


@mutant("XSIGN-04")
def a_foreign_key_is_ones_own() -> None:
    """Keys of another user count as those of whoever uploads them."""
    from synapse.handlers.e2e_keys import E2eKeysHandler

    claim_newest()
    plain = E2eKeysHandler.upload_signing_keys_for_user

    async def upload(self, user_id, keys):
        if "master_key" in keys:
            keys["master_key"]["user_id"] = user_id
        return await plain(self, user_id, keys)

    E2eKeysHandler.upload_signing_keys_for_user = upload
