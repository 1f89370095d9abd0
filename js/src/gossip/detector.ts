// SWIM probing of the links that exist, with Lifeguard's local health: who answers, and who has fallen silent.
//
// Times and reasons are those of `psyne_mesh/gossip/detector.py`; a full mesh only, as nothing larger is probed from a page.

import type { PeerId } from "../api.ts";
import { Cost, type Rng, sample } from "../limits.ts";
import { indirect, pingReq } from "./wire.ts";

export const PING_INTERVAL_S = 0.5;
const SUSPECT_AFTER_S = 1, MISSED_PINGS = 3, INDIRECT_PROBES = 3, LOCAL_HEALTH_MAX = 8;
const TICK_S = 0.1, GRAIN_S = 0.01, CONTACTS = 4, LULL = 0.25, SPREAD = 0.2, LATE_MIN_S = 0.15;
const UNANSWERED = 0.6, RTT_MARGIN = 0.9, ACCUSED = 0.6, ACCUSED_S = 3, ASK_AGAIN_S = 0.2, INDIRECT_AT = 0.5;
const IMPAIRED_CLOSE_S = 10, YOUNG_S = 5, SAMPLE_ROUNDS = 8, HELPS_MAX = 64, PENDING_MAX = 16;
const PATIENCE_MIN_S = UNANSWERED * SUSPECT_AFTER_S;
const NEVER = Number.POSITIVE_INFINITY;

/** One probed link. `aliveAt`: the last sign of life, by the link or through a helper. */
export class ProbedLink {
  readonly peer: PeerId;
  readonly cost: Cost;
  heardAt: number;
  aliveAt: number;
  waitingSince = NEVER; // when we first asked after that
  pingAt: number;
  spread = 1;
  readonly youngUntil: number;
  sampledAt = -NEVER;
  probedAt = -NEVER;
  fastAt = -NEVER;
  askedAt = -NEVER;
  accusedAt = -NEVER;
  missed = 0;
  faults = 0; // broken frames that came over it
  nacksDue = new Set<PeerId>();
  silent = false;
  lost = false; // the link is gone; only helpers can say whether the peer lives
  srtt = 0; // seconds; 0: unknown
  rttvar = 0;
  readonly pending = new Map<number, number>();
  sent = 0; // probes on this link, as the other end counts, too
  got = 0;

  constructor(peer: PeerId, now: number) {
    this.peer = peer;
    this.cost = new Cost(now);
    this.heardAt = this.aliveAt = this.pingAt = now;
    this.youngUntil = now + YOUNG_S;
  }

  smooth(rtt: number): void {
    if (this.srtt === 0) {
      this.srtt = rtt;
      this.rttvar = rtt / 2;
    } else {
      this.rttvar += (Math.abs(this.srtt - rtt) - this.rttvar) / 4;
      this.srtt += (rtt - this.srtt) / 8;
    }
  }

  get lateAfter(): number {
    return Math.max(LATE_MIN_S, this.srtt + 4 * this.rttvar);
  }
}

/** What the detector says: to be carried out in order. */
export type Found =
  | { readonly type: "ping"; readonly link: ProbedLink; readonly sequence: number }
  | { readonly type: "frame"; readonly peer: PeerId; readonly frame: Uint8Array }
  | { readonly type: "silent" | "heard" | "broken"; readonly peer: PeerId };

/** 1. `linkUp`, `linkDown` follow the links; `heard` for every frame. 2. `handleTimeout(now)` at `deadline`. */
export class Detector {
  readonly links = new Map<PeerId, ProbedLink>();
  deadline = NEVER;
  localHealth = 0;
  readonly found: Found[] = [];
  readonly #rng: Rng;
  #sequence = 0;
  #lagKnownAt = -NEVER;
  #betterAt = 0;
  #aloneAt = 0;
  #lateThen = 0;
  #lookedAt = -NEVER;
  /** Our ping for another -> who asked, with which sequence, about whom, and when to say that nobody answers. */
  readonly #helps = new Map<number, readonly [PeerId, number, PeerId, number]>();

  constructor(rng: Rng) {
    this.#rng = rng;
  }

  linkUp(peer: PeerId, now: number, rtt: number | null): ProbedLink {
    const link = new ProbedLink(peer, now);
    this.links.set(peer, link);
    if (rtt !== null) link.smooth(rtt);
    link.pingAt = now + this.#calm() * this.#rng();
    this.deadline = Math.min(this.deadline, link.pingAt);
    return link;
  }

  linkDown(peer: PeerId): void {
    this.links.delete(peer);
  }

  /** The link broke without a word: helpers are asked. */
  linkLost(peer: PeerId, now: number): void {
    const link = this.links.get(peer);
    if (link === undefined) return;
    link.lost = true;
    link.waitingSince = link.aliveAt = now - INDIRECT_AT * this.#patience(link, now);
    this.deadline = now;
  }

  heard(link: ProbedLink, now: number): void {
    link.heardAt = link.aliveAt = now;
    link.waitingSince = NEVER;
    link.missed = 0;
    link.nacksDue.clear();
    this.#speaksAgain(link);
  }

  /** We were deaf for so long: nobody's silence in that time counts. */
  noteLoopLag(seconds: number, now: number): void {
    this.#lagKnownAt = now;
    if (seconds < PING_INTERVAL_S / 5) return;
    this.#worsen(Math.min(3, Math.ceil(seconds / PING_INTERVAL_S)));
    for (const link of this.links.values()) {
      link.heardAt += seconds;
      link.aliveAt += seconds;
      if (link.waitingSince < now) link.waitingSince = Math.min(now, link.waitingSince + seconds);
    }
  }

  /** Somebody calls `peer` silent: we ask it at once ourselves. True as long as our own link does not confirm it. */
  accused(peer: PeerId, now: number): boolean {
    const link = this.links.get(peer);
    if (link === undefined || link.silent || link.lost) return false;
    link.accusedAt = now;
    if (link.waitingSince === NEVER && now - link.heardAt > ASK_AGAIN_S) {
      this.#ping(link, now);
      this.deadline = Math.min(this.deadline, now + link.lateAfter);
    }
    return now - link.waitingSince < PATIENCE_MIN_S;
  }

  /** The link is up, and yet frames on it do not come through now. */
  isImpaired(peer: PeerId): boolean {
    const link = this.links.get(peer);
    return link !== undefined && (link.silent || link.missed >= MISSED_PINGS);
  }

  pingReceived(link: ProbedLink, now: number, theirSrtt: number): void {
    link.probedAt = now;
    if (theirSrtt > 0 && link.srtt === 0) link.smooth(theirSrtt);
  }

  /** The measured round trip in seconds, or null if the ack answers no ping of ours. */
  ackReceived(link: ProbedLink, sequence: number, now: number): number | null {
    const sent = link.pending.get(sequence);
    if (sent === undefined) return null;
    link.pending.delete(sequence);
    const rtt = Math.max(0, now - sent);
    link.smooth(rtt);
    link.sampledAt = now;
    const help = this.#helps.get(sequence);
    if (help !== undefined) {
      this.#helps.delete(sequence);
      this.found.push({ type: "frame", peer: help[0], frame: indirect(help[1], help[2], true) });
    }
    return rtt;
  }

  pingReqReceived(asker: PeerId, sequence: number, target: PeerId, now: number): void {
    const link = this.links.get(target);
    if (link === undefined) {
      this.found.push({ type: "frame", peer: asker, frame: indirect(sequence, target, false) });
      return;
    }
    if (this.#helps.size >= HELPS_MAX) return; // the asker has other helpers
    const nackAt = now + 0.8 * (1 - INDIRECT_AT) * ACCUSED * PATIENCE_MIN_S;
    this.#helps.set(this.#ping(link, now), [asker, sequence, target, nackAt]);
    this.deadline = Math.min(this.deadline, nackAt);
  }

  indirectReceived(helper: PeerId, target: PeerId, alive: boolean, now: number): void {
    const link = this.links.get(target);
    if (link === undefined) return;
    if (!alive) {
      link.nacksDue.delete(helper);
      return;
    }
    link.aliveAt = now;
    link.nacksDue.clear();
    this.#speaksAgain(link);
    if (link.lost) this.linkDown(target);
  }

  handleTimeout(now: number): void {
    const lateBy = now - Math.max(this.deadline, this.#lagKnownAt);
    if (lateBy > PING_INTERVAL_S / 2) this.noteLoopLag(lateBy, now);
    for (const [sequence, [asker, asked, target, nackAt]] of this.#helps)
      if (now >= nackAt) {
        this.#helps.delete(sequence);
        this.found.push({ type: "frame", peer: asker, frame: indirect(asked, target, false) });
      }
    const calm = this.#calm();
    let late = 0, askedAt = -NEVER, deadline = NEVER;
    for (const link of this.links.values()) {
      if (now >= link.pingAt && !link.lost) this.#pingIfDue(link, calm, now);
      if (link.waitingSince === NEVER) {
        deadline = Math.min(deadline, link.pingAt);
        continue;
      }
      const lateAt = link.waitingSince + link.lateAfter;
      if (now < lateAt && !link.lost) {
        deadline = Math.min(deadline, Math.max(lateAt, now + GRAIN_S));
        continue;
      }
      late++;
      askedAt = Math.max(askedAt, link.waitingSince);
      this.#chase(link, now);
    }
    if (late > 1 && (now - this.#lookedAt > calm || late >= 2 * this.#lateThen)) {
      this.#lateThen = late;
      this.#lookRound(now, askedAt);
    }
    if (this.localHealth > 0) {
      if (late === 0 && now >= this.#betterAt) this.localHealth--;
      if (late > 0 || now >= this.#betterAt) this.#betterAt = now + PING_INTERVAL_S;
      deadline = Math.min(deadline, this.#betterAt);
    }
    if (late > 0) deadline = Math.min(deadline, now + TICK_S);
    for (const [, , , nackAt] of this.#helps.values()) deadline = Math.min(deadline, nackAt);
    this.deadline = deadline;
  }

  #speaksAgain(link: ProbedLink): void {
    if (!link.silent) return;
    link.silent = false;
    this.found.push({ type: "heard", peer: link.peer });
  }

  /** A link that owes us an answer for so long is a suspicion. */
  #patience(link: ProbedLink, now: number): number {
    const rto = link.srtt + 4 * link.rttvar;
    const patience = Math.max(PATIENCE_MIN_S, rto + PING_INTERVAL_S * RTT_MARGIN) * (1 + this.localHealth);
    return now - link.accusedAt < ACCUSED_S ? patience * ACCUSED : patience;
  }

  /** One ping on each link in this time, from either side, while all is well. */
  #calm(): number {
    return Math.max(PING_INTERVAL_S, (PING_INTERVAL_S * this.links.size) / CONTACTS);
  }

  #pingIfDue(link: ProbedLink, calm: number, now: number): void {
    if (now < link.youngUntil) calm = PING_INTERVAL_S;
    const due = Math.max(link.probedAt + calm * link.spread, link.heardAt + calm * LULL);
    link.pingAt = Math.min(due, link.sampledAt + SAMPLE_ROUNDS * calm);
    if (now < link.pingAt) return;
    link.spread = 1 + SPREAD * (2 * this.#rng() - 1);
    link.pingAt = now + calm * link.spread;
    if (link.waitingSince === NEVER) this.#ask(link, now); // else it is asked faster, anyhow
  }

  #ask(link: ProbedLink, now: number): void {
    link.probedAt = now;
    this.#ping(link, now);
  }

  /** A late link: ping fast, then ask helpers, then give it up. */
  #chase(link: ProbedLink, now: number): void {
    const waiting = now - link.waitingSince;
    if (now >= link.fastAt) {
      const settled = link.silent && waiting > 4 * PATIENCE_MIN_S;
      link.fastAt = now + (settled ? PING_INTERVAL_S : 0);
      link.missed++;
      if (!link.lost) this.#ping(link, now);
    }
    const patience = this.#patience(link, now);
    const unseen = Math.min(waiting, now - link.aliveAt);
    if (unseen >= INDIRECT_AT * patience && now - link.askedAt >= patience * (1 - INDIRECT_AT)) {
      const mute = [...link.nacksDue].filter((helper) => this.links.get(helper)?.missed === 0);
      this.#worsen(mute.length); // a helper that did not even nack speaks against ourselves
      link.askedAt = now;
      link.nacksDue = new Set(this.#askHelpers(link));
      if (link.nacksDue.size === 0 && this.links.size > 1 && now >= this.#aloneAt) {
        this.#aloneAt = now + PING_INTERVAL_S;
        this.#worsen(1); // nobody at all is heard: are we deaf?
      }
    }
    if (unseen >= patience && link.missed >= MISSED_PINGS && !link.silent) {
      link.silent = true;
      this.found.push({ type: "silent", peer: link.peer });
    } else if (!link.silent && waiting > IMPAIRED_CLOSE_S && link.aliveAt > link.waitingSince) this.found.push({ type: "broken", peer: link.peer });
  }

  /** Two late links may be the first sign of something larger: whoever has not spoken since is asked at once. */
  #lookRound(now: number, since: number): void {
    this.#lookedAt = now;
    for (const link of this.links.values()) if (link.waitingSince === NEVER && link.heardAt < since) this.#ask(link, now);
  }

  #askHelpers(link: ProbedLink): PeerId[] {
    const good = [...this.links.values()].filter((other) => other.missed === 0 && other !== link);
    good.sort((one, other) => other.heardAt - one.heardAt);
    const fresh = good.slice(0, Math.max(INDIRECT_PROBES, good.length >> 1)).map((other) => other.peer);
    const helpers = sample(this.#rng, fresh, INDIRECT_PROBES);
    this.#sequence = (this.#sequence + 1) >>> 0;
    const frame = pingReq(this.#sequence, link.peer);
    for (const peer of helpers) this.found.push({ type: "frame", peer, frame });
    return helpers;
  }

  #ping(link: ProbedLink, now: number): number {
    const sequence = (this.#sequence = (this.#sequence + 1) >>> 0);
    if (link.pending.size >= PENDING_MAX) link.pending.delete(link.pending.keys().next().value as number);
    link.pending.set(sequence, now);
    link.waitingSince = Math.min(link.waitingSince, now);
    this.found.push({ type: "ping", link, sequence });
    return sequence;
  }

  #worsen(points: number): void {
    this.localHealth = Math.min(LOCAL_HEALTH_MAX - 1, this.localHealth + points);
  }
}

const DIALS_MAX = 16, BACKOFF_MIN_S = 1, BACKOFF_MAX_S = 30, LOST_S = 60;

/** Wishes become dials: bounded in number, patient with failures, never two at once for the same peer. */
export class Dialer {
  readonly wishes = new Map<PeerId, { at: number; failures: number }>();
  readonly inFlight = new Map<PeerId, number>();
  deadline = NEVER;
  readonly #rng: Rng;

  constructor(rng: Rng) {
    this.#rng = rng;
  }

  want(peer: PeerId, at: number): void {
    if (this.wishes.has(peer)) return;
    this.wishes.set(peer, { at, failures: 0 });
    this.deadline = Math.min(this.deadline, at);
  }

  drop(peer: PeerId): void {
    this.wishes.delete(peer);
  }

  linked(peer: PeerId): void {
    this.wishes.delete(peer);
    this.inFlight.delete(peer);
    this.deadline = Math.min(this.deadline, this.#next());
  }

  failed(peer: PeerId, now: number): void {
    this.inFlight.delete(peer);
    const wish = this.wishes.get(peer);
    if (wish !== undefined) {
      const backoff = Math.min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** Math.min(wish.failures, 16));
      wish.failures++;
      wish.at = now + backoff * (0.75 + 0.5 * this.#rng());
    }
    this.deadline = Math.min(this.deadline, this.#next());
  }

  /** Whom to dial now. */
  handleTimeout(now: number): PeerId[] {
    if (now < this.deadline) return [];
    for (const [peer, since] of [...this.inFlight]) if (since + LOST_S <= now) this.failed(peer, now);
    const due = [...this.wishes].filter(([peer, wish]) => wish.at <= now && !this.inFlight.has(peer));
    due.sort(([, one], [, other]) => one.at - other.at);
    const dialled = due.slice(0, Math.max(0, DIALS_MAX - this.inFlight.size)).map(([peer]) => peer);
    for (const peer of dialled) this.inFlight.set(peer, now);
    this.deadline = this.#next();
    return dialled;
  }

  #next(): number {
    let next = NEVER;
    for (const since of this.inFlight.values()) next = Math.min(next, since + LOST_S);
    if (this.inFlight.size < DIALS_MAX)
      for (const [peer, wish] of this.wishes) if (!this.inFlight.has(peer)) next = Math.min(next, wish.at);
    return next;
  }
}
