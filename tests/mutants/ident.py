"""Mutants of area IDENT."""

# mypy: disable-error-code="no-untyped-def, method-assign, assignment, no-untyped-call, attr-defined, arg-type"

from __future__ import annotations

from typing import Any

from tests.mutants import mutant


def _as(requester: Any, user: Any) -> Any:
    """The requester as another user of the same appservice."""
    from synapse.types import create_requester

    return create_requester(user, app_service=_service(requester))


def _service(requester: Any) -> Any:
    return _STORE[0].get_app_service_by_id(requester.app_service_id)


_STORE: list[Any] = []


def _with_requester(servlet: Any, method: str, change: Any) -> None:
    """Have a servlet's method see another requester (`change` of it) for requests of appservices."""
    original = getattr(servlet, method)

    async def changed(self, request, *args, **kwargs):
        auth = self.auth
        _STORE[:] = [auth.store]

        class Lying:
            def __getattr__(self, name):
                return getattr(auth, name)

            async def get_user_by_req(self, *args, **kwargs):
                requester = await auth.get_user_by_req(*args, **kwargs)
                return change(requester) if requester.app_service_id else requester

        self.auth = Lying()
        try:
            return await original(self, request, *args, **kwargs)
        finally:
            self.auth = auth

    setattr(servlet, method, changed)


def _sender(requester: Any) -> Any:
    return _as(requester, _service(requester).sender)


def _patch_validation(allowed: Any) -> None:
    """Replace the rule about whom an appservice may act as."""
    from synapse.api.auth.base import BaseAuth
    from synapse.api.errors import AuthError

    async def validate(self, app_service, user_id):
        if not await allowed(self, app_service, user_id):
            raise AuthError(403, "no")

    BaseAuth.validate_appservice_can_control_user_id = validate


def _patch_query(change: Any) -> None:
    """Change the query parameters of a request of an appservice before its user is looked for."""
    from synapse.api.auth.base import BaseAuth

    original = BaseAuth.get_appservice_user

    async def get_appservice_user(self, request, access_token):
        service = self.store.get_app_service_by_token(access_token)
        if service is not None:
            request.args = dict(request.args)
            change(request.args, service)
        return await original(self, request, access_token)

    BaseAuth.get_appservice_user = get_appservice_user


@mutant("IDENT-01", also=("IDENT-19",))
def the_token_alone_is_the_last_ghost() -> None:
    """Without user_id the appservice acts as the ghost that it acted as last."""
    last: dict[str, bytes] = {}

    def change(args, service):
        if b"user_id" in args:
            last[service.id] = args[b"user_id"][0]
        elif service.id in last:
            args[b"user_id"] = [last[service.id]]

    _patch_query(change)


@mutant("IDENT-02")
def user_id_is_ignored() -> None:
    """The parameter user_id is ignored: everything is done as the sender."""
    _patch_query(lambda args, service: args.pop(b"user_id", None))


@mutant("IDENT-02")
def only_the_first_ghost_can_be_acted_as() -> None:
    """Every ghost but the first of an appservice is mixed up with the first one."""
    first: dict[str, bytes] = {}

    def change(args, service):
        user_id = args.get(b"user_id", [b""])[0]
        if user_id.startswith(b"@hqa2-"):
            args[b"user_id"] = [first.get(service.id, user_id)]
        elif user_id.startswith(b"@hqa-"):
            first[service.id] = user_id

    _patch_query(change)


@mutant("IDENT-03", "IDENT-05")
def anybody_can_be_acted_as() -> None:
    """An appservice may act as every registered user."""

    async def allowed(auth, service, user_id):
        return service.sender.to_string() == user_id or await auth.store.get_user_by_id(user_id)

    _patch_validation(allowed)


@mutant("IDENT-03")
def senders_can_be_acted_as_by_all() -> None:
    """An appservice may act as the sender user of any other appservice."""

    async def allowed(auth, service, user_id):
        if any(each.sender.to_string() == user_id for each in auth.store.get_app_services()):
            return True
        return service.is_interested_in_user(user_id) and await auth.store.get_user_by_id(user_id)

    _patch_validation(allowed)


@mutant("IDENT-04", also=("IDENT-08", "IDENT-09", "ADMIN-24"))
def phantoms_can_be_acted_as() -> None:
    """An appservice may act as a ghost that nobody has registered."""

    async def allowed(auth, service, user_id):
        return service.is_interested_in_user(user_id)

    _patch_validation(allowed)


@mutant("IDENT-05")
def ghosts_are_common_property() -> None:
    """An appservice may act as a ghost of any appservice."""

    async def allowed(auth, service, user_id):
        covered = any(each.is_interested_in_user(user_id) for each in auth.store.get_app_services() if each != service)
        own = service.is_interested_in_user(user_id)
        if user_id == service.sender.to_string():
            return True
        return (own or (covered and "hqbot" not in user_id)) and await auth.store.get_user_by_id(user_id)

    _patch_validation(allowed)


@mutant("IDENT-06", also=("IDENT-24",))
def everybody_can_assert_an_identity() -> None:
    """The parameter user_id is obeyed for ordinary tokens too."""
    from synapse.api.auth.internal import InternalAuth
    from synapse.types import create_requester

    original = InternalAuth._wrapped_get_user_by_req

    async def get_user_by_req(self, request, *args, **kwargs):
        requester = await original(self, request, *args, **kwargs)
        if b"user_id" in request.args and not requester.app_service_id:
            return create_requester(request.args[b"user_id"][0].decode(), requester.access_token_id, device_id="X")
        return requester

    InternalAuth._wrapped_get_user_by_req = get_user_by_req


@mutant("IDENT-07")
def the_sender_cannot_be_named() -> None:
    """The sender user named in user_id is refused, since no namespace covers it."""

    async def allowed(auth, service, user_id):
        return service.is_user_in_namespace(user_id) and await auth.store.get_user_by_id(user_id)

    _patch_validation(allowed)


@mutant("IDENT-08")
def the_server_name_of_a_ghost_does_not_matter() -> None:
    """Of the user_id only the localpart counts."""

    def change(args, service):
        if b"user_id" in args:
            localpart, _, domain = args[b"user_id"][0].partition(b":")
            args[b"user_id"] = [localpart + b":hq.test"] if domain else args[b"user_id"]

    _patch_query(change)


@mutant("IDENT-09")
def malformed_user_ids_break_the_server() -> None:
    """A user_id in the namespace that is no user ID is answered with 500."""
    from synapse.types import UserID

    async def allowed(auth, service, user_id):
        if service.is_interested_in_user(user_id) and not UserID.is_valid(user_id):
            raise ValueError(user_id)
        own = service.is_interested_in_user(user_id)
        return service.sender.to_string() == user_id or (own and await auth.store.get_user_by_id(user_id))

    _patch_validation(allowed)


@mutant("IDENT-10")
def user_ids_are_decoded_twice() -> None:
    """A user_id is percent-decoded twice."""
    from urllib.parse import unquote_to_bytes

    def change(args, service):
        if b"user_id" in args:
            args[b"user_id"] = [unquote_to_bytes(args[b"user_id"][0])]

    _patch_query(change)


@mutant("IDENT-11")
def rooms_are_created_by_the_sender() -> None:
    """A room created as a ghost is created by the sender."""
    from synapse.rest.client.room import RoomCreateRestServlet

    _with_requester(RoomCreateRestServlet, "on_POST", _sender)


@mutant("IDENT-12")
def memberships_of_ghosts_are_changed_by_the_sender() -> None:
    """What is done to memberships below /rooms/{id} is done by the sender, only /join by the ghost."""
    from synapse.rest.client.room import RoomMembershipRestServlet

    _with_requester(RoomMembershipRestServlet, "on_POST", _sender)


@mutant("IDENT-12")
def ghosts_ban_in_the_name_of_the_creator() -> None:
    """A ban by a ghost comes from the creator of the room."""
    import synapse.rest  # noqa: F401 (first, because of a circular import)
    from synapse.handlers.room_member import RoomMemberHandler
    from synapse.types import create_requester

    original = RoomMemberHandler.update_membership

    async def update_membership(self, requester, target, room_id, action, *args, **kwargs):
        if requester.app_service_id and action == "ban":
            creator = (
                await self._storage_controllers.state.get_current_state_event(room_id, "m.room.create", "")
            ).sender
            requester = create_requester(creator)
        return await original(self, requester, target, room_id, action, *args, **kwargs)

    RoomMemberHandler.update_membership = update_membership


@mutant("IDENT-13")
def receipts_of_ghosts_are_the_senders() -> None:
    """A receipt of a ghost is taken for one of the sender."""
    from synapse.rest.client.receipts import ReceiptRestServlet

    _with_requester(ReceiptRestServlet, "on_POST", _sender)


@mutant("IDENT-13")
def account_data_of_ghosts_is_refused() -> None:
    """Account data can only be set with a token of one's own."""
    from synapse.rest.client.account_data import AccountDataServlet

    _with_requester(AccountDataServlet, "on_PUT", _sender)


@mutant("IDENT-13")
def redactions_of_ghosts_are_the_senders() -> None:
    """A redaction by a ghost is made by the room's creator."""
    from synapse.rest.client.room import RoomRedactEventRestServlet
    from synapse.types import create_requester

    original = RoomRedactEventRestServlet._do

    async def _do(self, request, requester, room_id, *args, **kwargs):
        if requester.app_service_id:
            create = await self.event_creation_handler._storage_controllers.state.get_current_state_event(
                room_id, "m.room.create", ""
            )
            requester = create_requester(create.sender, access_token_id=1)
        return await original(self, request, requester, room_id, *args, **kwargs)

    RoomRedactEventRestServlet._do = _do


@mutant("IDENT-14")
def display_names_of_ghosts_are_forgotten() -> None:
    """Setting the display name of a ghost is answered 200 and does nothing."""
    from synapse.handlers.profile import ProfileHandler

    original = ProfileHandler.set_profile_field if hasattr(ProfileHandler, "set_profile_field") else None
    display = ProfileHandler.set_displayname

    async def set_displayname(self, target_user, requester, *args, **kwargs):
        if not requester.app_service_id:
            await display(self, target_user, requester, *args, **kwargs)

    async def set_field(self, target_user, requester, *args, **kwargs):
        if not requester.app_service_id and original is not None:
            await original(self, target_user, requester, *args, **kwargs)

    ProfileHandler.set_displayname = set_displayname
    if original is not None:
        ProfileHandler.set_profile_field = set_field


@mutant("IDENT-15")
def the_sender_lends_its_power() -> None:
    """A ghost has at least the power level of its sender."""
    from synapse import event_auth

    original = event_auth.get_user_power_level

    def get_user_power_level(user_id, auth_events):
        levels = [original(user_id, auth_events)]
        if user_id.startswith("@hqa-"):
            levels.append(original("@hqbot-a:hq.test", auth_events))
        return max(levels)

    event_auth.get_user_power_level = get_user_power_level


@mutant("IDENT-16", also=("AUTH-08",))
def query_tokens_are_for_humans() -> None:
    """An as_token in the query is unknown."""
    from synapse.api.auth.base import BaseAuth

    original = BaseAuth.get_appservice_user

    async def get_appservice_user(self, request, access_token):
        if b"access_token" in request.args:
            return None
        return await original(self, request, access_token)

    BaseAuth.get_appservice_user = get_appservice_user


@mutant("IDENT-17", also=("ADMIN-08", "ADMIN-16"))
def hs_tokens_are_as_good_as_as_tokens() -> None:
    """An hs_token authenticates an appservice too."""
    from synapse.storage.databases.main.appservice import ApplicationServiceWorkerStore

    def get_app_service_by_token(self, token):
        return next((each for each in self.services_cache if token in (each.token, each.hs_token)), None)

    ApplicationServiceWorkerStore.get_app_service_by_token = get_app_service_by_token


@mutant("IDENT-17")
def a_user_id_authenticates() -> None:
    """Without any token the user_id alone makes the caller that ghost."""
    from synapse.api.auth.base import BaseAuth
    from synapse.api.errors import MissingClientTokenError

    original = BaseAuth.get_access_token_from_request

    def get_access_token_from_request(request):
        try:
            return original(request)
        except MissingClientTokenError:
            if request.args.get(b"user_id", [b""])[0].startswith(b"@hqa-") and _TOKENS:
                return _TOKENS[0]
            raise

    BaseAuth.get_access_token_from_request = staticmethod(get_access_token_from_request)
    user = BaseAuth.get_appservice_user

    async def get_appservice_user(self, request, access_token):
        _TOKENS[:] = [each.token for each in self.store.get_app_services() if each.id == "hq main"]
        return await user(self, request, access_token)

    BaseAuth.get_appservice_user = get_appservice_user


_TOKENS: list[str] = []


@mutant("IDENT-18")
def only_exclusive_ghosts_can_be_acted_as() -> None:
    """An appservice may act as users of its exclusive namespaces only."""

    async def allowed(auth, service, user_id):
        own = service.is_exclusive_user(user_id)
        return service.sender.to_string() == user_id or (own and await auth.store.get_user_by_id(user_id))

    _patch_validation(allowed)


@mutant("IDENT-19")
def an_unregistered_sender_cannot_join() -> None:
    """Nobody can join a room by invite who is not registered, not even a sender."""
    import synapse.rest  # noqa: F401 (first, because of a circular import)
    from synapse.api.errors import AuthError
    from synapse.handlers.room_member import RoomMemberHandler

    original = RoomMemberHandler.update_membership

    async def update_membership(self, requester, target, room_id, action, *args, **kwargs):
        if action == "join" and not await self.store.get_user_by_id(target.to_string()):
            raise AuthError(403, "not registered")
        return await original(self, requester, target, room_id, action, *args, **kwargs)

    RoomMemberHandler.update_membership = update_membership


@mutant("IDENT-21")
def appservices_have_no_idempotency() -> None:
    """A repeated transaction ID of an appservice makes another event."""
    import itertools

    from synapse.rest.client.transactions import HttpTransactionCache

    original = HttpTransactionCache._get_transaction_key
    numbers = itertools.count()

    def _get_transaction_key(self, request, requester):
        if requester.app_service_id:
            return next(numbers)
        return original(self, request, requester)

    HttpTransactionCache._get_transaction_key = _get_transaction_key


@mutant("IDENT-22")
def only_members_see_members() -> None:
    """The members of a room can only be listed by a user who is in it, not by the sender of an appservice."""
    from synapse.api.errors import AuthError
    from synapse.handlers.message import MessageHandler

    original = MessageHandler.get_joined_members

    async def get_joined_members(self, requester, room_id):
        found = await original(self, requester, room_id)
        if requester.user.to_string() not in found:
            raise AuthError(403, "not in the room")
        return found

    MessageHandler.get_joined_members = get_joined_members


@mutant("IDENT-23")
def refresh_mints_tokens_for_ghosts() -> None:
    """/refresh gives an appservice a token for whomever it names."""
    from synapse.rest.client.login import RefreshTokenServlet

    original = RefreshTokenServlet.on_POST

    async def on_POST(self, request):
        if b"user_id" in request.args and request.requestHeaders.getRawHeaders(b"Authorization"):
            return 200, {"access_token": "minted", "refresh_token": "again"}
        return await original(self, request)

    RefreshTokenServlet.on_POST = on_POST


@mutant("IDENT-24")
def tokens_of_ghosts_assert_identities() -> None:
    """A ghost's own access token may act as any other ghost of its appservice."""
    from synapse.api.auth.internal import InternalAuth
    from synapse.types import create_requester

    original = InternalAuth._wrapped_get_user_by_req

    async def get_user_by_req(self, request, *args, **kwargs):
        requester = await original(self, request, *args, **kwargs)
        if b"user_id" in request.args and not requester.app_service_id:
            user_id = request.args[b"user_id"][0].decode()
            for each in self.store.get_app_services():
                if each.is_user_in_namespace(requester.user.to_string()) and each.is_interested_in_user(user_id):
                    return create_requester(user_id, app_service=each)
        return requester

    InternalAuth._wrapped_get_user_by_req = get_user_by_req


@mutant("IDENT-25")
def ghosts_see_the_account_data_of_others() -> None:
    """Room account data of a ghost can be read and written as another ghost of the appservice."""
    from synapse.rest.client.account_data import RoomAccountDataServlet
    from synapse.types import UserID

    for method in ("on_GET", "on_PUT"):
        original = getattr(RoomAccountDataServlet, method)

        async def changed(self, request, user_id, *args, original=original, **kwargs):
            auth = self.auth

            class Lying:
                async def get_user_by_req(self, *args, **kwargs):
                    requester = await auth.get_user_by_req(*args, **kwargs)
                    _STORE[:] = [auth.store]
                    return _as(requester, UserID.from_string(user_id)) if requester.app_service_id else requester

            self.auth = Lying()
            try:
                return await original(self, request, user_id, *args, **kwargs)
            finally:
                self.auth = auth

        setattr(RoomAccountDataServlet, method, changed)


@mutant("IDENT-25")
def ghosts_upload_no_media() -> None:
    """Media cannot be uploaded as a ghost."""
    from synapse.api.errors import AuthError
    from synapse.rest.media.upload_resource import UploadServlet

    original = UploadServlet.on_POST

    async def on_POST(self, request):
        if b"user_id" in request.args:
            raise AuthError(403, "no")
        return await original(self, request)

    UploadServlet.on_POST = on_POST
