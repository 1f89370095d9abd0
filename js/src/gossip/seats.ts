// Who has which of the room's N numbered seats, decided by everybody alike and by nobody alone: see `gossip/seats.py`.

import type { PeerId } from "../api.ts";
import { compareBytes, concat } from "../bytes.ts";
import { choice, forgetOldest, type Rng } from "../limits.ts";
import { type Ballot, BALLOT_MAX, keyedHash, rawOf } from "./wire.ts";

const ALONE_S = 1, UNSYNCED_S = 5, SYNCED_S = [0.1, 0.3], YIELD_S = [0.4, 0.6], DENIED_S = 20, VOTE_S = [0.8, 1.2];
const WAIT_S = [0.3, 1.5], TENURE_S = 3, SENIOR_S = 5, ARRIVAL_S = 2, TENURES_PER_SEAT = 4, TENURES_MIN = 64;
const NEVER = Number.POSITIVE_INFINITY;

/** `peer` wants `seat`, or held it until it fell silent. `proven`: we know that somebody is there. */
export interface Claim {
  readonly peer: PeerId;
  readonly seat: number;
  readonly proven: boolean;
  readonly ballot: Ballot;
}

export type SeatFact =
  | { readonly type: "seating" }
  | { readonly type: "claim"; readonly seat: number | null }
  | { readonly type: "ballot"; readonly ballot: Ballot }
  | { readonly type: "seatLost" };

export class Seats {
  seats: (PeerId | null)[];
  claimed: number | null = null;
  /** Some seat is claimed more than once. */
  contested = false;
  deadline = NEVER;
  readonly facts: SeatFact[] = [];
  readonly enabled: boolean;
  readonly #wanted: boolean;
  readonly #count: number;
  readonly #room: Uint8Array;
  readonly #own: PeerId;
  readonly #rng: Rng;
  #free: number[];
  readonly #tenures = new Map<PeerId, number>();
  readonly #judged = new Map<number, PeerId>();
  readonly #seatedAt = new Map<number, number>();
  #metAt = NEVER;
  readonly #deniedUntil = new Map<number, number>();
  #before: number | null = null;
  #ballot: Ballot = [];
  #knowsOthers = false;
  #toldLost = false;
  #claimAt = NEVER;
  #yieldAt = NEVER;
  #voteAt = NEVER;
  #unsyncedUntil = NEVER;

  /** `wanted`: false for who only looks on. */
  constructor(count: number, room: Uint8Array, own: PeerId, rng: Rng, wanted = true) {
    this.#wanted = wanted && count > 0;
    this.#count = count;
    this.enabled = count > 0;
    this.#room = room;
    this.#own = own;
    this.#rng = rng;
    this.seats = Array.from({ length: count }, () => null);
    this.#free = this.seats.map((_, seat) => seat);
  }

  /** The seat that we hold, not only claim. */
  get ownSeat(): number | null {
    return this.claimed !== null && this.seats[this.claimed] === this.#own ? this.claimed : null;
  }

  start(now: number): void {
    if (!this.#wanted) return;
    this.#claimAt = now + ALONE_S;
    this.#unsyncedUntil = now + UNSYNCED_S;
    this.#arm();
  }

  /** A neighbour has told its view. */
  synced(now: number): void {
    if (this.#unsyncedUntil === NEVER) return;
    this.#unsyncedUntil = NEVER;
    this.#claimAt = now + this.#uniform(SYNCED_S);
    this.#arm();
  }

  /** An older life of ours had that seat. */
  heldBefore(seat: number): void {
    if (this.#before === null && seat < this.#count) this.#before = seat;
  }

  /** Until now we were alone: whoever we saw in a seat held it in our eyes only. */
  metOthers(now: number): void {
    for (const seat of this.#seatedAt.keys()) this.#seatedAt.set(seat, now);
    this.#metAt = Math.min(this.#metAt, now);
  }

  /** Seat everybody anew. `claims` holds our own, too, if we have one. */
  view(claims: readonly Claim[], now: number): void {
    claims = claims.filter((claim) => claim.seat < this.#count);
    this.#judged.clear();
    const seats = this.#assign(claims, now);
    const judged = new Set(this.#judged.values());
    const denied = [...this.#deniedUntil].filter(([, until]) => now < until).map(([seat]) => seat);
    this.#free = freeSeats(this.#count, claims, denied);
    this.contested = new Set(claims.map((claim) => claim.seat)).size < claims.length;
    seats.forEach((peer, seat) => {
      if (peer !== this.seats[seat]) this.#seatedAt.set(seat, peer !== null && judged.has(peer) ? now - TENURE_S : now);
      if (peer !== null && !this.#tenures.has(peer)) {
        // Who sits there when we come was there before us.
        this.#tenures.set(peer, now - this.#metAt < ARRIVAL_S && peer !== this.#own ? -NEVER : now);
        forgetOldest(this.#tenures, Math.max(TENURES_MIN, TENURES_PER_SEAT * this.#count));
      }
    });
    this.#knowsOthers = claims.some((claim) => claim.peer !== this.#own);
    if (seats.some((peer, seat) => peer !== this.seats[seat])) {
      const before = this.ownSeat;
      this.seats = seats;
      this.facts.push({ type: "seating" });
      if (before === null && this.ownSeat !== null) this.#toldLost = false;
    }
    this.#react(now);
    this.#arm();
  }

  handleTimeout(now: number): void {
    if (now >= this.#claimAt) {
      this.#claimAt = NEVER;
      this.#tryClaim(now);
    }
    if (now >= this.#yieldAt) {
      this.#yieldAt = NEVER;
      if (this.claimed !== null && this.ownSeat === null) this.#giveUp(now);
    }
    if (now >= this.#voteAt) {
      this.#voteAt = NEVER;
      const ballot = this.#wantedBallot();
      if (!sameBallot(ballot, this.#ballot) && this.ownSeat !== null) {
        this.#ballot = ballot;
        this.facts.push({ type: "ballot", ballot });
      }
    }
    this.#arm();
  }

  #arm(): void {
    this.deadline = Math.min(this.#claimAt, this.#yieldAt, this.#voteAt);
  }

  #uniform([low, high]: readonly number[]): number {
    return low! + (high! - low!) * this.#rng();
  }

  #assign(claims: readonly Claim[], now: number): (PeerId | null)[] {
    const proven = claims.filter((claim) => claim.proven);
    const held = new Map<number, PeerId>();
    for (const { seat, peer } of proven)
      if (this.seats[seat] === peer && now - (this.#seatedAt.get(seat) ?? now) >= TENURE_S) held.set(seat, peer);
    for (const [seat, incumbent] of [...held]) {
      const rivals = claims.filter((claim) => claim.seat === seat && claim.peer !== incumbent).map((claim) => claim.peer);
      if (rivals.length === 0) continue;
      const holder = this.#judge(seat, incumbent, rivals, proven);
      held.set(seat, holder);
      this.#judged.set(seat, holder);
    }
    return assign(this.#room, this.#count, claims, proven.map((claim) => claim.ballot), held);
  }

  /** Who sat before the incumbent did are the ones to ask. */
  #judge(seat: number, incumbent: PeerId, rivals: readonly PeerId[], proven: readonly Claim[]): PeerId {
    const tenure = (peer: PeerId): number => this.#tenures.get(peer) ?? NEVER;
    const parties = [...new Set([incumbent, ...rivals])];
    const since = Math.min(...parties.map(tenure));
    const seniors = proven.filter((claim) => !parties.includes(claim.peer) && tenure(claim.peer) <= since - SENIOR_S);
    const votes = new Map(
      parties.map((peer) => [peer, seniors.filter((claim) => claim.ballot.some(([s, h]) => s === seat && h === voteOf(peer))).length]),
    );
    const most = Math.max(...votes.values());
    let best = most > 0 ? parties.filter((peer) => votes.get(peer) === most) : [incumbent];
    const oldest = Math.min(...best.map(tenure));
    if (best.includes(incumbent) && oldest < tenure(incumbent)) best = best.filter((peer) => tenure(peer) === oldest);
    return best.reduce((one, other) => (compareBytes(seatRank(this.#room, seat, other), seatRank(this.#room, seat, one)) < 0 ? other : one));
  }

  #react(now: number): void {
    if (!this.#wanted) return;
    if (this.claimed !== null && this.ownSeat === null) {
      if (this.#yieldAt === NEVER) this.#yieldAt = now + this.#uniform(YIELD_S);
    } else if (this.claimed === null && this.#toldLost && this.#free.length > 0 && this.#claimAt === NEVER)
      this.#claimAt = now + this.#uniform(WAIT_S);
    if (this.ownSeat !== null && this.#voteAt === NEVER && !sameBallot(this.#wantedBallot(), this.#ballot))
      this.#voteAt = now + this.#uniform(VOTE_S);
  }

  #tryClaim(now: number): void {
    if (this.claimed !== null) return;
    if (this.#unsyncedUntil !== NEVER) {
      if (this.#knowsOthers && now < this.#unsyncedUntil) {
        this.#claimAt = this.#unsyncedUntil;
        return;
      }
      this.#unsyncedUntil = NEVER;
    }
    if (this.#before !== null && (this.seats[this.#before] ?? this.#own) === this.#own) this.#claim(this.#before);
    else if (this.#free.length > 0) this.#claim(choice(this.#rng, this.#free));
    else this.#lose();
  }

  #giveUp(now: number): void {
    this.#deniedUntil.set(this.claimed!, now + DENIED_S);
    this.#free = this.#free.filter((seat) => seat !== this.claimed);
    if (this.#free.length > 0) {
      this.#claim(choice(this.#rng, this.#free));
      return;
    }
    this.claimed = null;
    this.#ballot = [];
    this.facts.push({ type: "claim", seat: null });
    this.#lose();
  }

  #claim(seat: number): void {
    this.claimed = seat;
    this.#before = null;
    this.facts.push({ type: "claim", seat });
  }

  #lose(): void {
    if (this.#toldLost) return;
    this.#toldLost = true;
    this.facts.push({ type: "seatLost" });
  }

  #wantedBallot(): Ballot {
    if (this.#count > BALLOT_MAX) return [];
    return this.seats.flatMap((peer, seat) => (peer === null ? [] : [[seat, voteOf(peer)] as const]));
  }
}

/** The holder of each seat: who `held` it, else a pure function of what the records say, so equal views seat equally. */
export function assign(
  room: Uint8Array, count: number, claims: readonly Claim[], ballots: readonly Ballot[], held: ReadonlyMap<number, PeerId>,
): (PeerId | null)[] {
  const votes = new Map<string, number>();
  for (const ballot of ballots)
    for (const vote of new Set(ballot.map(([seat, holder]) => `${seat}.${holder}`))) votes.set(vote, (votes.get(vote) ?? 0) + 1);
  const best = new Map<number, { votes: number; rank: Uint8Array; peer: PeerId }>();
  for (const { seat, peer } of claims) {
    const mine = { votes: votes.get(`${seat}.${voteOf(peer)}`) ?? 0, rank: seatRank(room, seat, peer), peer };
    const other = best.get(seat);
    const order = other === undefined ? -1 : other.votes - mine.votes || compareBytes(mine.rank, other.rank);
    if (other === undefined || order < 0 || (order === 0 && mine.peer < other.peer)) best.set(seat, mine);
  }
  return Array.from({ length: count }, (_, seat) => held.get(seat) ?? best.get(seat)?.peer ?? null);
}

/** Seats that nobody claims; if there are none, those that nobody claims of whom we know that it is there. */
function freeSeats(count: number, claims: readonly Claim[], denied: readonly number[]): number[] {
  const taken = new Set(claims.map((claim) => claim.seat));
  const sure = new Set(claims.filter((claim) => claim.proven).map((claim) => claim.seat));
  const all = Array.from({ length: count }, (_, seat) => seat);
  const free = all.filter((seat) => !taken.has(seat));
  return free.length > 0 ? free : all.filter((seat) => !sure.has(seat) && !denied.includes(seat));
}

export const voteOf = (peer: PeerId): string => peer.slice(0, 12);

const seatRank = (room: Uint8Array, seat: number, peer: PeerId): Uint8Array =>
  keyedHash(room, concat(Uint8Array.of(seat >> 8, seat & 0xff), rawOf(peer)));

const sameBallot = (one: Ballot, other: Ballot): boolean =>
  one.length === other.length && one.every(([seat, holder], at) => other[at]![0] === seat && other[at]![1] === holder);
