// The ledger of a room: how many reliable messages each player was owed, and owes us, over all links of its stay. Pure.
//
// Who opens a link states what it had sent over earlier ones; who hears that knows what never came, and says so. A frame:
// `OWED_TAG | tag of the room: 8 | kind: 1 | stay of who hears: 8 | stay of who speaks: 8`, then for each channel
// `length: 1 | name | count: 8`.

import type { PeerId } from "./api.ts";
import { concat, Reader, textUntrusted, u64, utf8 } from "./bytes.ts";
import { ProtocolError } from "./errors.ts";
import { forgetOldest, TokenBucket } from "./limits.ts";

export const OWED_TAG = Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 2);
const STATED = 0, MISSING = 1, DROPPED = 2;
const CHANNELS_MAX = 256, CHANNELS_OF_FRAME = 64, NAME_BYTES_MAX = 128, COUNT_MAX = 2n ** 48n, ACCOUNTS_MAX = 256;
const FRAMES = 64, FRAMES_PER_S = 8;

export type Counts = Map<string, number>;

interface Account {
  stay: bigint | null;
  sent: Counts;
  came: Counts;
  told: Counts; // losses that our application knows of already
  stated: Statement | null;
  readonly frames: TokenBucket;
}

export interface Statement {
  readonly kind: number;
  readonly hearerStay: bigint;
  readonly speakerStay: bigint;
  readonly counts: Counts;
}

export class Owed {
  readonly #tag: Uint8Array;
  readonly #stay: bigint;
  readonly #accounts = new Map<PeerId, Account>();

  constructor(tag: Uint8Array, stay: bigint) {
    this.#tag = tag;
    this.#stay = stay;
  }

  /** The player is here, for that stay. */
  meet(peer: PeerId, stay: bigint, now: number): void {
    let account = this.#account(peer, now);
    if (account.stay !== null && account.stay !== stay) {
      const { stated } = account;
      this.#accounts.delete(peer);
      account = this.#account(peer, now);
      account.stated = stated;
    }
    account.stay = stay;
  }

  /** Its stay is over. */
  part(peer: PeerId): void {
    this.#accounts.delete(peer);
  }

  linkEnded(peer: PeerId, sent: ReadonlyMap<string, number>, came: ReadonlyMap<string, number>, now: number): void {
    const account = this.#account(peer, now);
    for (const [name, count] of sent) add(account.sent, name, count);
    for (const [name, count] of came) add(account.came, name, count);
  }

  /** A message for the player that no link took; `told`: our application knows. */
  missed(peer: PeerId, name: string, told: boolean, now: number): void {
    const account = this.#account(peer, now);
    add(account.sent, name, 1);
    if (told) add(account.told, name, 1);
  }

  /** Frames for a new link: what we had sent before it. */
  statement(peer: PeerId): Uint8Array[] {
    const account = this.#accounts.get(peer);
    if (account === undefined || account.stay === null) return [];
    return this.#frames(STATED, account.stay, account.sent);
  }

  /** Frames: so many of the player's messages came, and found no room. */
  dropped(peer: PeerId, counts: Counts): Uint8Array[] {
    const account = this.#accounts.get(peer);
    return account === undefined || account.stay === null ? [] : this.#frames(DROPPED, account.stay, counts);
  }

  /** A frame of the player. Of our own messages so many are lost, which the application does not know yet. */
  receiveUntrusted(peer: PeerId, frame: Uint8Array, now: number): Counts {
    const statement = statementUntrusted(frame), account = this.#account(peer, now), news: Counts = new Map();
    if (!account.frames.allow(now)) throw new ProtocolError("too many words about losses");
    if (statement.hearerStay !== this.#stay || (account.stay !== null && account.stay !== statement.speakerStay)) return news;
    if (statement.kind === STATED) {
      const counts = new Map([...(account.stated?.counts ?? []), ...statement.counts]);
      if (counts.size > CHANNELS_MAX) throw new ProtocolError("a statement about more channels than a room has");
      account.stated = { ...statement, counts };
      return news;
    }
    for (const [name, count] of statement.counts) {
      const known = statement.kind === MISSING ? Math.min(count, account.told.get(name) ?? 0) : 0;
      add(account.told, name, -known);
      if (count > known) news.set(name, count - known);
    }
    return news;
  }

  /** No earlier link of the player is left: how many of its messages never came, and the answer, if it stated anything. */
  settle(peer: PeerId): { lost: Counts; frames: Uint8Array[] } {
    const account = this.#accounts.get(peer), lost: Counts = new Map();
    if (account === undefined || account.stated === null || account.stay === null) return { lost, frames: [] };
    const { stated, stay } = account, missing: Counts = new Map();
    account.stated = null;
    if (stated.speakerStay !== stay) return { lost, frames: [] };
    for (const [name, sent] of stated.counts) {
      const count = Math.max(0, sent - (account.came.get(name) ?? 0));
      missing.set(name, count);
      if (count > 0) lost.set(name, count);
      account.came.set(name, Math.max(sent, account.came.get(name) ?? 0));
    }
    forgetOldest(account.came, CHANNELS_MAX);
    return { lost, frames: this.#frames(MISSING, stay, missing) };
  }

  #account(peer: PeerId, now: number): Account {
    let account = this.#accounts.get(peer);
    if (account === undefined) {
      account = { stay: null, sent: new Map(), came: new Map(), told: new Map(), stated: null, frames: new TokenBucket(FRAMES, FRAMES_PER_S, now) };
      this.#accounts.set(peer, account);
      forgetOldest(this.#accounts, ACCOUNTS_MAX);
    }
    return account;
  }

  #frames(kind: number, stay: bigint, counts: Counts): Uint8Array[] {
    const head = concat(OWED_TAG, this.#tag, Uint8Array.of(kind), u64(stay), u64(this.#stay));
    const entries = [...counts].map(([name, count]) => {
      const raw = utf8(name);
      return concat(Uint8Array.of(raw.length), raw, u64(BigInt(count)));
    });
    const frames: Uint8Array[] = [];
    for (let at = 0; at < entries.length; at += CHANNELS_OF_FRAME) frames.push(concat(head, ...entries.slice(at, at + CHANNELS_OF_FRAME)));
    return frames;
  }
}

export function statementUntrusted(frame: Uint8Array): Statement {
  const reader = new Reader(frame, OWED_TAG.length + 8);
  const kind = reader.u8Untrusted();
  if (kind > DROPPED) throw new ProtocolError("an unknown word about losses");
  const hearerStay = reader.u64Untrusted(), speakerStay = reader.u64Untrusted(), counts: Counts = new Map();
  while (reader.more) {
    const size = reader.u8Untrusted();
    if (size < 1 || size > NAME_BYTES_MAX || counts.size >= CHANNELS_MAX) throw new ProtocolError("a word about too much");
    const name = textUntrusted(reader.takeUntrusted(size)), count = reader.u64Untrusted();
    if (count > COUNT_MAX || counts.has(name)) throw new ProtocolError("a count of losses that cannot be");
    counts.set(name, Number(count));
  }
  return { kind, hearerStay, speakerStay, counts };
}

function add(counts: Counts, name: string, count: number): void {
  const sum = (counts.get(name) ?? 0) + count;
  if (sum === 0) counts.delete(name);
  else counts.set(name, sum);
}
