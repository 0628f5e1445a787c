"""Accounts: registration, login, profiles (CS: Account registration; AS: Server admin style permissions)."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.identity import LONGEST_ID
from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import Account, JsonObject
from conformance.reference.web import Answer, Call, answer

BY_APPSERVICE = "m.login.application_service"
BY_PASSWORD = "m.login.password"
BY_TOKEN = "m.login.registration_token"

#: What a localpart may consist of (CS appendices: User identifiers).
_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")


def _hash(user_id: str, password: str) -> str:
    return hashlib.sha256(f"{user_id}\0{password}".encode()).hexdigest()


class Interaction(Policy):
    """User-interactive authentication, which no appservice goes through (CS: User-Interactive Authentication API)."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sessions: set[str] = set()

    def required(self, call: Call, stages: list[str], user_id: str | None = None) -> Answer | None:
        """The 401 that says what to do next; None when all is done.

        :param stages: the stages of the only flow.
        :param user_id: whose password is asked for.
        """
        auth = call.json.get("auth")
        auth = auth if isinstance(auth, dict) else {}
        if auth.get("session") in self._sessions and self._passed(stages[0], auth, user_id):
            self._sessions.discard(str(auth["session"]))
            return None
        session = secrets.token_hex(8)
        self._sessions.add(session)
        return answer({"flows": [{"stages": stages}], "params": {}, "session": session}, 401)

    def _passed(self, stage: str, auth: JsonObject, user_id: str | None) -> bool:
        if auth.get("type") != stage:
            return False
        if stage == BY_TOKEN:
            return bool(auth.get("token") == self.hs.registration_token)
        if stage == BY_PASSWORD and user_id is not None:
            return self.store.accounts[user_id].password == _hash(user_id, str(auth.get("password")))
        return True


class Accounts(Policy):
    """Who may have which name, and how one logs in."""

    #: Whether there is the legacy login API; without it appservices must inhibit logins (since v1.17).
    legacy_login = True

    # Registration

    @endpoint("POST", "/register", authenticated=False)
    def register(self, call: Call) -> Any:
        """Registration of humans, with interactive authentication, and of ghosts, without."""
        if call.json.get("type") == BY_APPSERVICE:
            return self.register_ghost(call, self.appservice_of(call))
        return self.register_human(call)

    def appservice_of(self, call: Call) -> Registration:
        """The appservice that registers or logs in a ghost.

        :raises MatrixError: 401 without a valid `as_token` (AS: Server admin style permissions, since v1.10).
        """
        token = self.hs.identity.token(call)
        if token is None:
            raise MatrixError(401, "M_MISSING_TOKEN", "an as_token is needed")
        appservice = self.hs.identity.appservice(token)
        if appservice is None:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "that is no as_token")
        return appservice

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        """A user made by an appservice, in its namespaces."""
        localpart = self.ghost_name(call)
        self.check_ghost_name(appservice, localpart)
        self.check_form(localpart)
        self.check_free(localpart)
        inhibited = self.inhibited(call)
        if not inhibited and not self.legacy_login:
            raise self.login_unsupported()
        return self.created(call, localpart, appservice, None, inhibited)

    def ghost_name(self, call: Call) -> str:
        """The localpart that an appservice asks for (AS: Server admin style permissions)."""
        return call.text("username")

    def inhibited(self, call: Call) -> bool:
        """Whether a registration is asked not to log in (CS: `inhibit_login`)."""
        return call.json.get("inhibit_login") is True

    def register_human(self, call: Call) -> Any:
        """A user who registers itself: everything is checked before authentication is asked for."""
        localpart = call.text("username", default=f"user-{secrets.token_hex(6)}")
        password = call.json.get("password")
        self.check_human_name(localpart)
        self.check_form(localpart)
        self.check_free(localpart)
        unfinished = self.hs.interaction.required(call, self.hs.registration_stages)
        if unfinished is not None:
            return unfinished
        return self.created(call, localpart, None, password, call.json.get("inhibit_login") is True)

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        """An appservice registers in its own namespaces only, and not in another's exclusive one.

        Its sender is its own too, and has been registered from the beginning: 400 M_USER_IN_USE, not M_EXCLUSIVE.

        :raises MatrixError: 400 M_EXCLUSIVE.
        """
        user_id = self.hs.user_id(localpart)
        namespaces = self.hs.namespaces
        if not namespaces.is_own_user(appservice, user_id):
            raise MatrixError(400, "M_EXCLUSIVE", "that name is outside the appservice's namespaces")
        if namespaces.claimed("users", user_id, by_other_than=appservice):
            raise MatrixError(400, "M_EXCLUSIVE", "that name is another appservice's")

    def check_human_name(self, localpart: str) -> None:
        """Humans cannot have a name in anybody's exclusive namespace.

        :raises MatrixError: 400 M_EXCLUSIVE.
        """
        if self.hs.namespaces.claimed("users", self.hs.user_id(localpart)):
            raise MatrixError(400, "M_EXCLUSIVE", "that name is an appservice's")

    def check_form(self, localpart: str) -> None:
        """Names have the legal characters, and user IDs at most 255 bytes.

        :raises MatrixError: 400 M_INVALID_USERNAME.
        """
        if not _LOCALPART.fullmatch(localpart) or len(self.hs.user_id(localpart).encode()) > LONGEST_ID:
            raise MatrixError(400, "M_INVALID_USERNAME", "that is no legal name")

    def check_free(self, localpart: str) -> None:
        """Every name is given once.

        :raises MatrixError: 400 M_USER_IN_USE.
        """
        if self.hs.user_id(localpart) in self.store.accounts:
            raise MatrixError(400, "M_USER_IN_USE", "that name is taken")

    def created(
        self, call: Call, localpart: str, appservice: Registration | None, password: Any, inhibited: bool
    ) -> JsonObject:
        """Make the account; with a token and a device unless that is inhibited (CS: `inhibit_login`)."""
        user_id = self.hs.user_id(localpart)
        hashed = _hash(user_id, password) if isinstance(password, str) else None
        self.store.add_account(user_id, appservice.id if appservice else None, hashed)
        self.store.set_profile(user_id, "displayname", localpart)
        return {"user_id": user_id} if inhibited else self.logged_in(call, user_id)

    @endpoint("GET", "/register/available", authenticated=False)
    def available(self, call: Call) -> JsonObject:
        """Whether a human could have a name; it should know the namespaces (CS: /register/available)."""
        localpart = call.query.get("username", "")
        self.check_human_name(localpart)
        self.check_form(localpart)
        self.check_free(localpart)
        return {"available": True}

    # Login

    @endpoint("GET", "/login", authenticated=False)
    def flows(self, call: Call) -> JsonObject:
        """The ways to log in, that of appservices among them (CS: /login, since v1.11)."""
        if not self.legacy_login:
            raise self.hs.errors.unknown_path()
        return {"flows": [{"type": each} for each in (BY_PASSWORD, BY_APPSERVICE)]}

    @endpoint("POST", "/login", authenticated=False)
    def login(self, call: Call) -> JsonObject:
        """Log in by password, or as a ghost by `as_token`."""
        kind = call.text("type")
        if kind == BY_APPSERVICE:
            return self.login_ghost(call)
        if kind == BY_PASSWORD and self.legacy_login:
            return self.login_human(call)
        raise MatrixError(400, "M_UNKNOWN", f"there is no login of type {kind}")

    def login_ghost(self, call: Call) -> JsonObject:
        """An appservice logs in as one of its users (AS: Server admin style permissions, since v1.2)."""
        appservice = self.appservice_of(call)
        if not self.legacy_login:
            raise self.login_unsupported()
        user_id = self.identified(call)
        if not self.may_log_in(appservice, user_id):
            raise MatrixError(400, "M_EXCLUSIVE", "that user is outside the appservice's namespaces")
        self.check_known(user_id)
        return self.logged_in(call, user_id)

    def may_log_in(self, appservice: Registration, user_id: str) -> bool:
        """Whether the appservice's namespaces let it log in as a user."""
        return self.hs.namespaces.is_own_user(appservice, user_id)

    def check_known(self, user_id: str) -> None:
        """Only who has been registered can log in.

        :raises MatrixError: 403 M_FORBIDDEN.
        """
        if not self.hs.identity.is_registered(user_id):
            raise MatrixError(403, "M_FORBIDDEN", "there is no such user")

    def login_human(self, call: Call) -> JsonObject:
        """A user logs in by password; ghosts have none."""
        user_id = self.identified(call)
        account = self.store.accounts.get(user_id)
        if account is None or not self.password_fits(account, call.text("password", default="")):
            raise MatrixError(403, "M_FORBIDDEN", "wrong name or password")
        return self.logged_in(call, user_id)

    def password_fits(self, account: Account, password: str) -> bool:
        """Whether that is the account's password."""
        return not account.deactivated and account.password == _hash(account.user_id, password)

    def identified(self, call: Call) -> str:
        """Whom a login names, by localpart or full user ID."""
        identifier = call.json.get("identifier")
        user = identifier.get("user") if isinstance(identifier, dict) else call.json.get("user")
        if not isinstance(user, str) or not user:
            raise MatrixError(400, "M_INVALID_PARAM", "the login names no user")
        return user if user.startswith("@") else self.hs.user_id(user)

    def logged_in(self, call: Call, user_id: str) -> JsonObject:
        """A new token for the device asked for, which ends the device's older tokens, or for a new device."""
        device_id = call.json.get("device_id")
        if not isinstance(device_id, str) or not device_id:
            device_id = secrets.token_hex(5).upper()
        self.store.drop_tokens(user_id, device_id)
        name = call.json.get("initial_device_display_name")
        self.store.put_device(user_id, device_id, {"display_name": name} if isinstance(name, str) else {})
        token = f"syt-{secrets.token_urlsafe(24)}"
        self.store.add_token(token, user_id, device_id)
        return {"user_id": user_id, "access_token": token, "device_id": device_id, "home_server": self.hs.server_name}

    def login_unsupported(self) -> MatrixError:
        """There is no legacy login API, so that ghosts cannot be logged in (since v1.17)."""
        return MatrixError(400, "M_APPSERVICE_LOGIN_UNSUPPORTED", "ghosts cannot be logged in here")

    @endpoint("POST", "/refresh", authenticated=False)
    def refresh(self, call: Call) -> JsonObject:
        """No tokens can be refreshed here; `user_id` means nothing on this endpoint (CS: /refresh, since v1.3)."""
        raise MatrixError(401, "M_UNKNOWN_TOKEN", "nobody has that refresh token")

    @endpoint("POST", "/logout")
    def logout(self, call: Call) -> JsonObject:
        """End the token that was used. An `as_token` comes from a registration and stays."""
        if call.requester.appservice is None and call.requester.device_id is not None:
            self.store.drop_tokens(call.requester.user_id, call.requester.device_id)
            self.store.drop_device(call.requester.user_id, call.requester.device_id)
        return {}

    @endpoint("POST", "/logout/all")
    def logout_all(self, call: Call) -> JsonObject:
        """End all access tokens of the user."""
        self.store.drop_tokens(call.requester.user_id)
        for device_id in list(self.store.accounts[call.requester.user_id].devices):
            self.store.drop_device(call.requester.user_id, device_id)
        return {}

    @endpoint("GET", "/account/whoami")
    def whoami(self, call: Call) -> JsonObject:
        """Who calls."""
        who: JsonObject = {"user_id": call.requester.user_id, "is_guest": False}
        if call.requester.device_id is not None:
            who["device_id"] = call.requester.device_id
        return who

    @endpoint("POST", "/account/deactivate")
    def deactivate(self, call: Call) -> Any:
        """End an account: of a human with its password, of a ghost by `as_token` alone."""
        if call.requester.appservice is None:
            unfinished = self.hs.interaction.required(call, [BY_PASSWORD], call.requester.user_id)
            if unfinished is not None:
                return unfinished
        self.store.deactivate(call.requester.user_id)
        return {"id_server_unbind_result": "no-support"}


class Profiles(Policy):
    """Profiles, filters and account data (CS: Profiles, Filtering, Client config)."""

    @endpoint("GET", "/profile/<user_id>", authenticated=False)
    def profile(self, call: Call, user_id: str) -> JsonObject:
        """A profile, which everybody can see."""
        return self.account(user_id).profile

    @endpoint("GET", "/profile/<user_id>/<key>", authenticated=False)
    def profile_field(self, call: Call, user_id: str, key: str) -> JsonObject:
        """A field of a profile."""
        profile = self.account(user_id).profile
        return {key: profile[key]} if key in profile else {}

    def account(self, user_id: str) -> Account:
        """An account.

        :raises MatrixError: 404 M_NOT_FOUND.
        """
        if not self.hs.identity.is_registered(user_id):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such user")
        return self.store.accounts[user_id]

    @endpoint("PUT", "/profile/<user_id>/<key>")
    def set_profile(self, call: Call, user_id: str, key: str) -> JsonObject:
        """Change a field of one's own profile; rooms are told by a membership event."""
        self.check_own(call, user_id)
        if key not in call.json:
            raise MatrixError(400, "M_MISSING_PARAM", f"{key} is missing")
        self.store.set_profile(user_id, key, call.json[key])
        self.hs.rooms.announce_profile(user_id)
        return {}

    def check_own(self, call: Call, user_id: str) -> None:
        """What is somebody's own is changed by nobody else.

        :raises MatrixError: 403 M_FORBIDDEN.
        """
        if user_id != call.requester.user_id:
            raise MatrixError(403, "M_FORBIDDEN", "that is another user's")

    @endpoint("POST", "/user/<user_id>/filter")
    def add_filter(self, call: Call, user_id: str) -> JsonObject:
        """Keep a filter."""
        self.check_own(call, user_id)
        return {"filter_id": str(self.store.add_filter(user_id, call.json))}

    @endpoint("GET", "/user/<user_id>/filter/<filter_id>")
    def filter(self, call: Call, user_id: str, filter_id: str) -> JsonObject:
        """A filter kept before."""
        self.check_own(call, user_id)
        return self.filter_of(user_id, filter_id)

    def filter_of(self, user_id: str, filter_id: str) -> JsonObject:
        """A user's filter by its id.

        :raises MatrixError: 404 M_NOT_FOUND.
        """
        filters = self.store.accounts[user_id].filters
        if not filter_id.isdecimal() or int(filter_id) >= len(filters):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such filter")
        return filters[int(filter_id)]

    @endpoint("GET", "/user/<user_id>/account_data/<kind>")
    @endpoint("GET", "/user/<user_id>/rooms/<room_id>/account_data/<kind>")
    def account_data(self, call: Call, user_id: str, kind: str, room_id: str = "") -> JsonObject:
        """Account data, of a room or of none."""
        self.check_own(call, user_id)
        found = self.store.accounts[user_id].data[room_id].get(kind)
        if found is None:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such account data")
        return found

    @endpoint("PUT", "/user/<user_id>/account_data/<kind>")
    @endpoint("PUT", "/user/<user_id>/rooms/<room_id>/account_data/<kind>")
    def set_account_data(self, call: Call, user_id: str, kind: str, room_id: str = "") -> JsonObject:
        """Set account data, of a room or of none."""
        self.check_own(call, user_id)
        self.store.set_account_data(user_id, room_id, kind, call.json)
        return {}

    @endpoint("PUT", "/pushrules/<scope>/<kind>/<rule>/enabled")
    def enable_push_rule(self, call: Call, scope: str, kind: str, rule: str) -> JsonObject:
        """Nobody is notified of anything here, so that rules are taken and change nothing."""
        return {}

    @endpoint("GET", "/pushrules/")
    def push_rules(self, call: Call) -> JsonObject:
        """No rules."""
        return {"global": {"override": [], "underride": [], "sender": [], "room": [], "content": []}}

    def blocks_invites(self, user_id: str) -> bool:
        """Whether a user's account data has all invites blocked (CS: Invite permission, since v1.18)."""
        account = self.store.accounts.get(user_id)
        config = account.data[""].get("m.invite_permission_config", {}) if account else {}
        return config.get("default_action") == "block"
