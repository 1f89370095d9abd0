"""Between the words on the wire (`messages`) and the values that users and the registry hold (`events`)."""

from __future__ import annotations

from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.events import Joined, PeerInfo, RoomInfo, RoomListing, room_key


def member_of(info: PeerInfo) -> messages.Member:
    return messages.Member(info.peer_id, info.record, info.index)


def room_of(info: RoomInfo) -> messages.Room:
    return messages.Room(
        room=info.room,
        name=info.name,
        app_id=info.app_id,
        region=info.region,
        players=info.players,
        max_players=info.max_players,
        skill_range=info.skill_range,
        state="active" if info.state == "active" else "waiting",
        metadata=dict(info.metadata),  # type: ignore[arg-type]  # scalars: checked when the join was decoded
        instance=info.instance,
        manifest=info.manifest,
    )


def joined_message(joined: Joined, ref: int) -> messages.JoinedRoom:
    return messages.JoinedRoom(
        ref=ref,
        info=room_of(joined.info),
        peers=[member_of(peer) for peer in joined.peers],
        created=joined.created,
        index=joined.index,
    )


def list_message(listing: RoomListing, ref: int) -> messages.RoomList:
    return messages.RoomList(ref=ref, rooms=[room_of(info) for info in listing.rooms], truncated=listing.truncated)


def peer_info(member: messages.Member) -> PeerInfo:
    return PeerInfo(PeerId(member.peer_id), member.record, member.index)


def room_info_untrusted(room: messages.Room) -> RoomInfo:
    if room.room != room_key(room.name, app_id=room.app_id, region=room.region, instance=room.instance):
        raise ProtocolError(f"the room key {room.room!r} does not fit the room's name")
    try:
        messages.check_properties(room.skill_range, room.metadata)  # we ask for them again when we come back
    except ValueError as error:
        raise ProtocolError(f"no room is like that: {error}") from error
    return RoomInfo(
        room.room,
        room.name,
        room.app_id,
        room.region,
        room.players,
        room.max_players,
        room.skill_range,
        room.state,
        room.metadata,
        room.instance,
        room.manifest,
    )


def joined_untrusted(message: messages.JoinedRoom, me: PeerId) -> Joined:
    peers = {member.peer_id: peer_info(member) for member in message.peers if member.peer_id != me}
    return Joined(room_info_untrusted(message.info), tuple(peers.values()), message.created, message.index)


def listing_untrusted(message: messages.RoomList) -> RoomListing:
    return RoomListing(tuple(room_info_untrusted(room) for room in message.rooms), message.truncated)
