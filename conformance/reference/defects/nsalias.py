"""Defects of area NSALIAS: whose an alias is."""

from __future__ import annotations

import json
from urllib.parse import quote

from conformance.appservice.registration import Namespace, Registration
from conformance.reference.defects import defect
from conformance.reference.directory import Aliases, exclusive
from conformance.reference.identity import Requester
from conformance.reference.namespaces import Namespaces, compiled
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.queries import Queries
from conformance.reference.rooms import Rooms, forbidden
from conformance.reference.store import JsonObject
from conformance.reference.web import Call


def covered(aliases: Aliases, alias: str) -> list[Registration]:
    """The appservices whose namespaces cover an alias, exclusively or not."""
    return [each for each in aliases.hs.appservices if aliases.hs.namespaces.covers(each, "aliases", alias)]


def is_sender(aliases: Aliases, requester: Requester) -> bool:
    """Whether an appservice acts as its sender user."""
    appservice = requester.appservice
    return appservice is not None and aliases.hs.namespaces.is_sender(appservice, requester.user_id)


# Humans


@defect("NSALIAS-01", "NSALIAS-02", "NSALIAS-09")
class HumansMayTakeAndDeleteAnyAlias(Aliases):
    """Namespaces of aliases bind no human."""

    def check_exclusive(self, requester: Requester, alias: str) -> None:
        if requester.appservice is not None:
            super().check_exclusive(requester, alias)


@defect("NSALIAS-01")
class RefusedAliasesAreMade(Aliases):
    """A human who makes an exclusive alias is refused, but the alias is there afterwards."""

    def set(self, call: Call, alias: str) -> JsonObject:
        try:
            return super().set(call, alias)
        except MatrixError as error:
            if error.errcode == "M_EXCLUSIVE" and call.requester.appservice is None:
                self.store.set_alias(alias, call.text("room_id"), call.requester.user_id)
            raise


@defect("NSALIAS-01", "NSALIAS-02", also=("NSALIAS-16",))
class AliasesBeyondAsciiAreMatchedEncoded(Aliases):
    """Whether an alias with letters beyond ASCII is exclusive is looked at in its percent-encoded form."""

    def check_exclusive(self, requester: Requester, alias: str) -> None:
        as_sent = alias if requester.appservice is not None or alias.isascii() else quote(alias)
        super().check_exclusive(requester, as_sent)


@defect("NSALIAS-01", also=("NSALIAS-02",))
class ExclusiveAliasesAreForbidden(Aliases):
    """A human who makes an exclusive alias is told 403 M_FORBIDDEN."""

    def check_exclusive(self, requester: Requester, alias: str) -> None:
        try:
            super().check_exclusive(requester, alias)
        except MatrixError as error:
            raise error if requester.appservice is not None else forbidden(error.error) from error


@defect("NSALIAS-01")
class HumansOfOpenNamespacesMayTakeAliases(Aliases):
    """A human whom an appservice's namespace of users covers may take its exclusive aliases."""

    def check_exclusive(self, requester: Requester, alias: str) -> None:
        covers, claims = self.hs.namespaces.covers, self.hs.namespaces.claims
        friends = (each for each in self.hs.appservices if covers(each, "users", requester.user_id))
        if requester.appservice is not None or not any(claims(each, "aliases", alias) for each in friends):
            super().check_exclusive(requester, alias)


class Ways(Aliases):
    """Knows whether an alias is to be made by its endpoint or with a new room."""

    _directly = False

    def set(self, call: Call, alias: str) -> JsonObject:
        self._directly = True
        try:
            return super().set(call, alias)
        finally:
            self._directly = False

    def with_room(self) -> bool:
        """It is made with a new room."""
        return not self._directly


@defect("NSALIAS-02")
class HumansGiveNewRoomsAnyAlias(Ways):
    """A human's createRoom does not look at the namespaces of aliases."""

    def check_making(self, requester: Requester, alias: str) -> None:
        if requester.appservice is not None or not self.with_room():
            super().check_making(requester, alias)


@defect("NSALIAS-02")
class NewRoomsHaveAliasesBeyondAscii(Ways):
    """A human's createRoom looks at the namespaces of aliases only if an alias is all ASCII."""

    def check_making(self, requester: Requester, alias: str) -> None:
        if requester.appservice is not None or not self.with_room() or alias.isascii():
            super().check_making(requester, alias)


@defect("NSALIAS-02")
class RefusedRoomsHaveTheirAlias(Rooms):
    """A human's createRoom with an exclusive alias is refused when the room and the alias have been made."""

    def create(self, call: Call) -> JsonObject:
        try:
            return super().create(call)
        except MatrixError as error:
            if error.errcode == "M_EXCLUSIVE" and call.requester.appservice is None:
                alias = f"#{call.json['room_alias_name']}:{self.hs.server_name}"
                call.body = json.dumps({**call.json, "room_alias_name": None}).encode()
                self.store.set_alias(alias, super().create(call)["room_id"], call.requester.user_id)
            raise


@defect("NSALIAS-03")
class OpenAliasesAreClosedToHumans(Aliases):
    """Humans may make aliases in no namespace, exclusive or not."""

    def check_making(self, requester: Requester, alias: str) -> None:
        if requester.appservice is None and covered(self, alias):
            raise exclusive("that alias is an appservice's")
        super().check_making(requester, alias)


@defect("NSALIAS-03")
class AliasesThatTwoAppservicesClaimAreClosed(Aliases):
    """Humans may not make an alias that two appservices claim, even if both do so without exclusivity."""

    def check_making(self, requester: Requester, alias: str) -> None:
        if requester.appservice is None and len(covered(self, alias)) > 1:
            raise exclusive("that alias is an appservice's")
        super().check_making(requester, alias)


@defect("NSALIAS-03", also=("NSALIAS-16",))
class OpenAliasesBeyondAsciiAreClosed(Aliases):
    """Humans may not make an alias with letters beyond ASCII in any namespace."""

    def check_making(self, requester: Requester, alias: str) -> None:
        if requester.appservice is None and not alias.isascii() and covered(self, alias):
            raise exclusive("that alias is an appservice's")
        super().check_making(requester, alias)


# Appservices


@defect("NSALIAS-04")
class AppservicesMayTakeEachOthersAliases(Aliases):
    """An appservice may make an alias in another's exclusive namespace."""

    def check_making(self, requester: Requester, alias: str) -> None:
        namespaces, appservice = self.hs.namespaces, requester.appservice
        is_own = appservice is not None and namespaces.covers(appservice, "aliases", alias)
        if appservice is None or is_own or not namespaces.claimed("aliases", alias):
            super().check_making(requester, alias)


@defect("NSALIAS-04")
class GhostsMayTakeOtherAppservicesAliases(Aliases):
    """A ghost, unlike a sender, may make an alias in another appservice's exclusive namespace."""

    def check_making(self, requester: Requester, alias: str) -> None:
        namespaces, appservice = self.hs.namespaces, requester.appservice
        is_ghost = appservice is not None and not is_sender(self, requester)
        if not (is_ghost and namespaces.claimed("aliases", alias, by_other_than=appservice)):
            super().check_making(requester, alias)


@defect("NSALIAS-05")
class AnOwnAliasNamespaceIsEnough(Aliases):
    """An appservice may make whatever alias its own namespaces cover, exclusive to others or not."""

    def check_making(self, requester: Requester, alias: str) -> None:
        if requester.appservice not in covered(self, alias):
            super().check_making(requester, alias)


@defect("NSALIAS-06")
class AppservicesMayMakeWhatNobodyOwns(Aliases):
    """An appservice may make any alias that is not exclusive to another one."""

    def check_making(self, requester: Requester, alias: str) -> None:
        if self.hs.namespaces.claimed("aliases", alias, by_other_than=requester.appservice):
            raise exclusive("that alias is an appservice's")


@defect("NSALIAS-06")
class AppservicesMayMakeOpenAliasesOfOthers(Aliases):
    """An appservice may make aliases in the open namespaces of others."""

    def check_making(self, requester: Requester, alias: str) -> None:
        is_free = not self.hs.namespaces.claimed("aliases", alias, by_other_than=requester.appservice)
        if not (covered(self, alias) and is_free):
            super().check_making(requester, alias)


@defect("NSALIAS-06")
class AliasesOfAppservicesAreSearched(Aliases):
    """An appservice may make an alias that has the text of its namespace further on."""

    def check_making(self, requester: Requester, alias: str) -> None:
        entries = requester.appservice.aliases or () if requester.appservice is not None else ()
        is_free = not self.hs.namespaces.claimed("aliases", alias, by_other_than=requester.appservice)
        if not (is_free and any(compiled(entry.regex.lstrip("#")).search(alias) for entry in entries)):
            super().check_making(requester, alias)


@defect("NSALIAS-06")
class AppservicesGiveNewRoomsAnyAlias(Ways):
    """An appservice's createRoom does not look at the namespaces of aliases."""

    def check_making(self, requester: Requester, alias: str) -> None:
        if requester.appservice is None or not self.with_room():
            super().check_making(requester, alias)


@defect("NSALIAS-07")
class SendersCannotMakeExclusiveAliases(Aliases):
    """The sender user may make no alias that is exclusive to its appservice."""

    def check_making(self, requester: Requester, alias: str) -> None:
        super().check_making(requester, alias)
        if is_sender(self, requester) and self.hs.namespaces.claimed("aliases", alias):
            raise exclusive("that alias is exclusive")


@defect("NSALIAS-07")
class AliasesThatTwoAppservicesClaimAreNobodys(Aliases):
    """An appservice may not make an exclusive alias of its own that another one claims too, without exclusivity."""

    def check_making(self, requester: Requester, alias: str) -> None:
        super().check_making(requester, alias)
        is_shared = len(covered(self, alias)) > 1 and self.hs.namespaces.claimed("aliases", alias)
        if requester.appservice is not None and is_shared:
            raise exclusive("that alias is another appservice's")


@defect("NSALIAS-07", "NSALIAS-08")
class AppservicesCannotMakeAliasesBeyondAscii(Aliases):
    """An appservice may make no alias with letters beyond ASCII."""

    def check_making(self, requester: Requester, alias: str) -> None:
        if requester.appservice is not None and not alias.isascii():
            raise exclusive("that alias is outside the appservice's namespaces")
        super().check_making(requester, alias)


@defect("NSALIAS-08")
class GhostsCannotMakeExclusiveAliases(Aliases):
    """Only the sender user may make exclusive aliases."""

    def check_making(self, requester: Requester, alias: str) -> None:
        super().check_making(requester, alias)
        is_ghost = requester.appservice is not None and not is_sender(self, requester)
        if is_ghost and self.hs.namespaces.claimed("aliases", alias):
            raise exclusive("that alias is the sender user's")


@defect("NSALIAS-08", also=("NSALIAS-13",))
class AliasesOfGhostsLoseTheirLetters(Aliases):
    """An alias with letters beyond ASCII that a ghost makes exists in its percent-encoded form only."""

    def set(self, call: Call, alias: str) -> JsonObject:
        is_ghost = call.requester.appservice is not None and not is_sender(self, call.requester)
        return super().set(call, quote(alias, safe="#:@") if is_ghost else alias)


# Deletion


@defect("NSALIAS-09")
class AdministratorsMayDeleteExclusiveAliases(Aliases):
    """The administrator of a room may delete all its aliases."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        room = self.store.rooms[self.store.aliases[alias][0]]
        if requester.appservice is not None or self.hs.powers.level(room, requester.user_id) < 100:
            super().check_deletion(requester, alias)


@defect("NSALIAS-09")
class DeletionsThatHumansAreRefusedHappen(Aliases):
    """A human who deletes an exclusive alias is refused, but the alias is gone afterwards."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        try:
            super().check_deletion(requester, alias)
        except MatrixError:
            if requester.appservice is None:
                self.store.drop_alias(alias)
            raise


@defect("NSALIAS-10")
class OnlyWhoMadeAnAliasMayDeleteIt(Aliases):
    """An alias can be deleted only by the user who made it, even within an appservice."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        super().check_deletion(requester, alias)
        if requester.appservice is not None and requester.user_id != self.store.aliases[alias][1]:
            raise forbidden("that alias is another user's")


@defect("NSALIAS-10")
class OnlySendersDeleteAliasesOfOthers(Aliases):
    """A ghost cannot delete an alias that another ghost of its appservice made."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        super().check_deletion(requester, alias)
        is_ghost = requester.appservice is not None and not is_sender(self, requester)
        if is_ghost and requester.user_id != self.store.aliases[alias][1]:
            raise forbidden("that alias is another user's")


@defect("NSALIAS-10")
class DeletedExclusiveAliasesStay(Aliases):
    """An appservice is told that its exclusive alias is deleted, but it stays."""

    def delete(self, call: Call, alias: str) -> JsonObject:
        kept = self.store.aliases.get(alias)
        result = super().delete(call, alias)
        if kept is not None and self.hs.namespaces.claimed("aliases", alias):
            self.store.set_alias(alias, *kept)
        return result


@defect("NSALIAS-11")
class AliasesOfHumansCannotBeDeleted(Aliases):
    """An appservice that deletes an alias of its open namespace that a human made is told 400 M_EXCLUSIVE."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        super().check_deletion(requester, alias)
        maker = self.store.accounts.get(self.store.aliases[alias][1])
        if requester.appservice is not None and maker is not None and maker.appservice is None:
            raise exclusive("that alias is a human's")


@defect("NSALIAS-11")
class DeletingAliasesOfHumansBreaksTheServer(Aliases):
    """An appservice that deletes an alias of its open namespace that a human made is answered 500."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        super().check_deletion(requester, alias)
        maker = self.store.accounts[self.store.aliases[alias][1]]
        if requester.appservice is not None and maker.appservice is None:
            raise RuntimeError("the maker has no appservice")


@defect("NSALIAS-12")
class AppservicesMayDeleteAliasesOfOthers(Aliases):
    """An appservice may delete aliases outside its namespaces."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        if requester.appservice is None or requester.appservice in covered(self, alias):
            super().check_deletion(requester, alias)


@defect("NSALIAS-12")
class SendersMayDeleteAliasesOfOthers(Aliases):
    """A sender user, unlike a ghost, may delete aliases outside its appservice's namespaces."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        if not is_sender(self, requester) or requester.appservice in covered(self, alias):
            super().check_deletion(requester, alias)


@defect("NSALIAS-12")
class DeletionsThatAppservicesAreRefusedHappen(Aliases):
    """An appservice that deletes another one's alias is refused, but the alias is gone afterwards."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        try:
            super().check_deletion(requester, alias)
        except MatrixError:
            if requester.appservice is not None and requester.appservice not in covered(self, alias):
                self.store.drop_alias(alias)
            raise


# What exclusivity does not mean


@defect("NSALIAS-13")
class HumansCannotJoinByExclusiveAliases(Rooms):
    """A human who joins a room by an exclusive alias is refused."""

    def join_by_name(self, call: Call, room: str) -> JsonObject:
        if call.requester.appservice is None and self.hs.namespaces.claimed("aliases", room):
            raise forbidden("that alias is an appservice's")
        return super().join_by_name(call, room)


@defect("NSALIAS-13")
class AliasesBeyondAsciiCannotBeJoined(Rooms):
    """Nobody can join a room by an exclusive alias with letters beyond ASCII."""

    def join_by_name(self, call: Call, room: str) -> JsonObject:
        if not room.isascii() and self.hs.namespaces.claimed("aliases", room):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such alias")
        return super().join_by_name(call, room)


@defect("NSALIAS-13")
class ExclusiveAliasesAreHiddenFromHumans(Aliases):
    """Exclusive aliases resolve for appservices only."""

    def get(self, call: Call, alias: str) -> JsonObject:
        by_appservice = call.token is not None and self.hs.identity.appservice(call.token) is not None
        if not by_appservice and alias in self.store.aliases and self.hs.namespaces.claimed("aliases", alias):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such alias")
        return super().get(call, alias)


# Entries


@defect("NSALIAS-14", also=("NSALIAS-16",))
class AliasesAreSearched(Aliases):
    """An alias is closed to humans when the text of an exclusive namespace occurs anywhere in it."""

    def is_closed(self, entry: Namespace, alias: str) -> bool:
        """Whether a namespace closes an alias."""
        return compiled(entry.regex[1:]).search(alias) is not None

    def check_making(self, requester: Requester, alias: str) -> None:
        entries = [entry for each in self.hs.appservices for entry in each.aliases or () if entry.exclusive]
        if requester.appservice is None and any(self.is_closed(entry, alias) for entry in entries):
            raise exclusive("that alias is an appservice's")
        super().check_making(requester, alias)


@defect("NSALIAS-14")
class LocalpartsOfAliasesAreSplit(AliasesAreSearched):
    """An alias is closed to humans when one of its parts between hyphens begins as an exclusive namespace does."""

    def is_closed(self, entry: Namespace, alias: str) -> bool:
        parts = alias[1:].split("-")
        return any(self.hs.namespaces.matches(entry, "#" + "-".join(parts[start:])) for start in range(1, len(parts)))


@defect("NSALIAS-15")
class UsersNamespacesReserveAliases(Aliases):
    """An alias is closed to humans, too, when the user of that name is."""

    def check_making(self, requester: Requester, alias: str) -> None:
        super().check_making(requester, alias)
        if requester.appservice is None and self.hs.namespaces.claimed("users", f"@{alias[1:]}"):
            raise exclusive("that alias is an appservice's")


@defect("NSALIAS-15")
class WhoClaimsNoAliasesHasThoseOfItsUsers(Aliases):
    """An appservice that has no namespace of aliases has those that are called like its users."""

    def check_making(self, requester: Requester, alias: str) -> None:
        super().check_making(requester, alias)
        claiming = [each for each in self.hs.appservices if not each.aliases]
        user_id = f"@{alias[1:]}"
        if requester.appservice is None and any(self.hs.namespaces.claims(each, "users", user_id) for each in claiming):
            raise exclusive("that alias is an appservice's")


# Matching


@defect("NSALIAS-16")
class AliasesWithASlashAreFree(Aliases):
    """An alias with a slash is matched up to the slash when it is made, as if the rest were another path segment."""

    def check_making(self, requester: Requester, alias: str) -> None:
        head, slash, _ = alias.partition("/")
        super().check_making(requester, f"{head}:{self.hs.server_name}" if slash else alias)


@defect("NSALIAS-16")
class AliasesAreMatchedPercentEncoded(Aliases):
    """What humans make is matched as it stood in the path, where a plus sign and an equals sign are encoded."""

    def check_making(self, requester: Requester, alias: str) -> None:
        encoded = alias.replace("+", "%2B").replace("=", "%3D")
        super().check_making(requester, encoded if requester.appservice is None else alias)


@defect("NSALIAS-17", also=("NSALIAS-16",))
class TheFirstMatchingAliasesEntryDecides(Namespaces):
    """The first entry of an appservice that covers an alias decides whether it is exclusive."""

    def claims(self, appservice: Registration, kind: str, identifier: str) -> bool:
        if kind != "aliases":
            return super().claims(appservice, kind, identifier)
        covering = (entry for entry in self.entries(appservice, kind) if self.matches(entry, identifier))
        first = next(covering, None)
        return first is not None and first.exclusive


@defect("NSALIAS-17", also=("NSALIAS-16",))
class OverlappingAliasesEntriesAreAllExclusive(Namespaces):
    """An open entry of aliases becomes exclusive by an exclusive one of the same appservice within it."""

    def claims(self, appservice: Registration, kind: str, identifier: str) -> bool:
        entries = self.entries(appservice, kind) if kind == "aliases" else ()
        for entry in entries:
            overlaps = any(each.exclusive and each.regex.startswith(entry.regex[:-2]) for each in entries)
            if overlaps and self.matches(entry, identifier):
                return True
        return super().claims(appservice, kind, identifier)


@defect("NSALIAS-18")
class AnOwnNamespaceIsEnoughToDelete(Aliases):
    """An appservice may delete whatever alias its own namespaces cover, exclusive to others or not."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        if requester.appservice not in covered(self, alias):
            super().check_deletion(requester, alias)


@defect("NSALIAS-18")
class DeletionsOfSharedAliasesHappen(Aliases):
    """An appservice is refused to delete another's exclusive alias, but if its own namespace covers it, it is gone."""

    def check_deletion(self, requester: Requester, alias: str) -> None:
        try:
            super().check_deletion(requester, alias)
        except MatrixError:
            if requester.appservice in covered(self, alias):
                self.store.drop_alias(alias)
            raise


@defect("NSALIAS-19", also=("ALIASQ-03", "ALIASQ-04"))
class AppservicesAreAskedAboutWhatContainsTheirNames(Queries):
    """An appservice is asked about an alias when the text of its namespace occurs anywhere in it."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        if kind != "aliases":
            return super().asked(kind, identifier)
        with_url = [each for each in self.hs.appservices if each.url is not None]
        return [
            each
            for each in with_url
            if any(compiled(entry.regex.lstrip("^#")).search(identifier) for entry in each.aliases or ())
        ]


@defect("NSALIAS-19")
class QueriesAreMatchedUpToASlash(Queries):
    """Whom to ask about an alias is found out by what stands before its first slash."""

    def asked(self, kind: str, identifier: str) -> list[Registration]:
        head, slash, _ = identifier.partition("/")
        return super().asked(kind, f"{head}:{self.hs.server_name}" if slash and kind == "aliases" else identifier)


@defect(
    "NSALIAS-01", "NSALIAS-02", also=("NSALIAS-07", "NSALIAS-08", "NSALIAS-13", "NSALIAS-16", "ALIASQ-02", "3PN-17")
)
class NamespacesEndAtSlashes(Namespaces):
    """The dot of a regular expression matches everything but a slash, as in paths."""

    def matches(self, entry: Namespace, identifier: str) -> bool:
        slashed = identifier.startswith("#") and "/" in identifier
        return not (slashed and entry.regex.endswith(".*")) and super().matches(entry, identifier)


@defect("NSALIAS-08")
class GhostsCreateNoRoomsWithAliases(Rooms):
    """A ghost that creates a room cannot give it an alias of its appservice's namespace at once."""

    @endpoint("POST", "/createRoom", waits=True)
    def create(self, call: Call) -> JsonObject:
        name = call.json.get("room_alias_name")
        if call.requester.appservice is not None and "user_id" in call.query and name is not None:
            alias = f"#{name}:{self.hs.server_name}"
            if self.hs.namespaces.claimed("aliases", alias):
                raise MatrixError(400, "M_EXCLUSIVE", "that alias is an appservice's")
        return super().create(call)


@defect("NSALIAS-01")
class ExclusiveAliasesMove(Aliases):
    """A human who sets an exclusive alias that there is moves it to his room."""

    def check_new(self, requester: Requester, alias: str) -> None:
        if (
            requester.appservice is None
            and alias in self.store.aliases
            and self.hs.namespaces.claimed("aliases", alias)
        ):
            return
        super().check_new(requester, alias)
