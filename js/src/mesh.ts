// The shell of one room: its gossip node, the links to its members, and signaling, driven by the page's events.

import type { PeerId, Platform } from "./api.ts";
import { Alarm } from "./alarm.ts";
import { concat, equal, fromBase64Untrusted, textUntrusted, toBase64, toHex, utf8 } from "./bytes.ts";
import { CHANNEL_MESSAGE, ENVELOPE, SEAL_BYTES, Seals } from "./carried.ts";
import { ConnectFailed, MessageTooLarge, ProtocolError } from "./errors.ts";
import { Node, type NodeEvent, type NodeOptions } from "./gossip/node.ts";
import { SIGNAL_MAX_BYTES } from "./gossip/parts.ts";
import { roomOf, type Signed } from "./gossip/wire.ts";
import { type Identity, Verifier } from "./identity.ts";
import { forgetOldest, type Rng, TokenBucket, VERIFY, VERIFY_BY_LIBRARY } from "./limits.ts";
import { type ChannelInit, Link, type LinkOwner } from "./link.ts";
import { type Counts, Owed, OWED_TAG } from "./owed.ts";
import { encodeProfile, keyOf, Placement, type Wish } from "./placement.ts";
import type { Payload } from "./schema.ts";
import { type ClientOwner, SignalingClient } from "./signaling/client.ts";
import { EnvelopeRefused, type Kind, openUntrusted, ReplayGuard, seal, SIGNAL_DOMAIN, splitUntrusted } from "./signaling/envelope.ts";
import { type JoinRequest, requestInto, type RoomInfo } from "./signaling/messages.ts";
import type { SessionEvent } from "./signaling/session.ts";

export const TAG_BYTES = 8;
const TUNNEL_TAG = new Uint8Array(8), TUNNEL_PREFIX = "tunnel.", TUNNEL_HEAD = 40, TUNNEL_MAX = TUNNEL_HEAD + 1_400;
const TUNNEL_BYTES_PER_S = 256_000, TUNNEL_SHARE = 0.5;
const PAUSE_TAG = Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 1);
const LINKS_MAX = 64, STRANGERS_MAX = 16, DIALS_IN_A_ROW = 6, DIAL_EVERY_S = 2, DIALLERS_MAX = 256;
const ASLEEP_S = 1800, ASLEEP_MAX = 16, REFUSED_S = 5, POSTED_MAX = 16, REMEMBERED_MAX = 64, REPEATED_S = 15;
const GOODBYE_LATE_S = 2, CARRIED_S = 0.5, STATED_S = 1, HELD_BACK_MAX = 4096, LOOK_OUT_S = [15, 30], ALARM_EVERY_S = 10, VERIFYING_MAX = 256, STALL_S = 0.25;
const SERVER_WORDS = 1024, SERVER_WORDS_PER_S = 128; // each may cost a signature; a server that says more is not heard
const NEVER = Number.POSITIVE_INFINITY;
// What becomes of an open link when the room gives it up: the peer is silent, and may come back.
const SLEEPS: readonly string[] = ["timeout", "impaired"];

/** The room above. It only notes and queues. */
export interface Sink {
  onGossip(event: NodeEvent): void;
  onLinkOpen(peer: PeerId): void;
  onLinkDown(peer: PeerId): void;
  onLinkFailed(peer: PeerId, error: ConnectFailed): void;
  onTypes(peer: PeerId, channel: string, protocol: string): void;
  onMessage(peer: PeerId, channel: string, data: Payload, reliable: boolean): void;
  /** So many by channel: of the peer's (`ours`: of our own) messages. */
  onLost(peer: PeerId, counts: Counts, ours: boolean): void;
  onPause(peer: PeerId, reason: string | null): void;
  onTampering(server: string, peer: PeerId, reason: string): void;
  onSignaling(down: string | null): void;
  nextTimeout(): number;
  handleTimeout(now: number): void;
}

export interface MeshOptions {
  readonly wish: Wish;
  readonly urls: readonly string[];
  readonly identity: Identity;
  readonly platform: Platform;
  readonly iceServers: RTCIceServer[];
  readonly workerUrl: URL | null;
  readonly rng: Rng;
}

export class Mesh implements LinkOwner, ClientOwner {
  readonly me: PeerId;
  info: RoomInfo | null = null;
  closed = false;
  readonly #options: MeshOptions;
  readonly #identity: Identity;
  readonly #client: SignalingClient;
  readonly #verifier = new Verifier();
  readonly #alarm: Alarm;
  readonly #connected: Promise<void>;
  #armedFor = NEVER;
  #node: Node | null = null;
  #sink: Sink | null = null;
  #seals: Seals | null = null;
  #owed: Owed | null = null;
  #tag = new Uint8Array(TAG_BYTES) as Uint8Array;
  #key = "";
  #request: JoinRequest | null = null;
  readonly #goodbyes = new Map<PeerId, { at: number; readonly record: string }>(); // that signaling has told
  #lookAt = NEVER;
  readonly #toState = new Set<PeerId>(); // players for whom there was no link, and who do not know it
  #stateAt = NEVER;
  readonly #heldBack = new Map<PeerId, NodeEvent[]>();
  readonly #links = new Map<PeerId, Link>();
  readonly #ending = new Set<Link>(); // superseded, and still flushing
  readonly #inbound = new Map<PeerId, { chain: Promise<void>; waiting: number }>();
  readonly #replays = new ReplayGuard();
  readonly #dials = new Map<PeerId, TokenBucket>();
  readonly #posted = new Map<PeerId, { readonly at: number; readonly sealed: string }[]>();
  readonly #refusedAt = new Map<PeerId, number>();
  readonly #alarmedAt = new Map<string, number>();
  readonly #tunnels: TokenBucket;
  readonly #words: TokenBucket;
  readonly #tunnelsOf = new Map<PeerId, TokenBucket>();
  #pumping = false;
  #paused: string | null = null;

  constructor(options: MeshOptions) {
    this.#options = options;
    this.#identity = options.identity;
    this.#client = new SignalingClient(options.urls, options.identity, options.platform.WebSocket, this, options.rng, () => this.now());
    this.#alarm = new Alarm(() => this.#ring(), options.workerUrl);
    this.#connected = this.#client.connect();
    this.#connected.catch(() => undefined); // `enter` says it
    // While the connection is being made: our keys, and what a browser does before its first peer connection.
    this.me = options.identity.peerId;
    warmUp(options.platform);
    this.#tunnels = new TokenBucket(TUNNEL_BYTES_PER_S, TUNNEL_BYTES_PER_S, this.now());
    this.#words = new TokenBucket(SERVER_WORDS, SERVER_WORDS_PER_S, this.now());
  }

  now = (): number => performance.now() / 1000;
  wallMs = (): number => this.#client.timeMs(this.now()) ?? Date.now();

  get node(): Node {
    return this.#node!;
  }

  // ------------------------------------------------------------------------------------------------------------ entry

  /** Signaling says who is there, gossip takes it from there. */
  async enter(sinkOf: (info: RoomInfo) => Sink): Promise<void> {
    await this.#connected;
    const { wish, rng } = this.#options, tried: string[] = [];
    const placement = new Placement(wish, this.#client, this.#identity, rng);
    for (;;) {
      let asked: JoinRequest | null = null;
      try {
        asked = await placement.place(tried);
        await this.#join(asked, placement, sinkOf);
        return;
      } catch (error) {
        tried.push(asked === null ? "" : keyOf(asked));
        if (asked === null || !placement.mayRetry(error, tried)) throw error;
      }
    }
  }

  async #join(asked: JoinRequest, placement: Placement, sinkOf: (info: RoomInfo) => Sink): Promise<void> {
    const key = keyOf(asked), digest = roomOf(key), now = this.now(), epoch = Math.floor(this.wallMs());
    const { options } = this.#options.wish, { playerName = "", metadata = {}, region = "", skillRange = null } = options;
    const nodeOptions: Omit<NodeOptions, "maxPlayers"> = {
      identity: this.#identity, room: digest.slice(0, 16), rng: this.#options.rng, verify: this.#verifier.verify, epoch: BigInt(epoch),
      name: playerName, metadata: encodeProfile(region, skillRange, metadata), now,
      calendar: { offsetS: epoch / 1000 - now, told: this.#client.timeMs(now) !== null },
      verifyUnits: this.#verifier.isNative ? VERIFY : VERIFY_BY_LIBRARY,
    };
    let node = new Node({ ...nodeOptions, maxPlayers: asked.max_players });
    const request = { ...asked, record: toBase64(node.ownRecord.encoded) };
    const { info, peers } = await this.#client.join(request);
    try {
      placement.check(info, asked);
    } catch (error) {
      this.#client.leave(key, "");
      throw error;
    }
    // Its creator's number holds: all must count the same seats.
    if (info.max_players !== asked.max_players) node = new Node({ ...nodeOptions, maxPlayers: info.max_players });
    this.info = info;
    this.#key = key;
    this.#request = requestInto(info, request);
    this.#tag = digest.slice(0, TAG_BYTES);
    this.#node = node;
    const seals = (this.#seals = new Seals(this.#identity, this.#tag, node.ownRecord.joinedAt));
    node.signedSignal = (origin, blob) => {
      const record = blob[0] === CHANNEL_MESSAGE ? node.record(origin) : null;
      return record === null ? [] : [seals.signedUntrusted(record, blob)];
    };
    this.#owed = new Owed(this.#tag, node.ownRecord.joinedAt);
    this.#sink = sinkOf(info);
    this.#lookLater();
    node.start(now);
    this.#learn(peers.map((peer) => peer.record));
  }

  /** Our last words; the links flush them as far as the peers answer quickly. At once when the page is hidden for good. */
  leave(): void {
    if (this.closed) return;
    const { node } = this;
    node.leave(this.now());
    this.pump();
    this.closed = true;
    this.#client.leave(this.#key, toBase64(node.ownRecord.encoded));
    for (const link of this.#links.values()) link.close("left");
    this.rearm();
    setTimeout(() => this.end(), 1000);
  }

  /** Without a word. */
  end(): void {
    this.closed = true;
    this.#client.close();
    for (const link of [...this.#links.values(), ...this.#ending]) link.abandon();
    this.#alarm.close();
  }

  // ---------------------------------------------------------------------------------------------------- from the room

  label = (channel: string): string => `${toHex(this.#tag)}/${channel}`;

  link(peer: PeerId): Link | null {
    return this.#links.get(peer) ?? null;
  }

  isLinked(peer: PeerId): boolean {
    const link = this.#links.get(peer);
    return link !== undefined && link.state === "open" && link.asleepSince === null && !link.isParting;
  }

  get hasLinks(): boolean {
    return this.node.linked.length > 0;
  }

  /** `asleep`: into a link that is given up, too, where it waits for the peer to be heard again. */
  send(peer: PeerId, channel: string, init: ChannelInit, payload: Payload, asleep = false): ReturnType<Link["sendMessage"]> {
    const link = this.#links.get(peer);
    if (link === undefined || (link.asleepSince !== null && !asleep)) return "not connected";
    return link.sendMessage(this.label(channel), init, payload, !asleep);
  }

  /** To one member without a link, through others; it may be lost. */
  carry(peer: PeerId, blob: Uint8Array): "sent" | "not connected" | "too large" {
    if (blob.length > SIGNAL_MAX_BYTES - SEAL_BYTES) return "too large";
    const record = this.node.record(peer);
    if (record === null) return "not connected";
    this.node.sendSignal(peer, this.#seals!.seal(record, this.node.ownRecord.epoch, blob), this.now());
    this.pump();
    return "sent";
  }

  broadcast(blob: Uint8Array): void {
    this.node.broadcast(blob, this.now());
    this.pump();
  }

  openCarriedUntrusted(origin: PeerId, blob: Uint8Array): Uint8Array {
    const record = this.node.record(origin);
    if (record === null) throw new ProtocolError("a message of nobody here");
    return this.#seals!.openUntrusted(record, blob, this.#verifier.verify);
  }

  update(changes: { name?: string; metadata?: Uint8Array }): void {
    this.node.update(this.now(), changes);
    this.pump();
  }

  pause(reason: string | null): void {
    this.#paused = reason;
    for (const link of this.#links.values()) this.#tellPause(link);
  }

  /** A reliable message went by no link; `told`: the game knows. */
  missed(peer: PeerId, channel: string, told: boolean): void {
    this.#owed!.missed(peer, channel, told, this.now());
    this.#toState.add(peer);
    this.#stateAt = Math.min(this.#stateAt, this.now() + STATED_S);
  }

  tellDropped(peer: PeerId, channel: string, count: number): void {
    this.#sendAll(peer, this.#owed!.dropped(peer, new Map([[channel, count]])));
  }

  /** The page is shown again, or the machine was asleep or has moved: what stood still is looked after at once. */
  wake(): void {
    if (this.closed || this.#node === null) return;
    this.#ring();
    for (const link of this.#links.values()) link.suspect();
    this.rearm();
  }

  // ------------------------------------------------------------------------------------------------------------ time

  /** How late it rings is the local health that Lifeguard asks for. */
  #ring(): void {
    const now = this.now(), late = now - this.#armedFor;
    this.#armedFor = NEVER;
    const node = this.#node;
    if (node !== null && node.running) {
      if (late > STALL_S && late < NEVER) node.noteLoopLag(late, now);
      if (node.nextTimeout() <= now) node.handleTimeout(now);
    }
    this.#client.handleTimeout(now);
    for (const link of [...this.#links.values(), ...this.#ending]) {
      if (link.nextTimeout() <= now) link.handleTimeout(now);
      if (link.asleepSince !== null && link.asleepSince + ASLEEP_S <= now) link.abandon();
    }
    for (const [peer, { at, record }] of this.#goodbyes)
      if (at <= now) {
        this.#goodbyes.delete(peer);
        this.#learn([record]);
      }
    if (now >= this.#stateAt) {
      this.#stateAt = NEVER;
      for (const peer of this.#toState) if (this.isLinked(peer)) this.#state(peer);
    }
    if (this.#sink !== null && now >= this.#sink.nextTimeout()) this.#sink.handleTimeout(now);
    if (now >= this.#lookAt) void this.#lookOut();
    this.pump();
  }

  rearm(): void {
    if (this.closed && this.#links.size === 0 && this.#ending.size === 0) return;
    const now = this.now();
    let next = Math.min(
      this.#node?.nextTimeout() ?? NEVER, this.#client?.nextTimeout() ?? NEVER, this.#sink?.nextTimeout() ?? NEVER, this.#lookAt, this.#stateAt,
    );
    for (const link of this.#links.values()) next = Math.min(next, link.nextTimeout());
    for (const link of this.#ending) next = Math.min(next, link.nextTimeout());
    for (const goodbye of this.#goodbyes.values()) next = Math.min(next, goodbye.at);
    next = Math.max(next, now);
    if (next === this.#armedFor || next === NEVER) return;
    this.#armedFor = next;
    this.#alarm.set(next - now);
  }

  /** Carry out what the node wants. Not re-entrant: a consequence that feeds the node is taken up by the loop. */
  pump(): void {
    const node = this.#node;
    if (this.#pumping || node === null) return;
    this.#pumping = true;
    try {
      for (;;) {
        const outputs = node.takeOutputs(), events = node.takeEvents();
        if (outputs.length === 0 && events.length === 0) break;
        for (const output of outputs) {
          if (output.type === "send") this.#links.get(output.peer)?.sendFrame(concat(this.#tag, output.frame), output.reliable);
          else if (output.type === "dial") this.#dial(output.peer);
          else this.#giveUp(output.peer, output.reason);
        }
        for (const event of events) this.#tell(event);
      }
    } finally {
      this.#pumping = false;
    }
    this.rearm();
  }

  #tell(event: NodeEvent): void {
    if (event.type === "signal") {
      if (event.blob[0] === ENVELOPE) {
        if (this.node.record(event.origin) === null && !this.#links.has(event.origin)) return; // anybody can make up origins
        try {
          this.#deliver(event.origin, textUntrusted(event.blob.subarray(1)), event.carrier);
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
        }
        return;
      }
      if (event.blob[0] !== CHANNEL_MESSAGE) return;
    } else if (event.type === "discovered") this.#owed!.meet(event.record.peer, event.record.joinedAt, this.now());
    else if (event.type === "left" && event.reason !== "timeout" && event.reason !== "capacity") {
      this.#owed!.part(event.peer);
      this.#toState.delete(event.peer);
    } else if (event.type === "suspected") {
      this.#links.get(event.peer)?.suspect();
      this.#hearNoMore(event.peer);
    }
    if ((event.type === "broadcast" || event.type === "signal") && this.#links.get(event.origin)?.isParting) {
      const held = this.#heldBack.get(event.origin) ?? []; // what it sent before over that link comes first
      this.#heldBack.set(event.origin, held);
      if (held.length < HELD_BACK_MAX) {
        held.push(event);
        return;
      }
    }
    this.#sink!.onGossip(event);
    if (event.type === "discovered") this.#settle(event.record.peer);
  }

  // ----------------------------------------------------------------------------------------------------------- links

  #dial(peer: PeerId): void {
    const link = this.#links.get(peer), now = this.now();
    if (link === undefined) this.#start(peer, toHex(crypto.getRandomValues(new Uint8Array(8))), true);
    else if (link.state === "open" && link.asleepSince === null) this.node.linkUp(peer, now, null);
    else if (link.state !== "dialing") this.node.dialFailed(peer, now); // asleep: it knocks by itself
  }

  #start(peer: PeerId, session: string, offerer: boolean): Link | null {
    try {
      const link = new Link(peer, session, offerer, this, this.#options.platform, this.#options.iceServers);
      this.#links.set(peer, link);
      this.rearm();
      return link;
    } catch (error) {
      // A page has so many connections and no more.
      if (offerer) this.node.dialFailed(peer, this.now());
      this.#sink!.onLinkFailed(peer, new ConnectFailed("ice", `no more connections: ${(error as Error).message}`));
      return null;
    }
  }

  #giveUp(peer: PeerId, reason: string): void {
    const link = this.#links.get(peer);
    if (link === undefined) return;
    if (!SLEEPS.includes(reason) || link.state !== "open") {
      link.close(reason);
      return;
    }
    const asleep = [...this.#links.values()].filter((one) => one.asleepSince !== null);
    if (asleep.length >= ASLEEP_MAX) asleep[0]!.abandon();
    link.asleepSince = this.now();
    link.suspect();
    this.#sink!.onLinkDown(peer);
  }

  onLinkOpen(link: Link): void {
    if (this.#links.get(link.peer) !== link || this.closed) return;
    this.#posted.delete(link.peer);
    this.#up(link);
  }

  #up(link: Link): void {
    this.node.linkUp(link.peer, this.now(), null);
    if (this.#paused !== null) this.#tellPause(link);
    this.#state(link.peer);
    this.#sink!.onLinkOpen(link.peer);
    this.pump();
  }

  onLinkGone(link: Link, error: ConnectFailed | null): void {
    const { peer } = link, isNewest = this.#links.get(peer) === link;
    this.#ending.delete(link);
    if (isNewest) {
      this.#links.delete(peer);
      this.#inbound.delete(peer);
    }
    if (this.closed || this.#node === null) return;
    const prefix = this.label("");
    const ofRoom = (counts: ReadonlyMap<string, number>) =>
      new Map([...counts].filter(([label]) => label.startsWith(prefix)).map(([label, count]) => [label.slice(prefix.length), count]));
    for (const event of this.#heldBack.get(peer) ?? []) this.#sink!.onGossip(event);
    this.#heldBack.delete(peer);
    this.#owed!.linkEnded(peer, ofRoom(link.sent), ofRoom(link.came), this.now());
    if (isNewest) {
      this.#hearNoMore(peer);
      if (error !== null && !link.replacesOpen) {
        this.#sink!.onLinkFailed(peer, error);
        this.node.dialFailed(peer, this.now());
      } else {
        this.#sink!.onLinkDown(peer);
        this.node.linkDown(peer, this.now());
      }
    }
    this.#settle(peer);
    this.pump();
  }

  onFrame(link: Link, frame: Uint8Array): void {
    if (this.closed || this.#node === null) return;
    this.#alive(link);
    const tag = frame.subarray(0, TAG_BYTES);
    if (equal(tag, this.#tag)) this.#receive(link.peer, frame.subarray(TAG_BYTES));
    else if (equal(tag, TUNNEL_TAG)) this.#passOn(link, frame);
    else if (frame[0] === 0xff) this.#control(link, tag, frame);
  }

  /** The first sign of life of a link that slept. */
  #alive(link: Link): void {
    if (link.asleepSince === null || this.#links.get(link.peer) !== link) return;
    link.asleepSince = null;
    this.#up(link);
  }

  #control(link: Link, tag: Uint8Array, frame: Uint8Array): void {
    if (!link.words.allow(this.now())) return this.onFlood(link);
    try {
      if (equal(tag, PAUSE_TAG) && equal(frame.subarray(8, 16), this.#tag)) {
        const reason = textUntrusted(frame.subarray(16));
        if (frame.length <= 144) this.#sink!.onPause(link.peer, reason === "" ? null : reason);
      } else if (equal(tag, OWED_TAG) && equal(frame.subarray(8, 16), this.#tag)) {
        const lost = this.#owed!.receiveUntrusted(link.peer, frame, this.now());
        if (lost.size > 0) this.#sink!.onLost(link.peer, lost, true);
        this.#settle(link.peer);
      } else if (frame.length === TAG_BYTES) link.hearParting(frame);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
    }
    if (link.isParting) this.#sink!.onLinkDown(link.peer);
    this.rearm();
  }

  /** Signatures are verified by the browser first, where it can: in the order in which the frames came. */
  #receive(peer: PeerId, frame: Uint8Array): void {
    const { node } = this, line = this.#inbound.get(peer);
    const handle = (): void => {
      if (this.closed) return;
      node.receive(peer, frame, this.now());
      this.pump();
    };
    const signed = (): readonly Signed[] => node.statements(peer, frame, this.now());
    if (line === undefined && (!this.#verifier.isNative || signed().length === 0)) {
      handle();
      return;
    }
    const waiting = (line?.waiting ?? 0) + 1;
    if (waiting > VERIFYING_MAX) return; // a flood: what an honest neighbour loses here it says again
    const entry = line ?? { chain: Promise.resolve(), waiting: 0 };
    entry.waiting = waiting;
    this.#inbound.set(peer, entry);
    entry.chain = entry.chain
      .then(() => this.#prepare(signed()))
      .then(handle)
      .finally(() => {
        if (--entry.waiting === 0 && this.#inbound.get(peer) === entry) this.#inbound.delete(peer);
      });
  }

  async #prepare(statements: readonly Signed[]): Promise<void> {
    if (this.#verifier.isNative) await Promise.all(statements.map((signed) => this.#verifier.prepare(...signed)));
  }

  /** One hop for a pair that has no path of its own, within a budget. */
  #passOn(link: Link, frame: Uint8Array): void {
    if (frame.length <= TUNNEL_HEAD || frame.length > TUNNEL_MAX) return;
    const to = toHex(frame.subarray(8, 24)), from = toHex(frame.subarray(24, 40)), now = this.now();
    const onward = this.#links.get(to);
    if (from !== link.peer || to === this.me || onward === undefined || !this.isLinked(to)) return;
    let own = this.#tunnelsOf.get(from);
    if (own === undefined) {
      own = new TokenBucket(TUNNEL_BYTES_PER_S * TUNNEL_SHARE, TUNNEL_BYTES_PER_S * TUNNEL_SHARE, now);
      this.#tunnelsOf.set(from, own);
      forgetOldest(this.#tunnelsOf, 64);
    }
    if (this.#tunnels.left(now) < frame.length || !own.allow(now, frame.length)) return;
    this.#tunnels.charge(frame.length, now);
    onward.sendFrame(frame, false);
  }

  onChannelTypes(link: Link, label: string, protocol: string): void {
    const prefix = this.label("");
    if (!this.closed && this.#node !== null && label.startsWith(prefix)) this.#sink!.onTypes(link.peer, label.slice(prefix.length), protocol);
  }

  onChannelMessage(link: Link, label: string, data: Payload, reliable: boolean): void {
    if (this.closed || this.#node === null) return;
    this.#alive(link);
    const prefix = this.label("");
    if (label.startsWith(prefix)) this.#sink!.onMessage(link.peer, label.slice(prefix.length), data, reliable);
  }

  /** What the player should have had by now from earlier links, so that it knows what it lacks. */
  #state(peer: PeerId): void {
    this.#toState.delete(peer);
    this.#sendAll(peer, this.#owed!.statement(peer));
  }

  /** Its goodbye need not wait for more of it; later than the verdict of gossip it would be none. */
  #hearNoMore(peer: PeerId): void {
    const goodbye = this.#goodbyes.get(peer);
    if (goodbye !== undefined) goodbye.at = Math.min(goodbye.at, this.now() + (this.node.isLarge ? CARRIED_S : 0));
    this.rearm();
  }

  /** More of something than any honest peer has: it is parted from, and stays out for a while. */
  onFlood(link: Link): void {
    if (this.closed || this.#node === null) return;
    this.node.flooded(link.peer, this.now());
    this.pump();
    link.close("flooding");
  }

  #settle(peer: PeerId): void {
    const flushing = [...this.#ending].some((link) => link.peer === peer);
    if (this.#node!.record(peer) === null || flushing) return;
    const { lost, frames } = this.#owed!.settle(peer);
    if (lost.size > 0) this.#sink!.onLost(peer, lost, false);
    this.#sendAll(peer, frames);
  }

  #sendAll(peer: PeerId, frames: readonly Uint8Array[]): void {
    for (const frame of frames) this.#links.get(peer)?.sendFrame(frame, true);
  }

  #tellPause(link: Link): void {
    link.sendFrame(concat(PAUSE_TAG, this.#tag, utf8(this.#paused ?? "")), true);
  }

  // ------------------------------------------------------------------------------------------------------- envelopes

  /** Through signaling while it stands and knows the peer, else over the mesh. */
  post(link: Link, kind: Kind, sequence: number, body: string): void {
    const { peer, session } = link, now = this.now();
    if (this.#key === "" || !this.#client) return;
    let sealed: string;
    try {
      sealed = seal(this.#identity, { kind, recipient: peer, room: this.#key, session, sequence, body }, this.wallMs());
    } catch (error) {
      if (!(error instanceof MessageTooLarge)) throw error;
      return;
    }
    const posted = this.#posted.get(peer) ?? [];
    posted.push({ at: now, sealed });
    if (posted.length > POSTED_MAX) posted.shift();
    this.#posted.delete(peer);
    this.#posted.set(peer, posted);
    forgetOldest(this.#posted, REMEMBERED_MAX);
    const refused = now - (this.#refusedAt.get(peer) ?? -NEVER) <= REFUSED_S;
    if (refused || !this.#client.sendSignal(peer, this.#key, sealed)) this.#overMesh(peer, sealed);
  }

  #overMesh(peer: PeerId, sealed: string): void {
    const blob = concat(Uint8Array.of(ENVELOPE), utf8(sealed));
    if (this.#node === null || !this.node.running || blob.length > SIGNAL_MAX_BYTES) return;
    this.node.sendSignal(peer, blob, this.now());
    this.pump();
  }

  #again(peer: PeerId, sinceS: number): void {
    for (const { at, sealed } of this.#posted.get(peer) ?? []) if (this.now() - at <= sinceS) this.#overMesh(peer, sealed);
  }

  /** A signal of `claimed`, or so `carrier` says (null: the server). */
  #deliver(claimed: PeerId, text: string, carrier: PeerId | null): void {
    if (claimed === this.me || this.closed || text.startsWith(TUNNEL_PREFIX)) return;
    if (!this.#verifier.isNative) {
      this.#open(claimed, text, carrier);
      return;
    }
    const line = this.#inbound.get(`envelopes of ${claimed}`) ?? { chain: Promise.resolve(), waiting: 0 };
    if (line.waiting >= VERIFYING_MAX || this.#inbound.size > VERIFYING_MAX) return;
    line.waiting++;
    this.#inbound.set(`envelopes of ${claimed}`, line);
    line.chain = line.chain
      .then(async () => {
        try {
          const [payload, publicKey, signature] = splitUntrusted(text);
          await this.#prepare([[publicKey, SIGNAL_DOMAIN, payload, signature]]);
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
        }
        if (!this.closed) this.#open(claimed, text, carrier);
      })
      .finally(() => {
        if (--line.waiting === 0) this.#inbound.delete(`envelopes of ${claimed}`);
      });
  }

  #open(claimed: PeerId, text: string, carrier: PeerId | null): void {
    const nowMs = this.wallMs();
    let envelope: ReturnType<typeof openUntrusted>;
    try {
      envelope = openUntrusted(text, this.#verifier.verify, { recipient: this.me, sender: claimed, room: this.#key, nowMs });
    } catch (error) {
      if (!(error instanceof EnvelopeRefused)) throw error;
      if (error.tampered) this.#alarmOf(claimed, carrier, error.message);
      return;
    }
    if (!this.#replays.accept(envelope, nowMs)) return;
    if (carrier === null) this.#refusedAt.delete(claimed); // the server knows it again; who restarted has no link for our answer
    const { sender, session, kind, expiresAtMs } = envelope, link = this.#links.get(sender);
    if (link !== undefined && link.session === session) {
      link.newestHeardMs = Math.max(link.newestHeardMs, expiresAtMs);
      link.hear(envelope);
    } else if (kind === "offer") {
      const answering = this.#answers(sender, link, expiresAtMs) ? this.#start(sender, session, false) : null;
      if (answering !== null) {
        answering.replacesOpen = link !== undefined && (link.wasOpen || link.replacesOpen);
        if (link !== undefined) this.#supersede(link);
        answering.newestHeardMs = expiresAtMs;
        answering.hear(envelope);
      } else if (link !== undefined && link.offerer && link.state === "dialing") this.#again(sender, REPEATED_S);
    }
    this.rearm();
  }

  /** Whether to answer an offer of that peer. */
  #answers(peer: PeerId, link: Link | undefined, expiresAtMs: number): boolean {
    const now = this.now(), isKnown = this.node.record(peer) !== null;
    if (link !== undefined && link.asleepSince === null && expiresAtMs < link.newestHeardMs) return false; // held back
    // Glare: both offered, and the higher id's offer stands.
    if (link !== undefined && link.state === "dialing" && link.offerer && this.me > peer) return false;
    const strangers = [...this.#links.values()].filter((one) => !one.offerer && this.node.record(one.peer) === null).length;
    if (link === undefined && (this.#links.size >= LINKS_MAX || (!isKnown && strangers >= STRANGERS_MAX))) return false;
    let dials = this.#dials.get(peer);
    if (dials === undefined) {
      dials = new TokenBucket(DIALS_IN_A_ROW, 1 / DIAL_EVERY_S, now);
      this.#dials.set(peer, dials);
      forgetOldest(this.#dials, DIALLERS_MAX);
    }
    return dials.allow(now);
  }

  /** A newer link of the peer is being made: this one flushes, and its successor speaks for the peer. */
  #supersede(link: Link): void {
    if (link.state === "gone") return;
    this.#ending.add(link);
    if (link.state === "open") this.#sink!.onLinkDown(link.peer);
    link.close("superseded");
  }

  #alarmOf(peer: PeerId, carrier: PeerId | null, reason: string): void {
    const who = carrier ?? this.#client.server, now = this.now();
    if (now - (this.#alarmedAt.get(who) ?? -NEVER) < ALARM_EVERY_S) return;
    this.#alarmedAt.delete(who);
    this.#alarmedAt.set(who, now);
    forgetOldest(this.#alarmedAt, REMEMBERED_MAX);
    this.#sink!.onTampering(who, peer, reason);
  }

  // ------------------------------------------------------------------------------------------------------- signaling

  onSignaling(event: Exclude<SessionEvent, { type: "ready" | "lost" | "answer" }>): void {
    if (this.#node === null || event.room !== this.#key || !this.#words.allow(this.now())) return;
    if (event.type === "signal") this.#deliver(event.from, event.envelope, null);
    else if (event.type === "joined") this.#learn([event.record]);
    else if (event.type === "refused") {
      if (event.peer === null) return;
      this.#refusedAt.delete(event.peer);
      this.#refusedAt.set(event.peer, this.now());
      forgetOldest(this.#refusedAt, REMEMBERED_MAX);
      this.#again(event.peer, REFUSED_S);
    } else if (event.record !== "" && this.node.record(event.peer) !== null && this.#goodbyes.size < REMEMBERED_MAX) {
      // The player's own word, perhaps said to nobody else. What it said last travels over the mesh, and is waited for.
      if (!this.#goodbyes.has(event.peer)) this.#goodbyes.set(event.peer, { at: this.now() + GOODBYE_LATE_S, record: event.record });
      if (!this.isLinked(event.peer) || this.node.isSuspected(event.peer)) this.#hearNoMore(event.peer);
      this.rearm();
    }
  }

  onSignalingDown(reason: string, isFinal: boolean): void {
    if (this.#node === null || this.closed) return;
    this.#sink!.onSignaling(reason);
    if (isFinal && this.node.linked.length === 0) this.#sink!.onGossip({ type: "evicted", reason: "superseded" });
  }

  onSignalingBack(): void {
    void this.#enterAgain(true);
  }

  async #lookOut(): Promise<void> {
    this.#lookLater();
    if (this.#node?.isLookout && this.#client.isReady && !this.closed) await this.#enterAgain(false);
  }

  /** Our record there stays fresh for newcomers, and the list leads back to those beyond a cut. */
  async #enterAgain(wasAway: boolean): Promise<void> {
    if (this.#request === null || this.closed) return;
    try {
      const { peers } = await this.#client.join({ ...this.#request, record: toBase64(this.node.ownRecord.encoded) });
      if (this.closed) return;
      if (wasAway) this.#sink!.onSignaling(null);
      this.#learn(peers.map((peer) => peer.record));
    } catch (error) {
      if (!this.closed && wasAway) this.#sink!.onSignaling(`the server does not let us into the room again: ${(error as Error).message}`);
    }
  }

  #lookLater(): void {
    const [low, high] = LOOK_OUT_S;
    this.#lookAt = this.now() + low! + (high! - low!) * this.#options.rng();
  }

  #learn(records: readonly string[]): void {
    const encoded: Uint8Array[] = [];
    for (const text of records) {
      try {
        encoded.push(fromBase64Untrusted(text));
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error; // the server's doing or the newcomer's own: nobody can tell
      }
    }
    this.node.learn(encoded, this.now());
    this.pump();
  }
}


/** The first peer connection of a page starts threads and makes a key, which takes tenths of a second in Firefox. */
function warmUp({ RTCPeerConnection }: Platform): void {
  try {
    const unused = new RTCPeerConnection();
    unused.createDataChannel("-");
    unused.createOffer().then(() => unused.close(), () => unused.close());
  } catch {
    return; // a page has so many connections and no more; the first link says so
  }
}
