"""Defects of area NSUSER: whose a user ID is."""

from __future__ import annotations

import json
import re
import socket
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from conformance.appservice.registration import Namespace, Registration
from conformance.namespaces.readings import as_basic
from conformance.reference.accounts import Accounts, Profiles
from conformance.reference.defects import defect
from conformance.reference.namespaces import Namespaces, compiled
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.rooms import Rooms, forbidden
from conformance.reference.store import Account, JsonObject
from conformance.reference.web import Call


def exclusive() -> MatrixError:
    """400 M_EXCLUSIVE."""
    return MatrixError(400, "M_EXCLUSIVE", "that name is an appservice's")


# Humans


@defect("NSUSER-01", also=("NSUSER-02", "NSUSER-04"))
class HumansMayTakeNamesOfGhosts(Accounts):
    """Humans may register in exclusive namespaces."""

    def check_human_name(self, localpart: str) -> None:
        pass


@defect("NSUSER-01")
class NamesAreCheckedAtTheFirstStepOnly(Accounts):
    """A human who has begun to register under a free name may go on under an exclusive one."""

    _begun = False

    def register_human(self, call: Call) -> Any:
        self._begun = "auth" in call.json
        return super().register_human(call)

    def check_human_name(self, localpart: str) -> None:
        if not self._begun:
            super().check_human_name(localpart)

    def available(self, call: Call) -> JsonObject:
        self._begun = False
        return super().available(call)


@defect("NSUSER-01")
class RefusedNamesStayTaken(Accounts):
    """A human's refused attempt leaves an account behind, so that the appservice cannot register the name."""

    def check_human_name(self, localpart: str) -> None:
        try:
            super().check_human_name(localpart)
        except MatrixError:
            self.store.add_account(self.hs.user_id(localpart))
            raise


@defect("NSUSER-01", also=("NSUSER-04",))
class ExclusiveNamesAreForbidden(Accounts):
    """A human who wants an exclusive name is told 403 M_FORBIDDEN."""

    def check_human_name(self, localpart: str) -> None:
        try:
            super().check_human_name(localpart)
        except MatrixError as error:
            raise MatrixError(403, "M_FORBIDDEN", error.error) from error


@defect("NSUSER-02")
class ExclusiveNamesAreCheckedAfterAuthentication(Accounts):
    """Whether a name is exclusive is looked at only when the human has authenticated."""

    def register_human(self, call: Call) -> Any:
        if self.hs.namespaces.claimed("users", self.hs.user_id(call.text("username", default=""))):
            unfinished = self.hs.interaction.required(call, self.hs.registration_stages)
            if unfinished is not None:
                return unfinished
        return super().register_human(call)


@defect("NSUSER-02")
class RegistrationsWithoutALoginAreNotChecked(Accounts):
    """A human who asks for no login is not refused an exclusive name."""

    _unchecked = False

    def register_human(self, call: Call) -> Any:
        self._unchecked = call.json.get("inhibit_login") is True
        return super().register_human(call)

    def check_human_name(self, localpart: str) -> None:
        if not self._unchecked:
            super().check_human_name(localpart)


@defect("NSUSER-03", also=("NSUSER-04",))
class OpenNamespacesAreClosedToHumans(Accounts):
    """Humans may register in no namespace, exclusive or not."""

    def check_human_name(self, localpart: str) -> None:
        user_id = self.hs.user_id(localpart)
        if any(self.hs.namespaces.covers(each, "users", user_id) for each in self.hs.appservices):
            raise exclusive()


@defect("NSUSER-03", also=("NSUSER-04",))
class NamesThatTwoAppservicesClaimAreClosed(Accounts):
    """Humans may not register what two appservices claim, even if both do so without exclusivity."""

    def check_human_name(self, localpart: str) -> None:
        user_id = self.hs.user_id(localpart)
        if sum(self.hs.namespaces.covers(each, "users", user_id) for each in self.hs.appservices) > 1:
            raise exclusive()
        super().check_human_name(localpart)


@defect("NSUSER-03")
class OpenNamespacesAreRefusedAfterAuthentication(Accounts):
    """Humans learn that they may not register in an open namespace when they have authenticated."""

    def created(
        self, call: Call, localpart: str, appservice: Registration | None, password: Any, inhibited: bool
    ) -> JsonObject:
        user_id = self.hs.user_id(localpart)
        claims = any(self.hs.namespaces.covers(each, "users", user_id) for each in self.hs.appservices)
        if appservice is None and claims:
            raise exclusive()
        return super().created(call, localpart, appservice, password, inhibited)


@defect("NSUSER-04")
class EveryNameIsAvailable(Accounts):
    """The check for a free name ignores appservices."""

    def available(self, call: Call) -> JsonObject:
        localpart = call.query.get("username", "")
        self.check_form(localpart)
        self.check_free(localpart)
        return {"available": True}


@defect("NSUSER-04")
class OpenNamespacesAreNotAvailable(Accounts):
    """The check for a free name says M_EXCLUSIVE for every name that an appservice claims."""

    def available(self, call: Call) -> JsonObject:
        user_id = self.hs.user_id(call.query.get("username", ""))
        if any(self.hs.namespaces.covers(each, "users", user_id) for each in self.hs.appservices):
            raise exclusive()
        return super().available(call)


@defect("NSUSER-04")
class ExclusiveNamesAreSaidToBeInUse(Accounts):
    """The check for a free name says M_USER_IN_USE for exclusive names."""

    def available(self, call: Call) -> JsonObject:
        try:
            return super().available(call)
        except MatrixError as error:
            if error.errcode == "M_EXCLUSIVE":
                raise MatrixError(400, "M_USER_IN_USE", "that name is taken") from error
            raise


# Appservices


@defect("NSUSER-05", also=("NSUSER-06",))
class AppservicesMayRegisterEachOthersGhosts(Accounts):
    """An appservice may register in another's exclusive namespace."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        if not self.hs.namespaces.claimed("users", self.hs.user_id(localpart), by_other_than=appservice):
            super().check_ghost_name(appservice, localpart)


@defect("NSUSER-05", also=("NSUSER-06",))
class OnlyTheFirstExclusiveNamespaceIsProtected(Accounts):
    """An appservice may register in all exclusive namespaces of another one but its first."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        user_id = self.hs.user_id(localpart)
        for other in self.hs.appservices:
            claims = [entry for entry in other.users or () if entry.exclusive]
            covering = [self.hs.namespaces.matches(entry, user_id) for entry in claims]
            if other is not appservice and any(covering[1:]) and not covering[0]:
                return
        super().check_ghost_name(appservice, localpart)


@defect("NSUSER-06")
class AnOwnUsersNamespaceIsEnough(Accounts):
    """An appservice may register whatever its own namespaces cover, exclusive to others or not."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        if not self.hs.namespaces.is_own_user(appservice, self.hs.user_id(localpart)):
            super().check_ghost_name(appservice, localpart)


@defect("NSUSER-06", "NSUSER-08")
class TheLastAppserviceThatClaimsANameHasIt(Accounts):
    """Of the appservices that claim an exclusive name only the one loaded last may register it."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        user_id = self.hs.user_id(localpart)
        covering = [each for each in self.hs.appservices if self.hs.namespaces.covers(each, "users", user_id)]
        if len(covering) < 2 or not self.hs.namespaces.claimed("users", user_id):
            super().check_ghost_name(appservice, localpart)
        elif covering[-1] is not appservice:
            raise exclusive()


@defect("NSUSER-07")
class AppservicesMayRegisterWhatNobodyOwns(Accounts):
    """An appservice may register any name that is not exclusive to another one."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        if self.hs.namespaces.claimed("users", self.hs.user_id(localpart), by_other_than=appservice):
            raise exclusive()


@defect("NSUSER-07")
class AppservicesMayRegisterInOpenNamespacesOfOthers(Accounts):
    """An appservice may register in the open namespaces of others."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        user_id = self.hs.user_id(localpart)
        is_covered = any(self.hs.namespaces.covers(each, "users", user_id) for each in self.hs.appservices)
        if not is_covered or self.hs.namespaces.claimed("users", user_id, by_other_than=appservice):
            super().check_ghost_name(appservice, localpart)


@defect("NSUSER-07")
class NamesOfGhostsAreSearched(Accounts):
    """An appservice may register a name that has the text of its namespace further on."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        if not any(compiled(entry.regex.lstrip("@")).search(localpart) for entry in appservice.users or ()):
            super().check_ghost_name(appservice, localpart)
        elif self.hs.namespaces.claimed("users", self.hs.user_id(localpart), by_other_than=appservice):
            raise exclusive()


@defect("NSUSER-07")
class RefusedGhostsExist(Accounts):
    """An appservice that registers outside its namespaces is refused, but the user exists afterwards."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        try:
            super().check_ghost_name(appservice, localpart)
        except MatrixError:
            self.store.add_account(self.hs.user_id(localpart), appservice.id)
            raise


@defect("NSUSER-08", also=("ADMIN-01", "ADMIN-02"))
class ExclusiveNamespacesAreClosedToTheirOwner(Accounts):
    """An appservice may not register in its own exclusive namespaces."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        if self.hs.namespaces.claimed("users", self.hs.user_id(localpart)):
            raise exclusive()
        super().check_ghost_name(appservice, localpart)


@defect("NSUSER-08")
class AnOpenNamespaceWithinClosesAnExclusiveOne(Accounts):
    """An appservice may not register a name of its own that another one claims too, without exclusivity."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        user_id = self.hs.user_id(localpart)
        others = [each for each in self.hs.appservices if each is not appservice]
        shared = any(self.hs.namespaces.covers(each, "users", user_id) for each in others)
        if shared and self.hs.namespaces.claims(appservice, "users", user_id):
            raise exclusive()
        super().check_ghost_name(appservice, localpart)


@defect("NSUSER-09")
class TheFirstAppserviceOwnsAnOpenNamespace(Accounts):
    """Of those that claim a name without exclusivity only the one loaded first may register it."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        super().check_ghost_name(appservice, localpart)
        user_id = self.hs.user_id(localpart)
        covering = [each for each in self.hs.appservices if self.hs.namespaces.covers(each, "users", user_id)]
        if covering[:1] != [appservice] and not self.hs.namespaces.claimed("users", user_id):
            raise exclusive()


@defect("NSUSER-09")
class WhoRegistersFirstOwnsAnOpenNamespace(Accounts):
    """An open namespace is closed to other appservices as soon as one has registered a user in it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._owners: dict[str, Registration] = {}

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        super().check_ghost_name(appservice, localpart)
        for entry in appservice.users or ():
            is_open = not entry.exclusive and self.hs.namespaces.matches(entry, self.hs.user_id(localpart))
            if is_open and self._owners.setdefault(entry.regex, appservice) is not appservice:
                raise exclusive()


# Entries


@defect("NSUSER-10", also=("NSUSER-13",))
class TheFirstMatchingUsersEntryDecides(Namespaces):
    """The first entry of an appservice that covers a user ID decides whether it is exclusive."""

    def claims(self, appservice: Registration, kind: str, identifier: str) -> bool:
        if kind != "users":
            return super().claims(appservice, kind, identifier)
        covering = (entry for entry in self.entries(appservice, kind) if self.matches(entry, identifier))
        first = next(covering, None)
        return first is not None and first.exclusive


@defect("NSUSER-10", also=("NSUSER-13",))
class OverlappingUsersEntriesAreAllExclusive(Namespaces):
    """An open entry becomes exclusive by an exclusive one of the same appservice within it."""

    def claims(self, appservice: Registration, kind: str, identifier: str) -> bool:
        entries = self.entries(appservice, kind) if kind == "users" else ()
        for entry in entries:
            overlaps = any(each.exclusive and each.regex.startswith(entry.regex[:-2]) for each in entries)
            if overlaps and self.matches(entry, identifier):
                return True
        return super().claims(appservice, kind, identifier)


@defect("NSUSER-11")
class NamesAreCheckedBeforeTheyAreLowered(Accounts):
    """Whether a name is exclusive is looked at before its capitals are lowered."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._written: dict[str, str] = {}

    def lowered(self, name: str) -> str:
        """A name as it is kept."""
        return name.lower()

    def register_human(self, call: Call) -> Any:
        name = call.text("username", default="")
        if name != self.lowered(name):
            self._written[self.lowered(name)] = name
            call.body = json.dumps({**call.json, "username": self.lowered(name)}).encode()
        return super().register_human(call)

    def check_human_name(self, localpart: str) -> None:
        super().check_human_name(self._written.get(localpart, localpart))


@defect("NSUSER-11")
class FirstLettersAreLoweredAfterTheCheck(NamesAreCheckedBeforeTheyAreLowered):
    """Whether a name is exclusive is looked at before the capital that it begins with is lowered."""

    def lowered(self, name: str) -> str:
        return name[:1].lower() + name[1:]


@defect("NSUSER-12")
class AppservicesMayNotUseUnderscores(Accounts):
    """An appservice may not register a name that begins with an underscore."""

    def check_ghost_name(self, appservice: Registration, localpart: str) -> None:
        if localpart.startswith("_"):
            raise MatrixError(400, "M_INVALID_USERNAME", "names do not begin with an underscore")
        super().check_ghost_name(appservice, localpart)


@defect("NSUSER-12")
class HumansMayUseUnderscores(Accounts):
    """Names that begin with an underscore are open to humans, whoever claims them."""

    def check_human_name(self, localpart: str) -> None:
        if not localpart.startswith("_"):
            super().check_human_name(localpart)


# Matching


class OtherMatching(Namespaces):
    """User IDs and aliases are matched otherwise."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        if identifier.startswith("!"):
            return super().matches(entry, identifier)
        return self.covers_otherwise(entry.regex, identifier)

    def covers_otherwise(self, regex: str, identifier: str) -> bool:
        """Whether a regular expression, or an ID, that has been changed matches."""
        return compiled(self.regex(regex)).fullmatch(self.identifier(identifier)) is not None

    def regex(self, text: str) -> str:
        """The regular expression as it is read."""
        return text

    def identifier(self, text: str) -> str:
        """The ID as it is matched."""
        return text


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19",))
class SigilsAreStrippedFromBothSides(OtherMatching):
    """The sigil is stripped from IDs, and from regexes that begin with it; not from those that begin with an anchor."""

    def regex(self, text: str) -> str:
        return text[1:] if text[0] in "@#" else text

    def identifier(self, text: str) -> str:
        return text[1:]


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19", "REG-09"))
class RegexesAreTakenForPrefixes(OtherMatching):
    """Whatever begins as a regex does, up to its first special character, is covered."""

    def covers_otherwise(self, regex: str, identifier: str) -> bool:
        found = re.match(r"\^?([^][\\.*^$()|+?{}]*)", regex)
        return found is not None and identifier.startswith(found[1])


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19",))
class RegexesAreBasic(OtherMatching):
    """Parentheses, bars, braces, plus signs and question marks in a regex stand for themselves."""

    def covers_otherwise(self, regex: str, identifier: str) -> bool:
        return bool(as_basic(regex, identifier))


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19", "NSUSER-10", "NSALIAS-17"))
class RegexesAreTakenForGlobs(OtherMatching):
    """Regexes are turned into shell patterns, in which only stars, dots and brackets mean what they did."""

    def covers_otherwise(self, regex: str, identifier: str) -> bool:
        return fnmatchcase(identifier, regex.replace(".*", "*").replace("\\", ""))


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19",))
class OnlyTheFirstAlternativeCounts(OtherMatching):
    """Of alternatives in a regex only the first is looked at."""

    def regex(self, text: str) -> str:
        return re.sub(r"\|[^)]*", "", text)


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19",))
class RepetitionsEndOneShort(OtherMatching):
    """The upper bound of a repetition is taken for the first number that is too high."""

    def regex(self, text: str) -> str:
        return re.sub(r",(\d+)\}", lambda found: f",{int(found[1]) - 1}}}", text)


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19",))
class TheEndOfARangeIsOutside(OtherMatching):
    """The last character of a range is not of it."""

    def regex(self, text: str) -> str:
        return re.sub(r"(?<=-)([fmyz49])", lambda found: chr(ord(found[1]) - 1), text)


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19",))
class LongIdsAreCut(OtherMatching):
    """IDs are matched up to their 64th character."""

    def identifier(self, text: str) -> str:
        return text[:64]


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19",))
class IdsEndAtASlash(OtherMatching):
    """IDs are matched up to their first slash."""

    def identifier(self, text: str) -> str:
        return text.partition("/")[0]


@defect("NSUSER-13", "NSALIAS-16", also=("NSALIAS-19",))
class PlusSignsBecomeBlanks(OtherMatching):
    """A plus sign in an ID is decoded as in a form before it is matched."""

    def identifier(self, text: str) -> str:
        return text.replace("+", " ")


@defect("NSUSER-13")
class LongNamesAreFree(Accounts):
    """Names of more than a hundred characters are not looked up among the namespaces when humans register them."""

    def check_human_name(self, localpart: str) -> None:
        if len(localpart) <= 100:
            super().check_human_name(localpart)


@defect("NSUSER-14", also=("NSUSER-13",))
class AppservicesWithoutUrlOwnNothing(Namespaces):
    """Appservices whose `url` is null are left out when it is looked at whose a user ID is."""

    def claims(self, appservice: Registration, kind: str, identifier: str) -> bool:
        is_left_out = kind == "users" and appservice.url is None
        return not is_left_out and super().claims(appservice, kind, identifier)


@defect("NSUSER-15")
class UnreachableAppservicesOwnNothing(Accounts):
    """A human may have an exclusive name when its appservice cannot be reached."""

    def check_human_name(self, localpart: str) -> None:
        user_id = self.hs.user_id(localpart)
        for appservice in self.hs.appservices:
            if self.hs.namespaces.claims(appservice, "users", user_id) and self._is_reachable(appservice):
                raise exclusive()

    def _is_reachable(self, appservice: Registration) -> bool:
        url = urlsplit(appservice.url or "")
        if appservice.url is None:
            return True
        with socket.socket() as probe:
            return probe.connect_ex((url.hostname or "", url.port or 80)) == 0


# What exclusivity does not mean


def is_ghost(account: Account | None) -> bool:
    """Whether an account is an appservice's."""
    return account is not None and account.appservice is not None


@defect("NSUSER-16")
class GhostsHaveNoProfileForHumans(Profiles):
    """The profile of a ghost is shown to appservices only."""

    def profile(self, call: Call, user_id: str) -> JsonObject:
        of_appservice = call.token is not None and self.hs.identity.appservice(call.token) is not None
        if is_ghost(self.store.accounts.get(user_id)) and not of_appservice:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such user")
        return super().profile(call, user_id)


@defect("NSUSER-16")
class ProfilesOfGhostsHaveNoName(Profiles):
    """The profile of a ghost is shown without its display name."""

    def profile(self, call: Call, user_id: str) -> JsonObject:
        shown = super().profile(call, user_id)
        if is_ghost(self.store.accounts.get(user_id)):
            return {key: value for key, value in shown.items() if key != "displayname"}
        return shown


@defect("NSUSER-16")
class HumansCannotInviteGhosts(Rooms):
    """A human who invites a user of an exclusive namespace to a private room is refused."""

    def invite(self, call: Call, room_id: str) -> JsonObject:
        user_id = call.text("user_id")
        rule = self.room(room_id).content("m.room.join_rules").get("join_rule")
        is_reserved = self.hs.namespaces.claimed("users", user_id) and is_ghost(self.store.accounts.get(user_id))
        if call.requester.appservice is None and is_reserved and rule == "invite":
            raise forbidden("that user is an appservice's")
        return super().invite(call, room_id)


@defect("NSUSER-16")
class GhostsAreNotAmongTheMembers(Rooms):
    """Ghosts are not listed among the members of a room."""

    def joined_members(self, call: Call, room_id: str) -> JsonObject:
        joined = super().joined_members(call, room_id)["joined"]
        if call.requester.appservice is None:
            joined = {key: value for key, value in joined.items() if not is_ghost(self.store.accounts.get(key))}
        return {"joined": joined}


@defect("NSUSER-16")
class MessagesOfGhostsAreHidden(Rooms):
    """A human who reads back the messages of a private room does not see those of ghosts."""

    def messages(self, call: Call, room_id: str) -> JsonObject:
        page = super().messages(call, room_id)
        is_private = self.room(room_id).content("m.room.join_rules").get("join_rule") == "invite"
        if call.requester.appservice is None and is_private:
            page["chunk"] = [each for each in page["chunk"] if not is_ghost(self.store.accounts.get(each["sender"]))]
        return page


@defect("NSUSER-11")
class AvailabilityIsCaseSensitive(Accounts):
    """A reserved name in capitals is said to be available, though it cannot be registered."""

    @endpoint("GET", "/register/available", authenticated=False)
    def available(self, call: Call) -> JsonObject:
        if call.query.get("username", "") != call.query.get("username", "").lower():
            return {"available": True}
        return super().available(call)
