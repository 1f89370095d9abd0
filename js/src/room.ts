// A room: the players in it, what happens to them, and the channels between them.

import type {
  Channel, ChannelOptions, ChannelStats, DeliveryMode, EventOf, LeaveReason, Path, Peer, PeerId, Player, Room, RoomEvent, SendReport, To,
} from "./api.ts";
import { announcement, differenceUntrusted, PROTOCOL_CHARS_MAX } from "./announced.ts";
import { utf8 } from "./bytes.ts";
import { carried, carriedUntrusted, lostUntrusted, lostWord } from "./carried.ts";
import { ClosedError, type ConnectFailed, EventBacklog, InvalidConfig, MessageTooLarge, PeerGone, ProtocolError } from "./errors.ts";
import { BROADCAST_MAX_BYTES, type NodeEvent } from "./gossip/node.ts";
import type { MemberRecord } from "./gossip/wire.ts";
import { forgetOldest, TokenBucket } from "./limits.ts";
import { type ChannelInit, sizeOf } from "./link.ts";
import { Losses } from "./losses.ts";
import type { Mesh, Sink } from "./mesh.ts";
import type { Counts } from "./owed.ts";
import { encodeProfile, type Profile, profileOf } from "./placement.ts";
import { type Codec, codecFor, type MessageType, type Payload } from "./schema.ts";
import { checkedName, type RoomInfo, shownCode, shownName } from "./signaling/messages.ts";
import { CARRIED_LIFE_S, Waiting } from "./waiting.ts";

const CHANNELS_MAX = 256, NAME_BYTES_MAX = 128, INBOX_MAX = 1024, BACKLOG_MAX = 10_000;
const UNREAD_BYTES_MAX = 16 * 2 ** 20; // of one author on one reliable channel: no browser lets us shrink its window
const OVERHEAD_BYTES = 64; // of a message that waits
const CARRIED_EVERY_S = 0.05;
// A neighbour passes on 64 signals of ours at once, and 32 a second; it drops what is beyond. Reliable ones wait, and come first.
const CARRIED_BURST = 48, CARRIED_PER_S = 28, FOR_RELIABLE = 16;
const EARLY_MAX = 1024, EARLY_BYTES_MAX = 4 * 2 ** 20, EARLY_LIFE_S = 0.5, UNKNOWN_LIFE_S = 5;
const SILENT_S = 50, SILENT_MAX = 64, TOGETHER_S = 1, REFUSED_TOLD_MAX = 1024, ANNOUNCED_MAX = 64;

type Outcome = "not connected" | "congested" | "too large" | "overflow";

class PeerState implements Peer {
  readonly id: PeerId;
  readonly stay: bigint;
  name: string;
  profile: Profile;
  connected = false;
  dialFailed = false;
  suspected = false;
  away: string | null = null;
  carriedNext = 0; // when others may carry the next unreliable message to it
  wasLinked = false; // so it can be linked again
  readonly #mesh: Mesh;

  constructor(mesh: Mesh, record: MemberRecord) {
    this.#mesh = mesh;
    this.id = record.peer;
    this.stay = record.joinedAt;
    this.name = shownName(record.name) || this.short;
    this.profile = profileOf(record.metadata);
  }

  get short(): string {
    return this.id.slice(0, 8);
  }
  get region(): string {
    return this.profile.region;
  }
  get metadata(): Readonly<Record<string, string>> {
    return this.profile.metadata;
  }
  get relayed(): boolean {
    if (this.connected || this.#mesh.closed) return false;
    return (this.#mesh.node.isLarge || this.dialFailed) && this.#mesh.hasLinks;
  }
  get path(): Path | null {
    return this.connected ? (this.#mesh.link(this.id)?.path ?? null) : null;
  }
  get rttMs(): number | null {
    const rtt = this.#mesh.node.rtt(this.id);
    return rtt === null ? null : rtt * 1000;
  }
  get seat(): number | null {
    const seat = this.#mesh.node.seats.indexOf(this.id);
    return seat < 0 ? null : seat;
  }
  get waitingBytes(): number {
    return this.#mesh.link(this.id)?.waiting ?? 0;
  }
}

/** `InvalidConfig` shows all spellings. */
export function initOf(mode: DeliveryMode): ChannelInit {
  const partial = /^(retransmits|ttl)\((\d{1,5})\)$/.exec(mode);
  if (partial !== null && Number(partial[2]) < 65_536)
    return partial[1] === "ttl"
      ? { ordered: false, maxPacketLifeTime: Number(partial[2]) }
      : { ordered: false, maxRetransmits: Number(partial[2]) };
  switch (mode) {
    case "reliable":
      return { ordered: true };
    case "reliable_unordered":
      return { ordered: false };
    case "unreliable_ordered":
      return { ordered: true, maxRetransmits: 0 };
    case "unreliable":
      return { ordered: false, maxRetransmits: 0 };
    default:
      throw new InvalidConfig(
        `${mode} is no delivery mode; use reliable, reliable_unordered, unreliable_ordered, unreliable, retransmits(n) or ttl(ms)`,
      );
  }
}

class RoomChannel implements Channel<any> {
  readonly name: string;
  readonly mode: DeliveryMode;
  readonly codec: Codec;
  readonly inboxMax: number;
  readonly reliable: boolean;
  readonly counts = { sent: 0, skipped: 0, received: 0, dropped: 0, refused: 0 };
  readonly init: ChannelInit;
  readonly #room: MeshRoom;
  #inbox: { readonly peer: PeerState; readonly payload: Payload; readonly size: number }[] = [];
  #head = 0; // of what was read already
  readonly #unread = new Map<PeerId, number>();
  #handler: ((sender: Peer, message: any) => void) | null = null;
  readonly #readers: (() => void)[] = [];

  constructor(room: MeshRoom, name: string, codec: Codec, mode: DeliveryMode, inboxMax: number) {
    this.#room = room;
    this.name = name;
    this.codec = codec;
    this.mode = mode;
    this.inboxMax = inboxMax;
    const protocol = announcement(codec.types);
    this.init = { ...initOf(mode), ...(protocol === "" ? {} : { protocol }) };
    this.reliable = this.init.maxRetransmits === undefined && this.init.maxPacketLifeTime === undefined;
  }

  get stats(): ChannelStats {
    return { ...this.counts };
  }

  get length(): number {
    return this.#inbox.length - this.#head;
  }

  send(message: unknown, to?: To): SendReport {
    return this.#room.hand(this, this.codec.encode(message), to);
  }

  poll(): [Peer, any][] {
    const messages: [Peer, any][] = [];
    for (let next = this.#next(); next !== null; next = this.#next()) messages.push(next);
    return messages;
  }

  onMessage(handler: (sender: Peer, message: any) => void): () => void {
    if (this.#handler !== null) throw new InvalidConfig(`channel ${this.name} has a handler already`);
    this.#handler = handler;
    for (const [peer, message] of this.poll()) handler(peer, message);
    return () => {
      if (this.#handler === handler) this.#handler = null;
    };
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<[Peer, any]> {
    for (;;) {
      const next = this.#next();
      if (next !== null) yield next;
      else if (this.#room.closed) return;
      else await new Promise<void>((resolve) => this.#readers.push(resolve));
    }
  }

  /** A message came; what has no room goes, the oldest of an unreliable channel, the newest of a reliable one. */
  deliver(peer: PeerState, payload: Payload): void {
    if (this.#handler !== null) {
      const message = this.#decoded(peer, payload);
      if (message !== undefined) this.#handler(peer, message.value);
      return;
    }
    const size = sizeOf(payload) + OVERHEAD_BYTES;
    if (this.reliable) {
      const unread = (this.#unread.get(peer.id) ?? 0) + size;
      if (unread > UNREAD_BYTES_MAX) {
        this.counts.dropped++;
        this.#room.dropped(peer, this.name, 1);
        return;
      }
      this.#unread.set(peer.id, unread);
    } else if (this.length >= this.inboxMax) {
      this.#head++;
      this.counts.dropped++;
      this.#compact();
    }
    this.#inbox.push({ peer, payload, size });
    this.wakeReaders();
  }

  wakeReaders(): void {
    for (const wake of this.#readers.splice(0)) wake();
  }

  #next(): [Peer, unknown] | null {
    while (this.#head < this.#inbox.length) {
      const { peer, payload, size } = this.#inbox[this.#head++]!;
      if (this.reliable) {
        const left = (this.#unread.get(peer.id) ?? 0) - size;
        if (left > 0) this.#unread.set(peer.id, left);
        else this.#unread.delete(peer.id);
      }
      this.#compact();
      const message = this.#decoded(peer, payload);
      if (message !== undefined) return [peer, message.value];
    }
    return null;
  }

  #compact(): void {
    if (this.#head < 1024 && this.#head < this.#inbox.length) return;
    this.#inbox = this.#inbox.slice(this.#head);
    this.#head = 0;
  }

  /** Undefined for what is no message of this channel: it is counted, and told once for each peer. */
  #decoded(peer: PeerState, payload: Payload): { readonly value: unknown } | undefined {
    try {
      const value = this.codec.decodeUntrusted(payload);
      this.counts.received++;
      return { value };
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.counts.refused++;
      this.#room.refused(peer, this.name, error.message);
      return undefined;
    }
  }
}

interface Early {
  readonly channel: string;
  readonly payload: Payload;
  readonly at: number;
  readonly reliable: boolean;
}

export class MeshRoom implements Room, Sink {
  readonly me: PeerId;
  readonly player: Player;
  readonly name: string;
  readonly maxPlayers: number;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly code: string;
  readonly #mesh: Mesh;
  readonly #peers = new Map<PeerId, PeerState>();
  readonly #silent = new Map<PeerId, { readonly peer: PeerState; readonly until: number }>();
  readonly #channels = new Map<string, RoomChannel>();
  readonly #announced = new Map<PeerId, Map<string, string>>();
  readonly #early = new Map<PeerId, Early[]>();
  #earlyCount = 0;
  #earlyBytes = 0;
  readonly #waiting = new Waiting<{ readonly channel: RoomChannel; readonly payload: Payload }>();
  readonly #handlers = new Map<RoomEvent["type"], Set<(event: any) => void>>();
  readonly #iterators = new Set<{ events: RoomEvent[]; wake: (() => void) | null; overrun: boolean }>();
  #polled: RoomEvent[] | null = null; // null until the first poll
  readonly #changed = new Set<() => void>();
  readonly #carriers: TokenBucket;
  readonly #refusedTold = new Set<string>();
  readonly #losses = new Losses<PeerState>(
    (peer, channel, count, ours) => this.#publish({ type: ours ? "messagesUndelivered" : "messagesLost", peer, channel, count }),
    (author, count) => this.#mesh.carry(author, lostWord(count)),
  );
  readonly #dropped = new Map<string, number>(); // of a player and channel, whose author hears of it in a moment
  readonly #ended = new AbortController();
  #end = "was left";

  constructor(mesh: Mesh, info: RoomInfo, playerName: string) {
    this.#mesh = mesh;
    this.me = mesh.me;
    this.player = { id: mesh.me, name: shownName(playerName) || mesh.me.slice(0, 8) };
    this.name = info.name;
    this.maxPlayers = info.max_players;
    this.metadata = info.metadata;
    this.code = shownCode(info.manifest.code);
    this.#carriers = new TokenBucket(CARRIED_BURST, CARRIED_PER_S, mesh.now());
  }

  // ------------------------------------------------------------------------------------------------------------ views

  get peers(): ReadonlyMap<PeerId, Peer> {
    return this.#peers;
  }
  get connected(): readonly Peer[] {
    return [...this.#peers.values()].filter((peer) => peer.connected);
  }
  get seats(): readonly (PeerId | null)[] {
    return this.#mesh.node.seats;
  }
  get seat(): number | null {
    return this.#mesh.node.ownSeat;
  }
  get closed(): boolean {
    return this.#ended.signal.aborted;
  }
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  // --------------------------------------------------------------------------------------------------------- channels

  channel(name: string, types?: unknown, options?: ChannelOptions): any {
    this.#checkOpen();
    if (types !== undefined && !Array.isArray(types) && !isType(types)) {
      options = types as ChannelOptions;
      types = undefined;
    }
    const bytes = utf8(String(name)).length;
    if (typeof name !== "string" || bytes < 1 || bytes > NAME_BYTES_MAX)
      throw new InvalidConfig(`a channel name has 1 to ${NAME_BYTES_MAX} bytes of UTF-8`);
    const kinds = types === undefined ? [] : ((Array.isArray(types) ? types : [types]) as MessageType<any, any>[]);
    const known = this.#channels.get(name), { mode, inboxMax } = options ?? {};
    if (known !== undefined) {
      const same = kinds.length === 0 || (kinds.length === known.codec.types.length && kinds.every((kind, at) => kind === known.codec.types[at]));
      if (!same || (mode !== undefined && mode !== known.mode) || (inboxMax !== undefined && inboxMax !== known.inboxMax))
        throw new InvalidConfig(`channel ${name} exists with other types or another mode`);
      return known;
    }
    if (this.#channels.size >= CHANNELS_MAX) throw new InvalidConfig(`a room has at most ${CHANNELS_MAX} channels`);
    if (inboxMax !== undefined && !(Number.isInteger(inboxMax) && inboxMax >= 1)) throw new InvalidConfig("inboxMax is a number of messages, at least 1");
    const channel = new RoomChannel(this, name, codecFor(kinds), mode ?? "reliable", inboxMax ?? INBOX_MAX);
    this.#channels.set(name, channel);
    for (const id of this.#announced.keys()) this.#compareTypes(id, name);
    for (const peer of this.#peers.values()) this.#deliverEarly(peer, channel.reliable ? Number.POSITIVE_INFINITY : EARLY_LIFE_S, name);
    return channel;
  }

  /** One message to everybody or to some, now. */
  hand(channel: RoomChannel, payload: Payload, to: To): SendReport {
    this.#checkOpen();
    const size = sizeOf(payload), max = 262_144;
    if (size > max) throw new MessageTooLarge(`a message of ${size} bytes; ${max} is the most`);
    const alone = typeof to === "string" || (to != null && !(Symbol.iterator in to));
    const targets = to == null ? [...this.#peers.keys()] : alone ? [idOf(to)] : [...new Set([...(to as Iterable<Peer | PeerId>)].map(idOf))];
    const skipped = new Map<PeerId, Outcome>(), waiting: PeerId[] = [];
    if (to == null && this.#mesh.node.isLarge && targets.some((id) => this.#peers.get(id)!.relayed)) {
      const blob = carried(channel.name, payload, channel.reliable);
      if (blob.length > BROADCAST_MAX_BYTES)
        throw new MessageTooLarge(`a message of ${size} bytes; in so large a room ${BROADCAST_MAX_BYTES - (blob.length - size)} is the most`);
      this.#mesh.broadcast(blob);
      if (channel.reliable) for (const id of targets) this.#waiting.noteCarried(id, this.#mesh.now());
    } else {
      if (to == null && channel.reliable) for (const id of this.#silent.keys()) this.#handToSilent(channel, payload, id);
      for (const id of targets) {
        const outcome = this.#handOne(channel, payload, id, to == null);
        if (outcome === "waiting") waiting.push(id);
        else if (outcome !== "sent") skipped.set(id, outcome);
      }
    }
    if (alone && skipped.size > 0) {
      const why = skipped.get(targets[0]!)!;
      if (why === "not connected") throw new PeerGone(`${targets[0]!.slice(0, 8)} is not connected`);
      if (why === "too large") throw new MessageTooLarge(`a message of ${size} bytes is too large for this player`);
    }
    if (channel.reliable) for (const id of skipped.keys()) if (this.#peers.has(id)) this.#mesh.missed(id, channel.name, true);
    channel.counts.sent += targets.length - skipped.size;
    channel.counts.skipped += skipped.size;
    return { sent: targets.length - skipped.size, skipped, waiting };
  }

  #handOne(channel: RoomChannel, payload: Payload, id: PeerId, everybody: boolean): Outcome | "sent" | "waiting" {
    const peer = this.#peers.get(id), size = sizeOf(payload);
    if (peer === undefined) return channel.reliable && this.#silent.has(id) && this.#handToSilent(channel, payload, id) ? "sent" : "not connected";
    let outcome: Outcome | "sent" = "not connected";
    // Behind what waits already, and behind what others still carry.
    const mustWait = channel.reliable && (this.#waiting.has(id) || (this.#mesh.isLinked(id) && this.#waiting.isHeld(id, this.#mesh.now())));
    if (!mustWait) {
      outcome = this.#mesh.send(id, channel.name, channel.init, payload);
      if (outcome === "not connected" && peer.relayed) outcome = this.#through(channel, payload, peer, everybody && !channel.reliable);
    }
    if (outcome === "not connected" && channel.reliable && this.#waiting.put(id, { channel, payload }, size)) {
      this.#mesh.rearm();
      return "waiting";
    }
    return outcome;
  }

  /** Silent, perhaps only for seconds: it waits in the link. Who comes back later is told how much it missed. */
  #handToSilent(channel: RoomChannel, payload: Payload, id: PeerId): boolean {
    const hopedFor = this.#mesh.now() < this.#silent.get(id)!.until || this.#mesh.isLinked(id); // the room hears it soon
    if (hopedFor && this.#mesh.send(id, channel.name, channel.init, payload, true) === "sent") return true;
    this.#mesh.missed(id, channel.name, false);
    return false;
  }

  #through(channel: RoomChannel, payload: Payload, peer: PeerState, thinned: boolean): Outcome | "sent" {
    const now = this.#mesh.now(), { reliable } = channel;
    if (thinned && now < peer.carriedNext) return "congested";
    if (!reliable && this.#carriers.left(now) < FOR_RELIABLE) return "congested";
    // What others carry may be lost, and may overtake. Whom we could reach once we shall reach again, and that is waited for.
    if (reliable && peer.wasLinked && !this.#mesh.node.isLarge) return "not connected";
    if (reliable && this.#carriers.left(now) < 1) {
      this.#waiting.noteCarried(peer.id, now); // and again when that has come
      return "not connected";
    }
    const outcome = this.#mesh.carry(peer.id, carried(channel.name, payload, channel.reliable));
    if (outcome !== "sent") return outcome;
    this.#carriers.charge(1, now);
    if (thinned) peer.carriedNext = now + CARRIED_EVERY_S;
    if (reliable) this.#waiting.noteCarried(peer.id, now);
    return outcome;
  }

  /** There may be a way: what finds none waits on, with all that is behind it. */
  #sendWaiting(id: PeerId): void {
    const peer = this.#peers.get(id);
    if (peer === undefined || (this.#mesh.isLinked(id) && this.#waiting.isHeld(id, this.#mesh.now()))) return;
    const queue = this.#waiting.take(id);
    queue.forEach(({ channel, payload }, at) => {
      if (this.#waiting.has(id)) return;
      let outcome: Outcome | "sent" = this.#mesh.send(id, channel.name, channel.init, payload);
      if (outcome === "not connected" && peer.relayed) outcome = this.#through(channel, payload, peer, false);
      if (outcome === "not connected") for (const later of queue.slice(at)) this.#waiting.put(id, later, sizeOf(later.payload));
      else if (outcome !== "sent") this.#inVain(peer, channel);
    });
  }

  #inVain(peer: PeerState, channel: RoomChannel): void {
    channel.counts.sent--;
    channel.counts.skipped++;
    this.#mesh.missed(peer.id, channel.name, true);
    this.#noteLoss(peer, channel.name, 1, true);
  }

  // ----------------------------------------------------------------------------------------------------------- events

  on<K extends RoomEvent["type"]>(type: K, handler: (event: EventOf<K>) => void): () => void {
    const handlers = this.#handlers.get(type) ?? new Set();
    this.#handlers.set(type, handlers);
    for (const event of this.#present()) if (event.type === type) handler(event as EventOf<K>);
    handlers.add(handler);
    return () => handlers.delete(handler);
  }
  onPeerDiscovered = (handler: (peer: Peer) => void): (() => void) => this.on("peerDiscovered", ({ peer }) => handler(peer));
  onPeerConnected = (handler: (peer: Peer) => void): (() => void) => this.on("peerConnected", ({ peer }) => handler(peer));
  onPeerLeft = (handler: (peer: Peer, reason: LeaveReason) => void): (() => void) => this.on("peerLeft", (event) => handler(event.peer, event.reason));
  onPeerSuspected = (handler: (peer: Peer) => void): (() => void) => this.on("peerSuspected", ({ peer }) => handler(peer));
  onPeerResumed = (handler: (peer: Peer) => void): (() => void) => this.on("peerResumed", ({ peer }) => handler(peer));
  onPeerUnreachable = (handler: (peer: Peer, error: Error) => void): (() => void) =>
    this.on("peerUnreachable", ({ peer, error }) => handler(peer, error));
  onEvicted = (handler: (reason: string) => void): (() => void) => this.on("evicted", ({ reason }) => handler(reason));

  async *events(): AsyncGenerator<RoomEvent> {
    const iterator = { events: this.#present(), wake: null as (() => void) | null, overrun: false };
    this.#iterators.add(iterator);
    try {
      for (;;) {
        const event = iterator.events.shift();
        if (event !== undefined) yield event;
        else if (iterator.overrun) throw new EventBacklog(`this reader of events fell ${BACKLOG_MAX} behind`);
        else if (this.closed) return;
        else await new Promise<void>((resolve) => (iterator.wake = resolve));
      }
    } finally {
      this.#iterators.delete(iterator);
    }
  }

  poll(): RoomEvent[] {
    const events = this.#polled ?? this.#present();
    this.#polled = [];
    return events;
  }

  async waitConnected(players?: number, signal?: AbortSignal): Promise<void> {
    if (players !== undefined && !(Number.isInteger(players) && players >= 0 && players < this.maxPlayers))
      throw new InvalidConfig(`waitConnected(${players}): a number of other players, of whom this room seats ${this.maxPlayers - 1}`);
    for (;;) {
      this.#checkOpen();
      signal?.throwIfAborted();
      const reached = [...this.#peers.values()].filter((peer) => peer.connected || peer.relayed).length;
      if (reached >= (players ?? this.#peers.size)) return;
      await new Promise<void>((resolve) => {
        this.#changed.add(resolve);
        signal?.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  updatePlayer({ name, metadata }: { name?: string; metadata?: Record<string, string> }): void {
    this.#checkOpen();
    if (name !== undefined) checkedName("a player's name", name, 64, true);
    const region = this.#mesh.info?.region ?? "";
    this.#mesh.update({
      ...(name === undefined ? {} : { name }), ...(metadata === undefined ? {} : { metadata: encodeProfile(region, null, metadata) }),
    });
    if (name !== undefined) (this.player as { name: string }).name = name;
  }

  pause(reason: string | null): void {
    this.#checkOpen();
    if (reason !== null && (reason === "" || utf8(reason).length > 128)) throw new InvalidConfig("a reason is text of 1 to 128 bytes");
    this.#mesh.pause(reason);
  }

  async leave(): Promise<void> {
    if (this.closed) return;
    const until = this.#mesh.now() + 0.5; // what was sent reliably goes first, as far as it leaves quickly
    while (this.#mesh.now() < until && [...this.#peers.values()].some((peer) => peer.waitingBytes > 0))
      await new Promise((resolve) => setTimeout(resolve, 10));
    this.leaveNow();
    await new Promise((resolve) => setTimeout(resolve, 50)); // for the goodbye to leave the page
  }

  /** Without waiting for anything: the page goes. */
  leaveNow(): void {
    if (this.closed) return;
    this.#mesh.leave();
    this.#close("was left");
  }

  // ------------------------------------------------------------------------------------------------- Sink, for the mesh

  onGossip(event: NodeEvent): void {
    switch (event.type) {
      case "discovered":
        this.#discovered(event.record);
        break;
      case "renamed": {
        const peer = this.#peers.get(event.record.peer);
        if (peer === undefined) break;
        peer.name = shownName(event.record.name) || peer.short;
        peer.profile = profileOf(event.record.metadata);
        this.#publish({ type: "peerChanged", peer });
        break;
      }
      case "left":
        this.#left(event.peer, event.reason);
        break;
      case "letGo": // both sides are told the same story
        this.#left(event.record.peer, "timeout");
        this.#discovered(event.record);
        break;
      case "suspected":
      case "resumed": {
        const peer = this.#peers.get(event.peer);
        if (peer === undefined) break;
        peer.suspected = event.type === "suspected";
        this.#publish({ type: peer.suspected ? "peerSuspected" : "peerResumed", peer });
        break;
      }
      case "twoFaced":
        this.#publish({ type: "twoFaced", player: event.peer });
        break;
      case "seats":
        this.#publish({ type: "seatsChanged", seats: event.seats, own: event.own });
        break;
      case "cut":
        this.#publish({ type: "partitionSuspected", lost: event.lost, remaining: event.remaining, majority: event.majority });
        break;
      case "healed":
        this.#publish({ type: "partitionHealed", returned: event.returned });
        break;
      case "evicted":
        this.#publish({ type: "evicted", reason: event.reason });
        if (event.reason === "capacity") break;
        this.#mesh.leave();
        this.#close(event.reason === "superseded" ? "has ended for us: the same identity entered it elsewhere" : "has ended for us: its members expelled us");
        break;
      case "broadcast":
        this.#onCarried(event.origin, event.payload, event.ageS);
        break;
      case "skipped": {
        const peer = this.#playerOf(event.origin);
        if (peer !== null) this.#losses.neverCame(peer, event.count, this.#mesh.now());
        this.#mesh.rearm();
        break;
      }
      case "signal":
        try {
          const opened = this.#mesh.openCarriedUntrusted(event.origin, event.blob), neverCame = lostUntrusted(opened);
          const peer = this.#playerOf(event.origin);
          if (neverCame === null) this.#onCarried(event.origin, opened, 0);
          else if (peer !== null) this.#losses.neverArrived(peer, neverCame, this.#mesh.now());
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
        }
    }
  }

  nextTimeout(): number {
    return Math.min(this.#waiting.nextTimeout(), this.#losses.nextTimeout());
  }

  handleTimeout(now: number): void {
    for (const id of this.#waiting.ready(now)) this.#sendWaiting(id);
    this.#losses.handleTimeout(now);
  }

  onLinkOpen(id: PeerId): void {
    const peer = this.#peers.get(id);
    if (peer !== undefined && !peer.connected) this.#connect(peer);
  }

  onLinkDown(id: PeerId): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    peer.connected = false;
    this.#change();
  }

  onLinkFailed(id: PeerId, error: ConnectFailed): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    peer.dialFailed = true;
    this.#sendWaiting(id); // others may carry it
    this.#publish({ type: "peerUnreachable", peer, error });
    this.#change();
  }

  onMessage(id: PeerId, name: string, data: Payload, reliable: boolean): void {
    const peer = this.#peers.get(id), channel = this.#channels.get(name);
    if (peer !== undefined && channel !== undefined) channel.deliver(peer, data);
    else this.#keep(id, { channel: name, payload: data, at: this.#mesh.now(), reliable });
  }

  /** Another version of the game is told before a message of it came, or once its channel is declared here. */
  onTypes(id: PeerId, name: string, protocol: string): void {
    if (protocol.length > PROTOCOL_CHARS_MAX) return; // nobody announces so much
    const said = this.#announced.get(id) ?? new Map<string, string>();
    if (said.size >= CHANNELS_MAX) return;
    said.set(name, protocol);
    this.#announced.delete(id);
    this.#announced.set(id, said);
    forgetOldest(this.#announced, ANNOUNCED_MAX);
    this.#compareTypes(id, name);
  }

  #compareTypes(id: PeerId, name: string): void {
    const peer = this.#peers.get(id), channel = this.#channels.get(name), protocol = this.#announced.get(id)?.get(name);
    if (peer === undefined || channel === undefined || protocol === undefined) return;
    try {
      const difference = differenceUntrusted(protocol, channel.codec.types);
      if (difference !== null) this.refused(peer, name, difference);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
    }
  }

  onLost(id: PeerId, counts: Counts, ours: boolean): void {
    const peer = this.#playerOf(id);
    if (peer === null) return;
    for (const [name, count] of counts) if (this.#channels.has(name)) this.#noteLoss(peer, name, count, ours);
  }

  onPause(id: PeerId, reason: string | null): void {
    const peer = this.#peers.get(id);
    if (peer === undefined || peer.away === reason) return;
    peer.away = reason === null ? null : shownName(reason);
    this.#publish(reason === null ? { type: "peerBack", peer } : { type: "peerAway", peer, reason: peer.away! });
  }

  onTampering(server: string, peer: PeerId, reason: string): void {
    this.#publish({ type: "tamperingDetected", server, peer, reason });
  }

  onSignaling(down: string | null): void {
    this.#publish(down === null ? { type: "signalingUp" } : { type: "signalingDown", reason: down });
  }

  // ------------------------------------------------------------------------------------------------------ for channels

  /** Its author is told of the first at once, and of further ones together: a flood is not answered word by word. */
  dropped(peer: PeerState, channel: string, count: number): void {
    this.#noteLoss(peer, channel, count, false);
    const key = `${peer.id}/${channel}`, since = this.#dropped.get(key);
    this.#dropped.set(key, (since ?? 0) + count);
    if (since !== undefined) return;
    const tell = (): void => {
      if (this.#dropped.get(key)! > 0) this.#mesh.tellDropped(peer.id, channel, this.#dropped.get(key)!);
    };
    tell();
    this.#dropped.set(key, 0);
    setTimeout(() => {
      tell();
      this.#dropped.delete(key);
    }, TOGETHER_S * 1000);
  }

  refused(peer: PeerState, channel: string, reason: string): void {
    const key = `${peer.id}/${channel}`;
    if (this.#refusedTold.has(key)) return;
    this.#refusedTold.add(key);
    forgetOldest(this.#refusedTold, REFUSED_TOLD_MAX);
    this.#publish({ type: "messageRefused", peer, channel, reason });
  }

  // ---------------------------------------------------------------------------------------------------------- helpers

  #discovered(record: MemberRecord): void {
    const earlier = this.#silent.get(record.peer)?.peer;
    this.#silent.delete(record.peer);
    const peer = new PeerState(this.#mesh, record);
    peer.wasLinked = earlier?.wasLinked ?? false;
    this.#peers.set(record.peer, peer);
    this.#publish({ type: "peerDiscovered", peer });
    for (const name of this.#announced.get(record.peer)?.keys() ?? []) this.#compareTypes(record.peer, name);
    if (this.#mesh.isLinked(record.peer)) this.#connect(peer);
    this.#deliverEarly(peer, earlier?.stay === peer.stay ? Number.POSITIVE_INFINITY : UNKNOWN_LIFE_S);
    this.#change();
  }

  #connect(peer: PeerState): void {
    peer.connected = peer.wasLinked = true;
    peer.dialFailed = false;
    for (const id of this.#waiting.peers) this.#sendWaiting(id); // to this one, and through it to others
    this.#publish({ type: "peerConnected", peer });
    this.#change();
  }

  #left(id: PeerId, reason: LeaveReason): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    this.#peers.delete(id);
    peer.connected = false;
    const isSilent = reason === "timeout";
    for (const { channel, payload } of this.#waiting.take(id))
      if (!isSilent || this.#mesh.send(id, channel.name, channel.init, payload, true) !== "sent") this.#inVain(peer, channel);
    if (isSilent) {
      this.#silent.set(id, { peer, until: this.#mesh.now() + SILENT_S });
      forgetOldest(this.#silent, SILENT_MAX);
    } else this.#forgetEarly(id);
    this.#publish({ type: "peerLeft", peer, reason });
    this.#change();
  }

  #onCarried(origin: PeerId, blob: Uint8Array, ageS: number): void {
    try {
      const { name, payload, reliable } = carriedUntrusted(blob);
      if (reliable || ageS <= CARRIED_LIFE_S) this.onMessage(origin, name, payload, reliable);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error; // its author is no friend
    }
  }

  /** What comes before its channel is declared or its author discovered. The author who has most waiting loses its oldest. */
  #keep(id: PeerId, early: Early): void {
    if (!this.#peers.has(id) && !this.#silent.has(id) && !this.#mesh.isLinked(id)) return;
    const queue = this.#early.get(id) ?? [];
    queue.push(early);
    this.#early.set(id, queue);
    this.#earlyCount++;
    this.#earlyBytes += sizeOf(early.payload);
    while (this.#earlyCount > EARLY_MAX || this.#earlyBytes > EARLY_BYTES_MAX) {
      const [heaviest, waiting] = [...this.#early].reduce((one, other) => (other[1].length > one[1].length ? other : one));
      const { channel, payload, reliable } = waiting.shift()!;
      this.#earlyCount--;
      this.#earlyBytes -= sizeOf(payload);
      if (waiting.length === 0) this.#early.delete(heaviest);
      const peer = this.#playerOf(heaviest);
      if (reliable && peer !== null) this.dropped(peer, channel, 1);
    }
  }

  #deliverEarly(peer: PeerState, lifeS: number, only?: string): void {
    const queue = this.#early.get(peer.id), now = this.#mesh.now();
    if (queue === undefined) return;
    this.#forgetEarly(peer.id);
    for (const early of queue) {
      const channel = this.#channels.get(early.channel);
      if (channel === undefined || (only !== undefined && early.channel !== only)) this.#keep(peer.id, early);
      else if (now - early.at <= lifeS && (early.reliable || now - early.at <= EARLY_LIFE_S)) channel.deliver(peer, early.payload);
    }
  }

  #forgetEarly(id: PeerId): void {
    for (const { payload } of this.#early.get(id) ?? []) {
      this.#earlyCount--;
      this.#earlyBytes -= sizeOf(payload);
    }
    this.#early.delete(id);
  }

  /** A player who is here, or was not long ago. */
  #playerOf(id: PeerId): PeerState | null {
    const silent = this.#silent.get(id);
    return this.#peers.get(id) ?? (silent !== undefined && this.#mesh.now() < silent.until ? silent.peer : null);
  }

  #noteLoss(peer: PeerState, channel: string | null, count: number, ours: boolean): void {
    this.#losses.note(peer, channel, count, ours, this.#mesh.now());
    this.#mesh.rearm();
  }

  #publish(event: RoomEvent): void {
    if (this.closed) return;
    if (this.#polled !== null && this.#polled.length < BACKLOG_MAX) this.#polled.push(event);
    for (const iterator of this.#iterators) {
      if (iterator.events.length >= BACKLOG_MAX) iterator.overrun = true;
      else iterator.events.push(event);
      iterator.wake?.();
    }
    for (const handler of [...(this.#handlers.get(event.type) ?? [])]) {
      try {
        handler(event);
      } catch (error) {
        queueMicrotask(() => {
          throw error; // the game's own, and not to be swallowed; the room goes on
        });
      }
    }
  }

  /** The events that restate the present. */
  #present(): RoomEvent[] {
    if (this.closed) return [];
    const facts: RoomEvent[] = [];
    for (const peer of this.#peers.values()) {
      facts.push({ type: "peerDiscovered", peer });
      if (peer.connected) facts.push({ type: "peerConnected", peer });
      if (peer.suspected) facts.push({ type: "peerSuspected", peer });
      if (peer.away !== null) facts.push({ type: "peerAway", peer, reason: peer.away });
    }
    return facts;
  }

  #change(): void {
    for (const wake of [...this.#changed]) {
      this.#changed.delete(wake);
      wake();
    }
  }

  #close(end: string): void {
    this.#end = end;
    for (const peer of this.#peers.values()) peer.connected = false;
    this.#ended.abort(new ClosedError(`room ${this.name} ${end}`));
    for (const iterator of this.#iterators) iterator.wake?.();
    for (const channel of this.#channels.values()) channel.wakeReaders();
    this.#change();
  }

  #checkOpen(): void {
    if (this.closed) throw new ClosedError(`room ${this.name} ${this.#end}`);
  }
}

const isType = (value: unknown): boolean => typeof value === "object" && value !== null && "fields" in value && "tag" in value;

function idOf(to: Peer | PeerId | Iterable<Peer | PeerId>): PeerId {
  if (typeof to === "string") return to;
  if (typeof to === "object" && to !== null && "id" in to) return to.id;
  throw new InvalidConfig("to: a player, its id, or several of these; room.peers has those who are here");
}
