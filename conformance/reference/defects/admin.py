"""Defects of area ADMIN: how ghosts are registered and logged in, and what appservices are free of."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.accounts import BY_APPSERVICE, Accounts, Profiles
from conformance.reference.defects import defect, variant
from conformance.reference.identity import Identity, Requester
from conformance.reference.limits import Limits
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.store import Account, JsonObject
from conformance.reference.web import Answer, Call, answer


def flows() -> Answer:
    """A demand for interactive authentication."""
    return answer({"flows": [{"stages": ["m.login.dummy"]}], "params": {}, "session": "s"}, 401)


def exclusive() -> MatrixError:
    """400 M_EXCLUSIVE."""
    return MatrixError(400, "M_EXCLUSIVE", "that name is an appservice's")


def owner(accounts: Accounts, user_id: str) -> Registration | None:
    """The first appservice whose namespaces cover a user."""
    return next((each for each in accounts.hs.appservices if accounts.hs.namespaces.is_own_user(each, user_id)), None)


# Registration


@defect("ADMIN-01", also=("ADMIN-02", "NSUSER-08"))
class GhostsMustAuthenticate(Accounts):
    """An appservice that registers a ghost gets the flows of interactive authentication."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        return flows()


@defect("ADMIN-01", also=("NSUSER-12",))
class GhostsOfLaterNamespacesMustAuthenticate(Accounts):
    """An appservice gets the flows of interactive authentication outside of its first exclusive namespace."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        user_id = self.hs.user_id(call.text("username"))
        claims = [entry for entry in appservice.users or () if entry.exclusive]
        later = any(self.hs.namespaces.matches(entry, user_id) for entry in claims[1:])
        if later and not self.hs.namespaces.matches(claims[0], user_id):
            return flows()
        return super().register_ghost(call, appservice)


@defect("ADMIN-01")
class RegisteredGhostsAreNamedByLocalpart(Accounts):
    """The `user_id` in the answer to a ghost's registration is only the localpart."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        return {**super().register_ghost(call, appservice), "user_id": call.text("username")}


@defect("ADMIN-02", also=("ADMIN-01", "NSUSER-08"))
class ClosedRegistrationIsClosedToAppservices(Accounts):
    """Where humans need a token to register, appservices cannot register anybody."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        if self.hs.registration_token is not None:
            raise MatrixError(403, "M_FORBIDDEN", "registration has been disabled")
        return super().register_ghost(call, appservice)


@defect("ADMIN-02")
class HumansWhoRegisterHoldUpAppservices(Accounts):
    """After a human's unfinished registration the next one, by an appservice, is refused."""

    _unfinished = False

    def register_human(self, call: Call) -> Any:
        result = super().register_human(call)
        self._unfinished = isinstance(result, Answer)
        return result

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        held_up, self._unfinished = self._unfinished, False
        if held_up:
            raise MatrixError(403, "M_FORBIDDEN", "a registration is under way")
        return super().register_ghost(call, appservice)


@defect("ADMIN-03")
class RegisteringNeverLogsIn(Accounts):
    """A ghost's registration never yields a token."""

    def inhibited(self, call: Call) -> bool:
        return True


@defect("ADMIN-03")
class LoginsAreInhibitedUnlessAskedFor(Accounts):
    """A registration without `inhibit_login` counts as one that inhibits the login."""

    def inhibited(self, call: Call) -> bool:
        return call.json.get("inhibit_login") is not False


@defect("ADMIN-03")
class TokensOfRegistrationsAreDead(Accounts):
    """The token that a ghost's registration yields is not known."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        result = super().register_ghost(call, appservice)
        return result | ({"access_token": "dead"} if "access_token" in result else {})


@defect("ADMIN-03")
class RegistrationsNameNoDevice(Accounts):
    """A ghost's registration yields a token, but the answer does not name its device."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        result = super().register_ghost(call, appservice)
        return {key: value for key, value in result.items() if key != "device_id"}


@defect("ADMIN-04")
class RegisteringAlwaysLogsIn(Accounts):
    """A ghost's registration yields a token, `inhibit_login` or not."""

    def inhibited(self, call: Call) -> bool:
        return False


@defect("ADMIN-04")
class ADeviceIdOverridesInhibitLogin(Accounts):
    """A registration with `inhibit_login` and a `device_id` yields a token."""

    def inhibited(self, call: Call) -> bool:
        return super().inhibited(call) and "device_id" not in call.json


@defect("ADMIN-04")
class InhibitedRegistrationsNameADevice(Accounts):
    """A registration with `inhibit_login` and a `device_id` answers with that `device_id`."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        result = super().register_ghost(call, appservice)
        return result | ({"device_id": call.json["device_id"]} if "device_id" in call.json else {})


@defect("ADMIN-05")
class GhostsRegisterTwice(Accounts):
    """Registering a ghost again is answered 200."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        user_id = self.hs.user_id(call.text("username"))
        known = user_id in self.store.accounts
        if known and self.hs.namespaces.covers(appservice, "users", user_id):
            return {"user_id": user_id}
        return super().register_ghost(call, appservice)


@defect("ADMIN-05")
class RegisteringAgainLogsIn(Accounts):
    """Registering a ghost again without `inhibit_login` logs it in."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        user_id = self.hs.user_id(call.text("username"))
        if self.legacy_login and not self.inhibited(call) and user_id in self.store.accounts:
            return self.logged_in(call, user_id)
        return super().register_ghost(call, appservice)


@defect("ADMIN-05")
class RegisteringAgainResetsTheGhost(Accounts):
    """Registering a ghost again is refused, but the ghost has lost its profile and devices."""

    def check_free(self, localpart: str) -> None:
        known = self.store.accounts.get(self.hs.user_id(localpart))
        if known is not None and known.appservice is not None:
            self.store.add_account(known.user_id, known.appservice)
        super().check_free(localpart)


@defect("ADMIN-05")
class NamesInUseAreExclusive(Accounts):
    """Registering a ghost again is refused with M_EXCLUSIVE when a login is asked for."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        try:
            return super().register_ghost(call, appservice)
        except MatrixError as error:
            if error.errcode == "M_USER_IN_USE" and not self.inhibited(call):
                raise exclusive() from error
            raise


@defect("ADMIN-06")
class LongNamesAreTaken(Accounts):
    """Names may have any length."""

    def check_form(self, localpart: str) -> None:
        super().check_form(localpart[:100])


@defect("ADMIN-06")
class NamesMayHaveCapitals(Accounts):
    """Names may have capitals, which stay as they are."""

    def check_form(self, localpart: str) -> None:
        super().check_form(localpart.lower())


@defect("ADMIN-06")
class NamesBeyondAsciiBreakTheServer(Accounts):
    """A name with letters beyond ASCII is answered 500."""

    def check_form(self, localpart: str) -> None:
        localpart.encode("ascii")
        super().check_form(localpart)


@defect("ADMIN-06")
class IllegalNamesAreMappedOutOfTheNamespace(Accounts):
    """A ghost's illegal name is mapped to a legal one that is outside of the appservice's namespaces."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        try:
            return super().register_ghost(call, appservice)
        except MatrixError as error:
            if error.errcode != "M_INVALID_USERNAME":
                raise
            mapped = "u" + call.text("username").encode().hex()[:64]
            return self.created(call, mapped, appservice, None, self.inhibited(call))


@defect("ADMIN-07")
class MissingTokensAreUnknown(Accounts):
    """A ghost's registration without a token is refused with 401 M_UNKNOWN_TOKEN."""

    def appservice_of(self, call: Call) -> Registration:
        if call.token is None and call.path.endswith("/register"):
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "that is no as_token")
        return super().appservice_of(call)


@defect("ADMIN-07")
class RegistrationsWithoutTokenAreHumans(Accounts):
    """A ghost's registration without a token is treated as a human's."""

    def register(self, call: Call) -> Any:
        if call.token is None:
            return self.register_human(call)
        return super().register(call)


@defect("ADMIN-08", "ADMIN-09")
class AnyTokenRegistersGhosts(Accounts):
    """Any token registers a ghost, of the appservice whose namespace it is in."""

    def appservice_of(self, call: Call) -> Registration:
        if call.path.endswith("/register") and call.token is not None:
            found = owner(self, self.hs.user_id(call.text("username")))
            if found is not None and self.hs.identity.appservice(call.token) is None:
                return found
        return super().appservice_of(call)


@defect("ADMIN-08")
class HsTokensRegisterGhosts(Accounts):
    """An appservice's `hs_token` registers its ghosts."""

    def appservice_of(self, call: Call) -> Registration:
        for each in self.hs.appservices:
            if call.path.endswith("/register") and call.token == each.hs_token:
                return each
        return super().appservice_of(call)


@defect("ADMIN-08")
class TheBeginningOfATokenIsEnough(Accounts):
    """A token that begins with an `as_token` registers ghosts."""

    def appservice_of(self, call: Call) -> Registration:
        for each in self.hs.appservices:
            if call.path.endswith("/register") and call.token is not None and call.token.startswith(each.as_token):
                return each
        return super().appservice_of(call)


@defect("ADMIN-08")
class RefusedRegistrationsLeaveAUser(Accounts):
    """A ghost's registration with an unknown token is refused after the user has been made."""

    def appservice_of(self, call: Call) -> Registration:
        try:
            return super().appservice_of(call)
        except MatrixError as error:
            known = call.token in self.store.tokens
            if error.errcode == "M_UNKNOWN_TOKEN" and not known and call.path.endswith("/register"):
                self.store.add_account(self.hs.user_id(call.text("username")))
            raise


@defect("ADMIN-09")
class HumansRegisterGhosts(Accounts):
    """A human's access token registers a ghost."""

    def appservice_of(self, call: Call) -> Registration:
        if call.path.endswith("/register") and call.token in self.store.tokens:
            found = owner(self, self.hs.user_id(call.text("username")))
            if found is not None:
                return found
        return super().appservice_of(call)


@defect("ADMIN-09")
class HumansWhoAreRefusedLeaveAGhost(Accounts):
    """A ghost's registration with a human's access token is refused after the user has been made."""

    def appservice_of(self, call: Call) -> Registration:
        if call.path.endswith("/register") and call.token in self.store.tokens:
            self.store.add_account(self.hs.user_id(call.text("username")))
            raise MatrixError(403, "M_FORBIDDEN", "only appservices may do that")
        return super().appservice_of(call)


# Login


@defect("ADMIN-10")
class AnEmptyPasswordIsAGhosts(Accounts):
    """A user without a password logs in with an empty one."""

    def password_fits(self, account: Account, password: str) -> bool:
        return (account.password or "") == password or super().password_fits(account, password)


@defect("ADMIN-10")
class AGhostsNameIsItsPassword(Accounts):
    """A ghost's password is its name."""

    def password_fits(self, account: Account, password: str) -> bool:
        is_named = account.appservice is not None and account.user_id.startswith(f"@{password}:")
        return is_named or super().password_fits(account, password)


@defect("ADMIN-10")
class PasswordsOfGhostsBreakTheServer(Accounts):
    """A login with a password as a user who has none is answered 500."""

    def password_fits(self, account: Account, password: str) -> bool:
        if account.password is None:
            raise ValueError("no hash")
        return super().password_fits(account, password)


@defect("ADMIN-12")
class AppservicesCannotLogIn(Accounts):
    """The login type of appservices is not known."""

    def login_ghost(self, call: Call) -> JsonObject:
        raise MatrixError(400, "M_UNKNOWN", "unknown login type")


@defect("ADMIN-12")
class GhostsLogInByLocalpartOnly(Accounts):
    """A login that names a ghost by its full user ID is refused."""

    def login_ghost(self, call: Call) -> JsonObject:
        result = super().login_ghost(call)
        if call.json["identifier"]["user"] == result["user_id"]:
            raise MatrixError(403, "M_FORBIDDEN", "there is no such user")
        return result


@defect("ADMIN-12")
class GhostsOfOpenNamespacesCannotLogIn(Accounts):
    """An appservice can log in as users of its exclusive namespaces only."""

    def may_log_in(self, appservice: Registration, user_id: str) -> bool:
        return self.hs.namespaces.claims(appservice, "users", user_id)


@defect("ADMIN-12")
class LoginsYieldTheSendersToken(Accounts):
    """The token that a login as a ghost yields is that of its appservice's sender user."""

    def login_ghost(self, call: Call) -> JsonObject:
        result, sender = super().login_ghost(call), self.hs.user_id(self.appservice_of(call).sender_localpart)
        if "device_id" in call.json or result["user_id"] == sender:
            return result
        return {**result, "access_token": self.logged_in(call, sender)["access_token"]}


@defect("ADMIN-13")
class LoginsIgnoreTheDeviceId(Accounts):
    """The device of a login is a new one, whatever `device_id` was asked for."""

    def login_ghost(self, call: Call) -> JsonObject:
        call.body = json.dumps({**call.json, "device_id": None}).encode()
        return super().login_ghost(call)


@defect("ADMIN-13")
class DevicesLogInOnce(Accounts):
    """A login with a device that there is already gets a new one."""

    def login_ghost(self, call: Call) -> JsonObject:
        device_id = call.json.get("device_id")
        user_id = self.identified(call)
        known = self.hs.identity.is_registered(user_id) and device_id in self.store.accounts[user_id].devices
        return self.logged_in(Call(call.request, call.path, b"{}"), user_id) if known else super().login_ghost(call)


@defect("ADMIN-13")
class EarlierTokensOfADeviceStayValid(Accounts):
    """A second login with a device leaves the token of the first one valid."""

    def logged_in(self, call: Call, user_id: str) -> JsonObject:
        before = dict(self.store.tokens)
        result = super().logged_in(call, user_id)
        for token, holder in before.items():
            self.store.add_token(token, *holder)
        return result


@defect("ADMIN-14")
class AppservicesLogInAsAnybody(Accounts):
    """An appservice may log in as every registered user."""

    def may_log_in(self, appservice: Registration, user_id: str) -> bool:
        return self.hs.identity.is_registered(user_id) or super().may_log_in(appservice, user_id)


@defect("ADMIN-14")
class AppservicesLogInAsGhostsOfOthers(Accounts):
    """An appservice may log in as the ghosts of all appservices."""

    def may_log_in(self, appservice: Registration, user_id: str) -> bool:
        return owner(self, user_id) is not None


@defect("ADMIN-14")
class FullUserIdsAreNotCheckedAtLogin(Accounts):
    """Only localparts are held against the namespaces when an appservice logs in, full user IDs are not."""

    def login_ghost(self, call: Call) -> JsonObject:
        identifier = call.json.get("identifier")
        user = str(identifier.get("user")) if isinstance(identifier, dict) else ""
        if user.startswith("@") and self.hs.identity.is_registered(user):
            self.appservice_of(call)
            return self.logged_in(call, user)
        return super().login_ghost(call)


@defect("ADMIN-14")
class LoginsOutsideTheNamespacesAreForbidden(Accounts):
    """A login outside the namespaces is refused with M_FORBIDDEN instead of M_EXCLUSIVE."""

    def may_log_in(self, appservice: Registration, user_id: str) -> bool:
        if not super().may_log_in(appservice, user_id):
            raise MatrixError(403, "M_FORBIDDEN", "that user is not the appservice's")
        return True


@defect("ADMIN-15")
class LoginsRegisterGhosts(Accounts):
    """A login as a ghost that was never registered registers it."""

    def check_known(self, user_id: str) -> None:
        if user_id not in self.store.accounts:
            self.store.add_account(user_id)


@defect("ADMIN-15")
class UnknownGhostsAreNotFound(Accounts):
    """A login as a ghost that was never registered is refused with 404 M_NOT_FOUND."""

    def check_known(self, user_id: str) -> None:
        if user_id not in self.store.accounts:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such user")
        super().check_known(user_id)


@defect("ADMIN-15")
class RefusedLoginsLeaveAUser(Accounts):
    """A login as a ghost that was never registered is refused, and the ghost exists afterwards."""

    def check_known(self, user_id: str) -> None:
        try:
            super().check_known(user_id)
        except MatrixError:
            self.store.add_account(user_id)
            raise


def login_of(accounts: Accounts, call: Call) -> Registration | None:
    """Whose ghost a call wants to log in; None when it does not."""
    return owner(accounts, accounts.identified(call)) if call.path.endswith("/login") else None


@defect("ADMIN-16")
class LoginsNeedNoToken(Accounts):
    """A login as a ghost needs no token."""

    def appservice_of(self, call: Call) -> Registration:
        found = login_of(self, call) if call.token is None else None
        return found or super().appservice_of(call)


@defect("ADMIN-16")
class HumansLogInAsGhosts(Accounts):
    """A human's access token logs in as a ghost."""

    def appservice_of(self, call: Call) -> Registration:
        found = login_of(self, call) if call.token in self.store.tokens else None
        return found or super().appservice_of(call)


@defect("ADMIN-16")
class HsTokensLogIn(Accounts):
    """An appservice's `hs_token` logs in as its ghosts."""

    def appservice_of(self, call: Call) -> Registration:
        found = login_of(self, call)
        return found if found is not None and call.token == found.hs_token else super().appservice_of(call)


@defect("ADMIN-17")
class TheLoginFlowIsHidden(Accounts):
    """The login type of appservices is not among those listed."""

    def flows(self, call: Call) -> JsonObject:
        return {"flows": [flow for flow in super().flows(call)["flows"] if flow["type"] != BY_APPSERVICE]}


@defect("ADMIN-17")
class OnlyAppservicesSeeTheLoginFlow(Accounts):
    """The login type of appservices is listed only for who calls with an `as_token`."""

    def flows(self, call: Call) -> JsonObject:
        listed = super().flows(call)
        if call.token is None or self.hs.identity.appservice(call.token) is None:
            listed["flows"] = [flow for flow in listed["flows"] if flow["type"] != BY_APPSERVICE]
        return listed


# Without the legacy login API


@variant(
    "no-legacy-login",
    loses=(
        "DEVICE-14",
        "ADMIN-27",
        "ADMIN-03",
        "ADMIN-12",
        "ADMIN-13",
        "ADMIN-14",
        "ADMIN-15",
        "ADMIN-16",
        "ADMIN-17",
        "IDENT-24",
        "TS-13",
    ),
)
class NoLegacyLogin(Accounts):
    """There is no legacy login API: appservices register ghosts without logging in, and nobody has a password."""

    legacy_login = False


@defect("ADMIN-18")
class WithoutLegacyLoginGhostsRegisterSilently(NoLegacyLogin):
    """Without the legacy login API a ghost is registered without a token, although one was asked for."""

    def inhibited(self, call: Call) -> bool:
        return True


@defect("ADMIN-18")
class WithoutLegacyLoginAMissingKeyInhibits(NoLegacyLogin):
    """Without the legacy login API a ghost may be registered without `inhibit_login`, though not with false."""

    def inhibited(self, call: Call) -> bool:
        return call.json.get("inhibit_login") is not False


@defect("ADMIN-18")
class WithoutLegacyLoginRegisteringIsUnrecognized(NoLegacyLogin):
    """Without the legacy login API, registering a ghost without `inhibit_login` is refused with 404 M_UNRECOGNIZED."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        if not self.inhibited(call):
            raise self.hs.errors.unknown_path()
        return super().register_ghost(call, appservice)


@defect("ADMIN-18")
class WithoutLegacyLoginRefusedGhostsExist(NoLegacyLogin):
    """Without the legacy login API, registering a ghost without `inhibit_login` is refused when it has been made."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        try:
            return super().register_ghost(call, appservice)
        except MatrixError as error:
            if error.errcode == "M_APPSERVICE_LOGIN_UNSUPPORTED":
                self.created(call, call.text("username"), appservice, None, True)
            raise


@defect("ADMIN-19", also=("ADMIN-01", "ADMIN-02", "NSUSER-08"))
class WithoutLegacyLoginNobodyRegisters(NoLegacyLogin):
    """Without the legacy login API no ghost can be registered."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        raise self.login_unsupported()


@defect("ADMIN-19", also=("ADMIN-01",))
class WithoutLegacyLoginRegistrationsNameNobody(NoLegacyLogin):
    """Without the legacy login API the answer to a ghost's registration is empty."""

    def created(
        self, call: Call, localpart: str, appservice: Registration | None, password: Any, inhibited: bool
    ) -> JsonObject:
        result = super().created(call, localpart, appservice, password, inhibited)
        return result if appservice is None else {}


@defect("ADMIN-20")
class WithoutLegacyLoginLoggingInIsUnrecognized(NoLegacyLogin):
    """Without the legacy login API, logging in as a ghost is refused with 404 M_UNRECOGNIZED."""

    def login(self, call: Call) -> JsonObject:
        raise self.hs.errors.unknown_path()


@defect("ADMIN-20")
class WithoutLegacyLoginTheTypeIsUnknown(NoLegacyLogin):
    """Without the legacy login API, logging in as a ghost is refused with 400 M_UNKNOWN."""

    def login_unsupported(self) -> MatrixError:
        return MatrixError(400, "M_UNKNOWN", "there is no login of that type")

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        if not self.inhibited(call):
            raise super().login_unsupported()
        return super().register_ghost(call, appservice)


# Freedom


@defect("ADMIN-21")
class RateLimitedIsIgnored(Limits):
    """Ghosts are rate-limited whatever their registration says."""

    def limited(self, requester: Requester) -> bool:
        appservice = requester.appservice
        return appservice is None or not self.hs.namespaces.is_sender(appservice, requester.user_id)


@defect("ADMIN-21")
class FreedomFromLimitsIsAHigherLimit(Limits):
    """Where `rate_limited` is false, ghosts may do half as much again as others, and no more."""

    def limited(self, requester: Requester) -> bool:
        appservice = requester.appservice
        self.burst = Limits.burst
        if super().limited(requester):
            return True
        self.burst *= 1.5
        return appservice is not None and not self.hs.namespaces.is_sender(appservice, requester.user_id)


class LimitedSenders(Limits):
    """Limits the sender users of appservices with `rate_limited: true` in some action."""

    actions: tuple[str, ...]
    most, in_the_long_run = Limits.burst, Limits.rate

    def limited(self, requester: Requester) -> bool:
        appservice = requester.appservice
        return super().limited(requester) or (appservice is not None and appservice.extra.get("rate_limited") is True)

    def check(self, requester: Requester, action: str) -> None:
        appservice = requester.appservice
        if appservice is not None and self.hs.namespaces.is_sender(appservice, requester.user_id):
            if action not in self.actions:
                return
            self.burst, self.rate = self.most, self.in_the_long_run
        try:
            super().check(requester, action)
        finally:
            self.burst, self.rate = Limits.burst, Limits.rate


@defect("ADMIN-22")
class SendersAreLimitedInMessages(LimitedSenders):
    """The sender of a rate-limited appservice is limited in sending messages."""

    actions = ("message",)


@defect("ADMIN-22")
class SendersAreLimitedInJoining(LimitedSenders):
    """The sender of a rate-limited appservice may join ten rooms at once."""

    actions = ("join",)
    most, in_the_long_run = 10.0, 0.1  # however busy the machine is


@defect("ADMIN-22")
class SendersAreLimitedInInviting(LimitedSenders):
    """The sender of a rate-limited appservice may send ten invites at once."""

    actions = ("invite",)
    most, in_the_long_run = 10.0, 0.1  # however busy the machine is


@defect("ADMIN-22")
class SendersAreLimitedInCreatingRooms(LimitedSenders):
    """The sender of a rate-limited appservice may create ten rooms at once."""

    actions = ("create",)
    most, in_the_long_run = 10.0, 0.1  # however busy the machine is


@defect("ADMIN-24")
class UnregisteredGhostsAreRememberedAsSuch(Identity):
    """That a ghost is not registered is remembered when somebody has tried to act as it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._unknown: set[str] = set()

    def check_user(self, appservice: Registration, user_id: str) -> None:
        if user_id in self._unknown:
            raise MatrixError(403, "M_FORBIDDEN", "the appservice has not registered that user")
        if self.may_be(appservice, user_id) and not self.is_registered(user_id):
            self._unknown.add(user_id)
        super().check_user(appservice, user_id)


@defect("ADMIN-24", also=("IDENT-14",))
class NewGhostsHaveNoProfile(Profiles):
    """The first attempt to set the display name of a new ghost is answered 404."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tried: set[str] = set()

    def set_profile(self, call: Call, user_id: str, key: str) -> JsonObject:
        new = call.requester.appservice is not None and user_id not in self._tried
        self._tried.add(user_id)
        if new and key == "displayname":
            raise MatrixError(404, "M_NOT_FOUND", "there is no such profile")
        return super().set_profile(call, user_id, key)


@defect("ADMIN-25", also=("INV-07",))
class LoggingOutEverywhereRevokesTheAsToken(Accounts):
    """A ghost that logs out everywhere takes the `as_token` with it."""

    def logout_all(self, call: Call) -> JsonObject:
        if call.requester.appservice is not None:
            self.hs.appservices.remove(call.requester.appservice)
        return super().logout_all(call)


@defect("ADMIN-25")
class LoggingOutEndsAllGhosts(Accounts):
    """When a ghost logs out by `as_token`, none of the appservice's ghosts can be acted as any more."""

    def logout(self, call: Call) -> JsonObject:
        appservice = call.requester.appservice
        for account in list(self.store.accounts.values()) if appservice is not None else ():
            if appservice is not None and self.hs.namespaces.covers(appservice, "users", account.user_id):
                self.store.deactivate(account.user_id)
        return super().logout(call)


@defect("ADMIN-01", also=("IDENT-10", "IDENT-14"))
class SlashesAreNoPartOfNames(Accounts):
    """A ghost whose name has a slash is refused."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        if "/" in call.text("username"):
            raise MatrixError(400, "M_INVALID_USERNAME", "that is no legal name")
        return super().register_ghost(call, appservice)


@defect("ADMIN-21")
class GhostsAreLimitedInLogins(Accounts):
    """A ghost may log in ten times, whatever its registration says."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._logins: dict[str, int] = {}

    def login_ghost(self, call: Call) -> JsonObject:
        user_id = self.identified(call)
        self._logins[user_id] = self._logins.get(user_id, 0) + 1
        if self._logins[user_id] > 10:
            raise MatrixError(429, "M_LIMIT_EXCEEDED", "too many at once", {"retry_after_ms": 1000})
        return super().login_ghost(call)


class _LimitedGhosts(Limits):
    """Limits ghosts to ten of some action at once, whatever their registration says."""

    action = ""

    def check(self, requester: Requester, action: str) -> None:
        appservice = requester.appservice
        ghost = appservice is not None and not self.hs.namespaces.is_sender(appservice, requester.user_id)
        if ghost and action == self.action:
            self.count[requester.user_id] = self.count.get(requester.user_id, 0) + 1
            if self.count[requester.user_id] > 10:
                raise MatrixError(429, "M_LIMIT_EXCEEDED", "too many at once", {"retry_after_ms": 1000})
        super().check(requester, action)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.count: dict[str, int] = {}


@defect("ADMIN-21")
class GhostsAreLimitedInJoining(_LimitedGhosts):
    """A ghost may join ten rooms."""

    action = "join"


@defect("ADMIN-21")
class GhostsAreLimitedInInviting(_LimitedGhosts):
    """A ghost may send ten invites."""

    action = "invite"


@defect("ADMIN-26")
class GhostsMayBeNameless(Accounts):
    """An appservice that names nobody gets a user of a random name, of whatever namespace."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        if "username" not in call.json:
            return self.created(call, f"nameless-{secrets.token_hex(6)}", appservice, None, self.inhibited(call))
        return super().register_ghost(call, appservice)


@defect("ADMIN-26")
class NamesThatAreNoTextAreFatal(Accounts):
    """A username that is no string leads to a server error."""

    def ghost_name(self, call: Call) -> str:
        name: str = call.json.get("username", "")
        if not isinstance(name, str):
            name = name + ""
        return super().ghost_name(call)


@defect("ADMIN-26")
class AMissingTypeIsFatal(Accounts):
    """A registration by as_token without a type leads to a server error."""

    def register(self, call: Call) -> Any:
        if "type" not in call.json and self.hs.identity.appservice(self.hs.identity.token(call) or "") is not None:
            raise KeyError("type")
        return super().register(call)


@defect("ADMIN-27")
class LoginsAsTheSenderAreDead(Accounts):
    """The token of a login as the sender user is thrown away: nobody has registered that user."""

    def logged_in(self, call: Call, user_id: str) -> JsonObject:
        told = super().logged_in(call, user_id)
        if any(self.hs.namespaces.is_sender(each, user_id) for each in self.hs.appservices):
            self.store.drop_tokens(user_id, told["device_id"])
        return told


@defect("ADMIN-27")
class LoginsAsTheSenderFail(Accounts):
    """A login as the sender user, for whom there is no account, leads to a server error."""

    def check_known(self, user_id: str) -> None:
        if any(self.hs.namespaces.is_sender(each, user_id) for each in self.hs.appservices):
            raise LookupError(user_id)
        super().check_known(user_id)


# Names, tokens and devices that are seldom tried


@defect("ADMIN-01")
class NamesHaveSixtyFourCharacters(Accounts):
    """A name has 64 characters at most."""

    def check_form(self, localpart: str) -> None:
        super().check_form(localpart)
        if len(localpart) > 64:
            raise MatrixError(400, "M_INVALID_USERNAME", "too long")


@defect("ADMIN-03")
class RegistrationsIgnoreTheDeviceId(Accounts):
    """The device of a registration is a new one, whatever device_id was asked for."""

    def created(self, call: Call, *args: Any) -> JsonObject:
        call.body = json.dumps({**call.json, "device_id": None}).encode()
        return super().created(call, *args)


@defect("ADMIN-06")
class NamesMayHaveColons(Accounts):
    """A ghost's name may have a colon."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        super().check_ghost_name(appservice, localpart.replace(":", "."))

    def check_form(self, localpart: str) -> None:
        super().check_form(localpart.replace(":", "."))


@defect("ADMIN-09", also=("ADMIN-16",))
class TokensOfGhostsRegisterGhosts(Accounts):
    """A ghost's own access token registers and logs in ghosts of its appservice."""

    def appservice_of(self, call: Call) -> Registration:
        user_id, _ = self.store.tokens.get(self.hs.identity.token(call) or "", ("", ""))
        return owner(self, user_id) or super().appservice_of(call)


@defect("ADMIN-12")
class LoginsEndAllOthers(Accounts):
    """A login as a ghost ends the tokens of all its devices."""

    def logged_in(self, call: Call, user_id: str) -> JsonObject:
        self.store.drop_tokens(user_id)
        return super().logged_in(call, user_id)


@defect("ADMIN-14")
class AppservicesLogInAsSendersOfOthers(Accounts):
    """An appservice may log in as the sender user of another."""

    def may_log_in(self, appservice: Registration, user_id: str) -> bool:
        senders = [self.hs.user_id(each.sender_localpart) for each in self.hs.appservices]
        return user_id in senders or super().may_log_in(appservice, user_id)


@defect("ADMIN-16")
class TokensOfGhostsLogGhostsIn(Accounts):
    """A ghost's own access token logs in as any ghost of its appservice."""

    def login_ghost(self, call: Call) -> JsonObject:
        user_id, _ = self.store.tokens.get(self.hs.identity.token(call) or "", ("", ""))
        if owner(self, user_id) is not None:
            return self.logged_in(call, self.identified(call))
        return super().login_ghost(call)


@defect("ADMIN-05")
class RegistrationsAtOnceBothSucceed(Accounts):
    """Whether a name is free is looked up some time before it is taken."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._promised: set[str] = set()

    @endpoint("POST", "/register", authenticated=False, waits=True)
    def register(self, call: Call) -> Any:
        localpart = str(call.json.get("username"))
        with self.hs.lock:
            if self.hs.user_id(localpart) not in self.store.accounts:
                self._promised.add(localpart)
        time.sleep(0.05)
        with self.hs.lock:
            return super().register(call)

    def check_free(self, localpart: str) -> None:
        if localpart not in self._promised:
            super().check_free(localpart)


@defect("ADMIN-05")
class HumansAccountsAreTakenOver(Accounts):
    """An appservice that registers the name of a human in its open namespace is given that account."""

    def register_ghost(self, call: Call, appservice: Registration) -> Any:
        localpart = self.ghost_name(call)
        self.check_ghost_name(appservice, localpart)
        account = self.store.accounts.get(self.hs.user_id(localpart))
        if account is not None and account.appservice is None and self.inhibited(call):
            return {"user_id": account.user_id}
        return super().register_ghost(call, appservice)


@defect("ADMIN-14")
class LoginsLookAtTheLocalpart(Accounts):
    """A login as a user of another server is one as the user of that localpart here."""

    def identified(self, call: Call) -> str:
        user = super().identified(call)
        return self.hs.user_id(user[1:].partition(":")[0])


@defect("ADMIN-05")
class RegistrationsAtOnceAreAServerError(Accounts):
    """Who registers a name that was registered in the same moment gets a server error."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._made: dict[str, float] = {}

    def check_free(self, localpart: str) -> None:
        if time.monotonic() - self._made.get(localpart, 0.0) < 0.02:
            raise RuntimeError("UNIQUE constraint failed")
        super().check_free(localpart)
        self._made[localpart] = time.monotonic()


@defect("ADMIN-14")
class RefusedLoginsLogOut(Accounts):
    """An appservice that is refused a login as a human has ended the human's logins."""

    def may_log_in(self, appservice: Registration, user_id: str) -> bool:
        allowed = super().may_log_in(appservice, user_id)
        account = self.store.accounts.get(user_id)
        for device in list(account.devices) if account is not None and not allowed else ():
            self.store.drop_tokens(user_id, device)
        return allowed
