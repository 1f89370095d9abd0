// What a game sees: rooms, players, channels, events. Types only; `index.ts` exports them with what makes them.

import type { ConnectFailed, RemoteError } from "./errors.ts";
import type { Identity } from "./identity.ts";
import type { Input, MessageType } from "./schema.ts";

/** 32 lower-case hex digits: a hash of the player's public key. */
export type PeerId = string;

/** How our own messages travel; each sender chooses for itself. `retransmits(n)` and `ttl(ms)` are unordered. */
export type DeliveryMode =
  | "reliable" | "reliable_unordered" | "unreliable_ordered" | "unreliable" | `retransmits(${number})` | `ttl(${number})`;

/** How packets travel to a player. kind: "host" and "srflx"/"prflx" are direct, "relay" goes through TURN. */
export interface Path {
  readonly kind: "host" | "srflx" | "prflx" | "relay";
  readonly protocol: string;
  readonly rttMs: number | null;
}

/** Another player, as plain facts that are always up to date. */
export interface Peer {
  readonly id: PeerId;
  /** The first 8 digits of the id, for people. */
  readonly short: string;
  /** The name that the player chose: a name, never a proof. */
  readonly name: string;
  readonly region: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Channels to the player are open. */
  readonly connected: boolean;
  /** No link could be made; what we send goes through others, at most 20 unreliable messages a second. */
  readonly relayed: boolean;
  readonly suspected: boolean;
  /** Why the player is away though it is here; null: it is not. */
  readonly away: string | null;
  /** Null while there is no link, or before the browser told. */
  readonly path: Path | null;
  readonly rttMs: number | null;
  /** The number of the player's seat; null while it has none. */
  readonly seat: number | null;
  /** What was sent to the player and has not left yet, in bytes, on all channels. */
  readonly waitingBytes: number;
}

/** Ourselves, as far as we are shown like the others. */
export interface Player {
  readonly id: PeerId;
  readonly name: string;
}

export type LeaveReason = "left" | "timeout" | "kicked" | "capacity" | "superseded" | "two-faced";

export type RoomEvent =
  | { readonly type: "peerDiscovered"; readonly peer: Peer }
  | { readonly type: "peerConnected"; readonly peer: Peer }
  | { readonly type: "peerUnreachable"; readonly peer: Peer; readonly error: ConnectFailed | RemoteError }
  | { readonly type: "peerSuspected"; readonly peer: Peer }
  | { readonly type: "peerResumed"; readonly peer: Peer }
  | { readonly type: "peerChanged"; readonly peer: Peer }
  | { readonly type: "peerAway"; readonly peer: Peer; readonly reason: string }
  | { readonly type: "peerBack"; readonly peer: Peer }
  | { readonly type: "peerLeft"; readonly peer: Peer; readonly reason: LeaveReason }
  | { readonly type: "evicted"; readonly reason: "superseded" | "kicked" | "capacity" }
  | { readonly type: "seatsChanged"; readonly seats: readonly (PeerId | null)[]; readonly own: number | null }
  | {
      readonly type: "partitionSuspected";
      readonly lost: readonly PeerId[];
      readonly remaining: readonly PeerId[];
      readonly majority: boolean;
    }
  | { readonly type: "partitionHealed"; readonly returned: readonly PeerId[] }
  | { readonly type: "signalingDown"; readonly reason: string }
  | { readonly type: "signalingUp" }
  | { readonly type: "tamperingDetected"; readonly server: string; readonly peer: PeerId; readonly reason: string }
  | { readonly type: "twoFaced"; readonly player: PeerId }
  | { readonly type: "messageRefused"; readonly peer: Peer; readonly channel: string; readonly reason: string }
  | { readonly type: "messagesLost"; readonly peer: Peer; readonly channel: string | null; readonly count: number }
  | { readonly type: "messagesUndelivered"; readonly peer: Peer; readonly channel: string | null; readonly count: number };

export type EventOf<K extends RoomEvent["type"]> = Extract<RoomEvent, { type: K }>;

/** Everybody, one player, or some. */
export type To = Peer | PeerId | Iterable<Peer | PeerId> | null | undefined;

/** What became of one message: how many it was handed to the network for, and why not for the others. */
export interface SendReport {
  readonly sent: number;
  readonly skipped: ReadonlyMap<PeerId, "not connected" | "congested" | "too large" | "overflow">;
  /** Among the sent: to these a link is being made, and a reliable message waits for it. */
  readonly waiting: readonly PeerId[];
}

export interface ChannelStats {
  readonly sent: number;
  readonly skipped: number;
  readonly received: number;
  readonly dropped: number;
  readonly refused: number;
}

/**
 * A broadcast channel: `for await (const [sender, message] of channel)`, or `channel.poll()` once a frame, or
 * `channel.onMessage(...)`; not two of them at once.
 */
export interface Channel<T, I = T> extends AsyncIterable<[Peer, T]> {
  readonly name: string;
  readonly mode: DeliveryMode;
  readonly stats: ChannelStats;
  /** Messages that have come and wait to be read. */
  readonly length: number;
  /** Never waits. Throws `UnserialisableMessage`, `MessageTooLarge`, `ClosedError`; to one player alone `PeerGone`. */
  send(message: I, to?: To): SendReport;
  /** What has come since the last time, in order; never waits. */
  poll(): [Peer, T][];
  /** Called for each message as it comes, with those that wait first. Returns what takes it back. */
  onMessage(handler: (sender: Peer, message: T) => void): () => void;
}

export interface ChannelOptions {
  /** "reliable" if left out. */
  mode?: DeliveryMode;
  /** Messages that wait here to be read before the oldest is dropped (unreliable modes only); 1,024 if left out. */
  inboxMax?: number;
}

type Received<S> = S extends MessageType<infer T, any> ? T : never;

/**
 * Made by `joinGameRoom`. Handlers may be added at any time: a late one is first told of the players already there.
 * Each `on...` returns a function that takes the handler back.
 */
export interface Room {
  readonly name: string;
  readonly me: PeerId;
  readonly player: Player;
  readonly maxPlayers: number;
  /** By which friends enter this very room, as `K7QM-3FHT`; "" if it has none. */
  readonly code: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** The other players by id, in the order in which they were discovered. */
  readonly peers: ReadonlyMap<PeerId, Peer>;
  /** Those to whom channels are open. */
  readonly connected: readonly Peer[];
  readonly seats: readonly (PeerId | null)[];
  /** The number of our own seat; null while we have none. */
  readonly seat: number | null;
  readonly closed: boolean;
  /** Aborted when the room has ended for us, with the reason. */
  readonly ended: AbortSignal;

  /** With no types it carries `Uint8Array` and `string`; with several, make messages by `Type.make({...})`. */
  channel(name: string, options?: ChannelOptions): Channel<Uint8Array | string>;
  channel<T extends object, D extends keyof T>(
    name: string, type: MessageType<T, D>, options?: ChannelOptions,
  ): Channel<T, Input<T, D>>;
  channel<S extends MessageType<any, any>>(name: string, types: readonly S[], options?: ChannelOptions): Channel<Received<S>>;

  on<K extends RoomEvent["type"]>(type: K, handler: (event: EventOf<K>) => void): () => void;
  onPeerDiscovered(handler: (peer: Peer) => void): () => void;
  onPeerConnected(handler: (peer: Peer) => void): () => void;
  onPeerLeft(handler: (peer: Peer, reason: LeaveReason) => void): () => void;
  onPeerSuspected(handler: (peer: Peer) => void): () => void;
  onPeerResumed(handler: (peer: Peer) => void): () => void;
  onPeerUnreachable(handler: (peer: Peer, error: Error) => void): () => void;
  onEvicted(handler: (reason: string) => void): () => void;
  /** Every event in order, for `for await`; ends with the room. */
  events(): AsyncIterableIterator<RoomEvent>;
  /** For game loops: what has happened since the last time, in order; the first call tells of who is here. Never waits. */
  poll(): RoomEvent[];

  /** Until so many other players (all who are known, without a number) can be reached. */
  waitConnected(players?: number, signal?: AbortSignal): Promise<void>;
  updatePlayer(changes: { name?: string; metadata?: Record<string, string> }): void;
  /** The others see `away` with that reason; null: we are back. */
  pause(reason: string | null): void;
  /** Say goodbye; the others see it at once. */
  leave(): Promise<void>;
}

/** What a room is made of beside the page's own objects; for tests and for Node.js. */
export interface Platform {
  RTCPeerConnection: new (configuration?: RTCConfiguration) => RTCPeerConnection;
  WebSocket: new (url: string) => WebSocket;
}

export interface PlayerOptions {
  /** URL of a signaling server, or of several that share their rooms; where the page came from if left out. */
  signaling?: string | readonly string[];
  /** What others see; the beginning of the id if left out. */
  playerName?: string;
  /** Who we are; a new player each time if left out. `Identity.load()` keeps one in the browser. */
  identity?: Identity;
  /** About 400 bytes of text about us. */
  metadata?: Record<string, string>;
  /** Only players of the same game and version meet. */
  appId?: string;
  appVersion?: string;
  /** Aborting it ends the way in, or leaves the room. */
  signal?: AbortSignal;
  iceServers?: RTCIceServer[];
  platform?: Partial<Platform>;
}

export interface JoinOptions extends PlayerOptions {
  /** 2 to 16 as full member, up to 1024 through its links; 16 if left out. Its creator's value holds. */
  maxPlayers?: number;
  region?: string;
  skillRange?: readonly [number, number];
  roomMetadata?: Record<string, string | number | boolean | null>;
  /** Joins or creates if left out; false insists on a room that exists, true on a new one. */
  create?: boolean;
}
