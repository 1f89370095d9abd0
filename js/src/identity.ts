// Who a player is: an Ed25519 key, and the id that is a hash of its public half.
//
// Everything that a peer says about itself is signed under a domain, so that a signature made for one purpose can never be
// shown for another. The library signs and verifies at once; where the browser has Ed25519, what comes in is verified there
// beforehand (`Verifier.prepare`), which is ten times as quick and leaves the page's thread alone.

import { getPublicKey, hashes, sign, verify } from "@noble/ed25519";
import { sha256, sha512 } from "@noble/hashes/sha2.js";

import type { PeerId } from "./api.ts";
import { concat, fromHex, toHex, utf8 } from "./bytes.ts";
import { InvalidConfig, ProtocolError } from "./errors.ts";

hashes.sha512 = sha512;

export const PUBLIC_KEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;
const SEED_BYTES = 32;
const PEER_ID_BYTES = 16; // 128 bits: no second preimage within reach
const STORED_AS = "psyne-mesh-identity";
const REMEMBERED_MAX = 1024; // verdicts; the oldest is forgotten, and found out again

export type Verify = (publicKey: Uint8Array, domain: string, payload: Uint8Array, signature: Uint8Array) => PeerId;

/** `Identity.generate()`, `Identity.fromSeed(32 bytes)` or, kept in the browser, `Identity.load()`. */
export class Identity {
  readonly #seed: Uint8Array;
  #public: { readonly key: Uint8Array; readonly peerId: PeerId } | null = null; // once it is asked for: a page has to start first

  private constructor(seed: Uint8Array) {
    this.#seed = seed.slice();
  }

  get publicKey(): Uint8Array {
    return this.#made().key;
  }

  get peerId(): PeerId {
    return this.#made().peerId;
  }

  #made(): { readonly key: Uint8Array; readonly peerId: PeerId } {
    if (this.#public === null) {
      const key = getPublicKey(this.#seed);
      this.#public = { key, peerId: peerIdOf(key) };
    }
    return this.#public;
  }

  static generate(): Identity {
    return new Identity(crypto.getRandomValues(new Uint8Array(SEED_BYTES)));
  }

  /** The same 32 secret bytes give the same player again: keep them to keep a seat. */
  static fromSeed(seed: Uint8Array): Identity {
    if (seed.length !== SEED_BYTES) throw new InvalidConfig(`an identity seed is 32 bytes, not ${seed.length}`);
    return new Identity(seed);
  }

  /** The same player as before in this tab, or in this browser: one key can be in a room only once, so two tabs are two. */
  static load(storage: Pick<Storage, "getItem" | "setItem"> = sessionStorage): Identity {
    const kept = storage.getItem(STORED_AS);
    if (kept !== null && /^[0-9a-f]{64}$/.test(kept)) return new Identity(fromHex(kept));
    const made = Identity.generate();
    storage.setItem(STORED_AS, toHex(made.#seed));
    return made;
  }

  /** The 32 secret bytes; never send them. */
  get seed(): Uint8Array {
    return this.#seed.slice();
  }

  sign(domain: string, payload: Uint8Array): Uint8Array {
    return sign(framed(domain, payload), this.#seed);
  }
}

export function peerIdOf(publicKey: Uint8Array): PeerId {
  return toHex(sha256(concat(utf8("psyne-peer"), publicKey)).subarray(0, PEER_ID_BYTES));
}

/** `ProtocolError` for anything but 32 lower-case hex digits. */
export function peerIdUntrusted(text: unknown): PeerId {
  if (typeof text === "string" && /^[0-9a-f]{32}$/.test(text)) return text;
  throw new ProtocolError("a peer id is 32 lower-case hex digits");
}

/** The id of the peer who signed `payload` under `domain`, or `ProtocolError`. */
export function verifyUntrusted(publicKey: Uint8Array, domain: string, payload: Uint8Array, signature: Uint8Array): PeerId {
  checkSizes(publicKey, signature);
  let good = false;
  try {
    good = verify(signature, framed(domain, payload), publicKey, { zip215: false });
  } catch {
    good = false; // not a point of the curve
  }
  if (!good) throw new ProtocolError("the signature does not match");
  return peerIdOf(publicKey);
}

/** 1. `await prepare(...)` what a frame carries, where the browser can. 2. `verify` it, at once. */
export class Verifier {
  readonly verify: Verify;
  readonly #verdicts = new Map<string, boolean>();
  #subtle: SubtleCrypto | null;

  constructor(subtle: SubtleCrypto | null = globalThis.crypto?.subtle ?? null) {
    this.#subtle = subtle;
    this.verify = (publicKey, domain, payload, signature) => {
      const verdict = this.#verdicts.get(keyOf(publicKey, domain, payload, signature));
      if (verdict === undefined) return verifyUntrusted(publicKey, domain, payload, signature);
      if (!verdict) throw new ProtocolError("the signature does not match");
      return peerIdOf(publicKey);
    };
  }

  get isNative(): boolean {
    return this.#subtle !== null;
  }

  async prepare(publicKey: Uint8Array, domain: string, payload: Uint8Array, signature: Uint8Array): Promise<void> {
    if (this.#subtle === null || publicKey.length !== PUBLIC_KEY_BYTES || signature.length !== SIGNATURE_BYTES) return;
    const key = keyOf(publicKey, domain, payload, signature);
    if (this.#verdicts.has(key)) return;
    let verdict: boolean;
    try {
      const imported = await this.#subtle.importKey("raw", publicKey as BufferSource, "Ed25519", false, ["verify"]);
      verdict = await this.#subtle.verify("Ed25519", imported, signature as BufferSource, framed(domain, payload) as BufferSource);
    } catch (error) {
      if ((error as Error).name === "NotSupportedError") this.#subtle = null; // an old browser: the library does it
      return; // and it says what is wrong with this one
    }
    this.#verdicts.set(key, verdict);
    if (this.#verdicts.size > REMEMBERED_MAX) this.#verdicts.delete(this.#verdicts.keys().next().value as string);
  }
}

function checkSizes(publicKey: Uint8Array, signature: Uint8Array): void {
  if (publicKey.length !== PUBLIC_KEY_BYTES || signature.length !== SIGNATURE_BYTES)
    throw new ProtocolError("a public key is 32 bytes and a signature 64");
}

/** By the whole statement: half of a signature names no message. */
function keyOf(publicKey: Uint8Array, domain: string, payload: Uint8Array, signature: Uint8Array): string {
  return toHex(sha256(concat(publicKey, signature, framed(domain, payload))));
}

function framed(domain: string, payload: Uint8Array): Uint8Array {
  const name = utf8(domain);
  return concat(Uint8Array.of(name.length >> 8, name.length & 0xff), name, payload);
}
