// The view of the room: the newest signed record of every member, who is gone, and hashes over the whole.
//
// One rule: records of a key are ordered by (epoch, incarnation, state), and being down is final for an epoch. A member that
// was called down wrongly returns with a higher epoch, which only it can sign.

import type { PeerId } from "../api.ts";
import { compareBytes, concat } from "../bytes.ts";
import { forgetOldest } from "../limits.ts";
import { ALIVE, BUCKETS, compareOrder, compareVersions, hash, type MemberRecord, NO_HASH, type Version } from "./wire.ts";

export const STATUS_ALIVE = 0, STATUS_DOWN = 1, STATUS_LEFT = 2;
export type Change = "stale" | "same" | "joined" | "updated" | "restarted" | "left" | "noted" | "refused";

const GONE_MAX = 256; // records of members that are gone; of the longest gone only the version stays
const WHOLE_S = 600; // so long whole: newcomers hear of those lost to silence, and their doors are knocked on
const SECONDED_S = 9; // so long two neighbours' words count, as one voucher does
const PAST_S = 3600, PAST_MAX = 1024; // versions of the gone, which keep a late rumour from reviving them
const TIDY_S = 30;
const LIVES_MAX = 8, LIFE_EVERY_S = 2; // a member begins a new life so often at once, then once in this time

export class Member {
  record: MemberRecord;
  status: number;
  /** When the newest record came; its lifetime counts from here. */
  seenAt: number;
  /** When it got its present status, or began its present life. */
  since: number;
  via: PeerId | null;
  /** Only a server told us of it: somebody to dial, of whom nothing is passed on. */
  hint: boolean;
  /** We had a link with it once. */
  met = false;
  /** When a link of ours, or a neighbour, last stood for it. */
  vouchedAt: number;
  /** Which neighbour that was, and when last another than the one before. */
  voucher: PeerId | null = null;
  secondedAt = Number.NEGATIVE_INFINITY;
  /** It was down, and is back. */
  revived = false;
  /** It is down because it was expelled, or nobody ever met it. */
  closed = false;
  livesUntil = Number.NEGATIVE_INFINITY;

  constructor(record: MemberRecord, status: number, now: number, via: PeerId | null) {
    this.record = record;
    this.status = status;
    this.seenAt = this.since = this.vouchedAt = now;
    this.via = via;
    this.hint = via === null;
  }
}

interface Past extends Version {
  readonly status: number;
  readonly since: number;
}

/** 1. `apply(record, now, via)` each verified record; act on the `Change`. 2. `markDown` after a verdict. */
export class View {
  readonly members = new Map<PeerId, Member>();
  /** The living, in the order in which they came. */
  readonly alive = new Set<PeerId>();
  changedAt = 0;
  /** Grows with whatever may change who holds which seat. */
  seatChanges = 0;
  own: MemberRecord | null = null;
  readonly #membersMax: number;
  readonly #lifetimeMaxS: number;
  readonly #gone = new Set<PeerId>();
  readonly #past = new Map<PeerId, Past>();
  readonly #hashes: Map<PeerId, Uint8Array>[] = Array.from({ length: BUCKETS }, () => new Map());
  #buckets: Uint8Array[] = Array.from({ length: BUCKETS }, () => NO_HASH);
  #whole = NO_HASH;
  #stale = 0; // bit i: bucket i is to be hashed again
  #tidyAt = Number.NEGATIVE_INFINITY;

  constructor(membersMax: number, lifetimeMaxS: number) {
    this.#membersMax = membersMax;
    this.#lifetimeMaxS = lifetimeMaxS;
  }

  isAlive = (peer: PeerId): boolean => this.alive.has(peer);
  get = (peer: PeerId): Member | undefined => this.members.get(peer);
  record = (peer: PeerId): MemberRecord | undefined => this.members.get(peer)?.record;
  living = (): Member[] => [...this.alive].map((peer) => this.members.get(peer)!);

  get buckets(): readonly Uint8Array[] {
    this.#update();
    return this.#buckets;
  }

  get viewHash(): Uint8Array {
    this.#update();
    return this.#whole;
  }

  setOwn(record: MemberRecord, now: number): void {
    this.own = record;
    this.#put(record);
    this.changedAt = now;
    this.seatChanges++;
  }

  /** "noted" for a record worth verifying. */
  compare(record: MemberRecord): "stale" | "same" | "noted" {
    const member = this.members.get(record.peer);
    if (member === undefined) {
      const past = this.#past.get(record.peer);
      return past !== undefined && compareVersions(record, past) < 0 ? "stale" : "noted";
    }
    const order = compareOrder(record, member.record);
    return order > 0 ? "noted" : order === 0 ? "same" : "stale";
  }

  /** It was a member in this stay of it, and is none now. */
  wasLost(record: MemberRecord): boolean {
    const member = this.members.get(record.peer);
    if (member !== undefined) return !this.alive.has(record.peer) && record.joinedAt <= member.record.epoch;
    const past = this.#past.get(record.peer);
    return past !== undefined && record.joinedAt <= past.epoch;
  }

  /** One more life of a member that has begun too many just now. */
  isHasty(record: MemberRecord, now: number): boolean {
    const member = this.members.get(record.peer);
    if (member === undefined || now >= member.livesUntil || record.state !== ALIVE) return false;
    const old = member.record;
    const begins = this.alive.has(record.peer) ? record.joinedAt !== old.joinedAt : record.epoch > old.epoch;
    return begins && member.livesUntil - now > (LIVES_MAX - 1) * LIFE_EVERY_S;
  }

  isPast(peer: PeerId, epoch: bigint): boolean {
    const past = this.#past.get(peer);
    return past !== undefined && epoch <= past.epoch;
  }

  /** Somebody long gone says over its own link that it lives an earlier life: that is no late rumour. */
  clockWentBack(record: MemberRecord): void {
    const past = this.#past.get(record.peer);
    if (past !== undefined && record.epoch < past.epoch) this.#past.delete(record.peer);
  }

  apply(record: MemberRecord, now: number, via: PeerId | null): Change {
    const change = this.compare(record);
    if (change !== "noted") return change;
    const peer = record.peer;
    let member = this.members.get(peer);
    if (member === undefined) {
      const past = this.#past.get(peer);
      this.#past.delete(peer);
      if (past !== undefined && record.epoch === past.epoch) {
        this.#rememberGone(record, past.status, past.since);
        return "noted";
      }
      if (record.state !== ALIVE) {
        this.#rememberGone(record, STATUS_LEFT, now);
        return "noted";
      }
      if (this.alive.size >= this.#membersMax) return "refused";
      member = new Member(record, STATUS_ALIVE, now, via);
      this.members.set(peer, member);
      this.#enter(member, now);
      return "joined";
    }
    if (via !== null && member.hint) this.confirm(peer, now);
    return this.#renew(member, record, now, via);
  }

  /** Somebody whom we are linked to brought this hint's record. */
  confirm(peer: PeerId, now: number): void {
    const member = this.members.get(peer);
    if (member === undefined || !member.hint) return;
    member.hint = false;
    member.vouchedAt = now;
    this.seatChanges++;
    if (this.alive.has(peer)) this.#show(member, now);
  }

  /** We have, or had until now, a link with this member. */
  metWith(peer: PeerId, now: number): void {
    const member = this.members.get(peer);
    if (member === undefined) return;
    if (!member.met) this.seatChanges++;
    member.met = true;
    member.vouchedAt = now;
  }

  vouched(peer: PeerId, now: number, by: PeerId | null = null): void {
    const member = this.members.get(peer);
    if (member === undefined) return;
    if (by !== null && member.voucher !== null && member.voucher !== by && now - member.vouchedAt < SECONDED_S) member.secondedAt = now;
    member.vouchedAt = now;
    member.voucher = by ?? member.voucher;
  }

  isSeconded = (member: Member, now: number): boolean => now - member.secondedAt < SECONDED_S;

  /** For how many without a link two neighbours stand: one alone can make up as many as it likes. */
  seconded(now: number, links: ReadonlyMap<PeerId, unknown>): number {
    return this.living().filter((member) => this.isSeconded(member, now) && !links.has(member.record.peer)).length;
  }

  /** Nobody's voucher was heard meanwhile. */
  stoodStill(seconds: number): void {
    for (const member of this.members.values()) member.vouchedAt += seconds;
  }

  /** A member that a newcomer with a link may take the place of: nobody whom we ever met, and hints first. */
  unproven(): PeerId | null {
    const strangers = this.living().filter((member) => !member.met);
    strangers.sort((one, other) => Number(!one.hint) - Number(!other.hint) || one.vouchedAt - other.vouchedAt);
    return strangers[0]?.record.peer ?? null;
  }

  markDown(peer: PeerId, now: number, closed = false): void {
    const member = this.members.get(peer);
    if (member === undefined || !this.alive.has(peer)) return;
    member.closed = closed;
    this.#exit(member, STATUS_DOWN, now);
  }

  forget(peer: PeerId, now: number): void {
    const member = this.members.get(peer);
    if (member !== undefined && this.alive.has(peer)) this.#exit(member, STATUS_LEFT, now);
    this.members.delete(peer);
    this.#gone.delete(peer);
  }

  /** Somebody unknown to us is known to be gone. */
  rememberDown(record: MemberRecord, since: number): void {
    if (!this.members.has(record.peer) && !this.#past.has(record.peer)) this.#rememberGone(record, STATUS_DOWN, since);
  }

  /** Members lost to silence, the longest lost first. */
  down(): Member[] {
    return [...this.#gone].map((peer) => this.members.get(peer)!).filter((m) => m.status === STATUS_DOWN && !m.closed);
  }

  /** Of those gone for long only the version stays. Returns who they are. */
  tidy(now: number): PeerId[] {
    if (now < this.#tidyAt) return [];
    this.#tidyAt = now + TIDY_S;
    for (const [peer, past] of this.#past) if (now - past.since > PAST_S) this.#past.delete(peer);
    const late = [...this.#gone].filter((peer) => now - this.members.get(peer)!.since > WHOLE_S);
    for (const peer of late) this.#shorten(peer);
    return late;
  }

  /** All that we know in the buckets of the mask, alive and gone, ourselves not. */
  entries(mask: number): Member[] {
    return [...this.members.values()].filter((member) => (mask >> bucketOf(member.record.peer)) & 1 && !member.hint);
  }

  /** Members whose records nobody has renewed. */
  expired(now: number): PeerId[] {
    return this.living()
      .filter((member) => now - member.seenAt > Math.min(member.record.lifetime, this.#lifetimeMaxS))
      .map((member) => member.record.peer);
  }

  #renew(member: Member, record: MemberRecord, now: number, via: PeerId | null): Change {
    const old = member.record;
    if (this.alive.has(record.peer)) {
      if (record.epoch > old.epoch) member.since = now;
      this.seatChanges++;
      member.record = record;
      member.seenAt = now;
      member.via = via;
      this.#show(member, now);
      if (record.state !== ALIVE) {
        this.#exit(member, STATUS_LEFT, now);
        return "left";
      }
      if (record.joinedAt === old.joinedAt) return "updated";
      countLife(member, now);
      return "restarted";
    }
    const returns = record.state === ALIVE && record.epoch > old.epoch;
    if (returns) member.hint = via === null;
    if (returns && this.alive.size >= this.#membersMax) return "refused";
    member.record = record;
    member.seenAt = now;
    member.via = via;
    if (!returns) {
      if (record.state !== ALIVE) member.status = STATUS_LEFT;
      return "noted";
    }
    this.#gone.delete(record.peer);
    this.#enter(member, now);
    return "joined";
  }

  #enter(member: Member, now: number): void {
    member.revived = member.status !== STATUS_ALIVE;
    member.status = STATUS_ALIVE;
    member.since = member.vouchedAt = now;
    member.closed = false;
    this.seatChanges++;
    countLife(member, now);
    this.alive.add(member.record.peer);
    this.#show(member, now);
  }

  #exit(member: Member, status: number, now: number): void {
    const peer = member.record.peer;
    member.status = status;
    member.since = now;
    this.seatChanges++;
    this.alive.delete(peer);
    if (!member.hint) {
      const bucket = bucketOf(peer);
      if (this.#hashes[bucket]!.delete(peer)) this.#stale |= 1 << bucket;
      this.changedAt = now;
    }
    this.#gone.add(peer);
    this.#trimGone();
  }

  #rememberGone(record: MemberRecord, status: number, now: number): void {
    const member = new Member(record, status, now, null);
    member.hint = false;
    this.members.set(record.peer, member);
    this.#gone.add(record.peer);
    this.#trimGone();
  }

  #trimGone(): void {
    while (this.#gone.size > GONE_MAX) this.#shorten(this.#gone.keys().next().value as PeerId);
  }

  #shorten(peer: PeerId): void {
    const { record, status, since } = this.members.get(peer)!;
    this.members.delete(peer);
    this.#gone.delete(peer);
    this.#past.set(peer, { epoch: record.epoch, incarnation: record.incarnation, status, since });
    forgetOldest(this.#past, PAST_MAX);
  }

  /** Its newest record counts in the hashes; of a hint none does. */
  #show(member: Member, now: number): void {
    if (member.hint) return;
    this.#put(member.record);
    this.changedAt = now;
  }

  #put(record: MemberRecord): void {
    const bucket = bucketOf(record.peer);
    this.#hashes[bucket]!.set(record.peer, record.versionHash);
    this.#stale |= 1 << bucket;
  }

  #update(): void {
    if (this.#stale === 0) return;
    this.#buckets = this.#buckets.map((old, bucket) => {
      if (!((this.#stale >> bucket) & 1)) return old;
      const hashes = [...this.#hashes[bucket]!.values()].sort(compareBytes);
      return hashes.length > 0 ? hash(concat(...hashes)) : NO_HASH;
    });
    this.#stale = 0;
    this.#whole = this.#hashes.some((bucket) => bucket.size > 0) ? hash(concat(...this.#buckets)) : NO_HASH;
  }
}

const bucketOf = (peer: PeerId): number => Number.parseInt(peer[0]!, 16);

function countLife(member: Member, now: number): void {
  member.livesUntil = Math.max(member.livesUntil, now) + LIFE_EVERY_S;
}
