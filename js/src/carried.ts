// Messages that others carry: sealed, because those who carry are not trusted. Blobs begin with what they are.
//
// A message for one: `1 | epoch: 8 | number: 8 | signature: 64 | message`, the signature over recipient, its stay, room and
// the rest. The message itself: `1 | kind | length | channel | payload`; kind has bit 0 for bytes and bit 1 for unreliable.
// And the answer to broadcasts that never came, to their author alone: `1 | 4 | how many, in all: 4`.

import type { PeerId } from "./api.ts";
import { concat, fromHex, textUntrusted, u64, utf8 } from "./bytes.ts";
import { ProtocolError } from "./errors.ts";
import type { MemberRecord, Signed } from "./gossip/wire.ts";
import { type Identity, SIGNATURE_BYTES, type Verify } from "./identity.ts";
import { forgetOldest } from "./limits.ts";
import { isFresh } from "./signaling/envelope.ts";
import type { Payload } from "./schema.ts";

export const ENVELOPE = 0, CHANNEL_MESSAGE = 1;
const LOST = 4, LOST_BYTES = 6, COUNT_MAX = 2 ** 32 - 1; // no kind of a message: members of earlier versions pass it over
const DOMAIN = "psyne-carried", HEAD_BYTES = 17, TABLE_MAX = 1024, NAME_BYTES_MAX = 128;
export const SEAL_BYTES = HEAD_BYTES + SIGNATURE_BYTES;

interface Window {
  epoch: bigint;
  highest: number;
  seen: bigint;
}

/** Of one stay in one room. 1. `seal` our messages. 2. `openUntrusted` theirs: each is believed once. */
export class Seals {
  readonly #identity: Identity;
  readonly #tag: Uint8Array;
  readonly #toUs: Uint8Array;
  readonly #numbers = new Map<PeerId, bigint>();
  #numberMin = 0n;
  readonly #seen = new Map<PeerId, Window>();

  constructor(identity: Identity, tag: Uint8Array, joinedAt: bigint) {
    this.#identity = identity;
    this.#tag = tag;
    this.#toUs = concat(fromHex(identity.peerId), u64(joinedAt));
  }

  seal(to: MemberRecord, epoch: bigint, message: Uint8Array): Uint8Array {
    const number = this.#numbers.get(to.peer) ?? this.#numberMin;
    this.#numbers.delete(to.peer);
    this.#numbers.set(to.peer, number + 1n);
    if (this.#numbers.size > TABLE_MAX) {
      const [oldest, next] = this.#numbers.entries().next().value as [PeerId, bigint];
      this.#numbers.delete(oldest);
      if (next > this.#numberMin) this.#numberMin = next;
    }
    const head = concat(u64(epoch), u64(number)), addressee = concat(fromHex(to.peer), u64(to.joinedAt));
    const signature = this.#identity.sign(DOMAIN, concat(addressee, this.#tag, head, message));
    return concat(Uint8Array.of(CHANNEL_MESSAGE), head, signature, message);
  }

  /** What is to be verified of such a blob before it is opened. */
  signedUntrusted(record: MemberRecord, blob: Uint8Array): Signed {
    return this.#readUntrusted(record, blob).signed;
  }

  /** The message of the member whom `record` names, or `ProtocolError`. */
  openUntrusted(record: MemberRecord, blob: Uint8Array, verify: Verify): Uint8Array {
    const { window, message, signed } = this.#readUntrusted(record, blob);
    verify(...signed);
    this.#seen.delete(record.peer);
    this.#seen.set(record.peer, window);
    forgetOldest(this.#seen, TABLE_MAX);
    return message;
  }

  #readUntrusted(record: MemberRecord, blob: Uint8Array): { window: Window; message: Uint8Array; signed: Signed } {
    if (blob.length < SEAL_BYTES || blob[0] !== CHANNEL_MESSAGE) throw new ProtocolError("not a sealed message");
    const head = blob.subarray(1, HEAD_BYTES), signature = blob.subarray(HEAD_BYTES, SEAL_BYTES), message = blob.subarray(SEAL_BYTES);
    const view = new DataView(head.buffer, head.byteOffset), epoch = view.getBigUint64(0), number = Number(view.getBigUint64(8));
    if (epoch !== record.epoch) throw new ProtocolError("a message of another stay in the room");
    const known = this.#seen.get(record.peer);
    const window = known?.epoch === epoch ? { ...known } : { epoch, highest: -1, seen: 0n };
    if (!isFresh(window, number)) throw new ProtocolError("a repeated message");
    return { window, message, signed: [record.publicKey, DOMAIN, concat(this.#toUs, this.#tag, head, message), signature] };
  }
}

export function carried(name: string, payload: Payload, reliable: boolean): Uint8Array {
  const raw = utf8(name), isText = typeof payload === "string";
  const kind = (isText ? 0 : 1) | (reliable ? 0 : 2);
  return concat(Uint8Array.of(CHANNEL_MESSAGE, kind, raw.length), raw, isText ? utf8(payload) : payload);
}

export function carriedUntrusted(blob: Uint8Array): { name: string; payload: Payload; reliable: boolean } {
  const [first, kind, size] = blob;
  if (blob.length < 3 || first !== CHANNEL_MESSAGE || kind! > 3 || size! < 1 || size! > NAME_BYTES_MAX || blob.length < 3 + size!)
    throw new ProtocolError("not a carried channel message");
  const name = textUntrusted(blob.subarray(3, 3 + size!)), rest = blob.subarray(3 + size!);
  return { name, payload: kind! & 1 ? rest.slice() : textUntrusted(rest), reliable: (kind! & 2) === 0 };
}

/** For a member alone: so many of its broadcasts never came here, in all. */
export function lostWord(count: number): Uint8Array {
  const word = Uint8Array.of(CHANNEL_MESSAGE, LOST, 0, 0, 0, 0);
  new DataView(word.buffer).setUint32(2, Math.min(count, COUNT_MAX));
  return word;
}

/** How many of our broadcasts never came there; null: it is a message. `ProtocolError` for what is neither. */
export function lostUntrusted(blob: Uint8Array): number | null {
  if (blob[0] !== CHANNEL_MESSAGE || blob[1] !== LOST) return null;
  if (blob.length !== LOST_BYTES) throw new ProtocolError("a word about lost broadcasts of another size");
  return new DataView(blob.buffer, blob.byteOffset).getUint32(2);
}
