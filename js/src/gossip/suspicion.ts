// From accusations to verdicts: SWIM's suspicion with Lifeguard's timeout, which shrinks as others confirm.
//
// A case speaks of one version of its subject. A newer record of the subject closes it: that is the refutation.

import type { PeerId } from "../api.ts";
import { compareVersions, DOWN, type Version } from "./wire.ts";

const CONFIRMATIONS = 2, MIN_S = 1, MAX_S = 6;
const ACCUSERS_MAX = 16, CASES_MAX = 256, OWN_PART = 0.5, FAR_S = 0.25, FAR_ROUNDS = 2, CONTESTED_S = 10;
const NEVER = Number.POSITIVE_INFINITY;

interface Case extends Version {
  readonly subject: PeerId;
  readonly accusers: Map<PeerId, number>;
  own: boolean;
  rttS: number;
  running: boolean;
  since: number;
  newsAt: number;
  deadline: number;
}

export type CaseFact =
  | { readonly type: "opened" | "closed"; readonly peer: PeerId }
  | ({ readonly type: "verdict"; readonly peer: PeerId; readonly own: boolean } & Version);

/** 1. `accuse` for every good accusation, ours included. 2. `clear` when heard, `clearOlder` for a newer record. */
export class Suspicions {
  deadline = NEVER;
  readonly facts: CaseFact[] = [];
  readonly #cases = new Map<PeerId, Case>();

  get suspected(): PeerId[] {
    return [...this.#cases.values()].filter((one) => one.running).map((one) => one.subject);
  }

  /** This accusation changes nothing: it is known, or as many of its kind as ever count. */
  knows(subject: PeerId, version: Version, accuser: PeerId, verdict: number): boolean {
    const known = this.#cases.get(subject);
    if (known === undefined || compareVersions(known, version) !== 0) return false;
    if ((known.accusers.get(accuser) ?? -1) >= verdict) return true;
    const verdicts = [...known.accusers.values()];
    if (verdict === DOWN && verdicts.length > CONFIRMATIONS && verdicts.includes(DOWN)) return true;
    return verdicts.filter((one) => one >= verdict).length > CONFIRMATIONS;
  }

  /** `contested`: we hear the subject ourselves, so the case rests. True if it told us something new. */
  accuse(
    subject: PeerId, version: Version, accuser: PeerId, verdict: number, now: number,
    { own, contested, witnesses, rttS = 0 }: { own: boolean; contested: boolean; witnesses: number; rttS?: number },
  ): boolean {
    let known = this.#cases.get(subject);
    if (known !== undefined && compareVersions(known, version) !== 0) {
      if (compareVersions(version, known) < 0) return false;
      this.clear(subject);
      known = undefined;
    }
    if (known === undefined) {
      if (this.#cases.size >= CASES_MAX) return false;
      known = {
        subject, epoch: version.epoch, incarnation: version.incarnation, accusers: new Map(), own: false, rttS: 0,
        running: false, since: now, newsAt: now, deadline: now + CONTESTED_S,
      };
      this.#cases.set(subject, known);
    }
    const before = known.accusers.get(accuser);
    const news = before === undefined || verdict > before;
    if (news && (before !== undefined || known.accusers.size < ACCUSERS_MAX)) {
      known.accusers.set(accuser, verdict);
      known.newsAt = now;
    }
    known.own ||= own;
    known.rttS = Math.max(known.rttS, rttS);
    if (!contested && !known.running) {
      known.running = true;
      known.since = own ? Math.max(known.since, now - OWN_PART * MIN_S) : now;
      this.facts.push({ type: "opened", peer: subject });
    }
    if (known.running) this.#weigh(known, witnesses, now);
    this.deadline = Math.min(this.deadline, known.deadline);
    return news;
  }

  /** We have no link any more that could speak for the subject: a case that rested goes on. */
  uncontested(subject: PeerId, witnesses: number, now: number): void {
    const known = this.#cases.get(subject);
    if (known === undefined || known.running) return;
    known.running = true;
    known.since = now;
    this.facts.push({ type: "opened", peer: subject });
    this.#weigh(known, witnesses, now);
    this.deadline = Math.min(this.deadline, known.deadline);
  }

  clear(subject: PeerId): void {
    if (this.drop(subject)) this.facts.push({ type: "closed", peer: subject });
  }

  /** A record of `version` came: a case about an older one is refuted. */
  clearOlder(subject: PeerId, version: Version): void {
    const known = this.#cases.get(subject);
    if (known !== undefined && compareVersions(known, version) < 0) this.clear(subject);
  }

  /** The subject is gone otherwise: no case, and no event about it. True if there was one that ran. */
  drop(subject: PeerId): boolean {
    const known = this.#cases.get(subject);
    this.#cases.delete(subject);
    return known?.running ?? false;
  }

  /** We take back what we said of those; what others say stands. */
  retract(subject: PeerId, own: PeerId): void {
    const known = this.#cases.get(subject);
    if (known === undefined || !known.own) return;
    known.own = false;
    known.accusers.delete(own);
    if (known.accusers.size === 0) this.clear(subject);
  }

  handleTimeout(now: number): void {
    let deadline = NEVER;
    for (const known of [...this.#cases.values()]) {
      if (known.deadline > now) {
        deadline = Math.min(deadline, known.deadline);
        continue;
      }
      this.#cases.delete(known.subject);
      if (!known.running) continue;
      const believed = known.own || known.accusers.size > 1 || [...known.accusers.values()].includes(DOWN);
      this.facts.push(
        believed
          ? { type: "verdict", peer: known.subject, epoch: known.epoch, incarnation: known.incarnation, own: known.own }
          : { type: "closed", peer: known.subject }, // nobody but one stranger ever said so
      );
    }
    this.deadline = deadline;
  }

  /** We stood still: a refutation that came meanwhile was not heard, so every case gets that time back. */
  noteLoopLag(seconds: number): void {
    for (const known of this.#cases.values()) {
      known.since += seconds;
      known.deadline += seconds;
    }
    this.deadline += seconds;
  }

  /** Lifeguard section IV-B: max(Min, Max - (Max - Min) * log(C + 1) / log(K + 1)). */
  #weigh(known: Case, witnesses: number, now: number): void {
    const low = MIN_S + FAR_ROUNDS * Math.max(0, known.rttS - FAR_S);
    const high = Math.max(low, MAX_S);
    const downs = [...known.accusers.values()].filter((verdict) => verdict === DOWN).length;
    if (known.own && downs > 0) {
      known.deadline = now; // another has waited the whole timeout already, and our own link agrees
      return;
    }
    const wanted = Math.min(CONFIRMATIONS, witnesses);
    const confirmed = known.accusers.size - 1;
    let timeout = wanted > 0 ? Math.max(low, high - ((high - low) * Math.log(confirmed + 1)) / Math.log(wanted + 1)) : low;
    if (!known.own && known.accusers.size < 2) timeout = downs > 0 ? high : 2 * high;
    known.deadline = known.since + timeout;
    if (confirmed < wanted && !known.own) known.deadline = Math.max(known.deadline, known.newsAt + low);
  }
}
