"""Mutants of area ADMIN."""

# mypy: disable-error-code="no-untyped-def, method-assign, assignment, no-untyped-call, attr-defined, arg-type"

from __future__ import annotations

from typing import Any

from tests.mutants import mutant
from tests.mutants._tools import claim_newest


def _patch_appservice_registration(change: Any) -> None:
    """Replace how an appservice registers: `change` gets the original, the servlet, the name, the token, the body."""
    from synapse.rest.client.register import RegisterRestServlet

    original = RegisterRestServlet._do_appservice_registration

    async def register(self, username, as_token, body, *args, **kwargs):
        async def as_usual(username=username, as_token=as_token, body=body):
            return await original(self, username, as_token, body, *args, **kwargs)

        return await change(as_usual, self, username, as_token, body)

    RegisterRestServlet._do_appservice_registration = register


def _patch_login(change: Any) -> None:
    """Replace how somebody logs in: `change` gets the original, the servlet, the request and its body."""
    from synapse.http.servlet import parse_json_object_from_request
    from synapse.rest.client.login import LoginRestServlet

    original = LoginRestServlet.on_POST

    async def on_POST(self, request):
        body = parse_json_object_from_request(request)
        request.content.seek(0)

        async def as_usual():
            return await original(self, request)

        return await change(as_usual, self, request, body)

    LoginRestServlet.on_POST = on_POST


async def _logged_in(servlet: Any, user_id: str, device: str | None = None) -> Any:
    device_id, token, _, _ = await servlet.registration_handler.register_device(user_id, device, None)
    return 200, {"user_id": user_id, "access_token": token, "device_id": device_id}


def _appservice_login(body: Any) -> bool:
    return bool(body.get("type") == "m.login.application_service")


def _named(body: Any) -> str:
    user = str(body["identifier"]["user"])
    return user if user.startswith("@") else f"@{user}:hq.test"


@mutant("ADMIN-01")
def appservices_must_authenticate_interactively() -> None:
    """An appservice that registers a ghost gets the flows of interactive authentication."""
    from synapse.api.errors import InteractiveAuthIncompleteError

    async def register(as_usual, servlet, username, as_token, body):
        raise InteractiveAuthIncompleteError("s", {"flows": [{"stages": ["m.login.dummy"]}], "session": "s"})

    _patch_appservice_registration(register)


@mutant("ADMIN-01", also=("ADMIN-06",))
def registered_ghosts_are_named_by_localpart() -> None:
    """The user_id in the answer to a registration is only the localpart."""

    async def register(as_usual, servlet, username, as_token, body):
        return {**await as_usual(), "user_id": username}

    _patch_appservice_registration(register)


@mutant("ADMIN-02", also=("ADMIN-01",))
def closed_registration_is_closed_to_appservices() -> None:
    """Registration is closed, to appservices too."""
    from synapse.api.errors import SynapseError
    from synapse.rest.client.register import RegisterRestServlet

    original = RegisterRestServlet.on_POST

    async def on_POST(self, request):
        self._registration_enabled = False
        return await original(self, request)

    RegisterRestServlet.on_POST = on_POST

    async def register(as_usual, servlet, username, as_token, body):
        raise SynapseError(403, "Registration has been disabled")

    _patch_appservice_registration(register)


@mutant("ADMIN-03")
def registering_never_logs_in() -> None:
    """A ghost's registration never yields a token."""

    async def register(as_usual, servlet, username, as_token, body):
        return await as_usual(body={**body, "inhibit_login": True})

    _patch_appservice_registration(register)


@mutant("ADMIN-03")
def tokens_of_registrations_are_dead() -> None:
    """The token that a ghost's registration yields is not known."""

    async def register(as_usual, servlet, username, as_token, body):
        answer = await as_usual()
        return answer | ({"access_token": "dead"} if "access_token" in answer else {})

    _patch_appservice_registration(register)


@mutant("ADMIN-04")
def registering_always_logs_in() -> None:
    """A ghost's registration yields a token, inhibit_login or not."""

    async def register(as_usual, servlet, username, as_token, body):
        return await as_usual(body={**body, "inhibit_login": False})

    _patch_appservice_registration(register)


@mutant("ADMIN-04")
def inhibited_registrations_have_a_device() -> None:
    """A registration with inhibit_login and a device_id answers with that device_id."""

    async def register(as_usual, servlet, username, as_token, body):
        answer = await as_usual()
        return answer | ({"device_id": body["device_id"]} if "device_id" in body else {})

    _patch_appservice_registration(register)


@mutant("ADMIN-05")
def ghosts_register_twice() -> None:
    """Registering a ghost again is answered 200."""
    from synapse.api.errors import SynapseError

    async def register(as_usual, servlet, username, as_token, body):
        try:
            return await as_usual()
        except SynapseError as error:
            if error.errcode == "M_USER_IN_USE":
                return {"user_id": f"@{username}:hq.test"}
            raise

    _patch_appservice_registration(register)


@mutant("ADMIN-05")
def a_name_in_use_is_exclusive() -> None:
    """Registering a ghost again is refused with M_EXCLUSIVE when a login is asked for."""
    from synapse.api.errors import SynapseError

    async def register(as_usual, servlet, username, as_token, body):
        try:
            return await as_usual()
        except SynapseError as error:
            if error.errcode == "M_USER_IN_USE" and not body.get("inhibit_login"):
                raise SynapseError(400, "in use", "M_EXCLUSIVE") from None
            raise

    _patch_appservice_registration(register)


@mutant("ADMIN-08", "ADMIN-09")
def any_token_registers_ghosts() -> None:
    """Any bearer token registers a ghost of the appservice whose namespace it is in."""

    async def register(as_usual, servlet, username, as_token, body):
        if servlet.store.get_app_service_by_token(as_token) is None:
            services = servlet.store.get_app_services()
            as_token = next(each.token for each in services if each.is_user_in_namespace(f"@{username}:hq.test"))
        return await as_usual(as_token=as_token)

    _patch_appservice_registration(register)


@mutant("ADMIN-08")
def refused_registrations_leave_a_user() -> None:
    """A registration with an unknown token is refused after the user has been created."""

    async def register(as_usual, servlet, username, as_token, body):
        known = servlet.store.get_app_service_by_token(as_token) is not None
        if not known and not await servlet.store.get_user_by_access_token(as_token):
            await servlet.registration_handler.register_with_store(user_id=f"@{username}:hq.test", password_hash="")
        return await as_usual()

    _patch_appservice_registration(register)


@mutant("ADMIN-09")
def humans_register_ghosts() -> None:
    """A human's access token registers a ghost."""

    async def register(as_usual, servlet, username, as_token, body):
        if await servlet.store.get_user_by_access_token(as_token):
            services = servlet.store.get_app_services()
            as_token = next(each.token for each in services if each.is_user_in_namespace(f"@{username}:hq.test"))
        return await as_usual(as_token=as_token)

    _patch_appservice_registration(register)


@mutant("ADMIN-10")
def an_empty_password_is_a_ghosts() -> None:
    """A user without a password logs in with an empty one."""

    async def login(as_usual, servlet, request, body):
        if body.get("password") == "" and "hqa-" in _named(body):
            return await _logged_in(servlet, _named(body))
        return await as_usual()

    _patch_login(login)


@mutant("ADMIN-10")
def passwords_of_ghosts_break_the_server() -> None:
    """A login with a password as a user who has none is answered 500."""

    async def login(as_usual, servlet, request, body):
        if body.get("type") == "m.login.password" and "hqa-" in _named(body):
            raise ValueError("no hash")
        return await as_usual()

    _patch_login(login)


@mutant("ADMIN-12")
def ghosts_log_in_by_localpart_only() -> None:
    """A login that names the ghost by its full user ID is refused."""
    from synapse.api.errors import LoginError

    async def login(as_usual, servlet, request, body):
        if _appservice_login(body) and body["identifier"]["user"].startswith("@hqa"):
            raise LoginError(403, "no", "M_FORBIDDEN")
        return await as_usual()

    _patch_login(login)


@mutant("ADMIN-12")
def appservices_cannot_log_in() -> None:
    """The login type of appservices is not known."""
    from synapse.api.errors import SynapseError

    async def login(as_usual, servlet, request, body):
        if _appservice_login(body):
            raise SynapseError(400, "Unknown login type", "M_UNKNOWN")
        return await as_usual()

    _patch_login(login)


@mutant("ADMIN-12")
def logins_yield_the_senders_token() -> None:
    """The token that a login as a ghost yields is that of the sender."""

    async def login(as_usual, servlet, request, body):
        status, answer = await as_usual()
        if _appservice_login(body) and "device_id" not in body:
            _, other = await _logged_in(servlet, "@hqbot-a:hq.test")
            answer = {**answer, "access_token": other["access_token"]}
        return status, answer

    _patch_login(login)


@mutant("ADMIN-13")
def logins_ignore_the_device_id() -> None:
    """The device of a login is a new one, whatever device_id was asked for."""

    async def login(as_usual, servlet, request, body):
        if _appservice_login(body) and "device_id" in body:
            return await _logged_in(servlet, _named(body))
        return await as_usual()

    _patch_login(login)


@mutant("ADMIN-14", also=("ADMIN-13",))
def appservices_log_in_as_anybody() -> None:
    """An appservice may log in as every registered user."""
    from synapse.rest.client.login import LoginRestServlet

    original = LoginRestServlet._do_appservice_login

    async def login(self, body, appservice, *args, **kwargs):
        if await self._main_store.get_user_by_id(_named(body)):
            return (await _logged_in(self, _named(body)))[1]
        return await original(self, body, appservice, *args, **kwargs)

    LoginRestServlet._do_appservice_login = login


@mutant("ADMIN-15")
def logins_register_ghosts() -> None:
    """A login as a ghost that was never registered registers it."""
    from synapse.rest.client.login import LoginRestServlet

    original = LoginRestServlet._do_appservice_login

    async def login(self, body, appservice, *args, **kwargs):
        user_id = _named(body)
        if appservice.is_interested_in_user(user_id) and not await self._main_store.get_user_by_id(user_id):
            await self.registration_handler.register_with_store(user_id=user_id, password_hash="")
        return await original(self, body, appservice, *args, **kwargs)

    LoginRestServlet._do_appservice_login = login


@mutant("ADMIN-16")
def logins_need_no_token() -> None:
    """A login as a ghost needs no token."""

    async def login(as_usual, servlet, request, body):
        if _appservice_login(body) and not servlet.auth.has_access_token(request):
            return await _logged_in(servlet, _named(body))
        return await as_usual()

    _patch_login(login)


@mutant("ADMIN-16")
def humans_log_in_as_ghosts() -> None:
    """A login as a ghost by a human's token succeeds."""

    async def login(as_usual, servlet, request, body):
        if _appservice_login(body) and servlet.auth.has_access_token(request):
            token = servlet.auth.get_access_token_from_request(request)
            if await servlet._main_store.get_user_by_access_token(token):
                return await _logged_in(servlet, _named(body))
        return await as_usual()

    _patch_login(login)


@mutant("ADMIN-17")
def the_login_flow_is_hidden() -> None:
    """The login flow of appservices is not among those listed."""
    from synapse.rest.client.login import LoginRestServlet

    original = LoginRestServlet.on_GET

    def on_GET(self, request):
        status, answer = original(self, request)
        return status, {"flows": [flow for flow in answer["flows"] if "application" not in flow["type"]]}

    LoginRestServlet.on_GET = on_GET


def _without_legacy_login(login: Any, registration: Any) -> None:
    """Take the legacy login API away."""
    from synapse.api.errors import UnrecognizedRequestError
    from synapse.rest.client.login import LoginRestServlet

    def on_GET(self, request):
        raise UnrecognizedRequestError(code=404)

    LoginRestServlet.on_GET = on_GET
    claim_newest()
    _patch_login(login)
    _patch_appservice_registration(registration)


async def _unsupported(as_usual: Any, *args: Any) -> Any:
    from synapse.api.errors import SynapseError

    raise SynapseError(400, "no login", "M_APPSERVICE_LOGIN_UNSUPPORTED")


async def _unrecognized(as_usual: Any, *args: Any) -> Any:
    from synapse.api.errors import UnrecognizedRequestError

    raise UnrecognizedRequestError(code=404)


async def _inhibited_only(as_usual: Any, servlet: Any, username: str, as_token: str, body: Any) -> Any:
    return await (as_usual() if body.get("inhibit_login") else _unsupported(as_usual))


async def _never_logged_in(as_usual: Any, servlet: Any, username: str, as_token: str, body: Any) -> Any:
    return await as_usual(body={**body, "inhibit_login": True})


@mutant("ADMIN-18")
def without_legacy_login_ghosts_register_silently() -> None:
    """Without the legacy login API a ghost is registered without a token, although it was asked for one."""
    _without_legacy_login(_unsupported, _never_logged_in)


@mutant("ADMIN-19", also=("ADMIN-01",))
def without_legacy_login_nobody_registers() -> None:
    """Without the legacy login API no ghost can be registered."""
    _without_legacy_login(_unsupported, _unsupported)


@mutant("ADMIN-20")
def without_legacy_login_logging_in_is_not_recognized() -> None:
    """Without the legacy login API a login as a ghost is refused with 404 M_UNRECOGNIZED."""
    _without_legacy_login(_unrecognized, _inhibited_only)


@mutant("ADMIN-21")
def rate_limited_is_ignored() -> None:
    """Ghosts are rate-limited whatever their registration says."""
    from synapse.appservice import ApplicationService

    ApplicationService.is_rate_limited = lambda self: True


@mutant("ADMIN-22")
def senders_are_limited_in_messages() -> None:
    """The sender of a rate-limited appservice is limited in sending messages."""
    from synapse.storage.databases.main.appservice import ApplicationServiceWorkerStore

    ApplicationServiceWorkerStore.get_app_service_by_user_id = lambda self, user_id: None


@mutant("ADMIN-22")
def senders_are_limited_in_joining() -> None:
    """The sender of a rate-limited appservice may join ten rooms at once."""
    from synapse.config.ratelimiting import RatelimitConfig, RatelimitSettings

    original = RatelimitConfig.read_config

    def read_config(self, config, **kwargs):
        original(self, config, **kwargs)
        self.rc_joins_local = RatelimitSettings(key="rc_joins.local", per_second=0.1, burst_count=10)

    RatelimitConfig.read_config = read_config


@mutant("ADMIN-24")
def new_ghosts_wait_for_a_cache() -> None:
    """That a ghost is not registered is remembered for a while."""
    from synapse.api.auth.base import BaseAuth
    from synapse.api.errors import AuthError

    original = BaseAuth.validate_appservice_can_control_user_id
    unknown = set()

    async def validate(self, app_service, user_id):
        if user_id in unknown:
            raise AuthError(403, "not registered")
        try:
            await original(self, app_service, user_id)
        except AuthError:
            unknown.add(user_id)
            raise

    BaseAuth.validate_appservice_can_control_user_id = validate


@mutant("ADMIN-25")
def logging_out_revokes_the_as_token() -> None:
    """A ghost that logs out everywhere takes the as_token with it."""
    from synapse.rest.client.logout import LogoutAllRestServlet

    original = LogoutAllRestServlet.on_POST

    async def on_POST(self, request):
        answer = await original(self, request)
        services = self.auth.store.services_cache
        token = self.auth.get_access_token_from_request(request)
        services[:] = [each for each in services if each.token != token]
        return answer

    LogoutAllRestServlet.on_POST = on_POST
