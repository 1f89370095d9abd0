// Every error raised on purpose, in one tree, by the names that the Python package has.

export class PsyneMeshError extends Error {
  constructor(message: string) {
    super(message);
    this.name = new.target.name;
  }
}

/** The caller's doing: nothing was sent. */
export class LocalError extends PsyneMeshError {}
export class InvalidConfig extends LocalError {}
export class UnserialisableMessage extends LocalError {}
export class MessageTooLarge extends LocalError {}
export class ClosedError extends LocalError {}
export class EventBacklog extends LocalError {}
/** This page cannot make peer connections; `message` says what to do. */
export class WebRtcMissing extends LocalError {}

/** Others' doing, or the network's. */
export class RemoteError extends PsyneMeshError {}
/** The only error that leaves a parser of outside bytes. */
export class ProtocolError extends RemoteError {}
export class VersionMismatch extends RemoteError {}
export class PeerGone extends RemoteError {}
/** No link could be made. `phase`: "signaling", "ice", "dtls" or "channels". */
export class ConnectFailed extends RemoteError {
  readonly phase: string;
  constructor(phase: string, message: string) {
    super(message);
    this.phase = phase;
  }
}
export class SignalingError extends RemoteError {}
export class SignalingUnreachable extends SignalingError {}
export class SignalingLost extends SignalingError {}
export class RoomError extends RemoteError {}
export class RoomFull extends RoomError {}
export class RoomNotFound extends RoomError {}
export class RoomExists extends RoomError {}
export class RoomMismatch extends RoomError {}
export class ManifestRefused extends RoomError {}
export class WrongPassword extends RoomError {}
export class NotInvited extends RoomError {}
export class InviteExpired extends NotInvited {}
export class UnknownCode extends RoomError {}
/** The room plays another version of the game. */
export class AppVersionMismatch extends RoomError {}
