// Bytes and text: hex, base64, UTF-8, LEB128, and a bounded reader that raises `ProtocolError` and nothing else.

import { ProtocolError } from "./errors.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

export const utf8 = (text: string): Uint8Array => encoder.encode(text);

export function textUntrusted(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new ProtocolError("not UTF-8");
  }
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of parts) size += part.length;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function equal(one: Uint8Array, other: Uint8Array): boolean {
  return compareBytes(one, other) === 0;
}

/** As Python orders bytes. */
export function compareBytes(one: Uint8Array, other: Uint8Array): number {
  const shared = Math.min(one.length, other.length);
  for (let at = 0; at < shared; at++) if (one[at] !== other[at]) return one[at]! - other[at]!;
  return one.length - other.length;
}

export function toHex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += HEX[byte];
  return text;
}

/** Of text that is known to be hex. */
export function fromHex(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length >> 1);
  for (let at = 0; at < bytes.length; at++) bytes[at] = Number.parseInt(text.slice(2 * at, 2 * at + 2), 16);
  return bytes;
}

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** Exactly one text for given bytes: padded, no white space, no stray bits. */
export function fromBase64Untrusted(text: string): Uint8Array {
  let raw: string;
  try {
    raw = atob(text);
  } catch {
    throw new ProtocolError("not base64");
  }
  if (text.length % 4 !== 0 || btoa(raw) !== text) throw new ProtocolError("not base64");
  return Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
}

export const toBase64Url = (bytes: Uint8Array): string =>
  toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

export function fromBase64UrlUntrusted(text: string): Uint8Array {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new ProtocolError("not base64url");
  const padded = text.replaceAll("-", "+").replaceAll("_", "/");
  return fromBase64Untrusted(padded + "=".repeat(-padded.length & 3));
}

/** Unsigned LEB128 of a number below 2^64. */
export function varint(value: bigint | number): Uint8Array {
  const out: number[] = [];
  if (typeof value === "number" && value <= 0x7fffffff) {
    let rest = value;
    while (rest >= 0x80) {
      out.push((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    out.push(rest);
    return Uint8Array.from(out);
  }
  let rest = BigInt(value);
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return Uint8Array.from(out);
}

export const sized = (bytes: Uint8Array): Uint8Array => concat(varint(bytes.length), bytes);

export function u64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value);
  return bytes;
}

/** Reads from left to right; any step over the end raises `ProtocolError`. What it takes is a view, not a copy. */
export class Reader {
  offset: number;
  readonly #data: Uint8Array;

  constructor(data: Uint8Array, offset = 0) {
    this.#data = data;
    this.offset = offset;
  }

  get more(): boolean {
    return this.offset < this.#data.length;
  }

  u8Untrusted(): number {
    if (this.offset >= this.#data.length) throw new ProtocolError("frame ends too early");
    return this.#data[this.offset++]!;
  }

  takeUntrusted(size: number): Uint8Array {
    if (size > this.#data.length - this.offset) throw new ProtocolError("frame ends too early");
    this.offset += size;
    return this.#data.subarray(this.offset - size, this.offset);
  }

  u64Untrusted(): bigint {
    const raw = this.takeUntrusted(8);
    return new DataView(raw.buffer, raw.byteOffset).getBigUint64(0);
  }

  varintUntrusted(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.u8Untrusted();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (value >= 1n << 64n) break;
        return value;
      }
    }
    throw new ProtocolError("bad varint");
  }

  /** A count or a size, and never more than `limit`. */
  countUntrusted(limit: number): number {
    const count = this.varintUntrusted();
    if (count > BigInt(limit)) throw new ProtocolError(`${count} entries or bytes, the limit is ${limit}`);
    return Number(count);
  }

  sizedUntrusted(limit: number): Uint8Array {
    return this.takeUntrusted(this.countUntrusted(limit));
  }

  peerUntrusted(): string {
    return toHex(this.takeUntrusted(16));
  }

  rest(): Uint8Array {
    const rest = this.#data.subarray(this.offset);
    this.offset = this.#data.length;
    return rest;
  }

  doneUntrusted(): void {
    if (this.more) throw new ProtocolError("bytes after the end of the frame");
  }
}
