"""Defects of area IDENT: identity assertion."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from conformance.appservice.registration import Registration
from conformance.reference.accounts import Accounts, Profiles
from conformance.reference.defects import defect
from conformance.reference.ephemeral import Ephemeral
from conformance.reference.events import ClientTransactions
from conformance.reference.identity import Identity, Requester
from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.rooms import Powers, Rooms, forbidden
from conformance.reference.server import Media
from conformance.reference.store import Event, JsonObject, Room
from conformance.reference.sync import Sync
from conformance.reference.web import Call


def _sender(policy: Policy, call: Call) -> str | None:
    """The sender user of the appservice that calls; None for everybody else."""
    appservice = call.requester.appservice
    return policy.hs.user_id(appservice.sender_localpart) if appservice else None


def _as_sender(policy: Policy, call: Call) -> Call:
    """Have the rest of an appservice's call made by its sender user."""
    call.requester = replace(call.requester, user_id=_sender(policy, call) or call.requester.user_id, device_id=None)
    return call


def _is_whoami(call: Call) -> bool:
    return call.path.endswith("/whoami")


class _Lenient(Identity):
    """More users can be acted as than should."""

    def may_be(self, appservice: Registration, user_id: str) -> bool:
        return self.allows(appservice, user_id) or super().may_be(appservice, user_id)

    def allows(self, appservice: Registration, user_id: str) -> bool:
        """Whether an appservice may act as a user although it should not."""
        raise NotImplementedError


class _Rewriting(Identity):
    """The query of an appservice's call is taken for another."""

    def asserted(self, call: Call, appservice: Registration) -> Requester:
        self.rewrite(call, appservice)
        return super().asserted(call, appservice)

    def rewrite(self, call: Call, appservice: Registration) -> None:
        """Change the call's query."""
        raise NotImplementedError


@defect("IDENT-01")
class TheTokenAloneIsStillTheLastGhost(_Rewriting):
    """Without user_id an appservice that has just asked who its ghost is acts as that ghost once more."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._last: dict[str, str] = {}

    def rewrite(self, call: Call, appservice: Registration) -> None:
        last = self._last.pop(appservice.id, None)
        if "user_id" in call.query and _is_whoami(call):
            self._last[appservice.id] = call.query["user_id"]
        elif last is not None:
            call.query.setdefault("user_id", last)


@defect("IDENT-01")
class MessagesOfTheSenderAreAnothers(Rooms):
    """What is sent without user_id comes from the appservice's user who joined the room first."""

    def send(self, call: Call, room_id: str, kind: str, txn_id: str) -> JsonObject:
        appservice = call.requester.appservice
        if appservice is not None and "user_id" not in call.query:
            members = self.room(room_id).members()
            own = [each for each in members if self.hs.namespaces.is_own_user(appservice, each)]
            call.requester = replace(call.requester, user_id=next(iter(own), members[0]))
        return super().send(call, room_id, kind, txn_id)


@defect("IDENT-02")
class WhoamiIgnoresTheUserId(Accounts):
    """Whoami names the sender user whatever user_id says."""

    def whoami(self, call: Call) -> JsonObject:
        return super().whoami(_as_sender(self, call))


@defect("IDENT-02")
class GhostsOfTheSecondEntryCannotBeActedAs(Identity):
    """Of the exclusive users namespaces only the first entry says whom the appservice may act as."""

    def may_be(self, appservice: Registration, user_id: str) -> bool:
        namespaces = self.hs.namespaces
        exclusive = [entry for entry in namespaces.entries(appservice, "users") if entry.exclusive]
        later = any(namespaces.matches(entry, user_id) for entry in exclusive[1:])
        return not later and super().may_be(appservice, user_id)


@defect("IDENT-02")
class MessagesIgnoreTheUserId(Rooms):
    """Messages are sent as the sender user whatever user_id says."""

    def send(self, call: Call, room_id: str, kind: str, txn_id: str) -> JsonObject:
        return super().send(_as_sender(self, call), room_id, kind, txn_id)


@defect("IDENT-03")
class HumansCanBeActedAs(_Lenient):
    """An appservice may act as any user who registered itself."""

    def allows(self, appservice: Registration, user_id: str) -> bool:
        account = self.store.accounts.get(user_id)
        return account is not None and account.appservice is None


@defect("IDENT-03")
class SendersOfOthersCanBeActedAs(_Lenient):
    """An appservice may act as the sender user of any other."""

    def allows(self, appservice: Registration, user_id: str) -> bool:
        return any(self.hs.namespaces.is_sender(each, user_id) for each in self.hs.appservices)


@defect("IDENT-03")
class OnlyWhoamiProtectsHumans(Identity):
    """An appservice may act as any user who registered itself, but whoami refuses to say so."""

    def asserted(self, call: Call, appservice: Registration) -> Requester:
        account = self.store.accounts.get(call.query.get("user_id", ""))
        if account is not None and account.appservice is None and not _is_whoami(call):
            return Requester(account.user_id, None, appservice)
        return super().asserted(call, appservice)


@defect("IDENT-04")
class PhantomsCanBeActedAs(Identity):
    """An appservice may act as a ghost that nobody has registered."""

    def check_user(self, appservice: Registration, user_id: str) -> None:
        unknown = user_id not in self.store.accounts
        if not (unknown and self.may_be(appservice, user_id) and re.fullmatch(r"@[\w./=+-]{,200}:.*", user_id)):
            super().check_user(appservice, user_id)


@defect("IDENT-04")
class RefusedPhantomsAreRegistered(Identity):
    """A join as a ghost that nobody has registered is refused, but registers it."""

    def asserted(self, call: Call, appservice: Registration) -> Requester:
        try:
            return super().asserted(call, appservice)
        except MatrixError as error:
            user_id = call.query.get("user_id", "")
            own = error.status == 403 and self.may_be(appservice, user_id)
            if own and user_id not in self.store.accounts and "/join/" in call.path:
                self.store.add_account(user_id, appservice.id)
            raise


@defect("IDENT-05", also=("IDENT-03",))
class GhostsAreCommonProperty(_Lenient):
    """An appservice may act as a ghost of any appservice."""

    def allows(self, appservice: Registration, user_id: str) -> bool:
        return self.hs.is_local(user_id) and any(
            self.hs.namespaces.covers(each, "users", user_id) for each in self.hs.appservices
        )


@defect("IDENT-05")
class GhostsOfOthersCanSpeak(Identity):
    """An appservice can send, but do nothing else, as a ghost of another."""

    def asserted(self, call: Call, appservice: Registration) -> Requester:
        account = self.store.accounts.get(call.query.get("user_id", ""))
        covered = account and any(self.hs.namespaces.covers(e, "users", account.user_id) for e in self.hs.appservices)
        if account and covered and "/send/" in call.path:
            return Requester(account.user_id, None, appservice)
        return super().asserted(call, appservice)


@defect("IDENT-06")
class HumansCanAssertAnIdentity(Identity):
    """The parameter user_id is obeyed for the tokens of ordinary users."""

    def by_access_token(self, call: Call, token: str) -> Requester:
        requester = super().by_access_token(call, token)
        named = call.query.get("user_id")
        human = self.store.accounts[requester.user_id].appservice is None
        return replace(requester, user_id=named) if human and named in self.store.accounts else requester


@defect("IDENT-06")
class HumansCanSpeakForSenders(Rooms):
    """What an ordinary user sends with the user_id of an appservice's sender is a message of that sender."""

    def send(self, call: Call, room_id: str, kind: str, txn_id: str) -> JsonObject:
        named = call.query.get("user_id", "")
        if call.requester.appservice is None and any(
            self.hs.namespaces.is_sender(each, named) for each in self.hs.appservices
        ):
            call.requester = replace(call.requester, user_id=named)
        return super().send(call, room_id, kind, txn_id)


@defect("IDENT-07")
class TheSenderCannotBeNamed(Identity):
    """The sender user named in user_id is refused: no namespace covers it."""

    def asserted(self, call: Call, appservice: Registration) -> Requester:
        if self.hs.namespaces.is_sender(appservice, call.query.get("user_id", "")):
            raise forbidden("user_id is outside the appservice's namespaces")
        return super().asserted(call, appservice)


@defect("IDENT-08")
class ServerNamesOfGhostsDoNotMatter(_Rewriting):
    """Of the user_id only the localpart counts."""

    def rewrite(self, call: Call, appservice: Registration) -> None:
        localpart, colon, server = call.query.get("user_id", "").partition(":")
        if colon and server:
            call.query["user_id"] = f"{localpart}:{self.hs.server_name}"


@defect("IDENT-08")
class ServerNamesAreComparedByTheirBeginning(_Rewriting):
    """Users of servers whose name begins with the homeserver's name are taken for its own."""

    def rewrite(self, call: Call, appservice: Registration) -> None:
        localpart, _, server = call.query.get("user_id", "").partition(":")
        if server.startswith(self.hs.server_name):
            call.query["user_id"] = f"{localpart}:{self.hs.server_name}"


@defect("IDENT-08")
class ServerNamesAreComparedByTheirEnd(_Rewriting):
    """Users of servers whose name ends with the homeserver's name are taken for its own."""

    def rewrite(self, call: Call, appservice: Registration) -> None:
        localpart, _, server = call.query.get("user_id", "").partition(":")
        if server.endswith(self.hs.server_name):
            call.query["user_id"] = f"{localpart}:{self.hs.server_name}"


@defect("IDENT-09")
class UserIdsWithoutAServerNameBreakTheServer(Identity):
    """A user_id without a server name is answered with 500."""

    def check_user(self, appservice: Registration, user_id: str) -> None:
        _localpart, _server = user_id.split(":", 1)
        super().check_user(appservice, user_id)


@defect("IDENT-09")
class EmptyUserIdsBreakTheServer(Identity):
    """An empty user_id is answered with 500."""

    def check_user(self, appservice: Registration, user_id: str) -> None:
        if user_id[0] == "@":
            super().check_user(appservice, user_id)
        else:
            raise MatrixError(400, "M_INVALID_PARAM", "user_id is no user ID")


@defect("IDENT-09")
class OverlongUserIdsBreakTheServer(Identity):
    """A user_id that is longer than any can be is answered with 500."""

    def check_user(self, appservice: Registration, user_id: str) -> None:
        if len(user_id) > 255:
            raise OverflowError("value too long for its column")
        super().check_user(appservice, user_id)


@defect("IDENT-10")
class UserIdsAreDecodedTwice(_Rewriting):
    """A user_id is percent-decoded twice."""

    def rewrite(self, call: Call, appservice: Registration) -> None:
        if "user_id" in call.query:
            call.query["user_id"] = unquote(call.query["user_id"])


@defect("IDENT-10")
class EncodedLettersAreNotDecoded(_Rewriting):
    """Letters that are percent-encoded without need are not decoded in user_id."""

    def rewrite(self, call: Call, appservice: Registration) -> None:
        found = re.search("user_id=([^&]*)", call.request.query_string.decode())
        if found:
            call.query["user_id"] = re.sub("%([0-38-F][0-9A-F]|40)", lambda part: unquote(part[0]), found[1])


@defect("IDENT-10")
class LowerCaseEscapesAreLeft(Identity):
    """Percent-encoding with lower-case letters is not decoded in user_id."""

    def asserted(self, call: Call, appservice: Registration) -> Requester:
        if b"%3a" in call.request.query_string and "user_id" in call.query:
            call.query["user_id"] = call.query["user_id"].replace(":", "%3a")
        return super().asserted(call, appservice)


@defect("IDENT-11")
class RoomsAreCreatedByTheSender(Rooms):
    """A room that is created with a ghost's user_id is created by the sender user."""

    def create(self, call: Call) -> JsonObject:
        return super().create(_as_sender(self, call))


@defect("IDENT-11")
class NewRoomsAreFurnishedByTheSender(Rooms):
    """In a room that a ghost creates everything but its first two events comes from the sender user."""

    def _furnish(self, room: Room, creator: str, call: Call, alias: str | None) -> None:
        super()._furnish(room, _sender(self, call) or creator, call, alias)


@defect("IDENT-12")
class MembershipsAreChangedByTheSender(Rooms):
    """A ghost's invites, kicks and bans are made by the sender user."""

    def set_membership(
        self, room: Room, sender: str, target: str, membership: str, *, ts: int | None = None, **content: Any
    ) -> Event:
        account = self.store.accounts.get(sender)
        owner = account.appservice if account else None
        if owner is not None and sender != target and len(room.members()) > 1:
            sender = next(self.hs.user_id(each.sender_localpart) for each in self.hs.appservices if each.id == owner)
        return super().set_membership(room, sender, target, membership, ts=ts, **content)


@defect("IDENT-12")
class GhostsBanInTheNameOfTheCreator(Rooms):
    """A ban by a ghost comes from the creator of the room."""

    def ban(self, call: Call, room_id: str) -> JsonObject:
        if call.requester.appservice is not None:
            call.requester = replace(call.requester, user_id=self.room(room_id).creators[0])
        return super().ban(call, room_id)


@defect("IDENT-12")
class JoinsBelowRoomsAreTheSenders(Rooms):
    """A join by POST /rooms/{roomId}/join is the sender user's; that by POST /join is the ghost's."""

    def join(self, call: Call, room_id: str) -> JsonObject:
        below_rooms = call.path.endswith("/join")
        return super().join(_as_sender(self, call) if below_rooms else call, room_id)


@defect("IDENT-13", also=("IDENT-12",))
class TopicsOfGhostsAreTheCreators(Rooms):
    """State that a ghost sets comes from the creator of the room."""

    def set_state(self, call: Call, room_id: str, kind: str, state_key: str = "") -> JsonObject:
        if call.requester.appservice is not None:
            call.requester = replace(call.requester, user_id=self.room(room_id).creators[0])
        return super().set_state(call, room_id, kind, state_key)


@defect("IDENT-13")
class RedactionsOfGhostsAreTheCreators(Rooms):
    """A redaction by a ghost comes from the creator of the room."""

    def redact(self, call: Call, room_id: str, event_id: str, txn_id: str) -> JsonObject:
        if call.requester.appservice is not None:
            call.requester = replace(call.requester, user_id=self.room(room_id).creators[0])
        return super().redact(call, room_id, event_id, txn_id)


@defect("IDENT-13")
class ReceiptsOfGhostsAreTheSenders(Ephemeral):
    """A receipt of a ghost is taken for one of the sender user."""

    def set_receipt(self, call: Call, room_id: str, kind: str, event_id: str) -> JsonObject:
        self.hs.rooms.readable(call, room_id)
        content = {event_id: {kind: {_sender(self, call) or call.requester.user_id: {"ts": self.hs.clock.now_ms()}}}}
        self._room(room_id).receipts.append((self.store.next_number(), content))
        self.hs.news.notify_all()
        return {}


@defect("IDENT-13")
class GhostsDoNotType(Ephemeral):
    """A typing notice of a ghost is refused: it is compared with the sender user."""

    def set_typing(self, call: Call, room_id: str, user_id: str) -> JsonObject:
        if (_sender(self, call) or user_id) != user_id:
            raise forbidden("that is another user's")
        return super().set_typing(call, room_id, user_id)


@defect("IDENT-13")
class AccountDataOfGhostsIsRefused(Profiles):
    """Global account data of a ghost is refused: it is compared with the sender user."""

    def set_account_data(self, call: Call, user_id: str, kind: str, room_id: str = "") -> JsonObject:
        if not room_id and (_sender(self, call) or user_id) != user_id:
            raise forbidden("that is another user's")
        return super().set_account_data(call, user_id, kind, room_id)


@defect("IDENT-14", also=("NSUSER-16",))
class DisplayNamesOfGhostsAreForgotten(Profiles):
    """Setting the display name of a ghost is answered with 200 and does nothing."""

    def set_profile(self, call: Call, user_id: str, key: str) -> JsonObject:
        return super().set_profile(call, user_id, key) if call.requester.appservice is None else {}


@defect("IDENT-14")
class ProfilesNeedATokenOfOnesOwn(Profiles):
    """The profile of a ghost can be changed with an access token of its own only."""

    def set_profile(self, call: Call, user_id: str, key: str) -> JsonObject:
        if call.requester.appservice is not None:
            raise forbidden("that needs a login")
        return super().set_profile(call, user_id, key)


@defect("IDENT-14")
class DisplayNamesOfGhostsAreLatin(Profiles):
    """Characters beyond Latin-1 in the display name of a ghost become question marks."""

    def set_profile(self, call: Call, user_id: str, key: str) -> JsonObject:
        answer = super().set_profile(call, user_id, key)
        if call.requester.appservice is not None and isinstance(call.json[key], str):
            self.store.set_profile(user_id, key, call.json[key].encode("latin-1", "replace").decode("latin-1"))
        return answer


class _SenderOf(Powers):
    """What a ghost may do has to do with its sender user."""

    def sender_of(self, user_id: str) -> str:
        """The sender user of the appservice that has registered a user; the user itself when none has."""
        account = self.store.accounts.get(user_id)
        owners = [each for each in self.hs.appservices if account and each.id == account.appservice]
        return self.hs.user_id(owners[0].sender_localpart) if owners else user_id


@defect("IDENT-15")
class TheSenderLendsItsPower(_SenderOf):
    """A ghost has at least the power level of its sender user."""

    def level(self, room: Room, user_id: str) -> int:
        return max(super().level(room, user_id), super().level(room, self.sender_of(user_id)))


@defect("IDENT-15")
class TheSendersMembershipIsEnough(_SenderOf):
    """A ghost can send in a room that only its sender user has joined."""

    def check_send(self, room: Room, sender: str, kind: str, content: JsonObject, state_key: str | None) -> None:
        there = room.membership(sender) == "join" or kind != "m.room.message"
        super().check_send(room, sender if there else self.sender_of(sender), kind, content, state_key)


@defect("IDENT-16")
class QueryTokensAreForHumans(Identity):
    """An as_token in the query is unknown."""

    def of(self, call: Call) -> Requester:
        token = self.token(call)
        if token and "Authorization" not in call.request.headers and self.appservice(token):
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "nobody has that token")
        return super().of(call)


@defect("IDENT-16")
class QueryTokensAreTheSenders(_Rewriting):
    """With the as_token in the query user_id is ignored."""

    def rewrite(self, call: Call, appservice: Registration) -> None:
        if "Authorization" not in call.request.headers:
            call.query.pop("user_id", None)


@defect("IDENT-17", also=("AUTH-11",))
class HsTokensAreAsGoodAsAsTokens(Identity):
    """An hs_token with a user_id authenticates an appservice too."""

    def of(self, call: Call) -> Requester:
        found = [each for each in self.hs.appservices if each.hs_token == self.token(call)]
        return self.asserted(call, found[0]) if found and "user_id" in call.query else super().of(call)


@defect("IDENT-17")
class TokensAreComparedByTheirBeginning(Identity):
    """With a user_id whatever begins with an as_token is taken for it."""

    def of(self, call: Call) -> Requester:
        token = self.token(call) or ""
        found = [each for each in self.hs.appservices if token.startswith(each.as_token)]
        return self.asserted(call, found[0]) if found and "user_id" in call.query else super().of(call)


@defect("IDENT-17")
class AUserIdAuthenticates(Identity):
    """Without any token the user_id alone makes the caller that ghost."""

    def of(self, call: Call) -> Requester:
        user_id = call.query.get("user_id", "")
        owners = [each for each in self.hs.appservices if self.may_be(each, user_id)]
        if self.token(call) is None and owners and user_id in self.store.accounts:
            return Requester(user_id, None, owners[0])
        return super().of(call)


@defect("IDENT-17", also=("AUTH-11",))
class WrongTokensWithAUserIdAreForbidden(Identity):
    """A wrong token is answered with 403 when there is a user_id."""

    def by_access_token(self, call: Call, token: str) -> Requester:
        if "user_id" in call.query and token not in self.store.tokens:
            raise forbidden("only appservices may assert an identity")
        return super().by_access_token(call, token)


@defect("IDENT-18")
class OnlyExclusiveGhostsCanBeActedAs(Identity):
    """An appservice may act as users of its exclusive namespaces only."""

    def may_be(self, appservice: Registration, user_id: str) -> bool:
        return self.hs.namespaces.claims(appservice, "users", user_id) and super().may_be(appservice, user_id)


@defect("IDENT-18")
class SharedGhostsCanBeActedAsByNobody(Identity):
    """An appservice cannot act as a user whom another appservice's namespaces cover too without being exclusive."""

    def may_be(self, appservice: Registration, user_id: str) -> bool:
        namespaces = self.hs.namespaces
        owners = [each for each in self.hs.appservices if namespaces.covers(each, "users", user_id)]
        shared = len(owners) > 1 and not namespaces.claims(appservice, "users", user_id)
        return not shared and super().may_be(appservice, user_id)


@defect("IDENT-19")
class SendersCannotBeInvited(Rooms):
    """The sender user of an appservice cannot be invited: nobody has registered it."""

    def check_invitable(self, user_id: str) -> None:
        if any(self.hs.namespaces.is_sender(each, user_id) for each in self.hs.appservices):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such user")
        super().check_invitable(user_id)


@defect("IDENT-19")
class SendersCannotFollowAnInvite(Powers):
    """The sender user of an appservice cannot join a room to which it was invited."""

    def check_membership(self, room: Room, sender: str, target: str, membership: str) -> None:
        invited = room.membership(target) == "invite" and membership == "join"
        if invited and any(self.hs.namespaces.is_sender(each, target) for each in self.hs.appservices):
            raise forbidden("there is no such user")
        super().check_membership(room, sender, target, membership)


@defect("IDENT-20")
class TransactionIdsAreOfTheToken(ClientTransactions):
    """A transaction ID that one ghost has used is a repetition when another ghost uses it in the same room."""

    def scope(self, requester: Requester) -> str:
        return requester.appservice.id if requester.appservice else super().scope(requester)


@defect("IDENT-20")
class TransactionIdsOfOthersAreRefused(ClientTransactions):
    """A transaction ID that one ghost has used in a room is refused when another ghost uses it."""

    def mark(self, call: Call, txn_id: str) -> tuple[str, str, str]:
        suffix = call.path.rpartition("/")[0] + f" {txn_id}"
        if call.requester.appservice is not None and any(key.endswith(suffix) for key in self.store.answers):
            raise MatrixError(400, "M_INVALID_PARAM", "that transaction ID has been used")
        return super().mark(call, txn_id)


@defect("IDENT-21")
class AppservicesHaveNoIdempotency(ClientTransactions):
    """An appservice's repeated send makes another event."""

    def earlier(self, call: Call, txn_id: str) -> JsonObject | None:
        return None if call.requester.appservice is not None else super().earlier(call, txn_id)


@defect("IDENT-21")
class RepeatedSendsAreRefused(ClientTransactions):
    """An appservice's repeated send is refused."""

    def earlier(self, call: Call, txn_id: str) -> JsonObject | None:
        before = super().earlier(call, txn_id)
        if before is not None and call.requester.appservice is not None:
            raise MatrixError(400, "M_INVALID_PARAM", "that transaction ID has been used")
        return before


@defect("IDENT-21")
class RepeatedSendsGetAnIdOfTheirOwn(ClientTransactions):
    """A repeated send makes no event, but is answered with an ID that no event has."""

    def earlier(self, call: Call, txn_id: str) -> JsonObject | None:
        before = super().earlier(call, txn_id)
        return before and {"event_id": f"${secrets.token_urlsafe(32)}"}


@defect("IDENT-22")
class OnlyMembersSeeMembers(Rooms):
    """The members of a room can be listed only by a user who is in it, not by the appservice's sender."""

    def may_list(self, call: Call, room: Room) -> bool:
        return call.requester.user_id in room.members()


@defect("IDENT-22")
class MembersAreListedForEverybody(Rooms):
    """The members of a private room are listed for whoever asks."""

    def may_list(self, call: Call, room: Room) -> bool:
        return True


class _Minting(Accounts):
    """Tokens come out of /refresh."""

    def refresh(self, call: Call) -> JsonObject:
        user_id = call.query.get("user_id", "")
        if self.mints(call) and user_id in self.store.accounts:
            self.appservice_of(call)
            token = secrets.token_urlsafe(24)
            self.store.put_device(user_id, "HQREFRESHED", {})
            self.store.add_token(token, user_id, "HQREFRESHED")
            return {"access_token": token}
        return super().refresh(call)

    def mints(self, call: Call) -> bool:
        """Whether a call of an appservice yields a token for its `user_id`."""
        raise NotImplementedError


@defect("IDENT-23")
class RefreshMintsTokensForGhosts(_Minting):
    """Without a refresh token /refresh gives an appservice a token of whomever it names."""

    def mints(self, call: Call) -> bool:
        return "refresh_token" not in call.json


@defect("IDENT-23")
class AsTokensAreRefreshTokens(_Minting):
    """/refresh takes an as_token for a refresh token of the ghost in user_id."""

    def mints(self, call: Call) -> bool:
        return self.hs.identity.appservice(str(call.json.get("refresh_token"))) is not None


@defect("IDENT-24")
class TokensOfGhostsAssertIdentities(Identity):
    """A ghost's own access token may act as any other user of its appservice."""

    def by_access_token(self, call: Call, token: str) -> Requester:
        requester = super().by_access_token(call, token)
        owner = self.store.accounts[requester.user_id].appservice
        named = self.store.accounts.get(call.query.get("user_id", ""))
        if owner is not None and named is not None and named.appservice == owner:
            return replace(requester, user_id=named.user_id)
        return requester


@defect("IDENT-24")
class TokensOfGhostsActAsTheSender(Identity):
    """A ghost's own access token may act as its appservice's sender user."""

    def by_access_token(self, call: Call, token: str) -> Requester:
        requester = super().by_access_token(call, token)
        owner = self.store.accounts[requester.user_id].appservice
        named = call.query.get("user_id", "")
        if any(each.id == owner and self.hs.namespaces.is_sender(each, named) for each in self.hs.appservices):
            return replace(requester, user_id=named)
        return requester


@defect("IDENT-25")
class GhostsUploadNoMedia(Media):
    """Media cannot be uploaded with a user_id."""

    def upload(self, call: Call) -> JsonObject:
        if "user_id" in call.query:
            raise forbidden("that needs a login")
        return super().upload(call)


@defect("IDENT-25")
class FiltersOfGhostsAreRefused(Profiles):
    """Filters of a ghost are refused: they are compared with the sender user."""

    def filter(self, call: Call, user_id: str, filter_id: str) -> JsonObject:
        if (_sender(self, call) or user_id) != user_id:
            raise forbidden("that is another user's")
        return super().filter(call, user_id, filter_id)


@defect("IDENT-25")
class GhostsReadTheRoomDataOfOthers(Profiles):
    """A ghost can read the account data that another ghost has in a room."""

    def account_data(self, call: Call, user_id: str, kind: str, room_id: str = "") -> JsonObject:
        if call.requester.appservice is not None and room_id:
            call.requester = replace(call.requester, user_id=user_id)
        return super().account_data(call, user_id, kind, room_id)


@defect("IDENT-25")
class GhostsMakeFiltersForOthers(Profiles):
    """A ghost can make a filter for another ghost."""

    def add_filter(self, call: Call, user_id: str) -> JsonObject:
        if call.requester.appservice is not None and user_id in self.store.accounts:
            call.requester = replace(call.requester, user_id=user_id)
        return super().add_filter(call, user_id)


@defect("IDENT-06")
class TokensOfHumansAreUnknownBesideAUserId(Identity):
    """A human's access token is taken for an as_token that nobody has where there is a user_id."""

    def by_access_token(self, call: Call, token: str) -> Requester:
        requester = super().by_access_token(call, token)
        account = self.store.accounts[requester.user_id]
        if account.appservice is None and "user_id" in call.query:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "no appservice has that token")
        return requester


@defect("IDENT-10")
class PlusSignsOfUserIdsAreBlanks(_Rewriting):
    """The user_id is decoded once too often as a form: an encoded plus sign becomes a blank."""

    def rewrite(self, call: Call, appservice: Registration) -> None:
        if "user_id" in call.query:
            call.query["user_id"] = call.query["user_id"].replace("+", " ")


@defect("IDENT-10")
class SlashesEndUserIds(_Rewriting):
    """Of the localpart in a user_id only what stands before a slash counts."""

    def rewrite(self, call: Call, appservice: Registration) -> None:
        localpart, colon, server = call.query.get("user_id", "").partition(":")
        if colon:
            call.query["user_id"] = f"{localpart.partition('/')[0]}:{server}"


@defect("IDENT-14")
class ProfilesOfNamesWithSlashesAreUnreachable(Profiles):
    """There is no profile at a path with an encoded slash."""

    def set_profile(self, call: Call, user_id: str, key: str) -> JsonObject:
        if "/" in user_id:
            raise self.hs.errors.unknown_path()
        return super().set_profile(call, user_id, key)


def _is_ghost(policy: Policy, user_id: str) -> bool:
    """Whether a users namespace of any appservice covers a user."""
    return any(policy.hs.namespaces.covers(each, "users", user_id) for each in policy.hs.appservices)


@defect("IDENT-03")
class SendersOfThoseThatAreNeverCalledCanBeActedAs(_Lenient):
    """An appservice may act as the sender user of another that has no url."""

    def allows(self, appservice: Registration, user_id: str) -> bool:
        return any(each.url is None and self.hs.namespaces.is_sender(each, user_id) for each in self.hs.appservices)


@defect("IDENT-11")
class InvitesToNewRoomsAreTheSenders(Rooms):
    """In a room that a ghost creates the invites come from the sender user."""

    def invite_first(self, room: Room, creator: str, invited: list[str]) -> None:
        owner = next((each for each in self.hs.appservices if self.hs.namespaces.is_own_user(each, creator)), None)
        if owner is None:
            super().invite_first(room, creator, invited)
            return
        for user_id in invited:
            sender = self.hs.user_id(owner.sender_localpart)
            self.append(room, sender, "m.room.member", {"membership": "invite"}, user_id)


@defect("IDENT-12")
class UnbansAreTheCreators(Rooms):
    """An unban by a ghost comes from the creator of the room."""

    def unban(self, call: Call, room_id: str) -> JsonObject:
        if call.requester.appservice is not None:
            call.requester = replace(call.requester, user_id=self.room(room_id).creators[0])
        return super().unban(call, room_id)


@defect("IDENT-12")
class MembershipsSetAsStateAreTheCreators(Rooms):
    """The membership of somebody else that a ghost sets by PUT /state comes from the creator of the room."""

    def _membership_as_state(self, room: Room, sender: str, target: str, content: JsonObject, ts: int | None) -> Event:
        foreign = sender != target and _is_ghost(self, sender)
        return super()._membership_as_state(room, room.creators[0] if foreign else sender, target, content, ts)


@defect("IDENT-13")
class HistoryIsReadAsTheSender(Rooms):
    """What /messages shows a ghost depends on whether the sender user is in the room."""

    def messages(self, call: Call, room_id: str) -> JsonObject:
        return super().messages(_as_sender(self, call), room_id)


@defect("IDENT-13")
class SingleEventsAreReadAsTheSender(Rooms):
    """Which single events a ghost may read depends on whether the sender user is in the room."""

    def event(self, call: Call, room_id: str, event_id: str) -> JsonObject:
        return super().event(_as_sender(self, call), room_id, event_id)


@defect("IDENT-13")
class JoinedRoomsAreTheSenders(Rooms):
    """/joined_rooms as a ghost lists the rooms of the sender user."""

    def joined_rooms(self, call: Call) -> JsonObject:
        return super().joined_rooms(_as_sender(self, call))


@defect("IDENT-13")
class MessagesToDevicesAreTheSenders(Sync):
    """What a ghost sends to devices comes from the sender user."""

    def send_to_device(self, call: Call, kind: str, txn_id: str) -> JsonObject:
        return super().send_to_device(_as_sender(self, call), kind, txn_id)


@defect("IDENT-14")
class AvatarsOfGhostsAreForgotten(Profiles):
    """A new avatar of a ghost is answered with 200 and forgotten."""

    def set_profile(self, call: Call, user_id: str, key: str) -> JsonObject:
        if key == "avatar_url" and _is_ghost(self, user_id):
            return {}
        return super().set_profile(call, user_id, key)


@defect("IDENT-14")
class ProfilesOfOpenGhostsCannotBeChanged(Profiles):
    """The profile of a ghost outside the exclusive namespaces cannot be changed."""

    def check_own(self, call: Call, user_id: str) -> None:
        super().check_own(call, user_id)
        appservice, namespaces = call.requester.appservice, self.hs.namespaces
        profile = "/profile/" in call.path and appservice is not None
        if profile and _is_ghost(self, user_id) and not namespaces.claimed("users", user_id):
            raise forbidden("that name is nobody's alone")


@defect("IDENT-14")
class NewNamesOfGhostsAreNotTold(Rooms):
    """The rooms of a ghost are not told of its new name."""

    def announce_profile(self, user_id: str) -> None:
        if not _is_ghost(self, user_id):
            super().announce_profile(user_id)


@defect("IDENT-16")
class RegistrationsNeedTheHeader(Accounts):
    """For registrations and logins the as_token counts in the header only."""

    def appservice_of(self, call: Call) -> Registration:
        if "Authorization" not in call.request.headers:
            raise MatrixError(401, "M_MISSING_TOKEN", "an as_token is needed in the header")
        return super().appservice_of(call)


def _is_senders(policy: Policy, call: Call) -> bool:
    """Whether an appservice calls as its sender user."""
    return call.requester.appservice is not None and call.requester.user_id == _sender(policy, call)


@defect("IDENT-19")
class SendersHaveNoProfile(Profiles):
    """The profile of a sender user, whom nobody has registered, cannot be set."""

    def set_profile(self, call: Call, user_id: str, key: str) -> JsonObject:
        if _is_senders(self, call):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such profile")
        return super().set_profile(call, user_id, key)


@defect("IDENT-19")
class SendersCannotCreateRooms(Rooms):
    """A sender user, whom nobody has registered, cannot create rooms."""

    def create(self, call: Call) -> JsonObject:
        if _is_senders(self, call):
            raise forbidden("nobody has registered that user")
        return super().create(call)


@defect("IDENT-19")
class SendersCannotBan(Rooms):
    """A sender user, whom nobody has registered, cannot ban."""

    def ban(self, call: Call, room_id: str) -> JsonObject:
        if _is_senders(self, call):
            raise forbidden("nobody has registered that user")
        return super().ban(call, room_id)


@defect("IDENT-20")
class TransactionIdsAreOfTheGhost(ClientTransactions):
    """A transaction ID that a ghost has used in one room is a repetition in another."""

    def _key(self, call: Call, txn_id: str) -> str:
        if call.requester.appservice is None:
            return super()._key(call, txn_id)
        return f"{self.scope(call.requester)} {txn_id}"


@defect("IDENT-20")
class TransactionIdsAreOfTheRoom(ClientTransactions):
    """A transaction ID that a ghost has used for one type of event is a repetition for another."""

    def _key(self, call: Call, txn_id: str) -> str:
        if call.requester.appservice is None or "/send/" not in call.path:
            return super()._key(call, txn_id)
        return f"{self.scope(call.requester)} {call.path.partition('/send/')[0]} {txn_id}"


@defect("IDENT-02")
class GhostsThatSpeakAtOnceAreMixedUp(Rooms):
    """Who acts is kept for the whole appservice: of two messages at the same time both come from one ghost."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._acting: dict[str, Requester] = {}

    @endpoint("PUT", "/rooms/<room_id>/send/<kind>/<txn_id>", waits=True)
    def send(self, call: Call, room_id: str, kind: str, txn_id: str) -> JsonObject:
        appservice = call.requester.appservice
        if appservice is not None:
            self._acting[appservice.id] = call.requester
            time.sleep(0.02)
            call.requester = self._acting[appservice.id]
        with self.hs.lock:
            return super().send(call, room_id, kind, txn_id)


@defect("IDENT-04")
class OpenPhantomsCanBeActedAs(Identity):
    """An appservice may act as an unregistered user of a namespace that is not exclusive."""

    def check_user(self, appservice: Registration, user_id: str) -> None:
        claimed = self.hs.namespaces.claimed("users", user_id)
        if claimed or not self.may_be(appservice, user_id):
            super().check_user(appservice, user_id)


@defect("IDENT-05")
class GhostsOfSecondEntriesAreCommonProperty(_Lenient):
    """An appservice may act as a ghost of another's that is covered by a later entry than the first."""

    def allows(self, appservice: Registration, user_id: str) -> bool:
        lists = [self.hs.namespaces.entries(each, "users") for each in self.hs.appservices]
        return any(
            entry.exclusive and self.hs.namespaces.matches(entry, user_id) for each in lists for entry in each[1:]
        )


@defect("IDENT-12", also=("INTEREST-18",))
class KnocksAreTheSenders(Rooms):
    """POST /knock does not look at `user_id`: the sender user knocks."""

    @endpoint("POST", "/knock/<room_id>")
    def knock(self, call: Call, room_id: str) -> JsonObject:
        appservice, user_id = call.requester.appservice, call.requester.user_id
        if appservice is not None:
            user_id = self.hs.user_id(appservice.sender_localpart)
        self.set_membership(self.room(room_id), user_id, user_id, "knock")
        return {"room_id": room_id}


@defect("IDENT-19")
class SendersHaveNoAccountData(Profiles):
    """There is no account data of the sender user, which nobody has registered."""

    @endpoint("PUT", "/user/<user_id>/account_data/<kind>")
    @endpoint("PUT", "/user/<user_id>/rooms/<room_id>/account_data/<kind>")
    def set_account_data(self, call: Call, user_id: str, kind: str, room_id: str = "") -> JsonObject:
        if user_id == _sender(self, call):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such user")
        return super().set_account_data(call, user_id, kind, room_id)


@defect("IDENT-17", also=("AUTH-10", "IDENT-01"))
class TokensAreCaseInsensitive(Identity):
    """Capitals and small letters are the same in an `as_token`."""

    def appservice(self, token: str) -> Registration | None:
        return next((each for each in self.hs.appservices if each.as_token.lower() == token.lower()), None)
