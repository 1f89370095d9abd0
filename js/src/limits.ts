// What others may cost us: token buckets, an account for each neighbour, tables that forget; and chance, passed in.

import {
  ACK, DELTA, DIGEST, DISCONNECT, FRAME_MAX, GOSSIP, GRAFT, HAVES, HELLO, IHAVE, INDIRECT, PING, PING_REQ, RELAY, RUMOURS,
  FORWARD_JOIN, KEEP, PRUNE, SHUFFLE, SHUFFLE_REPLY, SIGNAL, SUMMARY, TOLD,
} from "./gossip/wire.ts";

/** In [0, 1). All chance comes from it: the same inputs give the same outputs. */
export type Rng = () => number;

export const choice = <T>(rng: Rng, items: readonly T[]): T => items[Math.floor(rng() * items.length)]!;

export function sample<T>(rng: Rng, items: readonly T[], count: number): T[] {
  const pool = [...items], taken: T[] = [];
  while (taken.length < count && pool.length > 0) {
    const at = Math.floor(rng() * pool.length);
    taken.push(pool[at]!);
    pool[at] = pool[pool.length - 1]!;
    pool.pop();
  }
  return taken;
}

export const bits63 = (rng: Rng): bigint => (BigInt(Math.floor(rng() * 2 ** 31)) << 32n) | BigInt(Math.floor(rng() * 2 ** 32));

export function forgetOldest<K>(table: Map<K, unknown> | Set<K>, limit: number): void {
  while (table.size > limit) table.delete(table.keys().next().value as K);
}

export class TokenBucket {
  readonly #burst: number;
  readonly #perSecond: number;
  #tokens: number;
  #at: number;

  constructor(burst: number, perSecond: number, now: number) {
    this.#burst = this.#tokens = burst;
    this.#perSecond = perSecond;
    this.#at = now;
  }

  left(now: number): number {
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perSecond);
    this.#at = now;
    return this.#tokens;
  }

  allow(now: number, cost = 1): boolean {
    if (this.left(now) < cost) return false;
    this.#tokens -= cost;
    return true;
  }

  charge(cost: number, now: number, debtMax = Number.POSITIVE_INFINITY): void {
    this.#tokens = Math.max(this.left(now) - cost, -debtMax);
  }
}

// A unit is about a microsecond of a desktop's core, as in Python's table; a signature costs ten times as much here where the
// browser has no Ed25519, and is counted so.
export const VERIFY = 150, VERIFY_BY_LIBRARY = 1500;
export const ASKED_LINE = 170, ASKED_PROBE = 16;
/** Units of a frame and of each of its bytes, by its kind: as in Python, which a test holds. */
export const COSTS: Readonly<Record<number, readonly [base: number, perByte: number]>> = {
  [PING]: [15, 0.02], [ACK]: [15, 0.02], [PING_REQ]: [15, 0], [INDIRECT]: [5, 0], [HELLO]: [30, 0.02], [RUMOURS]: [5, 0.02],
  [SUMMARY]: [10, 0], [DIGEST]: [20, 0.1], [DELTA]: [10, 0.1], [GOSSIP]: [10, 0.005], [IHAVE]: [5, 0.15], [GRAFT]: [5, 0.1],
  [HAVES]: [5, 0.1], [SIGNAL]: [20, 0.005], [RELAY]: [10, 0.005], [DISCONNECT]: [20, 0.02], [TOLD]: [5, 0.02], [PRUNE]: [2, 0],
  [FORWARD_JOIN]: [10, 0.02], [SHUFFLE]: [20, 0.05], [SHUFFLE_REPLY]: [10, 0.05], [KEEP]: [10, 0],
};
const LARGE_KINDS: readonly number[] = [GOSSIP, RELAY];
const ITEM_KINDS: readonly number[] = [HELLO, RUMOURS, TOLD, DELTA, DISCONNECT, SHUFFLE, SHUFFLE_REPLY];
/** The largest frame of a kind that is read; no honest one is larger. */
export const sizeMax = (kind: number): number =>
  LARGE_KINDS.includes(kind) ? FRAME_MAX : ITEM_KINDS.includes(kind) ? 20_480 : 40_960;

export const BYTES_PER_S = 4 * 2 ** 20, ITEMS_PER_S = 5_000, WORK_PER_S = 250_000, BURST_S = 1.5, PATIENCE_S = 0.5, FORGIVENESS = 0.25;
export const ANSWERS_BYTES = 192 * 1024, ANSWERS_PER_BYTE = 2, ANSWERS_PER_S = 2_048, ASKED_MAX = 100_000;

/** Of one link. 1. `frame(...)` before one is read: "ok", "over" (drop it) or "part". 2. `add` what it cost beside. */
export class Cost {
  readonly #bytes: TokenBucket;
  readonly #items: TokenBucket;
  readonly #work: TokenBucket;
  readonly #patience: TokenBucket;
  #credit = 0; // of answers that we asked for, and of nothing else
  #isAnswer = false; // what is being handled
  #answers = ANSWERS_BYTES;
  #answersAt: number;

  constructor(now: number) {
    this.#bytes = new TokenBucket(BYTES_PER_S * BURST_S, BYTES_PER_S, now);
    this.#items = new TokenBucket(ITEMS_PER_S * BURST_S, ITEMS_PER_S, now);
    this.#work = new TokenBucket(WORK_PER_S * BURST_S, WORK_PER_S, now);
    this.#patience = new TokenBucket(PATIENCE_S, FORGIVENESS, now);
    this.#answersAt = now;
  }

  frame(kind: number, size: number, now: number): "ok" | "over" | "part" {
    const [base, perByte] = COSTS[kind] ?? [10, 0.05];
    const units = base + perByte * size;
    if (this.isOver(now)) {
      const excess = Math.max(size / BYTES_PER_S, 1 / ITEMS_PER_S, units / WORK_PER_S);
      return this.#patience.allow(now, excess) ? "over" : "part";
    }
    this.#bytes.charge(size, now, BYTES_PER_S * BURST_S);
    this.#items.charge(1, now, ITEMS_PER_S * BURST_S);
    this.#earn(size, now);
    this.#isAnswer = kind === GOSSIP || kind === ACK;
    this.add(units, now);
    return "ok";
  }

  /** Nothing more of it is read for now. */
  isOver(now: number): boolean {
    return Math.min(this.#bytes.left(now), this.#items.left(now), this.#work.left(now)) <= 0;
  }

  add(units: number, now: number): void {
    const free = this.#isAnswer ? Math.min(this.#credit, units) : 0;
    this.#credit -= free;
    this.#work.charge(units - free, now, WORK_PER_S * BURST_S);
  }

  /** What the answer to a question of ours will cost is on our account. */
  asked(units: number): void {
    this.#credit = Math.min(ASKED_MAX, this.#credit + units);
  }

  /** An answer of so many bytes; who asked pays. False: it is not sent. */
  mayAnswer(size: number, now: number): boolean {
    this.#earn(0, now);
    if (size > this.#answers) return false;
    this.#answers -= size;
    return true;
  }

  #earn(size: number, now: number): void {
    const earned = ANSWERS_PER_BYTE * size + ANSWERS_PER_S * (now - this.#answersAt);
    this.#answers = Math.min(ANSWERS_BYTES, this.#answers + earned);
    this.#answersAt = now;
  }
}
