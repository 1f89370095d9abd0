// Reliable messages that must not go yet: a link is being made, or what others carry has still to come. Pure.
//
// Two ways to one player know nothing of each other: what goes over a link that has just opened would come before what others
// are still carrying. So the first messages over it wait until that has come, or will not any more.

import type { PeerId } from "./api.ts";
import { forgetOldest } from "./limits.ts";

// For one player, and for all together: a handshake takes a second or two, and a greeting, a seed and a level fit many times over.
const MESSAGES_MAX = 1024, BYTES_MAX = 2 ** 20, BYTES_OF_ALL_MAX = 4 * 2 ** 20;
/** After so long nothing is given that others carry and that is not repeated; nine hops of 50 ms take half of it. */
export const CARRIED_LIFE_S = 1;
const CARRIED_MAX = 1024; // players, as many as a room has
const NEVER = Number.POSITIVE_INFINITY;

/**
 * 1. `put` what cannot be sent yet; while `has(peer)`, later messages wait, too. 2. `noteCarried` what others carry; while
 * `isHeld(peer, now)` a link must wait. 3. `take` when there may be a way, `restore` what found none. 4. `ready(now)` at
 * `nextTimeout()`: for whom the time is over.
 */
export class Waiting<T> {
  readonly #queues = new Map<PeerId, { readonly items: T[]; bytes: number }>();
  readonly #heldUntil = new Map<PeerId, number>();
  #bytes = 0;

  has(peer: PeerId): boolean {
    return this.#queues.has(peer);
  }

  get peers(): PeerId[] {
    return [...this.#queues.keys()];
  }

  /** False: there is no room for it. */
  put(peer: PeerId, item: T, size: number): boolean {
    const queue = this.#queues.get(peer) ?? { items: [], bytes: 0 };
    if (queue.items.length >= MESSAGES_MAX || queue.bytes + size > BYTES_MAX || this.#bytes + size > BYTES_OF_ALL_MAX) return false;
    queue.items.push(item);
    queue.bytes += size;
    this.#bytes += size;
    this.#queues.set(peer, queue);
    return true;
  }

  take(peer: PeerId): T[] {
    const queue = this.#queues.get(peer);
    this.#queues.delete(peer);
    this.#bytes -= queue?.bytes ?? 0;
    return queue?.items ?? [];
  }

  noteCarried(peer: PeerId, now: number): void {
    this.#heldUntil.delete(peer);
    this.#heldUntil.set(peer, now + CARRIED_LIFE_S);
    forgetOldest(this.#heldUntil, CARRIED_MAX);
  }

  isHeld(peer: PeerId, now: number): boolean {
    return (this.#heldUntil.get(peer) ?? -NEVER) > now;
  }

  nextTimeout(): number {
    let next = NEVER;
    for (const peer of this.#queues.keys()) next = Math.min(next, this.#heldUntil.get(peer) ?? NEVER);
    return next;
  }

  ready(now: number): PeerId[] {
    const ready = this.peers.filter((peer) => (this.#heldUntil.get(peer) ?? NEVER) <= now);
    for (const peer of ready) this.#heldUntil.delete(peer);
    return ready;
  }
}
