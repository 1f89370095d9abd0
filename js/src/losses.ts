// What was sent reliably and did not come: told as events, not one for each message, and to its author. Pure.
//
// What others should have carried here and nobody could give is told to its author, wherever it is. That word goes through
// others, too, and may be lost, or come before its author has heard that we are back: so it holds all that was lost of this
// author in its stay, and is said again; who hears it knows how many of these are news.

import type { PeerId } from "./api.ts";
import { forgetOldest } from "./limits.ts";

const TOGETHER_S = 1, REMEMBERED_MAX = 1024, PLAYERS_MAX = 1024;
/** Seconds after a loss: a cut that heals makes both sides members again within the first few. */
const SAID_AFTER_S = [0, 1, 3, 10];
const NEVER = Number.POSITIVE_INFINITY;

interface Loser {
  readonly id: PeerId;
  readonly stay: bigint;
}

interface Told<P> {
  readonly peer: P;
  readonly channel: string | null;
  readonly ours: boolean;
  at: number;
  count: number; // since then
}

interface Author {
  readonly stay: bigint;
  lost: number;
  lostAt: number;
  said: number; // how often since the last loss
}

const dueAt = ({ lostAt, said }: Author): number => lostAt + (SAID_AFTER_S[said] ?? NEVER);

/**
 * 1. `note` and `neverCame` as losses are found out, `neverArrived` for an author's word. 2. `handleTimeout(now)` at
 * `nextTimeout()`. `publish` gets what the game is told, `tellAuthor` how many of its broadcasts never came here, in all.
 */
export class Losses<P extends Loser> {
  readonly #publish: (peer: P, channel: string | null, count: number, ours: boolean) => void;
  readonly #tellAuthor: (author: PeerId, count: number) => void;
  readonly #told = new Map<string, Told<P>>();
  readonly #authors = new Map<PeerId, Author>();
  readonly #arrived = new Map<PeerId, { readonly stay: bigint; readonly count: number }>();

  constructor(publish: (peer: P, channel: string | null, count: number, ours: boolean) => void, tellAuthor: (author: PeerId, count: number) => void) {
    this.#publish = publish;
    this.#tellAuthor = tellAuthor;
  }

  /** The first loss of a player and channel is told at once, further ones together after a second. */
  note(peer: P, channel: string | null, count: number, ours: boolean, now: number): void {
    if (count <= 0) return;
    const key = `${peer.id}/${ours}/${channel}`, known = this.#told.get(key);
    if (known !== undefined && now - known.at < TOGETHER_S) {
      known.count += count;
      return;
    }
    this.#told.delete(key);
    this.#told.set(key, { peer, channel, ours, at: now, count: 0 });
    forgetOldest(this.#told, REMEMBERED_MAX);
    this.#publish(peer, channel, count, ours);
  }

  neverCame(author: P, count: number, now: number): void {
    this.note(author, null, count, false, now);
    const known = this.#authors.get(author.id);
    this.#authors.delete(author.id);
    this.#authors.set(author.id, { stay: author.stay, lost: count + (known?.stay === author.stay ? known.lost : 0), lostAt: now, said: 0 });
    forgetOldest(this.#authors, PLAYERS_MAX);
  }

  /** The player says that so many of our broadcasts never came there, in all. */
  neverArrived(peer: P, count: number, now: number): void {
    const said = this.#arrived.get(peer.id), known = said?.stay === peer.stay ? said.count : 0;
    this.#arrived.delete(peer.id);
    this.#arrived.set(peer.id, { stay: peer.stay, count: Math.max(known, count) });
    forgetOldest(this.#arrived, PLAYERS_MAX);
    this.note(peer, null, count - known, true, now);
  }

  nextTimeout(): number {
    let next = NEVER;
    for (const told of this.#told.values()) if (told.count > 0) next = Math.min(next, told.at + TOGETHER_S);
    for (const author of this.#authors.values()) next = Math.min(next, dueAt(author));
    return next;
  }

  handleTimeout(now: number): void {
    for (const [id, author] of this.#authors) {
      if (dueAt(author) > now) continue;
      while (dueAt(author) <= now) author.said++;
      this.#tellAuthor(id, author.lost);
    }
    for (const told of this.#told.values()) {
      if (told.count === 0 || told.at + TOGETHER_S > now) continue;
      const { count } = told;
      told.count = 0;
      told.at = now;
      this.#publish(told.peer, told.channel, count, told.ours);
    }
  }
}
