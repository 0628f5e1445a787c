"""Mutants of area NSUSER. Synapse itself deviates in NSUSER-10: its own proof."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import importlib
import socket
from urllib.parse import urlsplit

from tests.mutants import mutant


def _checks_of_humans_names(reserved) -> None:
    """Have `reserved(service, user_id)` decide whether a name is closed to humans."""
    from synapse.api.errors import Codes, SynapseError
    from synapse.handlers.register import RegistrationHandler

    original = RegistrationHandler.check_user_id_not_appservice_exclusive

    def check(self, user_id, allowed_appservice=None):
        if allowed_appservice is not None:
            return original(self, user_id, allowed_appservice)
        if any(reserved(service, user_id) for service in self.store.get_app_services()):
            raise SynapseError(400, "reserved", errcode=Codes.EXCLUSIVE)
        return None

    RegistrationHandler.check_user_id_not_appservice_exclusive = check


def _registrations_by_appservices(allowed) -> None:
    """Have `allowed(service, user_id, others)` decide what an appservice may register."""
    from synapse.api.errors import Codes, SynapseError
    from synapse.handlers.register import RegistrationHandler
    from synapse.types import UserID

    async def register(self, user_localpart, as_token):
        user_id = UserID(user_localpart, self.hs.hostname).to_string()
        service = self.store.get_app_service_by_token(as_token)
        others = [each for each in self.store.get_app_services() if each != service]
        if not allowed(service, user_id, others):
            raise SynapseError(400, "reserved", errcode=Codes.EXCLUSIVE)
        await self.register_with_store(
            user_id=user_id, password_hash="", create_profile_with_displayname=user_localpart
        )
        return user_id, service

    RegistrationHandler.appservice_register = register


def _conforming(service, user_id, others) -> bool:
    return service.is_interested_in_user(user_id) and not any(each.is_exclusive_user(user_id) for each in others)


@mutant("NSUSER-01", also=("NSUSER-02", "NSUSER-04"))
def humans_may_take_names_of_ghosts() -> None:
    """Humans may register in exclusive namespaces."""
    _checks_of_humans_names(lambda service, user_id: False)


@mutant("NSUSER-01")
def a_refused_name_stays_taken() -> None:
    """A human's refused attempt leaves an account behind, so that the appservice cannot register the name."""
    from synapse.api.errors import Codes, SynapseError
    from synapse.handlers.register import RegistrationHandler

    original = RegistrationHandler.check_username

    async def check(self, localpart, *args, **kwargs):
        try:
            await original(self, localpart, *args, **kwargs)
        except SynapseError as error:
            if error.errcode == Codes.EXCLUSIVE:
                await self.register_with_store(user_id=f"@{localpart}:{self.hs.hostname}", password_hash="x")
            raise

    RegistrationHandler.check_username = check


@mutant("NSUSER-01", also=("NSUSER-04",))
def exclusive_names_are_forbidden_names() -> None:
    """A human who wants an exclusive name is told 403 M_FORBIDDEN."""
    from synapse.api.errors import Codes, SynapseError
    from synapse.handlers.register import RegistrationHandler

    original = RegistrationHandler.check_username

    async def check(self, *args, **kwargs):
        try:
            await original(self, *args, **kwargs)
        except SynapseError as error:
            if error.errcode == Codes.EXCLUSIVE:
                raise SynapseError(403, "no", errcode=Codes.FORBIDDEN) from error
            raise

    RegistrationHandler.check_username = check


@mutant("NSUSER-02", also=("NSUSER-04",))
def exclusive_names_are_checked_after_authentication() -> None:
    """Whether a name is exclusive is looked at only when the human has authenticated."""
    from synapse.handlers.register import RegistrationHandler

    check = RegistrationHandler.check_user_id_not_appservice_exclusive
    register = RegistrationHandler.register_user
    _checks_of_humans_names(lambda service, user_id: False)

    async def register_user(self, localpart=None, *args, **kwargs):
        check(self, f"@{localpart}:{self.hs.hostname}")
        return await register(self, localpart, *args, **kwargs)

    RegistrationHandler.register_user = register_user


@mutant("NSUSER-03", also=("NSUSER-04",))
def open_namespaces_are_closed_to_humans() -> None:
    """Humans may register in no namespace, exclusive or not."""
    _checks_of_humans_names(lambda service, user_id: service.is_user_in_namespace(user_id))


@mutant("NSUSER-03")
def open_namespaces_are_refused_after_authentication() -> None:
    """Humans learn that they may not register in an open namespace when they have authenticated."""
    from synapse.api.errors import Codes, SynapseError
    from synapse.handlers.register import RegistrationHandler

    register = RegistrationHandler.register_user

    async def register_user(self, localpart=None, *args, **kwargs):
        user_id = f"@{localpart}:{self.hs.hostname}"
        if any(service.is_user_in_namespace(user_id) for service in self.store.get_app_services()):
            raise SynapseError(400, "reserved", errcode=Codes.EXCLUSIVE)
        return await register(self, localpart, *args, **kwargs)

    RegistrationHandler.register_user = register_user


@mutant("NSUSER-04")
def every_name_is_available() -> None:
    """The check for a free username ignores appservices."""
    from synapse.rest.client.register import UsernameAvailabilityRestServlet

    async def on_get(self, request):
        return 200, {"available": True}

    UsernameAvailabilityRestServlet.on_GET = on_get


@mutant("NSUSER-04")
def open_namespaces_are_not_available() -> None:
    """The check for a free username says M_EXCLUSIVE for every name that an appservice is interested in."""
    from synapse.api.errors import Codes, SynapseError
    from synapse.rest.client.register import UsernameAvailabilityRestServlet

    original = UsernameAvailabilityRestServlet.on_GET

    async def on_get(self, request):
        user_id = f"@{request.args[b'username'][0].decode()}:{self.server_name}"
        if any(each.is_user_in_namespace(user_id) for each in self.registration_handler.store.get_app_services()):
            raise SynapseError(400, "reserved", errcode=Codes.EXCLUSIVE)
        return await original(self, request)

    UsernameAvailabilityRestServlet.on_GET = on_get


@mutant("NSUSER-05", also=("NSUSER-06",))
def appservices_may_register_each_others_ghosts() -> None:
    """An appservice may register in another's exclusive namespace."""
    _registrations_by_appservices(
        lambda service, user_id, others: (
            service.is_interested_in_user(user_id) or any(each.is_exclusive_user(user_id) for each in others)
        )
    )


@mutant("NSUSER-06")
def an_own_namespace_is_enough() -> None:
    """An appservice may register whatever its own namespaces cover, exclusive to others or not."""
    _registrations_by_appservices(lambda service, user_id, others: service.is_interested_in_user(user_id))


@mutant("NSUSER-07")
def appservices_may_register_what_nobody_owns() -> None:
    """An appservice may register any name that is not exclusive to another one."""
    _registrations_by_appservices(
        lambda service, user_id, others: not any(each.is_exclusive_user(user_id) for each in others)
    )


@mutant("NSUSER-07")
def any_appservices_namespace_is_enough() -> None:
    """An appservice may register in the open namespaces of others."""
    _registrations_by_appservices(
        lambda service, user_id, others: (
            any(each.is_interested_in_user(user_id) for each in (service, *others))
            and not any(each.is_exclusive_user(user_id) for each in others)
        )
    )


@mutant("NSUSER-07")
def refused_ghosts_are_created() -> None:
    """An appservice that registers outside its namespaces is refused, but the user exists afterwards."""
    from synapse.api.errors import SynapseError
    from synapse.handlers.register import RegistrationHandler

    original = RegistrationHandler.appservice_register

    async def register(self, user_localpart, as_token):
        try:
            return await original(self, user_localpart, as_token)
        except SynapseError:
            user_id = f"@{user_localpart}:{self.hs.hostname}"
            await self.register_with_store(user_id, "", create_profile_with_displayname=user_localpart)
            raise

    RegistrationHandler.appservice_register = register


@mutant("NSUSER-08")
def exclusive_namespaces_are_closed_to_their_owner() -> None:
    """An appservice may not register in its own exclusive namespace."""
    _registrations_by_appservices(
        lambda service, user_id, others: (
            _conforming(service, user_id, others) and not service.is_exclusive_user(user_id)
        )
    )


@mutant("NSUSER-08", also=("NSUSER-09",))
def only_one_appservice_may_claim_a_name() -> None:
    """An appservice may not register a name that another one claims too, exclusively or not."""
    _registrations_by_appservices(
        lambda service, user_id, others: (
            service.is_interested_in_user(user_id) and not any(each.is_interested_in_user(user_id) for each in others)
        )
    )


@mutant("NSUSER-09")
def the_first_appservice_owns_an_open_namespace() -> None:
    """Of those that claim a name without exclusivity only the first loaded may register it."""

    def allowed(service, user_id, others):
        rivals = [each for each in others if each.is_interested_in_user(user_id) and each.id < service.id]
        return _conforming(service, user_id, others) and not rivals

    _registrations_by_appservices(allowed)


@mutant("NSUSER-11")
def names_are_checked_before_they_are_lowered() -> None:
    """Whether a name is exclusive is looked at before its capitals are lowered."""
    from synapse.handlers.register import RegistrationHandler
    from synapse.rest.client import register

    parse, check = register.parse_json_object_from_request, RegistrationHandler.check_user_id_not_appservice_exclusive
    lowered = set()

    def remember(request):
        body = parse(request)
        name = body.get("username") or ""
        if name != name.lower():
            lowered.add(name.lower())
        return body

    def check_as_written(self, user_id, allowed_appservice=None):
        if user_id[1:].partition(":")[0] not in lowered:
            check(self, user_id, allowed_appservice)

    register.parse_json_object_from_request = remember
    RegistrationHandler.check_user_id_not_appservice_exclusive = check_as_written


@mutant("NSUSER-12")
def appservices_may_not_use_underscores() -> None:
    """An appservice may not register a name that begins with an underscore."""
    _registrations_by_appservices(
        lambda service, user_id, others: _conforming(service, user_id, others) and user_id[1] != "_"
    )


@mutant("NSUSER-12")
def humans_may_use_underscores() -> None:
    """Names that begin with an underscore are open to humans, whoever claims them."""
    from synapse.handlers.register import RegistrationHandler

    original = RegistrationHandler.check_username

    async def check(self, localpart, *args, **kwargs):
        if not localpart.startswith("_"):
            await original(self, localpart, *args, **kwargs)

    RegistrationHandler.check_username = check


@mutant("NSUSER-14")
def an_appservice_without_url_owns_nothing() -> None:
    """Appservices whose url is null are left out when names are checked."""
    _checks_of_humans_names(lambda service, user_id: service.url is not None and service.is_exclusive_user(user_id))


@mutant("NSUSER-15")
def an_unreachable_appservice_owns_nothing() -> None:
    """Whether a name is exclusive is asked of the appservice; when it cannot be reached, it is not."""

    def reserved(service, user_id):
        if not service.is_exclusive_user(user_id):
            return False
        if service.url is None:
            return True
        url = urlsplit(service.url)
        with socket.socket() as probe:
            return probe.connect_ex((url.hostname, url.port)) == 0

    _checks_of_humans_names(reserved)


@mutant("NSUSER-16")
def ghosts_have_no_profile_for_others() -> None:
    """The profile of a user in an exclusive namespace is not shown."""
    from synapse.api.errors import NotFoundError
    from synapse.rest.client.profile import ProfileRestServlet

    original = ProfileRestServlet.on_GET

    async def on_get(self, request, user_id):
        if any(each.is_exclusive_user(user_id) for each in self.hs.get_datastores().main.get_app_services()):
            raise NotFoundError
        return await original(self, request, user_id)

    ProfileRestServlet.on_GET = on_get


@mutant("NSUSER-16")
def humans_cannot_invite_ghosts() -> None:
    """A human who invites a user of an exclusive namespace is refused."""
    from synapse.api.errors import AuthError

    importlib.import_module("synapse.rest")  # before the handlers, which import it in a circle
    from synapse.handlers.room_member import RoomMemberHandler

    original = RoomMemberHandler.update_membership

    async def update(self, requester, target, room_id, action, *args, **kwargs):
        services = self.store.get_app_services()
        is_ghost = any(each.is_exclusive_user(target.to_string()) for each in services)
        if action == "invite" and is_ghost and requester.app_service_id is None:
            raise AuthError(403, "reserved")
        return await original(self, requester, target, room_id, action, *args, **kwargs)

    RoomMemberHandler.update_membership = update
