// Nodes for Python's simulator: virtual time, one request and one answer at a time. `tests/js/simulated.py` is the other side.
//
// Each is 4 bytes of length, then MessagePack. Request: [node, verb, ...arguments]. Answer: what the verb made the node do and
// say, and when it wants to be asked again.
import { readSync, writeSync } from "node:fs";

import { decode, encode } from "@msgpack/msgpack";
import { blake2b } from "@noble/hashes/blake2.js";

import { Node, type NodeEvent } from "../src/gossip/node.ts";
import { Identity, peerIdOf, type Verify, verifyUntrusted } from "../src/identity.ts";

interface Made {
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly room: Uint8Array;
  readonly chance: number;
  readonly epoch: number;
  readonly offsetS: number;
  readonly maxPlayers: number;
  readonly now: number;
  /** Keys of Ed25519; else ids and sizes are theirs, and signatures prove nothing: a scenario measures protocols. */
  readonly isReal: boolean;
}

const nodes = new Map<number, Node>();

function made({ seed, publicKey, room, chance, epoch, offsetS, maxPlayers, now, isReal }: Made): Node {
  let state = (chance % 2_147_483_646) + 1;
  const rng = (): number => ((state = (state * 48_271) % 2_147_483_647) - 1) / 2_147_483_646;
  const stub = {
    publicKey, peerId: peerIdOf(publicKey), sign: (_domain: string, payload: Uint8Array) => blake2b(payload, { key: publicKey, dkLen: 64 }),
  } as unknown as Identity;
  const believing: Verify = (key) => peerIdOf(key);
  return new Node({
    identity: isReal ? Identity.fromSeed(seed) : stub, verify: isReal ? verifyUntrusted : believing, room, rng, epoch: BigInt(epoch), name: "", metadata: new Uint8Array(0),
    maxPlayers, calendar: { offsetS, told: false }, now,
  });
}

const shown = (event: NodeEvent): unknown => ("record" in event ? { ...event, record: event.record.encoded } : event);

function act(number: number, verb: string, given: readonly unknown[]): unknown {
  if (verb === "make") nodes.set(number, made(given[0] as Made));
  const node = nodes.get(number)!;
  if (verb !== "make") (node[verb as keyof Node] as (...given: readonly unknown[]) => void).call(node, ...given);
  const outputs = node.takeOutputs().map((output) => {
    if (output.type === "send") return [0, output.peer, output.frame, output.reliable];
    return output.type === "dial" ? [1, output.peer, output.record.encoded] : [2, output.peer, output.reason];
  });
  const next = node.nextTimeout();
  return {
    outputs, events: node.takeEvents().map(shown), next: Number.isFinite(next) ? next : null, own: node.ownRecord.encoded, members: node.members,
    lookout: node.isLookout,
  };
}

function read(size: number): Uint8Array | null {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    const more = readSync(0, bytes, at, size - at, null);
    if (more === 0) return null;
    at += more;
  }
  return bytes;
}

function write(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
}

for (let head = read(4); head !== null; head = read(4)) {
  const request = read(Buffer.from(head).readUInt32BE());
  if (request === null) break;
  const [number, verb, ...given] = decode(request) as [number, string, ...unknown[]];
  const answer = encode(act(number, verb, given));
  const size = Buffer.alloc(4);
  size.writeUInt32BE(answer.length);
  write(Buffer.concat([size, answer]));
}
