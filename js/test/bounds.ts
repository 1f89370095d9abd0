// What bounds are tested with: the frames of Python's kit for hostile members, a cheap key as its tests have, and a clock of units.
import { readFileSync } from "node:fs";

import { blake2b } from "@noble/hashes/blake2.js";
import { sha256 } from "@noble/hashes/sha2.js";

import { concat, equal, fromHex, utf8 } from "../src/bytes.ts";
import { ProtocolError } from "../src/errors.ts";
import { Node, type NodeOptions } from "../src/gossip/node.ts";
import { Identity, peerIdOf, verifyUntrusted } from "../src/identity.ts";
import { VERIFY_BY_LIBRARY } from "../src/limits.ts";

interface Worst {
  readonly room: string;
  readonly evil: number;
  readonly instance: number;
  readonly at: number;
  /** By kind: shapes, each with variants of one size. */
  readonly kinds: Readonly<Record<string, readonly (readonly string[])[]>>;
  readonly members: readonly string[];
  readonly streams: readonly string[];
}

/** Null where Python did not write them: `python -m tests.js.worst FILE`, then PSYNE_WORST=FILE. */
export const worst: Worst | null = process.env.PSYNE_WORST ? (JSON.parse(readFileSync(process.env.PSYNE_WORST, "utf8")) as Worst) : null;

const cheap = (publicKey: Uint8Array, domain: string, payload: Uint8Array): Uint8Array =>
  blake2b(concat(utf8(domain), payload), { key: publicKey, dkLen: 64 });

/** Signs with a hash: `tests.gossip.cluster.CheapIdentity`. */
export function cheapIdentity(number: number): Identity {
  const publicKey = sha256(utf8(`key${number}`));
  return { publicKey, peerId: peerIdOf(publicKey), sign: (domain: string, payload: Uint8Array) => cheap(publicKey, domain, payload) } as unknown as Identity;
}

export function cheapVerify(publicKey: Uint8Array, domain: string, payload: Uint8Array, signature: Uint8Array): string {
  if (!equal(signature, cheap(publicKey, domain, payload))) throw new ProtocolError("the signature does not match");
  return peerIdOf(publicKey);
}

export function cheapNode(number: number, options: Partial<NodeOptions> = {}): Node {
  let state = number + 1;
  const rng = (): number => ((state = (state * 48_271) % 2_147_483_647) - 1) / 2_147_483_646;
  return new Node({
    identity: cheapIdentity(number), room: fromHex(worst!.room), rng, verify: cheapVerify, epoch: BigInt(worst!.at) * 1000n + BigInt(number), name: `p${number}`,
    metadata: new Uint8Array(0), maxPlayers: 64, calendar: { offsetS: worst!.at, told: true }, now: 0, ...options,
  });
}

/** Seconds of a processor of the quickest of some runs: what else the machine does only adds. */
export function quickest(runs: readonly (() => void)[]): number {
  let best = Number.POSITIVE_INFINITY;
  for (const run of runs) {
    const began = process.cpuUsage();
    run();
    const { user, system } = process.cpuUsage(began);
    best = Math.min(best, (user + system) / 1e6);
  }
  return best;
}

const SIGNER = Identity.fromSeed(new Uint8Array(32).fill(3)), SAID = utf8("a word"), SIGNED = SIGNER.sign("psyne-record", SAID);

/** Seconds of one unit on this machine, now: a signature, verified by the library, is so many. */
export const unitS = (): number =>
  quickest(Array.from({ length: 10 }, () => () => void verifyUntrusted(SIGNER.publicKey, "psyne-record", SAID, SIGNED))) / VERIFY_BY_LIBRARY;
