// Broadcasts: each message of a member's life is delivered once, in order, and what is missing is asked for.
//
// A page sends flat, to everybody, as members of a full mesh do. In a larger room it is a leaf of the tree: what its
// neighbours push or announce it takes, and passes nothing on unless it is asked (GRAFT).

import type { PeerId } from "../api.ts";
import { type Cost, forgetOldest } from "../limits.ts";
import {
  type BroadcastHead, type Broadcasted, encodeGossip, encodeGraft, FLAT, type Have, IDS_MAX, idKey, KEEP_EPOCH, type MessageId,
  REPAIR,
} from "./wire.ts";

const CACHE_S = 30, CACHE_BYTES = 4 * 2 ** 20, CACHE_MAX = 8192, GAP_S = 3, NEWCOMERS_GAP_S = 0.5, GRAFT_MIN_S = 0.1, GRAFT_MAX_S = 1;
const STREAMS_MAX = 1024, PENDING_MAX = 512, MISSING_MAX = 4096, MISSING_FROM_MAX = 1024, ADVERTISERS_MAX = 8;
const REPAIR_MAX = 256, REPAIR_CACHES = 2, SLOWEST_S = 1, HAVES_UNITS = 200, TURN_UNITS = 0.2;
const GRAIN_S = 0.02; // deadlines in common: a look at all that is missing is not to be had for each line that is announced
const NEVER = Number.POSITIVE_INFINITY;

export type BroadcastFact =
  | { readonly type: "received"; readonly origin: PeerId; readonly payload: Uint8Array; readonly sequence: bigint; readonly ageS: number }
  | { readonly type: "skipped"; readonly origin: PeerId; readonly count: number };

class Stream {
  readonly epoch: bigint;
  expected: bigint;
  begun = false;
  readonly pending = new Map<bigint, { payload: Uint8Array; sentAt: number } | null>(); // null: history, stepped over
  giveUpAt = NEVER;
  activeAt = -NEVER;

  constructor(epoch: bigint, expected: bigint) {
    this.epoch = epoch;
    this.expected = expected;
  }
}

interface Missing {
  readonly id: MessageId;
  readonly advertisers: PeerId[];
  readonly known: Set<PeerId>;
  readonly first: PeerId;
  deadline: number;
  fresh: boolean;
}

export class Broadcast {
  deadline = NEVER;
  readonly facts: BroadcastFact[] = [];
  readonly frames: { readonly peer: PeerId; readonly frame: Uint8Array; readonly reliable: boolean }[] = [];
  /** Set by the parent: members' streams stay when strangers' come. */
  isMember: (origin: PeerId) => boolean = () => false;
  readonly #links = new Map<PeerId, { srtt: number; missing: number; repaid: number }>();
  readonly #streams = new Map<PeerId, Stream>();
  readonly #cache = new Map<string, { message: Broadcasted; hops: number; sentAt: number }>();
  #cacheBytes = 0;
  readonly #missing = new Map<string, Missing>();
  readonly #promised = new Map<string, boolean>(); // peer and id -> whether it was announced as new
  #linkedAt: number | null = null;
  #sequence = 0n;
  readonly #sentAt: number[] = [];

  linkUp(peer: PeerId, now: number): void {
    this.#linkedAt ??= now;
    this.#links.set(peer, { srtt: 0, missing: 0, repaid: now });
  }

  linkDown(peer: PeerId): void {
    this.#links.delete(peer);
  }

  noteRtt(peer: PeerId, srtt: number): void {
    const link = this.#links.get(peer);
    if (link !== undefined) link.srtt = srtt;
  }

  /** (sequence, floor) of our next message. */
  nextSequence(now: number): [sequence: bigint, floor: bigint] {
    while (this.#sentAt.length > 0 && (now - this.#sentAt[0]! > CACHE_S || this.#sentAt.length >= REPAIR_MAX)) this.#sentAt.shift();
    this.#sequence++;
    const floor = this.#sequence - BigInt(this.#sentAt.length);
    this.#sentAt.push(now);
    return [this.#sequence, floor];
  }

  /** Send our own message to everybody whom we are linked to. */
  publish(message: Broadcasted, now: number): void {
    this.#remember(message, 0, now, now);
    const stream = this.#position(message.origin, message.epoch, message.sequence);
    if (stream !== null) {
      stream.expected = message.sequence + 1n;
      stream.activeAt = now;
    }
    const frame = encodeGossip({ hops: 0, flags: FLAT, ageS: 0 }, message.body);
    for (const peer of this.#links.keys()) this.frames.push({ peer, frame, reliable: true });
  }

  wants(id: MessageId): boolean {
    if (this.#cache.has(idKey(id))) return false;
    const stream = this.#streams.get(id.origin);
    if (stream === undefined || id.epoch > stream.epoch) return true;
    return id.epoch === stream.epoch && id.sequence >= stream.expected && !stream.pending.has(id.sequence);
  }

  /** A message that we want, its signature checked. */
  received(peer: PeerId, message: Broadcasted, head: BroadcastHead, now: number): void {
    const key = idKey(message), sentAt = now - head.ageS;
    const asked = (head.flags & REPAIR) !== 0 && this.#promised.get(`${peer}.${key}`) === false;
    this.#promised.delete(`${peer}.${key}`);
    const history = asked && (this.#linkedAt === null || sentAt < this.#linkedAt - SLOWEST_S);
    const newcomer = history || this.#linkedAt === null || now - this.#linkedAt < CACHE_S;
    const stream = this.#accept(message, now, sentAt, history, newcomer);
    if (stream === null) return;
    this.#dropMissing(key);
    this.#remember(message, head.hops, sentAt, now);
    if (stream.pending.size > 0) this.#askForGap(peer, message.origin, stream, now);
  }

  ihaveReceived(peer: PeerId, ids: readonly (readonly [MessageId, number])[], now: number): void {
    for (const [id] of ids) if (id.epoch !== KEEP_EPOCH && this.wants(id)) this.#miss(id, peer, now, true);
  }

  /** Send what is asked for, within a budget. */
  graftReceived(peer: PeerId, ids: readonly MessageId[], now: number): void {
    const link = this.#links.get(peer);
    if (link === undefined) return;
    let until = Math.max(now, link.repaid);
    for (const key of new Set(ids.map(idKey))) {
      const cached = this.#cache.get(key);
      if (cached === undefined || until - now >= CACHE_S) continue;
      const frame = encodeGossip({ hops: cached.hops + 1, flags: REPAIR, ageS: now - cached.sentAt }, cached.message.body);
      until += (frame.length * CACHE_S) / (REPAIR_CACHES * CACHE_BYTES);
      this.frames.push({ peer, frame, reliable: true });
    }
    link.repaid = until;
  }

  /** What streams of the last while we have, and how far: for a new neighbour, and with each summary. */
  haves(now: number): Have[] {
    const entries: Have[] = [];
    for (const [origin, stream] of this.#streams) {
      if (stream.activeAt < now - CACHE_S || entries.length >= IDS_MAX) continue;
      const high = stream.expected - 1n;
      let low = high;
      while (this.#cache.has(idKey({ origin, epoch: stream.epoch, sequence: low })) && high - low < BigInt(REPAIR_MAX)) low--;
      entries.push({ origin, epoch: stream.epoch, high, low: low + 1n, ageS: now - stream.activeAt });
    }
    return entries.filter((have) => have.high > 0n);
  }

  /** A neighbour asked what it lacks, and pays for the answer and for looking. */
  missingOf(theirs: readonly Have[], cost: Cost, now: number): Have[] {
    const known = new Map(theirs.map((have) => [`${have.origin}.${have.epoch}`, have.high]));
    const ours = this.haves(now);
    cost.add(HAVES_UNITS + TURN_UNITS * ours.reduce((sum, have) => sum + Number(have.high - have.low), 0), now);
    return ours.filter((have) => have.high > (known.get(`${have.origin}.${have.epoch}`) ?? 0n));
  }

  /** Nothing here is signed, so it only makes us ask; and not for what was sent before our time. */
  havesReceived(peer: PeerId, entries: readonly Have[], now: number): void {
    let turns = MISSING_FROM_MAX;
    for (const { origin, epoch, high, low, ageS } of entries) {
      if (this.#linkedAt === null || now - ageS < this.#linkedAt) continue;
      const first = high - low >= BigInt(REPAIR_MAX) ? high - BigInt(REPAIR_MAX) + 1n : low;
      for (let sequence = first; sequence <= high; sequence++) {
        if (turns-- === 0) return;
        const id = { origin, epoch, sequence };
        if (this.wants(id) && !this.#miss(id, peer, now, false)) return;
      }
    }
  }

  handleTimeout(now: number): void {
    const grafts = new Map<PeerId, MessageId[]>();
    for (const [key, missing] of [...this.#missing]) {
      if (missing.deadline > now) continue;
      let peer: PeerId | undefined;
      do peer = missing.advertisers.shift();
      while (peer !== undefined && !this.#links.has(peer));
      if (peer === undefined) {
        this.#dropMissing(key); // nobody is left to ask
        continue;
      }
      const asked = grafts.get(peer);
      if (asked === undefined) grafts.set(peer, [missing.id]);
      else asked.push(missing.id);
      this.#promised.set(`${peer}.${key}`, missing.fresh);
      forgetOldest(this.#promised, MISSING_MAX);
      missing.deadline = grained(now + this.#graftTimeout(peer));
    }
    for (const [peer, ids] of grafts)
      for (let at = 0; at < ids.length; at += IDS_MAX)
        this.frames.push({ peer, frame: encodeGraft(ids.slice(at, at + IDS_MAX), REPAIR), reliable: true });
    for (const [origin, stream] of this.#streams)
      if (stream.giveUpAt <= now) {
        stream.giveUpAt = NEVER;
        this.#skip(origin, stream, [...stream.pending.keys()].reduce((a, b) => (a < b ? a : b)), now);
        this.#flush(origin, stream, GAP_S, now);
      }
    this.#trim(now);
    this.deadline = NEVER;
    for (const missing of this.#missing.values()) this.deadline = Math.min(this.deadline, missing.deadline);
    for (const stream of this.#streams.values()) this.deadline = Math.min(this.deadline, stream.giveUpAt);
  }

  /** It is gone for so long that nothing of it can still be under way. */
  forget(origin: PeerId): void {
    this.#streams.delete(origin);
  }


  #position(origin: PeerId, epoch: bigint, expected: bigint): Stream | null {
    let stream = this.#streams.get(origin);
    if (stream === undefined || epoch > stream.epoch) {
      this.#streams.delete(origin);
      if (this.#streams.size >= STREAMS_MAX) {
        const stranger = [...this.#streams.keys()].find((other) => !this.isMember(other));
        if (stranger === undefined && !this.isMember(origin)) return null;
        this.#streams.delete(stranger ?? (this.#streams.keys().next().value as PeerId));
      }
      stream = new Stream(epoch, expected);
      this.#streams.set(origin, stream);
    }
    return stream.epoch === epoch ? stream : null;
  }

  #accept(message: Broadcasted, now: number, sentAt: number, silently: boolean, newcomer: boolean): Stream | null {
    const { origin, sequence, floor } = message;
    const stream = this.#position(origin, message.epoch, floor);
    if (stream === null || sequence < stream.expected) return null;
    if (stream.pending.size >= PENDING_MAX && sequence !== stream.expected) return null;
    stream.activeAt = Math.max(stream.activeAt, sentAt);
    this.#streams.delete(origin); // to the end of those that may be forgotten
    this.#streams.set(origin, stream);
    stream.pending.set(sequence, silently ? null : { payload: message.payload, sentAt });
    if (stream.expected < floor) this.#skip(origin, stream, floor, now);
    this.#flush(origin, stream, newcomer && !stream.begun ? NEWCOMERS_GAP_S : GAP_S, now);
    return stream;
  }

  /** Nobody can give what lies before `to`. */
  #skip(origin: PeerId, stream: Stream, to: bigint, now: number): void {
    const held = [...stream.pending.keys()].filter((sequence) => sequence < to).sort((a, b) => (a < b ? -1 : 1));
    const lost = Number(to - stream.expected) - held.length;
    if (lost > 0 && stream.begun) this.facts.push({ type: "skipped", origin, count: lost });
    for (const sequence of held) this.#deliver(origin, stream, sequence, now);
    stream.expected = to;
  }

  #flush(origin: PeerId, stream: Stream, patienceS: number, now: number): void {
    if (stream.pending.has(stream.expected)) {
      while (stream.pending.has(stream.expected)) this.#deliver(origin, stream, stream.expected++, now);
      stream.giveUpAt = NEVER;
    }
    if (stream.pending.size > 0 && stream.giveUpAt === NEVER) {
      stream.giveUpAt = grained(now + patienceS);
      this.deadline = Math.min(this.deadline, stream.giveUpAt);
    }
  }

  #deliver(origin: PeerId, stream: Stream, sequence: bigint, now: number): void {
    const message = stream.pending.get(sequence);
    stream.pending.delete(sequence);
    if (message === undefined || message === null) return;
    stream.begun = true;
    this.facts.push({ type: "received", origin, payload: message.payload, sequence, ageS: now - message.sentAt });
  }

  /** False: we wait for too much already, all told or because of this neighbour. */
  #miss(id: MessageId, peer: PeerId, now: number, fresh: boolean): boolean {
    const key = idKey(id), link = this.#links.get(peer);
    let missing = this.#missing.get(key);
    if (missing === undefined) {
      if (link === undefined || this.#missing.size >= MISSING_MAX || link.missing >= MISSING_FROM_MAX) return false;
      link.missing++;
      missing = { id, advertisers: [], known: new Set(), first: peer, deadline: grained(now + this.#graftTimeout(peer)), fresh: false };
      this.#missing.set(key, missing);
      this.deadline = Math.min(this.deadline, missing.deadline);
    }
    missing.fresh ||= fresh;
    if (!missing.known.has(peer) && missing.known.size < ADVERTISERS_MAX) {
      missing.known.add(peer);
      missing.advertisers.push(peer);
    }
    return true;
  }

  #dropMissing(key: string): void {
    const missing = this.#missing.get(key);
    if (missing === undefined) return;
    this.#missing.delete(key);
    const link = this.#links.get(missing.first);
    if (link !== undefined) link.missing = Math.max(0, link.missing - 1);
  }

  /** Who has a message has most likely those before it. */
  #askForGap(peer: PeerId, origin: PeerId, stream: Stream, now: number): void {
    let asked = 0;
    for (let sequence = stream.expected; asked < REPAIR_MAX && !stream.pending.has(sequence); sequence++, asked++)
      this.#miss({ origin, epoch: stream.epoch, sequence }, peer, now, false);
  }

  #graftTimeout(peer: PeerId): number {
    return Math.min(GRAFT_MAX_S, Math.max(GRAFT_MIN_S, 3 * (this.#links.get(peer)?.srtt ?? 0)));
  }

  #remember(message: Broadcasted, hops: number, sentAt: number, now: number): void {
    this.#cache.set(idKey(message), { message, hops, sentAt });
    this.#cacheBytes += message.body.length;
    this.#trim(now);
  }

  /** Oldest first, by age, by bytes and by number. */
  #trim(now: number): void {
    for (const [key, { message, sentAt }] of this.#cache) {
      if (sentAt > now - CACHE_S && this.#cacheBytes <= CACHE_BYTES && this.#cache.size <= CACHE_MAX) return;
      this.#cache.delete(key);
      this.#cacheBytes -= message.body.length;
    }
  }
}

const grained = (at: number): number => Math.ceil(at / GRAIN_S) * GRAIN_S;
