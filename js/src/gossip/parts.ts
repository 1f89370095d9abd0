// Smaller machines of a node: what is fresh, who vouches, when views are compared, rumours, cuts, and signals on their way.

import type { PeerId } from "../api.ts";
import { equal } from "../bytes.ts";
import { bits63, forgetOldest, type Rng, sample, TokenBucket } from "../limits.ts";
import { encodeSignal, type MemberRecord, NO_HASH, pingReq, type SignalFrame } from "./wire.ts";

const NEVER = Number.POSITIVE_INFINITY;

export interface Send {
  readonly peer: PeerId;
  readonly frame: Uint8Array;
  readonly reliable: boolean;
}

// --------------------------------------------------------------------------------------------------------- freshness

/** The oldest word of another session that is believed, in seconds. */
export const FRESH_S = 600;
export const RENEW_WITHIN_S = 300;
const CLOCK_S = 30, BEFORE_MAX = 8, ADOPTIONS = 8, ADOPTIONS_PER_S = 1 / 30;

/** Unix seconds are `now + offsetS`. `told`: by a server whom all ask; else it is our own clock. */
export interface Calendar {
  readonly offsetS: number;
  readonly told: boolean;
}

/** Whether a signed word is of today and of our room. */
export class Freshness {
  instance = 0n; // 0: nobody has told us yet
  #calendar: Calendar;
  readonly #before = new Map<bigint, number>();
  readonly #adoptions: TokenBucket;

  constructor(calendar: Calendar, now: number) {
    this.#calendar = calendar;
    this.#adoptions = new TokenBucket(ADOPTIONS, ADOPTIONS_PER_S, now);
  }

  seconds = (now: number): number => Math.max(0, Math.floor(now + this.#calendar.offsetS));
  isTimely = (at: number, now: number): boolean => Math.abs(now + this.#calendar.offsetS - at) <= FRESH_S;

  /** `known`: instances of records of its signer, or of who brought it. */
  honours(instance: bigint, now: number, ...known: readonly (MemberRecord | undefined)[]): boolean {
    if (instance <= this.instance || this.instance === 0n) return true;
    return known.some((record) => record?.instance === instance) || (this.#before.get(instance) ?? -NEVER) > now;
  }

  /** Whether that is our room's number from now on: it is lower than ours, or our first. */
  adopt(instance: bigint, now: number): boolean {
    if (instance === 0n || (this.instance !== 0n && instance >= this.instance) || !this.#adoptions.allow(now)) return false;
    if (this.instance !== 0n) {
      this.#before.delete(this.instance);
      this.#before.set(this.instance, now + FRESH_S);
      forgetOldest(this.#before, BEFORE_MAX);
    }
    this.instance = instance;
    return true;
  }

  /** The time of the room that we enter. Whether our clock was another's. */
  meet(wallS: number, now: number): boolean {
    if (this.#calendar.told || Math.abs(wallS - (now + this.#calendar.offsetS)) <= CLOCK_S) return false;
    this.#calendar = { ...this.#calendar, offsetS: wallS - now };
    return true;
  }
}

// ---------------------------------------------------------------------------------------------------------- vouching

const VOUCHED_S = 9, BEAT_S = 0.9, ASK_S = 2, HELPERS = 3, ASKED_MAX = 32, ANSWERS_MAX = 256;

/** Members without a link of ours are asked for at those whom we are linked to: a record alone proves a key, not a player. */
export class Vouching {
  deadline = NEVER;
  readonly frames: Send[] = [];
  readonly #rng: Rng;
  #sequence: number;
  readonly #asked = new Set<string>();

  constructor(rng: Rng) {
    this.#rng = rng;
    this.#sequence = Math.floor(rng() * 2 ** 31);
  }

  arm(now: number): void {
    if (this.deadline === NEVER) this.deadline = now + BEAT_S;
  }

  /** `members`: when somebody last vouched, whether two did, and for whom. Returns for whom nobody did in time. */
  beat(now: number, members: readonly (readonly [number, boolean, PeerId])[], helpers: readonly PeerId[]): PeerId[] {
    this.deadline = NEVER;
    const gone = members.filter(([at]) => now - at >= VOUCHED_S).map(([, , peer]) => peer);
    const waiting = members.filter(([at]) => now - at < VOUCHED_S).sort(([one], [other]) => one - other);
    if (waiting.length > 0) this.deadline = now + BEAT_S;
    for (const [at, seconded, peer] of waiting.slice(0, ASKED_MAX)) if (!seconded || now - at >= ASK_S) this.#ask(peer, helpers);
    return gone;
  }

  answered = (sequence: number, target: PeerId): boolean => this.#asked.has(`${sequence}.${target}`);

  #ask(target: PeerId, helpers: readonly PeerId[]): void {
    this.#sequence = (this.#sequence + 1) >>> 0;
    this.#asked.add(`${this.#sequence}.${target}`);
    forgetOldest(this.#asked, ANSWERS_MAX);
    const frame = pingReq(this.#sequence, target);
    for (const peer of sample(this.#rng, helpers, HELPERS)) this.frames.push({ peer, frame, reliable: false });
  }
}

// -------------------------------------------------------------------------------------------------------------- sync

const SYNC_S = 5, MISMATCH_S = 1, DIGEST_GAP_S = 0.5, PAIR_GAP_S = 2, REST_MAX = 4;

/** When to compare views, and with whom. */
export class Sync {
  deadline = NEVER;
  /** With whom it is time to compare. */
  readonly due: PeerId[] = [];
  readonly #neighbours = new Map<PeerId, { viewHash: Uint8Array; since: number; nextAt: number; digestAt: number }>();
  readonly #rng: Rng;
  #rest = 1;
  #beats = 0;

  constructor(rng: Rng) {
    this.#rng = rng;
  }

  linkUp(peer: PeerId, now: number): void {
    this.#neighbours.set(peer, { viewHash: NO_HASH, since: NEVER, nextAt: -NEVER, digestAt: -NEVER });
    if (this.deadline === NEVER) this.deadline = now + SYNC_S * (0.5 + this.#rng());
  }

  linkDown(peer: PeerId): void {
    this.#neighbours.delete(peer);
    if (this.#neighbours.size === 0) this.deadline = NEVER;
  }

  /** The view hash of a probe. It says something only if neither view moves. */
  hashSeen(peer: PeerId, theirs: Uint8Array, ours: Uint8Array, oursSince: number, now: number): void {
    const neighbour = this.#neighbours.get(peer);
    if (neighbour === undefined) return;
    if (!equal(theirs, neighbour.viewHash)) {
      neighbour.viewHash = theirs;
      neighbour.since = now;
    } else if (!equal(theirs, ours) && now - Math.max(neighbour.since, oursSince) >= MISMATCH_S && now >= neighbour.nextAt) {
      neighbour.nextAt = now + PAIR_GAP_S;
      this.due.push(peer);
      this.differed();
    }
  }

  /** Two views differed, or there is traffic to repair: compare at every beat again. */
  differed(): void {
    this.#rest = 1;
  }

  mayDigest(peer: PeerId, now: number): boolean {
    const neighbour = this.#neighbours.get(peer);
    if (neighbour === undefined || now - neighbour.digestAt < DIGEST_GAP_S) return false;
    neighbour.digestAt = now;
    return true;
  }

  handleTimeout(now: number): void {
    if (now < this.deadline) return;
    this.deadline = now + SYNC_S * (0.8 + 0.4 * this.#rng());
    if (this.#neighbours.size === 0 || ++this.#beats < this.#rest) return;
    this.#beats = 0;
    this.#rest = Math.min(REST_MAX, 2 * this.#rest);
    const [partner] = sample(this.#rng, [...this.#neighbours.keys()], 1);
    this.#neighbours.get(partner!)!.nextAt = now + PAIR_GAP_S;
    this.due.push(partner!);
  }
}

const RUMOURS_MAX = 128, ITEM_MIN_BYTES = 64;

/** News that rides on probes: each item so many times, the least told first. */
export class Rumours {
  readonly #queue = new Map<string, { item: Uint8Array; times: number }>();

  add(key: string, item: Uint8Array, times: number): void {
    this.#queue.delete(key);
    this.#queue.set(key, { item, times });
    forgetOldest(this.#queue, RUMOURS_MAX);
  }

  /** Whole items for one probe, at most `room` bytes in all. */
  take(room: number): Uint8Array[] {
    const taken: Uint8Array[] = [];
    for (const [key, { item, times }] of [...this.#queue]) {
      if (room < ITEM_MIN_BYTES) break;
      if (item.length > room) continue;
      room -= item.length;
      taken.push(item);
      this.#queue.delete(key);
      if (times > 1) this.#queue.set(key, { item, times: times - 1 });
    }
    return taken;
  }
}

// -------------------------------------------------------------------------------------------------------------- cuts

const HOLD_S = 1, MIN_LOST = 3, CUT_MAX = 1024;

export type CutFact =
  | { readonly type: "seen"; readonly lost: readonly PeerId[]; readonly remaining: readonly PeerId[]; readonly majority: boolean }
  | { readonly type: "mended"; readonly returned: readonly PeerId[] };

/** Gathers losses and returns into one event each. */
export class Cuts {
  readonly facts: CutFact[] = [];
  readonly #losing = new Set<PeerId>();
  readonly #cut = new Set<PeerId>();
  readonly #returned = new Set<PeerId>();
  #losingSince = 0;
  #returningSince = 0;
  #losingUntil = NEVER;
  #returningUntil = NEVER;

  get deadline(): number {
    return Math.min(this.#losingUntil, this.#returningUntil);
  }

  /** Suspected or gone by silence. */
  lost(peer: PeerId, now: number): void {
    this.#returned.delete(peer);
    if (this.#cut.has(peer) || this.#losing.has(peer) || this.#losing.size >= CUT_MAX) return;
    if (this.#losing.size === 0) this.#losingSince = now;
    this.#losing.add(peer);
    this.#losingUntil = Math.min(this.#losingSince + 3 * HOLD_S, now + HOLD_S);
  }

  /** Heard again, or a member again. */
  back(peer: PeerId, now: number): void {
    this.#losing.delete(peer);
    if (!this.#cut.has(peer) || this.#returned.has(peer)) return;
    if (this.#returned.size === 0) this.#returningSince = now;
    this.#returned.add(peer);
    this.#returningUntil = Math.min(this.#returningSince + 3 * HOLD_S, now + HOLD_S);
  }

  /** It left by its own will. */
  forget(peer: PeerId): void {
    this.#losing.delete(peer);
    this.#cut.delete(peer);
    this.#returned.delete(peer);
  }

  handleTimeout(now: number, alive: Iterable<PeerId>, suspecting: boolean): void {
    const latest = this.#losingSince + 3 * HOLD_S;
    if (suspecting && this.#losingUntil <= now && now < latest) this.#losingUntil = Math.min(latest, now + HOLD_S / 4);
    if (now >= this.#losingUntil) {
      this.#losingUntil = NEVER;
      if (this.#losing.size >= MIN_LOST) {
        const lost = [...this.#losing], remaining = [...alive].filter((peer) => !this.#losing.has(peer));
        this.facts.push({ type: "seen", lost, remaining, majority: remaining.length + 1 > lost.length });
        for (const peer of lost) if (this.#cut.size < CUT_MAX) this.#cut.add(peer);
      }
      this.#losing.clear();
    }
    if (now >= this.#returningUntil) {
      this.#returningUntil = NEVER;
      for (const peer of this.#returned) this.#cut.delete(peer);
      if (this.#returned.size > 0) this.facts.push({ type: "mended", returned: [...this.#returned] });
      this.#returned.clear();
    }
  }
}

// ------------------------------------------------------------------------------------------------------------ router

const SEEN_MAX = 1024, ROUTES_MAX = 256, WALKERS = 4, WAYS_MAX = 3, BURST = 64, RATE = 32;
export const SIGNAL_TTL = 12, SIGNAL_MAX_BYTES = 16_384;

/** Signals to members without a link, along remembered directions or by random walks. */
export class Router {
  readonly frames: Send[] = [];
  /** What arrived for us, and the neighbour that handed it over. */
  readonly arrived: { readonly origin: PeerId; readonly blob: Uint8Array; readonly carrier: PeerId }[] = [];
  readonly #own: PeerId;
  readonly #rng: Rng;
  readonly #routes = new Map<PeerId, PeerId>();
  readonly #seen = new Map<string, PeerId[]>();
  readonly #credit = new Map<PeerId, TokenBucket>();

  constructor(own: PeerId, rng: Rng) {
    this.#own = own;
    this.#rng = rng;
  }

  send(to: PeerId, blob: Uint8Array, direction: PeerId | null, links: readonly PeerId[]): void {
    const signal = { number: bits63(this.#rng), origin: this.#own, to, ttl: SIGNAL_TTL, blob };
    this.#passOn(signal, direction, links, this.#ways(signal), null, WALKERS);
  }

  received(peer: PeerId, signal: SignalFrame, direction: PeerId | null, links: readonly PeerId[], now: number): void {
    if (signal.origin === this.#own) return;
    const first = !this.#seen.has(`${signal.origin}.${signal.number}`), ways = this.#ways(signal);
    if (first) {
      this.#routes.delete(signal.origin);
      this.#routes.set(signal.origin, peer);
      forgetOldest(this.#routes, ROUTES_MAX);
    }
    if (signal.to === this.#own) {
      if (first) this.arrived.push({ origin: signal.origin, blob: signal.blob, carrier: peer });
    } else if (signal.ttl > 1 && ways.length < WAYS_MAX && !ways.includes(signal.to) && this.#mayPass(peer, now))
      this.#passOn({ ...signal, ttl: signal.ttl - 1 }, direction, links, ways, peer, 1);
  }

  linkDown(peer: PeerId): void {
    this.#credit.delete(peer);
  }

  #passOn(
    signal: SignalFrame, direction: PeerId | null, links: readonly PeerId[], ways: PeerId[], source: PeerId | null, walkers: number,
  ): void {
    const step = [signal.to, this.#routes.get(signal.to), direction].find(
      (way) => way != null && way !== source && links.includes(way) && !ways.includes(way),
    );
    const targets = step == null ? [] : [step];
    if (!targets.includes(signal.to)) {
      const taken = [source, signal.origin, ...ways, ...targets];
      const open = links.filter((peer) => !taken.includes(peer));
      targets.push(...sample(this.#rng, open, walkers - targets.length));
    }
    ways.push(...targets);
    const frame = encodeSignal(signal);
    for (const peer of targets) this.frames.push({ peer, frame, reliable: true });
  }

  /** Whom we passed this signal on to so far. */
  #ways(signal: SignalFrame): PeerId[] {
    const key = `${signal.origin}.${signal.number}`;
    let ways = this.#seen.get(key);
    if (ways === undefined) {
      ways = [];
      this.#seen.set(key, ways);
      forgetOldest(this.#seen, SEEN_MAX);
    }
    return ways;
  }

  #mayPass(peer: PeerId, now: number): boolean {
    let credit = this.#credit.get(peer);
    if (credit === undefined) this.#credit.set(peer, (credit = new TokenBucket(BURST, RATE, now)));
    return credit.allow(now);
  }
}
