// One player in one room, pure: membership, failure detection, seats, broadcasts and signals, driven from outside.
//
// 1. `start(now)`, then `learn(records, now)` with what signaling knows of the room.
// 2. Obey `takeOutputs()`: send, dial, close. Report `linkUp`, `linkDown`, `dialFailed`.
// 3. `receive(peer, frame, now)` for each frame of a link, from either channel. `statements(frame)` are the signatures in it,
//    for who can verify them beforehand.
// 4. `handleTimeout(now)` when `nextTimeout()` is reached; ask it again after every call.
// 5. After every call drain `takeOutputs()`, then `takeEvents()`.
// 6. `leave(now)`, drain, flush the links, close them.
//
// `now` is seconds on any steady clock. No input throws for what came from outside: it is dropped and counted. It follows
// `psyne_mesh/gossip` where a room is a full mesh. In a larger one it is a member through a few links: it takes what comes,
// answers what is asked and stands for those whom it hears, and does none of the work for others that costs more.

import type { LeaveReason, PeerId } from "../api.ts";
import { concat, equal } from "../bytes.ts";
import { MessageTooLarge, ProtocolError } from "../errors.ts";
import type { Identity, Verify } from "../identity.ts";
import { ASKED_LINE, ASKED_PROBE, choice, forgetOldest, type Rng, sample, sizeMax, TokenBucket, VERIFY } from "../limits.ts";
import { Broadcast } from "./broadcast.ts";
import { Coordinate } from "./coordinates.ts";
import { Detector, Dialer, type ProbedLink } from "./detector.ts";
import {
  type Calendar, Cuts, FRESH_S, Freshness, RENEW_WITHIN_S, Router, Rumours, type Send, SIGNAL_MAX_BYTES, SIGNAL_TTL, Sync,
  Vouching,
} from "./parts.ts";
import { type Claim, Seats } from "./seats.ts";
import { Suspicions } from "./suspicion.ts";
import { type Member, STATUS_ALIVE, STATUS_DOWN, View } from "./view.ts";
import * as wire from "./wire.ts";
import { ALIVE, DOWN, LEAVING, type MemberRecord, type OwnState, SUSPECT } from "./wire.ts";

export type { Calendar } from "./parts.ts";

export const FULL_MESH_MAX = 16;
const HYSTERESIS = 4, LINKS_MAX = 24, LARGE_LINKS = 7, FULL_KNOWLEDGE_MAX = 256, SPECTATORS = 4;
export const RECORD_LIFETIME_S = 300;
export const BROADCAST_MAX_BYTES = 16_384;
const DELTA_BYTES = 16_384, LIFETIMES = 2, SEAT_HOLD_S = 45, CONTEST_S = 0.5;
const JOINING_S = 10, RENEWALS_MAX = 3, RETURNED_S = 10, REFUTE_GAP_S = 0.2, APART = 1024;
const LET_GO_GAP_S = 2, LET_GO_MAX = 256, SAME_BREAK_S = 5;
const BARRED_MAX = 64, STRANGERS = 16, STRANGERS_PER_S = 1, PROOFS_TOLD = 4;
const SHUN_S = 60, SHUNNED_MAX = 256, FAULTS_MAX = 20, CARRIED_MAX = 16, ALTERNATIVES = 8, SPARE_DIALS = 2;
const HINTS_MAX = 64, HINT_S = 60, RETRY_PARTED_S = 60, DIAL_PATIENCE_S = 3, KNOCKS_MAX = 4;
const KNOCK_S = 5, KNOCK_FACTOR = 2, STALL_S = 1, GONE_TOLD_MAX = 64, GONE_TOLD_S = 600, RUMOUR_FACTOR = 3;
const TEND_S = 1, PRUNE_S = 1;
const NEVER = Number.POSITIVE_INFINITY;

export type Output =
  | ({ readonly type: "send" } & Send)
  | { readonly type: "dial"; readonly peer: PeerId; readonly record: MemberRecord }
  | { readonly type: "close"; readonly peer: PeerId; readonly reason: string };

export type NodeEvent =
  | { readonly type: "discovered" | "renamed" | "letGo"; readonly record: MemberRecord }
  | { readonly type: "suspected" | "resumed"; readonly peer: PeerId }
  | { readonly type: "left"; readonly peer: PeerId; readonly reason: LeaveReason }
  | { readonly type: "twoFaced"; readonly peer: PeerId }
  | { readonly type: "evicted"; readonly reason: "superseded" | "kicked" | "capacity" }
  | { readonly type: "seats"; readonly seats: readonly (PeerId | null)[]; readonly own: number | null }
  | { readonly type: "broadcast"; readonly origin: PeerId; readonly payload: Uint8Array; readonly ageS: number }
  | { readonly type: "skipped"; readonly origin: PeerId; readonly count: number }
  | { readonly type: "signal"; readonly origin: PeerId; readonly blob: Uint8Array; readonly carrier: PeerId }
  | { readonly type: "cut"; readonly lost: readonly PeerId[]; readonly remaining: readonly PeerId[]; readonly majority: boolean }
  | { readonly type: "healed"; readonly returned: readonly PeerId[] };

export interface NodeOptions {
  readonly identity: Identity;
  /** 16 bytes that name the room. */
  readonly room: Uint8Array;
  readonly rng: Rng;
  readonly verify: Verify;
  /** Must grow with every start of the same key: Unix milliseconds. */
  readonly epoch: bigint;
  readonly name: string;
  readonly metadata: Uint8Array;
  readonly maxPlayers: number;
  readonly calendar: Calendar;
  readonly now: number;
  /** What one signature costs here, in microseconds of a desktop's core. */
  readonly verifyUnits?: number;
}

interface Link {
  readonly probed: ProbedLink;
  large: boolean | null; // whether the peer takes the room for a large one; null: not said yet
  prunedAt: number;
}

export class Node {
  readonly peerId: PeerId;
  readonly stats = { framesIn: 0, framesDropped: 0, framesOverBudget: 0, itemsRefused: 0, verified: 0, verdicts: 0, refutations: 0 };
  running = false;
  /** Set by the parent: the signatures in a blob that `sendSignal` brought us. */
  signedSignal: (origin: PeerId, blob: Uint8Array) => readonly wire.Signed[] = () => [];
  readonly #options: NodeOptions;
  readonly #identity: Identity;
  readonly #room: Uint8Array;
  readonly #rng: Rng;
  readonly #verifyUnits: number;
  readonly #view: View;
  readonly #links = new Map<PeerId, Link>();
  readonly #detector: Detector;
  readonly #dialer: Dialer;
  readonly #suspicions = new Suspicions();
  readonly #seats: Seats;
  readonly #broadcast = new Broadcast();
  readonly #fresh: Freshness;
  readonly #vouching: Vouching;
  readonly #sync: Sync;
  readonly #rumours = new Rumours();
  readonly #cuts = new Cuts();
  readonly #router: Router;
  readonly #coordinate: Coordinate;
  readonly #facts: ((now: number) => void)[] = [];
  #outputs: Output[] = [];
  #events: NodeEvent[] = [];
  #state: OwnState;
  #own: MemberRecord;
  #isLarge = false;
  #introduced = false;
  #startedAt = 0;
  #renewals = 0;
  #renewAt = NEVER;
  #knockAt = NEVER;
  #tendAt = NEVER;
  #seatingAt = NEVER;
  #seatChanges = -1;
  readonly #refutedAt: [number, number] = [-NEVER, -NEVER];
  readonly #letGoAt = new Map<PeerId, number>();
  readonly #verdicts = new WeakMap<MemberRecord, wire.Accusation>();
  readonly #expelled = new Set<PeerId>();
  readonly #barred = new Map<PeerId, { readonly proof: wire.Proof; readonly until: number }>();
  readonly #convictions: TokenBucket;
  readonly #shunned = new Map<PeerId, number>();
  readonly #hints = new Map<PeerId, { readonly record: MemberRecord; readonly until: number }>();
  readonly #keptSeats = new Map<PeerId, { readonly record: MemberRecord; readonly until: number }>(); // earlier, of who restarted

  constructor(options: NodeOptions) {
    const { identity, room, rng, epoch, name, metadata, maxPlayers, calendar, now } = options;
    this.#options = options;
    this.peerId = identity.peerId;
    this.#identity = identity;
    this.#room = room;
    this.#rng = rng;
    this.#verifyUnits = options.verifyUnits ?? VERIFY;
    const shown = maxPlayers > 0 ? maxPlayers + SPECTATORS - 1 : FULL_KNOWLEDGE_MAX;
    this.#view = new View(Math.min(Math.max(FULL_KNOWLEDGE_MAX, maxPlayers), shown), LIFETIMES * RECORD_LIFETIME_S);
    this.#detector = new Detector(rng);
    this.#dialer = new Dialer(rng);
    this.#seats = new Seats(maxPlayers, room, this.peerId, rng);
    this.#fresh = new Freshness(calendar, now);
    this.#vouching = new Vouching(rng);
    this.#sync = new Sync(rng);
    this.#router = new Router(this.peerId, rng);
    this.#coordinate = new Coordinate(rng);
    this.#convictions = new TokenBucket(STRANGERS, STRANGERS_PER_S, now);
    this.#broadcast.isMember = (origin) => origin === this.peerId || this.#view.isAlive(origin);
    this.#state = {
      epoch, incarnation: 0n, state: ALIVE, reason: 0, joinedAt: epoch, seat: null, ballot: [], lifetime: RECORD_LIFETIME_S,
      coordinates: null, name, metadata,
    };
    this.#own = wire.signRecord(this.#state, room, identity, 0n, this.#fresh.seconds(now));
    this.#view.setOwn(this.#own, -NEVER);
  }

  // ---------------------------------------------------------------------------------------------------------- inputs

  start(now: number): void {
    this.running = true;
    this.#startedAt = now;
    this.#renewLater(now);
    this.#seats.start(now);
    this.#settle(now);
  }

  /** Records of members, as signaling has them: they are verified, and those that are new are dialled. */
  learn(records: readonly Uint8Array[], now: number): void {
    if (!this.running) return;
    const lost: MemberRecord[] = [];
    for (const encoded of records)
      this.#guarded(null, now, () => {
        const record = wire.recordUntrusted(encoded);
        if (record.state === ALIVE && this.#view.wasLost(record)) lost.push(record);
        else this.#learnHint(record, now);
      });
    for (const record of sample(this.#rng, lost, KNOCKS_MAX)) this.#knock(record, now);
    this.#settle(now);
  }

  /** A link to `peer` works, dialled by either side. */
  linkUp(peer: PeerId, now: number, rtt: number | null = null): void {
    if (!this.running || peer === this.peerId) return;
    const shunned = (this.#shunned.get(peer) ?? -NEVER) > now;
    if (this.#isShutOut(peer, now) || shunned || (this.#links.size >= 2 * LINKS_MAX && !this.#links.has(peer))) {
      this.#dialer.linked(peer);
      this.#refuse(peer);
      this.#outputs.push({ type: "close", peer, reason: "refused" });
      return;
    }
    this.#linkOpened(peer, now, rtt);
    this.#settle(now);
  }

  /** The link is gone, whyever: so far it is silence. */
  linkDown(peer: PeerId, now: number): void {
    if (!this.#links.has(peer)) return;
    this.#linkClosed(peer, now);
    if (!this.#view.isAlive(peer)) this.#detector.linkDown(peer);
    else {
      this.#detector.linkLost(peer, now);
      if (!this.#isLarge) this.#dialer.want(peer, now);
    }
    this.#settle(now);
  }

  dialFailed(peer: PeerId, now: number): void {
    this.#dialer.failed(peer, now);
    if (this.#isLarge || !(this.#view.isAlive(peer) || this.#hints.has(peer))) this.#dialer.drop(peer);
    this.#settle(now);
  }

  receive(peer: PeerId, frame: Uint8Array, now: number): void {
    this.stats.framesIn++;
    if (!this.running) return;
    // A peer may use a link before our shell knew that it is in this room.
    if (!this.#links.has(peer) && frame[1] === wire.HELLO) this.linkUp(peer, now);
    const link = this.#links.get(peer);
    if (link === undefined) {
      this.stats.framesDropped++;
      return;
    }
    if (!this.#guarded(link, now, () => this.#handle(link, frame, now))) this.stats.framesDropped++;
    this.#settle(now);
  }

  /** Send `payload` to every member, in order. */
  broadcast(payload: Uint8Array, now: number): void {
    if (payload.length > BROADCAST_MAX_BYTES) throw new MessageTooLarge(`${payload.length} bytes; ${BROADCAST_MAX_BYTES} is the most`);
    if (!this.running) return;
    const [sequence, floor] = this.#broadcast.nextSequence(now);
    const message = wire.signMessage(
      this.#room, this.#identity, this.#own.joinedAt, sequence, floor, payload, this.#fresh.instance, this.#fresh.seconds(now),
    );
    this.#broadcast.publish(message, now);
    this.#sendToUnlinked(wire.encodeGossip({ hops: 0, flags: wire.FLAT, ageS: 0 }, message.body));
    this.#settle(now);
  }

  /** Carry an opaque, signed blob to `to` over the mesh; it may be lost. */
  sendSignal(to: PeerId, blob: Uint8Array, now: number): void {
    if (blob.length > SIGNAL_MAX_BYTES) throw new MessageTooLarge(`${blob.length} bytes; ${SIGNAL_MAX_BYTES} is the most`);
    if (!this.running) return;
    this.#router.send(to, blob, this.#view.get(to)?.via ?? null, [...this.#links.keys()]);
    this.#settle(now);
  }

  /** Say goodbye to everybody. The node is deaf afterwards; drain its outputs once more. */
  leave(now: number, reason: "left" | "kicked" = "left"): void {
    if (!this.running) return;
    this.#reissue(now, { state: LEAVING, reason: wire.LEAVE_REASONS.indexOf(reason), seat: null, ballot: [] });
    this.#settle(now);
    this.running = false;
    this.#links.clear();
  }

  /** Change what our record says, and tell everybody. */
  update(now: number, changes: { name?: string; metadata?: Uint8Array }): void {
    if (!this.running) return;
    this.#reissue(now, changes);
    this.#settle(now);
  }

  /** Shut `peer` out here, for good. */
  expel(peer: PeerId, now: number): void {
    this.#expelled.add(peer);
    this.#lose(peer, "kicked", true, now);
    this.#hangUp(peer, "kicked", now);
    this.#settle(now);
  }

  /** `peer` floods our shell by other ways than frames of gossip. */
  flooded(peer: PeerId, now: number): void {
    this.#shun(peer, now);
    this.#settle(now);
  }

  /** The event loop was late by so much: silence in that time is our own fault. */
  noteLoopLag(seconds: number, now: number): void {
    this.#detector.noteLoopLag(seconds, now);
    this.#suspicions.noteLoopLag(seconds);
    if (seconds >= STALL_S) {
      this.#view.stoodStill(seconds);
      for (const peer of this.#suspicions.suspected) if (!this.#detector.links.has(peer)) this.#suspicions.retract(peer, this.peerId);
    }
    this.#settle(now);
  }

  // ---------------------------------------------------------------------------------------------- time and outputs

  nextTimeout(): number {
    if (!this.running) return NEVER;
    return Math.min(
      this.#detector.deadline, this.#suspicions.deadline, this.#renewAt, this.#sync.deadline, this.#broadcast.deadline,
      this.#cuts.deadline, this.#knockAt, this.#tendAt, this.#vouching.deadline, this.#seatingAt, this.#seats.deadline,
      this.#dialer.deadline,
    );
  }

  handleTimeout(now: number): void {
    if (!this.running) return;
    if (now >= this.#detector.deadline) this.#detector.handleTimeout(now);
    if (now >= this.#suspicions.deadline) this.#suspicions.handleTimeout(now);
    if (now >= this.#renewAt) this.#reissue(now);
    if (now >= this.#sync.deadline) this.#compareViews(now);
    if (now >= this.#broadcast.deadline) this.#broadcast.handleTimeout(now);
    if (now >= this.#cuts.deadline) this.#cuts.handleTimeout(now, this.#view.alive, this.#suspicions.deadline < NEVER);
    if (now >= this.#knockAt) this.#knockOnDoors(now);
    if (now >= this.#tendAt) this.#tendLinks(now);
    if (now >= this.#vouching.deadline) this.#vouch(now);
    if (now >= this.#seats.deadline) this.#seats.handleTimeout(now);
    this.#settle(now);
  }

  takeOutputs(): Output[] {
    const taken = this.#outputs;
    this.#outputs = [];
    return taken;
  }

  takeEvents(): NodeEvent[] {
    const taken = this.#events;
    this.#events = [];
    return taken;
  }

  // ---------------------------------------------------------------------------------------------------------- views

  get ownRecord(): MemberRecord {
    return this.#own;
  }

  get members(): PeerId[] {
    return [...this.#view.alive];
  }

  get seats(): readonly (PeerId | null)[] {
    return this.#seats.seats;
  }

  get ownSeat(): number | null {
    return this.#seats.ownSeat;
  }

  /** Others carry what we send: the room is too large for a link to everybody. */
  get isLarge(): boolean {
    return this.#isLarge;
  }

  get viewHash(): Uint8Array {
    return this.#view.viewHash;
  }

  get linked(): PeerId[] {
    return [...this.#links.keys()];
  }

  isSuspected = (peer: PeerId): boolean => this.#suspicions.suspected.includes(peer);
  isImpaired = (peer: PeerId): boolean => this.#detector.isImpaired(peer);

  /** The newest record of a member. */
  record(peer: PeerId): MemberRecord | null {
    return this.#view.isAlive(peer) ? (this.#view.record(peer) ?? null) : null;
  }

  /** Seconds, smoothed, over our own link. */
  rtt(peer: PeerId): number | null {
    return this.#links.get(peer)?.probed.srtt || null;
  }

  /** Whether it is our task to register with signaling again now and then, and to `learn` whom it lists. */
  get isLookout(): boolean {
    const mine = wire.rank(this.#room, this.peerId);
    let lower = 0;
    for (const peer of this.#view.alive) if (before(wire.rank(this.#room, peer), mine)) lower++;
    return this.running && lower < 2;
  }

  /**
   * The signatures in a frame of `peer`, as far as it can be told before it is handled. None of a frame that will not be read:
   * to verify them would be on nobody's account.
   */
  statements(peer: PeerId, frame: Uint8Array, now: number): wire.Signed[] {
    const link = this.#links.get(peer);
    return link === undefined || link.probed.cost.isOver(now) ? [] : this.#statements(frame, true);
  }

  #statements(frame: Uint8Array, isWhole: boolean): wire.Signed[] {
    const found: wire.Signed[] = [];
    try {
      const kind = wire.frameTypeUntrusted(frame);
      if (kind === wire.RELAY && isWhole) return this.#statements(wire.relayUntrusted(frame).inner, false);
      if (kind === wire.GOSSIP) {
        const { message } = wire.gossipUntrusted(frame, this.#room, BROADCAST_MAX_BYTES);
        return this.#broadcast.wants(message) ? [message.signed] : [];
      }
      if (kind === wire.SIGNAL) {
        const signal = wire.signalUntrusted(frame, SIGNAL_MAX_BYTES, SIGNAL_TTL);
        return signal.to === this.peerId ? [...this.signedSignal(signal.origin, signal.blob)] : [];
      }
      for (const [itemKind, data] of itemsOf(kind, frame))
        if (itemKind === wire.ITEM_RECORD) {
          const record = wire.recordUntrusted(data);
          if (this.#view.compare(record) === "noted") found.push(wire.signedOf(record));
        } else if (itemKind === wire.ITEM_ACCUSATION) {
          const accusation = wire.accusationUntrusted(data), accuser = this.#view.record(accusation.accuser);
          if (accuser !== undefined) found.push(wire.signedAccusation(accusation, this.#room, accuser.publicKey));
        }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
    }
    return found;
  }

  // ------------------------------------------------------------------------------------------------------- draining

  #settle(now: number): void {
    for (let busy = true; busy && this.running; ) {
      busy = false;
      if (this.#seats.enabled) this.#seatEverybody(now);
      for (const found of this.#detector.found.splice(0)) {
        busy = true;
        if (found.type === "ping") {
          if (this.#links.get(found.link.peer)?.probed === found.link) this.#sendProbe(wire.PING, found.sequence, found.link);
        } else if (found.type === "frame") this.#send(found.peer, found.frame, false);
        else if (found.type === "silent") this.#linkSilent(found.peer, now);
        else if (found.type === "heard") this.#suspicions.clear(found.peer);
        else this.#renewLink(found.peer, now);
      }
      for (const fact of this.#suspicions.facts.splice(0)) {
        busy = true;
        if (fact.type === "verdict") this.#verdict(fact.peer, fact, fact.own, now);
        else if (this.#view.isAlive(fact.peer)) {
          this.#events.push({ type: fact.type === "opened" ? "suspected" : "resumed", peer: fact.peer });
          if (fact.type === "opened") this.#cuts.lost(fact.peer, now);
          else this.#cuts.back(fact.peer, now);
        }
      }
      for (const fact of this.#facts.splice(0)) {
        busy = true;
        fact(now);
        if (!this.running) return;
      }
      for (const fact of this.#seats.facts.splice(0)) {
        busy = true;
        if (fact.type === "seating") this.#events.push({ type: "seats", seats: [...this.#seats.seats], own: this.#seats.ownSeat });
        else if (fact.type === "seatLost") this.#events.push({ type: "evicted", reason: "capacity" });
        else if (fact.type === "claim") this.#reissue(now, fact.seat === null ? { seat: null, ballot: [] } : { seat: fact.seat });
        else this.#reissue(now, { ballot: fact.ballot });
      }
      for (const fact of this.#broadcast.facts.splice(0)) {
        const { origin } = fact;
        if (fact.type === "received") this.#events.push({ type: "broadcast", origin, payload: fact.payload, ageS: fact.ageS });
        else this.#events.push({ type: "skipped", origin, count: fact.count });
      }
      for (const { peer, frame, reliable } of [
        ...this.#broadcast.frames.splice(0), ...this.#vouching.frames.splice(0), ...this.#router.frames.splice(0),
      ]) {
        this.#send(peer, frame, reliable);
        if (frame[1] === wire.GRAFT) this.#links.get(peer)?.probed.cost.asked(ASKED_LINE * Math.max(1, (frame.length - 3) / 24));
      }
      for (const { origin, blob, carrier } of this.#router.arrived.splice(0))
        this.#events.push({ type: "signal", origin, blob, carrier });
      for (const peer of this.#sync.due.splice(0)) {
        this.#send(peer, wire.summary(this.#view.buckets));
        const haves = this.#broadcast.haves(now);
        if (haves.length > 0) {
          this.#sync.differed();
          this.#send(peer, wire.encodeHaves(haves, wire.ASK));
        }
      }
      for (const fact of this.#cuts.facts.splice(0))
        this.#events.push(
          fact.type === "seen"
            ? { type: "cut", lost: fact.lost, remaining: fact.remaining, majority: fact.majority }
            : { type: "healed", returned: fact.returned },
        );
      for (const peer of this.#dialer.handleTimeout(now)) {
        const record = this.#view.record(peer) ?? this.#hints.get(peer)?.record;
        if (record !== undefined) this.#outputs.push({ type: "dial", peer, record });
      }
    }
  }

  #later(fact: (now: number) => void): void {
    this.#facts.push(fact);
  }

  // -------------------------------------------------------------------------------------------------------- sending

  #send(peer: PeerId, frame: Uint8Array, reliable = true): void {
    if (this.#links.has(peer)) this.#outputs.push({ type: "send", peer, frame, reliable });
  }

  #tell(peer: PeerId, news: wire.News): void {
    this.#send(peer, wire.told(news));
  }

  #sendProbe(kind: number, sequence: number, link: ProbedLink): void {
    if (kind === wire.PING) link.cost.asked(ASKED_PROBE);
    link.sent = (link.sent + 1) & 0xffff;
    const probe = wire.encodeProbe({
      kind, sequence, viewHash: this.#view.viewHash, srtt: Math.min(65_535, Math.trunc(link.srtt * 10_000)),
      links: Math.min(wire.LINKS_MASK, this.#links.size) | (this.#isLarge ? wire.LARGE_ROOM : 0),
      coordinates: this.#coordinate.wire, sent: link.sent, got: link.got,
    });
    const rumours = this.#rumours.take(wire.UNRELIABLE_FRAME_MAX - wire.PROBE_BYTES);
    this.#send(link.peer, rumours.length > 0 ? concat(probe, ...rumours) : probe, false);
  }

  /** News of our own: directly to everybody whom we can reach. */
  #tellAll(news: wire.News): void {
    const frame = wire.told(news);
    for (const peer of this.#links.keys()) this.#send(peer, frame);
    this.#sendToUnlinked(frame);
  }

  /** To members of a full mesh whom we have no working link to, by two neighbours. */
  #sendToUnlinked(frame: Uint8Array): void {
    if (this.#isLarge) return;
    const helpers = [...this.#links.keys()].filter((peer) => !this.#detector.isImpaired(peer));
    let count = 0;
    for (const peer of this.#view.alive) {
      if (count >= CARRIED_MAX || (this.#links.has(peer) && !this.#detector.isImpaired(peer))) continue;
      count++;
      const relayed = wire.encodeRelay(peer, frame);
      for (const helper of sample(this.#rng, helpers.filter((one) => one !== peer), 2)) this.#send(helper, relayed);
    }
  }

  /** Pass on what was new to us. What its author brought itself, everybody got from the author. */
  #spread(news: wire.News, via: PeerId | null): void {
    const author = news.kind === "accusation" ? news.accuser : news.kind === "record" ? news.peer : null;
    if (via === author) return;
    const times = RUMOUR_FACTOR * Math.max(1, Math.ceil(Math.log2(this.#view.alive.size + 1)));
    const key = news.kind === "accusation" ? `a.${news.subject}.${news.accuser}` : `${news.kind}.${news.peer}`;
    this.#rumours.add(key, wire.encodedNews(news), times);
  }

  // --------------------------------------------------------------------------------------------------------- frames

  /** False for what was dropped; too many broken frames of one link, and we part. */
  #guarded(link: Link | null, now: number, act: () => void): boolean {
    try {
      act();
      return true;
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      if (link === null) this.stats.itemsRefused++;
      else {
        const { probed } = link;
        probed.cost.add(this.#verifyUnits, now);
        if (++probed.faults >= FAULTS_MAX) this.#part(probed.peer, "misbehaving", now);
      }
      return false;
    }
  }

  #handle(link: Link, frame: Uint8Array, now: number): void {
    const kind = wire.frameTypeUntrusted(frame), { probed } = link;
    if (kind < wire.PING || kind > wire.KEEP || frame.length > sizeMax(kind)) throw new ProtocolError(`unknown frame type ${kind}`);
    const verdict = probed.cost.frame(kind, frame.length, now);
    if (verdict !== "ok") {
      this.stats.framesOverBudget++;
      if (verdict === "part") this.#shun(probed.peer, now);
      return;
    }
    this.#detector.heard(probed, now);
    this.#read(kind, link, frame, now);
  }

  #shun(peer: PeerId, now: number): void {
    this.#shunned.delete(peer);
    this.#shunned.set(peer, now + SHUN_S);
    forgetOldest(this.#shunned, SHUNNED_MAX);
    this.#part(peer, "flooding", now);
  }

  #read(kind: number, link: Link, frame: Uint8Array, now: number): void {
    const { probed } = link, { peer } = probed;
    switch (kind) {
      case wire.PING:
      case wire.ACK:
        this.#onProbe(link, wire.probeUntrusted(frame), frame, now);
        break;
      case wire.PING_REQ: {
        const { sequence, target } = wire.indirectUntrusted(frame);
        this.#detector.pingReqReceived(peer, sequence, target, now);
        break;
      }
      case wire.INDIRECT: {
        const { sequence, target, alive } = wire.indirectUntrusted(frame);
        if (alive && this.#vouching.answered(sequence, target)) {
          this.#view.vouched(target, now, peer);
          this.#resize(now);
          if (!this.#links.has(target)) this.#suspicions.clear(target); // a neighbour hears it
        }
        this.#detector.indirectReceived(peer, target, alive, now);
        break;
      }
      case wire.HELLO:
        this.#onHello(link, frame, now);
        break;
      case wire.RUMOURS:
      case wire.TOLD:
        this.#take(wire.itemsUntrusted(frame, 2), link, now);
        break;
      case wire.SUMMARY: {
        const mask = this.#differing(wire.summaryUntrusted(frame));
        if (mask !== 0) {
          this.#sync.differed();
          this.#sendDigest(probed, mask, now);
        }
        break;
      }
      case wire.DIGEST:
        this.#onDigest(link, frame, now);
        break;
      case wire.DELTA:
        this.#onDelta(link, frame, now);
        break;
      case wire.GOSSIP:
        this.#onGossip(link, frame, now);
        break;
      case wire.IHAVE:
        this.#broadcast.ihaveReceived(peer, wire.ihaveUntrusted(frame), now);
        break;
      case wire.GRAFT:
        this.#broadcast.graftReceived(peer, wire.graftUntrusted(frame).ids, now);
        break;
      case wire.HAVES: {
        const { flags, entries } = wire.havesUntrusted(frame);
        this.#broadcast.havesReceived(peer, entries, now);
        if (flags & wire.ASK) {
          const ahead = this.#broadcast.missingOf(entries, probed.cost, now);
          const answer = wire.encodeHaves(ahead, 0);
          if (ahead.length > 0 && probed.cost.mayAnswer(answer.length, now)) this.#send(peer, answer);
        }
        break;
      }
      case wire.SIGNAL: {
        const signal = wire.signalUntrusted(frame, SIGNAL_MAX_BYTES, SIGNAL_TTL);
        this.#router.received(peer, signal, this.#view.get(signal.to)?.via ?? null, [...this.#links.keys()], now);
        if (this.#router.arrived.length > 0) probed.cost.add(this.#verifyUnits, now); // who opens it verifies
        break;
      }
      case wire.RELAY: {
        const { to, inner } = wire.relayUntrusted(frame);
        const carried = wire.frameTypeUntrusted(inner);
        if ((carried !== wire.TOLD && carried !== wire.GOSSIP) || inner.length > sizeMax(carried))
          throw new ProtocolError("not relayed");
        if (to === this.peerId) this.#read(carried, link, inner, now);
        else if (to !== peer) this.#send(to, wire.encodeRelay(to, inner));
        break;
      }
      case wire.DISCONNECT:
        this.#linkClosed(peer, now); // it lives, and has no use for this link; it closes it
        this.#detector.linkDown(peer);
        this.#take(wire.itemsUntrusted(frame, 2), link, now);
        this.#wantLater(peer, now);
        break;
      case wire.KEEP: {
        const { origin } = wire.keepUntrusted(frame, this.#room); // of the tree, whose leaf we are
        if (!this.#view.isAlive(origin)) this.#detector.heard(probed, now);
        break;
      }
      default:
        break; // PRUNE, and what keeps a large room's overlay in shape
    }
  }

  #onProbe(link: Link, probe: wire.Probe, frame: Uint8Array, now: number): void {
    const { probed } = link;
    if (probe.kind === wire.PING) this.#detector.pingReceived(probed, now, probe.srtt / 10_000);
    else {
      const rtt = this.#detector.ackReceived(probed, probe.sequence, now);
      if (rtt !== null) {
        this.#coordinate.update(probe.coordinates, rtt);
        this.#broadcast.noteRtt(probed.peer, probed.srtt);
      }
    }
    probed.got = (probed.got + 1) & 0xffff;
    const large = (probe.links & wire.LARGE_ROOM) !== 0;
    if (link.large !== large) {
      link.large = large;
      this.#resize(now);
    }
    if (!equal(probe.viewHash, wire.NO_HASH))
      this.#sync.hashSeen(probed.peer, probe.viewHash, this.#view.viewHash, this.#view.changedAt, now);
    if (frame.length > wire.PROBE_BYTES) this.#take(wire.itemsUntrusted(frame, wire.PROBE_BYTES), link, now);
    if (probe.kind === wire.PING) this.#sendProbe(wire.ACK, probe.sequence, probed);
  }

  #onHello(link: Link, frame: Uint8Array, now: number): void {
    const { probed } = link, { peer } = probed, newcomer = !this.#introduced;
    const hello = wire.helloUntrusted(frame);
    const summarised = !(hello.flags & wire.UNSUMMARISED);
    const differing = newcomer || hello.flags & wire.NEWCOMER ? wire.ALL_BUCKETS : this.#differing(hello.buckets);
    const mask = summarised ? differing : 0;
    link.large = (hello.flags & wire.LARGE) !== 0;
    const introduced = newcomer && (!(hello.flags & wire.NEWCOMER) || peer < this.peerId);
    if (introduced && this.#fresh.meet(hello.wallS, now)) this.#reissue(now);
    this.#take(hello.items, link, now);
    const record = this.#view.record(peer);
    if (hello.instance === 0n && this.#fresh.instance === 0n && record !== undefined)
      this.#agree(wire.foundedBy(this.#own, record), now, true);
    else this.#agree(hello.instance, now);
    this.#view.metWith(peer, now);
    this.#introduced = true;
    const kept = this.#keptSeats.get(peer); // a server told us first of its new life: it may not know which seat it had
    if (kept !== undefined) this.#send(peer, wire.told(kept.record));
    if (mask !== 0 && this.peerId < peer) this.#sendDigest(probed, mask, now);
    else if (mask === 0) this.#seats.synced(now);
    this.#resize(now);
  }

  #onDigest(link: Link, frame: Uint8Array, now: number): void {
    const { probed } = link, { peer } = probed;
    const { mask, entries } = wire.digestUntrusted(frame);
    this.#sync.differed();
    const wants: PeerId[] = [], given: Uint8Array[] = [], listed = new Set(entries.map((entry) => entry.peer));
    for (const entry of entries) {
      const mine = this.#version(entry.peer);
      if (mine === null) {
        if (entry.status !== wire.ENTRY_LEFT) wants.push(entry.peer);
        continue;
      }
      const order = wire.compareVersions(entry, mine.record);
      const { status, record } = mine;
      if (order > 0 || (order === 0 && entry.status === wire.ENTRY_LEFT && status < wire.ENTRY_LEFT)) {
        if (entry.status !== wire.ENTRY_DOWN || status === wire.ENTRY_ALIVE) wants.push(entry.peer);
      } else if (order < 0 || (status === wire.ENTRY_LEFT && entry.status < wire.ENTRY_LEFT)) given.push(wire.encodedNews(record));
      else if (entry.status === wire.ENTRY_DOWN && status === wire.ENTRY_ALIVE) wants.push(entry.peer);
      else if (entry.status === wire.ENTRY_ALIVE && status === wire.ENTRY_DOWN) this.#tellDown(peer, this.#view.get(entry.peer)!);
      else if (entry.status === wire.ENTRY_ALIVE && status === wire.ENTRY_ALIVE && !equal(entry.versionHash, record.versionHash))
        given.push(wire.encodedNews(record)); // two faces: ours proves it
    }
    const unlisted = this.#view.entries(mask).filter((member) => !listed.has(member.record.peer));
    for (const { record, status } of unlisted)
      if (status === STATUS_ALIVE && record.peer !== peer) given.push(wire.encodedNews(record));
    given.push(...goneItems(unlisted, now));
    const replies = wire.delta(wants, given, DELTA_BYTES);
    this.#answer(probed, replies.length > 0 ? replies : [wire.nothing()], given.length + entries.length, now);
    if (wants.length === 0) this.#seats.synced(now); // there is nothing that it could still tell
  }

  #onDelta(link: Link, frame: Uint8Array, now: number): void {
    const { probed } = link;
    const { wants, items } = wire.deltaUntrusted(frame);
    const known = [...new Set(wants)].map((peer) => this.#view.get(peer)).filter((member) => member !== undefined);
    const given = known.filter((member) => member.status !== STATUS_DOWN).map((member) => wire.encodedNews(member.record));
    if (wants.includes(this.peerId)) given.push(wire.encodedNews(this.#own));
    this.#answer(probed, wire.delta([], [...given, ...goneItems(known, now)], DELTA_BYTES), wants.length, now);
    this.#take(items, link, now);
    for (const member of known) if (member.status === STATUS_DOWN) this.#tellDown(probed.peer, member);
    this.#seats.synced(now);
  }

  #onGossip(link: Link, frame: Uint8Array, now: number): void {
    const { probed } = link, { peer } = probed;
    const { head, message } = wire.gossipUntrusted(frame, this.#room, BROADCAST_MAX_BYTES);
    const { origin } = message;
    if (origin === this.peerId || !this.#broadcast.wants(message)) {
      if (this.#isLarge && !(head.flags & (wire.REPAIR | wire.FLAT | wire.BESIDE)) && this.#links.size > 1 && now - link.prunedAt >= PRUNE_S) {
        link.prunedAt = now;
        this.#send(peer, wire.head(wire.PRUNE)); // this link closes a cycle
      }
      return;
    }
    if (this.#isShutOut(origin, now) || this.#view.isPast(origin, message.epoch)) return;
    if (peer !== origin && !this.#fresh.isTimely(message.at, now)) return;
    if (!this.#fresh.honours(message.instance, now, this.#view.record(origin))) return;
    if (peer !== origin) {
      probed.cost.add(this.#verifyUnits, now); // over its own link it is proved already
      this.#verify(message.signed);
    }
    this.#broadcast.received(peer, message, head, now);
  }

  /** Learn what came; one bad item does not spoil the rest, but who brings many is parted from. */
  #take(items: readonly (readonly [number, Uint8Array])[], link: Link, now: number): void {
    const { probed } = link, via = probed.peer, before = this.stats.verified;
    for (const [kind, data] of items) {
      if (this.stats.verified - before >= wire.ITEMS_MAX) { // proofs have two signatures each
        this.stats.itemsRefused++;
        continue;
      }
      this.#guarded(link, now, () => {
        if (kind === wire.ITEM_RECORD) this.#learn(wire.recordUntrusted(data), now, via);
        else if (kind === wire.ITEM_ACCUSATION) this.#hear(wire.accusationUntrusted(data), now, via);
        else if (kind === wire.ITEM_GONE) {
          const [seconds, encoded] = wire.goneUntrusted(data);
          this.#learnGone(wire.recordUntrusted(encoded), seconds, now, via);
        } else if (kind === wire.ITEM_PROOF) this.#convict(wire.proofUntrusted(data), now);
      });
    }
    probed.cost.add(items.length + this.#verifyUnits * (this.stats.verified - before), now);
  }

  // ----------------------------------------------------------------------------------------------------- own record

  #reissue(now: number, changes: Partial<OwnState> = {}): void {
    const next = { ...this.#state, ...changes };
    this.#state = { ...next, incarnation: next.incarnation + 1n };
    this.#own = wire.signRecord(this.#state, this.#room, this.#identity, this.#fresh.instance, this.#fresh.seconds(now));
    this.#renewLater(now);
    const own = this.#own;
    this.#tellAll(own);
  }

  #renewLater(now: number): void {
    this.#view.setOwn(this.#own, now);
    this.#renewAt = now + Math.min(RECORD_LIFETIME_S, RENEW_WITHIN_S) * (0.6 + 0.2 * this.#rng());
  }

  /** Our own key: an older life of ours, a copy of our newest record, or a second process that uses our key. */
  #ownRecordSeen(record: MemberRecord, now: number): void {
    const own = this.#own;
    if (equal(record.encoded, own.encoded)) return;
    const isNewer = wire.compareOrder(record, own) > 0;
    if (!isNewer && (record.seat === null || record.joinedAt === own.joinedAt)) return;
    this.#verifyRecord(record);
    if (!isNewer) {
      this.#seats.heldBefore(record.seat!);
      return;
    }
    const joining = now - this.#startedAt < JOINING_S && this.#renewals < RENEWALS_MAX;
    if (record.epoch > own.epoch && !joining && record.joinedAt !== own.joinedAt) {
      this.#later(() => this.#stop("superseded"));
      return;
    }
    this.#renewals++;
    let { epoch, incarnation } = record;
    if (record.state !== ALIVE || record.epoch > own.epoch) {
      epoch += 1n + BigInt(Math.floor(this.#rng() * APART));
      incarnation = -1n;
    }
    this.#reissue(now, { epoch, incarnation });
  }

  /** On the room's number, as a record or a neighbour says. */
  #agree(instance: bigint, now: number, founding = false): void {
    const known = this.#fresh.instance;
    if (instance !== 0n && this.#state.state === ALIVE && this.#fresh.adopt(instance, now) && (known !== 0n || founding))
      this.#reissue(now);
  }

  #stop(reason: "superseded" | "kicked"): void {
    this.#events.push({ type: "evicted", reason });
    for (const peer of this.#links.keys()) this.#outputs.push({ type: "close", peer, reason });
    this.#links.clear();
    this.running = false;
  }

  // -------------------------------------------------------------------------------------------------------- records

  #verify(signed: wire.Signed): PeerId {
    this.stats.verified++;
    return this.#options.verify(...signed);
  }

  #verifyRecord(record: MemberRecord): void {
    this.stats.verified++;
    wire.verifyRecordUntrusted(record, this.#room, this.#options.verify);
  }

  #isShutOut(peer: PeerId, now: number): boolean {
    return this.#expelled.has(peer) || now < (this.#barred.get(peer)?.until ?? -NEVER);
  }

  /** Whether it is of today and of our room. Its own author need not show that: it is there. */
  #isBelievable(record: MemberRecord, now: number, via: PeerId): boolean {
    if (via === record.peer) return true;
    return (
      this.#fresh.isTimely(record.at, now) &&
      this.#fresh.honours(record.instance, now, this.#view.record(record.peer), this.#view.record(via))
    );
  }

  /** What a server shows: somebody to dial. */
  #learnHint(record: MemberRecord, now: number): void {
    const known = this.#hints.get(record.peer);
    if (known !== undefined && now < known.until && !this.#view.isAlive(record.peer)) return;
    if (!this.#fresh.isTimely(record.at, now)) {
      this.#knock(record, now); // its list may be old, and its members still be there
      return;
    }
    this.#learn(record, now, null);
    if (!this.#links.has(record.peer) && record.peer !== this.peerId) this.#hint(record, now);
  }

  /** Dial it before it is believed. It shows nobody here until it answers. */
  #knock(record: MemberRecord, now: number): void {
    if (record.peer === this.peerId || this.#links.has(record.peer)) return;
    this.#guarded(null, now, () => {
      this.#verifyRecord(record);
      this.#hint(record, now);
      this.#dialer.want(record.peer, now);
    });
  }

  #hint(record: MemberRecord, now: number): void {
    const known = this.#hints.get(record.peer);
    this.#hints.delete(record.peer);
    this.#hints.set(record.peer, { record, until: known !== undefined && now < known.until ? known.until : now + HINT_S });
    forgetOldest(this.#hints, HINTS_MAX);
  }

  /** A neighbour knows somebody as well of whom only a server told us. */
  #confirm({ record }: Member, via: PeerId, now: number): void {
    this.#view.confirm(record.peer, now);
    this.#announce(record, via);
    this.#later(() => this.#wantMember(record, now));
    this.#spread(record, via);
  }

  /** The neighbour's record of it is no newer than the server's; of the same stay it says the same. */
  #confirmByOlder(known: Member, record: MemberRecord, via: PeerId, now: number): void {
    if (record.state !== ALIVE || record.joinedAt !== known.record.joinedAt || !this.#isBelievable(record, now, via)) return;
    this.#verifyRecord(record);
    this.#confirm(known, via, now);
  }

  #learn(record: MemberRecord, now: number, via: PeerId | null): void {
    const { peer } = record;
    if (peer === this.peerId) {
      this.#ownRecordSeen(record, now);
      return;
    }
    const known = this.#view.get(peer);
    if (known !== undefined && this.#view.isAlive(peer) && equal(known.record.encoded, record.encoded)) {
      if (via !== null && known.hint) this.#confirm(known, via, now);
      return; // by far the most records are heard again and again
    }
    if (this.#isShutOut(peer, now)) return;
    if (via === peer) this.#view.clockWentBack(record);
    if (this.#view.compare(record) !== "noted") {
      if (known !== undefined && wire.contradict(known.record, record)) {
        this.#verifyRecord(record);
        this.#convict(wire.prove(known.record, record), now);
      } else if (via !== null && known?.hint && known.status === STATUS_ALIVE) this.#confirmByOlder(known, record, via, now);
      else this.#answerOldRecord(record, via);
      return;
    }
    if (this.#view.isHasty(record, now) || !(via === null || this.#isBelievable(record, now, via))) return;
    this.#verifyRecord(record);
    if (record.instance !== this.#fresh.instance) this.#agree(record.instance, now);
    const previous = known?.record ?? null, wasHint = known?.hint ?? false;
    let change = this.#view.apply(record, now, via);
    if (change === "refused" && via === peer) {
      const stranger = this.#view.unproven();
      if (stranger !== null) {
        this.#forget(stranger, now); // who is linked to us comes before who is only told of
        change = this.#view.apply(record, now, via);
      }
    }
    if (change === "refused") return;
    if (change === "restarted" || change === "left") this.#suspicions.drop(peer);
    else this.#suspicions.clearOlder(peer, record);
    if (change === "noted") {
      const member = this.#view.get(peer);
      if (member !== undefined && via !== null) this.#tellDown(via, member);
      return;
    }
    if (change === "joined") this.#later((at) => this.#joined(record, via, previous, at));
    else if (change === "restarted" && previous !== null) this.#later((at) => this.#restarted(record, via, previous, at));
    else if (change === "left") this.#later((at) => this.#gone(peer, wire.LEAVE_REASONS[record.reason]!, true, at));
    else if (previous !== null && !wasHint && (previous.name !== record.name || !equal(previous.metadata, record.metadata)))
      this.#events.push({ type: "renamed", record });
    if (previous !== null && previous.seat !== null && via === peer && record.joinedAt !== previous.joinedAt)
      this.#tell(peer, previous); // it may not know which seat it had before it crashed
    if (via === null) return; // a server's word is not passed on
    if (wasHint && change === "updated") {
      this.#announce(record, via);
      this.#later((at) => this.#wantMember(record, at));
    }
    this.#spread(record, via);
  }

  /** A neighbour lost this member before our time. No event: for us it never was here; unless a server showed it to us. */
  #learnGone(record: MemberRecord, seconds: number, now: number, via: PeerId): void {
    const known = this.#view.get(record.peer);
    if (record.peer === this.peerId || record.state !== ALIVE || (known !== undefined && !known.hint)) return;
    if (!this.#isBelievable(record, now, via)) return;
    this.#verifyRecord(record);
    if (known !== undefined) {
      if (this.#view.isAlive(record.peer)) this.#later((at) => this.#gone(record.peer, "timeout", false, at));
      this.#view.forget(record.peer, now - seconds);
      this.#suspicions.drop(record.peer);
    }
    this.#view.rememberDown(record, now - seconds);
  }

  /** Somebody believes a member alive that we know better: tell it at once. */
  #answerOldRecord(record: MemberRecord, via: PeerId | null): void {
    const member = this.#view.get(record.peer);
    if (member === undefined || via === null || record.state !== ALIVE) return;
    if (via === record.peer && wire.compareOrder(member.record, record) > 0) this.#tell(via, member.record);
    this.#tellDown(via, member);
  }

  /** Let a neighbour know our verdict, signed once, so that the subject can raise its epoch: whoever asks again costs nothing. */
  #tellDown(to: PeerId, member: Member): void {
    if (member.status !== STATUS_DOWN) return;
    let said = this.#verdicts.get(member.record);
    if (said?.instance !== this.#fresh.instance) {
      said = this.#accusation(member.record, DOWN);
      this.#verdicts.set(member.record, said);
    }
    this.#tell(to, said);
  }

  #accusation(record: MemberRecord, verdict: number): wire.Accusation {
    return wire.accuse(this.#room, this.#identity, record.peer, record, verdict, this.#fresh.instance);
  }

  /** A newcomer introduced itself to us: in a small room everybody hears of it at once. */
  #announce(record: MemberRecord, via: PeerId | null): void {
    if (this.#isLarge || via !== record.peer) return;
    for (const peer of this.#links.keys()) if (peer !== via) this.#tell(peer, record);
  }

  #joined(record: MemberRecord, via: PeerId | null, previous: MemberRecord | null, now: number): void {
    this.#announce(record, via);
    this.#events.push({ type: "discovered", record });
    this.#keepSeat(previous, record, now);
    this.#cuts.back(record.peer, now);
    this.#resize(now);
    this.#wantMember(record, now);
    if (!this.#links.has(record.peer)) this.#vouching.arm(now);
  }

  #restarted(record: MemberRecord, via: PeerId | null, old: MemberRecord, now: number): void {
    this.#announce(record, via);
    this.#events.push({ type: "left", peer: record.peer, reason: "superseded" }, { type: "discovered", record });
    this.#keepSeat(old, record, now);
    if (via !== record.peer) this.#hangUp(record.peer, "superseded", now); // the link that we have was its old life's
    this.#wantMember(record, now);
  }

  #gone(peer: PeerId, reason: LeaveReason, missed: boolean, now: number): void {
    this.#events.push({ type: "left", peer, reason });
    if (!this.#hints.has(peer) || missed) this.#dialer.drop(peer);
    this.#keptSeats.delete(peer);
    this.#hangUp(peer, reason, now);
    this.#detector.linkDown(peer);
    if (reason === "timeout" && missed) {
      this.#cuts.lost(peer, now);
      if (this.#knockAt === NEVER) this.#knockAt = now + KNOCK_S * this.#rng();
    } else this.#cuts.forget(peer);
    this.#resize(now);
  }

  /** Who restarts keeps its seat for a while, until its new life claims it. */
  #keepSeat(previous: MemberRecord | null, record: MemberRecord, now: number): void {
    if (previous === null || previous.seat === null || record.seat !== null || !this.#seats.enabled) return;
    this.#keptSeats.set(record.peer, { record: previous, until: now + SEAT_HOLD_S });
    this.#seatingAt = now;
  }

  #forget(peer: PeerId, now: number): void {
    this.#view.forget(peer, now);
    this.#suspicions.drop(peer);
    this.#later((at) => this.#gone(peer, "capacity", true, at));
  }

  #lose(peer: PeerId, reason: LeaveReason, closed: boolean, now: number): boolean {
    if (!this.#view.isAlive(peer)) return false;
    const met = this.#view.get(peer)!.met;
    this.#view.markDown(peer, now, closed);
    this.#suspicions.drop(peer);
    this.#later((at) => this.#gone(peer, reason, met || !closed, at));
    return true;
  }

  /** The key is barred until its younger record is as old as no word may be. */
  #convict(proof: wire.Proof, now: number): void {
    const { peer, one, other } = proof;
    const timely = [one, other].map((record) => record.at).filter((at) => this.#fresh.isTimely(at, now));
    if (peer === this.peerId || this.#isShutOut(peer, now) || timely.length === 0) return;
    this.#verifyRecord(one);
    this.#verifyRecord(other);
    this.#barred.delete(peer);
    this.#barred.set(peer, { proof, until: now + Math.max(...timely) - this.#fresh.seconds(now) + FRESH_S });
    forgetOldest(this.#barred, BARRED_MAX);
    const known = this.#lose(peer, "two-faced", true, now);
    if (!this.#convictions.allow(now) && !known) return;
    this.#later((at) => {
      this.#hangUp(peer, "two-faced", at);
      this.#events.push({ type: "twoFaced", peer });
      this.#tellAll(proof);
    });
  }

  // ---------------------------------------------------------------------------------------------------- accusations

  #witnesses = (): number => Math.max(0, this.#view.alive.size - 1);

  #hear(accusation: wire.Accusation, now: number, via: PeerId): void {
    const { subject, accuser: by } = accusation;
    const contested = this.#detector.accused(subject, now);
    if (by === this.peerId || this.#expelled.has(by)) return;
    if (subject === this.peerId) {
      this.#refute(accusation, now, via);
      return;
    }
    const member = this.#view.get(subject), accuser = this.#view.get(by);
    if (member === undefined || !this.#view.isAlive(subject)) return;
    const order = wire.compareVersions(accusation, member.record);
    if (order < 0) {
      this.#tell(via, member.record); // refuted already: pass the refutation on
      return;
    }
    if (order > 0 || accuser === undefined || !this.#view.isAlive(by) || !this.#counts(accusation, now)) return;
    if (this.#suspicions.knows(subject, member.record, by, accusation.verdict)) return;
    this.#verifyAccusation(accusation, accuser.record);
    const returned = accuser.record.epoch !== accuser.record.joinedAt && now - accuser.since < RETURNED_S;
    const news = this.#suspicions.accuse(subject, member.record, by, accusation.verdict, now, {
      own: false, contested: contested || returned, witnesses: this.#witnesses(),
    });
    if (!news) return;
    if (this.#links.has(subject) && via !== subject) this.#tell(subject, accusation);
    this.#spread(accusation, via);
  }

  #refute(accusation: wire.Accusation, now: number, via: PeerId): void {
    const order = wire.compareVersions(accusation, this.#own), accuser = this.#view.get(accusation.accuser);
    if (order < 0) this.#tell(via, this.#own);
    if (accusation.verdict === DOWN && via === accusation.accuser && accuser !== undefined) this.#noteLetGo(accusation, accuser, now);
    const verdict = accusation.verdict === DOWN ? DOWN : SUSPECT;
    if (order !== 0 || accuser === undefined || now - this.#refutedAt[verdict]! < REFUTE_GAP_S) return;
    if (!this.#counts(accusation, now)) return;
    this.#verifyAccusation(accusation, accuser.record);
    this.#refutedAt[verdict] = now;
    this.stats.refutations++;
    if (verdict === SUSPECT) this.#reissue(now);
    else if (this.#state.state === ALIVE) this.#reissue(now, { epoch: accusation.epoch + 1n, incarnation: -1n });
  }

  #counts = (accusation: wire.Accusation, now: number): boolean =>
    this.#fresh.honours(accusation.instance, now, this.#view.record(accusation.accuser));

  #verifyAccusation(accusation: wire.Accusation, accuser: MemberRecord): void {
    this.stats.verified++;
    wire.verifyAccusationUntrusted(accusation, this.#room, accuser.publicKey, this.#options.verify);
  }

  /** A neighbour that we never lost says itself that it had: we were silent, and it hears us again. */
  #noteLetGo(accusation: wire.Accusation, accuser: Member, now: number): void {
    const { peer } = accuser.record;
    const due = this.#view.isAlive(peer) && now - (this.#letGoAt.get(peer) ?? -NEVER) >= LET_GO_GAP_S;
    const neverLost = !accuser.revived || now - accuser.since >= SAME_BREAK_S;
    const ofThisStay = this.#own.joinedAt <= accusation.epoch && accusation.epoch <= this.#own.epoch;
    if (!due || !neverLost || !ofThisStay || !this.#counts(accusation, now)) return;
    this.#verifyAccusation(accusation, accuser.record);
    this.#letGoAt.delete(peer);
    this.#letGoAt.set(peer, now);
    forgetOldest(this.#letGoAt, LET_GO_MAX);
    this.#events.push({ type: "letGo", record: accuser.record });
  }

  #linkSilent(peer: PeerId, now: number): void {
    const member = this.#view.get(peer);
    if (member === undefined || !this.#view.isAlive(peer)) return;
    const accusation = this.#accusation(member.record, SUSPECT);
    if (this.#suspicions.knows(peer, member.record, this.peerId, SUSPECT)) this.#tell(peer, accusation);
    else this.#tellAll(accusation);
    this.#suspicions.accuse(peer, member.record, this.peerId, SUSPECT, now, {
      own: true, contested: false, witnesses: this.#witnesses(), rttS: this.#links.get(peer)?.probed.srtt ?? 0,
    });
  }

  #verdict(peer: PeerId, version: wire.Version, own: boolean, now: number): void {
    const member = this.#view.get(peer);
    if (member === undefined || wire.compareVersions(member.record, version) !== 0) return;
    if (!this.#lose(peer, "timeout", false, now)) return;
    this.stats.verdicts++;
    if (own) this.#tellAll(this.#accusation(member.record, DOWN));
  }

  // ---------------------------------------------------------------------------------------------------------- links

  #linkOpened(peer: PeerId, now: number, rtt: number | null): void {
    const isOutbound = this.#dialer.inFlight.has(peer), isAlone = this.#links.size === 0;
    const flags =
      (isOutbound ? wire.OUTBOUND : 0) | (isAlone ? wire.ISOLATED : 0) | (this.#introduced ? 0 : wire.NEWCOMER) |
      (this.#isLarge ? wire.LARGE : 0);
    this.#dialer.linked(peer);
    this.#hints.delete(peer);
    const probed = this.#detector.linkUp(peer, now, rtt);
    this.#links.set(peer, { probed, large: null, prunedAt: -NEVER });
    this.#suspicions.clear(peer); // its handshake is a sign of life
    const haves = this.#broadcast.haves(now);
    this.#sync.linkUp(peer, now);
    const wall = this.#fresh.seconds(now);
    this.#send(peer, wire.encodeHello(flags, this.#fresh.instance, wall, this.#view.buckets, this.#own));
    for (const { proof, until } of [...this.#barred.values()].slice(-PROOFS_TOLD)) if (now < until) this.#tell(peer, proof);
    if (haves.length > 0) this.#send(peer, wire.encodeHaves(haves, 0));
    this.#broadcast.linkUp(peer, now);
    const member = this.#view.get(peer);
    if (member !== undefined) this.#tellDown(peer, member);
    this.#view.metWith(peer, now);
    if (this.#seats.enabled) this.#seatingAt = now; // its claim counts from now on
    if (isAlone) this.#seats.metOthers(now);
    this.#resize(now);
  }

  #linkClosed(peer: PeerId, now: number): void {
    if (this.#links.delete(peer)) {
      this.#view.metWith(peer, now);
      if (!this.#isLarge) this.#vouching.arm(now);
    }
    this.#suspicions.uncontested(peer, this.#witnesses(), now);
    this.#sync.linkDown(peer);
    this.#broadcast.linkDown(peer);
    this.#router.linkDown(peer);
  }

  /** Close a link to somebody who is gone. */
  #hangUp(peer: PeerId, reason: string, now: number): void {
    if (!this.#links.has(peer)) return;
    this.#linkClosed(peer, now);
    this.#detector.linkDown(peer);
    this.#outputs.push({ type: "close", peer, reason });
  }

  /** Close a link to somebody who is alive: it is told, and given others to turn to. */
  #part(peer: PeerId, reason: string, now: number): void {
    if (!this.#links.has(peer)) return;
    this.#refuse(peer);
    this.#hangUp(peer, reason, now);
    this.#wantLater(peer, now);
  }

  #refuse(peer: PeerId): void {
    const others = sample(this.#rng, this.#view.living(), ALTERNATIVES).filter((m) => !m.hint && m.record.peer !== peer);
    const frame = concat(wire.head(wire.DISCONNECT), ...others.map((member) => wire.encodedNews(member.record)));
    this.#outputs.push({ type: "send", peer, frame, reliable: true });
  }

  #renewLink(peer: PeerId, now: number): void {
    if (!this.#links.has(peer)) return;
    this.#part(peer, "impaired", now);
    this.#dialer.drop(peer);
    if (!this.#isLarge) this.#dialer.want(peer, now + 1);
  }

  #wantLater(peer: PeerId, now: number): void {
    if (!this.#isLarge && this.#view.isAlive(peer)) this.#dialer.want(peer, now + RETRY_PARTED_S);
  }

  /** In a full mesh everybody is dialled; the elder of two waits for the newcomer's dial. */
  #wantMember(record: MemberRecord, now: number): void {
    if (this.#isLarge || this.#links.has(record.peer) || !this.#mayWantMore) return;
    const own = this.#own;
    const isNewer = own.joinedAt > record.joinedAt || (own.joinedAt === record.joinedAt && own.peer > record.peer);
    this.#dialer.want(record.peer, isNewer ? now : now + DIAL_PATIENCE_S);
  }

  get #mayWantMore(): boolean {
    return this.#dialer.wishes.size + this.#links.size < FULL_MESH_MAX + SPARE_DIALS;
  }

  /**
   * Records alone make no room large, for they cost nothing: nearly as many links do as a full mesh has, and with those for whom
   * two neighbours stand more; or neighbours that call it so.
   */
  #resize(now: number): void {
    const members = this.#view.alive.size + 1, links = this.#links.size, few = FULL_MESH_MAX - HYSTERESIS;
    const seconded = links < FULL_MESH_MAX && members > FULL_MESH_MAX && !this.#isLarge ? this.#view.seconded(now, this.#links) : 0;
    const many = links >= few && links + seconded >= FULL_MESH_MAX;
    const sayLarge = [...this.#links.values()].filter((link) => link.large === true).length;
    const saySmall = [...this.#links.values()].filter((link) => link.large === false).length;
    const before = this.#isLarge;
    if (members <= few) this.#isLarge = false;
    else if (!before) this.#isLarge = members > FULL_MESH_MAX && (many || sayLarge > saySmall || links === 0);
    else if (sayLarge < saySmall && links < few) this.#isLarge = false;
    if (this.#isLarge === before) return;
    if (this.#isLarge) {
      this.#tendAt = now + TEND_S * this.#rng();
      for (const peer of [...this.#dialer.wishes.keys()]) if (!this.#dialer.inFlight.has(peer)) this.#dialer.drop(peer);
    } else {
      this.#tendAt = NEVER;
      this.#view.living().forEach((member) => this.#view.vouched(member.record.peer, now));
      this.#vouching.arm(now);
      this.#wantMissing(now);
    }
  }

  /** In a large room a few links are kept. */
  #tendLinks(now: number): void {
    this.#tendAt = now + TEND_S * (0.75 + 0.5 * this.#rng());
    const open = this.#view.living().filter((m) => !this.#links.has(m.record.peer) && !this.#dialer.wishes.has(m.record.peer));
    const missing = LARGE_LINKS - this.#links.size - this.#dialer.wishes.size;
    for (const member of sample(this.#rng, open, Math.max(0, missing))) this.#dialer.want(member.record.peer, now);
  }

  #wantMissing(now: number): void {
    if (this.#isLarge || this.#view.alive.size <= this.#links.size + this.#dialer.wishes.size) return;
    for (const { record } of this.#view.living()) if (!this.#links.has(record.peer) && this.#mayWantMore) this.#wantMember(record, now);
  }

  /** In a full mesh whoever has no link needs a voucher; in a larger room, whom only a server told of. */
  #vouch(now: number): void {
    const helpers = [...this.#links.keys()].filter((peer) => !this.#detector.isImpaired(peer)); // without one nobody can be judged
    const needs = this.#view.living().filter((m) => !this.#links.has(m.record.peer) && (m.hint || (!this.#isLarge && helpers.length > 0)));
    const gone = this.#vouching.beat(
      now, needs.map((member) => [member.vouchedAt, this.#view.isSeconded(member, now), member.record.peer] as const), helpers,
    );
    for (const peer of gone) {
      const member = this.#view.get(peer)!;
      if (!member.hint) this.#lose(peer, "timeout", !member.met, now);
      else {
        this.#view.forget(peer, now);
        this.#suspicions.drop(peer);
        this.#later((at) => this.#gone(peer, "timeout", member.met, at));
      }
    }
    this.#wantMissing(now);
  }

  #knockOnDoors(now: number): void {
    const down = this.#view.down();
    this.#knockAt = down.length > 0 ? now + KNOCK_S * (0.75 + 0.5 * this.#rng()) : NEVER;
    if (down.length > 0 && this.#rng() < KNOCK_FACTOR / (this.#view.alive.size + 1))
      this.#dialer.want(choice(this.#rng, down).record.peer, now);
  }

  // ---------------------------------------------------------------------------------------------------------- views

  #compareViews(now: number): void {
    this.#sync.handleTimeout(now);
    for (const peer of this.#view.expired(now)) if (!this.#links.has(peer)) this.#lose(peer, "timeout", false, now);
    for (const peer of this.#view.tidy(now)) this.#broadcast.forget(peer);
  }

  #differing(theirs: readonly Uint8Array[]): number {
    let mask = 0;
    this.#view.buckets.forEach((ours, bucket) => {
      if (!equal(ours, theirs[bucket]!)) mask |= 1 << bucket;
    });
    return mask;
  }

  #sendDigest(probed: ProbedLink, mask: number, now: number): void {
    if (!this.#sync.mayDigest(probed.peer, now)) return;
    const entries = this.#view.entries(mask).map(({ record, status }) => ({
      peer: record.peer, epoch: record.epoch, incarnation: record.incarnation, status, versionHash: record.versionHash,
    }));
    this.#answer(probed, [wire.digest(mask, entries)], entries.length, now);
  }

  /** What members told us of it: a hint is confirmed by who brings the record. */
  #version(peer: PeerId): { record: MemberRecord; status: number } | null {
    if (peer === this.peerId) return { record: this.#own, status: wire.ENTRY_ALIVE };
    const member = this.#view.get(peer);
    return member === undefined || member.hint ? null : member;
  }

  /** Who asked pays: without means it gets nothing, and may ask again. */
  #answer(probed: ProbedLink, frames: readonly Uint8Array[], lines: number, now: number): void {
    probed.cost.add(lines, now);
    if (probed.cost.mayAnswer(frames.reduce((sum, frame) => sum + frame.length, 0), now))
      for (const frame of frames) this.#send(probed.peer, frame);
  }

  // ---------------------------------------------------------------------------------------------------------- seats

  /** Compute the seating again if the view changed, or a held seat's time is over. */
  #seatEverybody(now: number): void {
    if (this.#view.seatChanges === this.#seatChanges && now < this.#seatingAt) return;
    this.#seatChanges = this.#view.seatChanges;
    this.#seatingAt = NEVER;
    const own = this.#own, claims: Claim[] = [];
    if (own.seat !== null) claims.push({ peer: own.peer, seat: own.seat, proven: true, ballot: own.ballot });
    const hold = (peer: PeerId, seat: number, until: number, proven: boolean): void => {
      if (now >= until) return;
      claims.push({ peer, seat, proven, ballot: [] });
      this.#seatingAt = Math.min(this.#seatingAt, until);
    };
    for (const member of this.#view.living()) {
      const { peer, seat, ballot } = member.record;
      const kept = this.#keptSeats.get(peer);
      if (seat !== null) claims.push({ peer, seat, proven: member.met || (this.#isLarge && !member.hint), ballot });
      else if (kept !== undefined) hold(peer, kept.record.seat!, kept.until, member.met);
    }
    for (const { record, since, met } of this.#view.down())
      if (record.seat !== null) hold(record.peer, record.seat, since + SEAT_HOLD_S, met);
    this.#seats.view(claims, now);
    if (this.#seats.contested) this.#seatingAt = Math.min(this.#seatingAt, now + CONTEST_S);
  }
}

function itemsOf(kind: number, frame: Uint8Array): [number, Uint8Array][] {
  switch (kind) {
    case wire.PING:
    case wire.ACK:
      return wire.itemsUntrusted(frame, wire.PROBE_BYTES);
    case wire.HELLO:
      return wire.itemsUntrusted(frame, wire.HELLO_BYTES);
    case wire.RUMOURS:
    case wire.TOLD:
    case wire.DISCONNECT:
      return wire.itemsUntrusted(frame, 2);
    case wire.DELTA:
      return wire.deltaUntrusted(frame).items;
    default:
      return [];
  }
}

/** For a newcomer: who was lost to silence, and how many seconds ago. */
function goneItems(members: readonly Member[], now: number): Uint8Array[] {
  const fresh = members.filter((m) => m.status === STATUS_DOWN && !m.closed && now - m.since < GONE_TOLD_S);
  return fresh.slice(-GONE_TOLD_MAX).map((member) => wire.goneItem(now - member.since, member.record));
}

function before(one: Uint8Array, other: Uint8Array): boolean {
  for (let at = 0; at < one.length; at++) if (one[at] !== other[at]) return one[at]! < other[at]!;
  return false;
}
