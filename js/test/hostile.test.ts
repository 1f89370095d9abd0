// Hostile bytes: whatever comes, only the declared error leaves a parser, and a node drops, counts, and goes on.
import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import { concat, fromHex, toBase64Url, utf8 } from "../src/bytes.ts";
import { carriedUntrusted } from "../src/carried.ts";
import { ProtocolError, VersionMismatch } from "../src/errors.ts";
import { Node } from "../src/gossip/node.ts";
import * as wire from "../src/gossip/wire.ts";
import { Identity, Verifier, verifyUntrusted } from "../src/identity.ts";
import { statementUntrusted } from "../src/owed.ts";
import { profileOf } from "../src/placement.ts";
import { pack, unpackUntrusted } from "../src/schema.ts";
import { openUntrusted } from "../src/signaling/envelope.ts";
import { decodeServerUntrusted } from "../src/signaling/messages.ts";
import { bytesOf, type Case, vectors } from "./vectors.ts";

const RUNS = Number(process.env.PSYNE_FUZZ_RUNS ?? 20_000);
const frames = vectors("frames"), ROOM = fromHex(frames.room);
const GOOD: Uint8Array[] = (frames.cases as Case[]).filter((one) => !one.refused).map(bytesOf);
const PARTS: Uint8Array[] = ["records", "accusations", "proofs"].flatMap((name) => (vectors(name).cases as Case[]).map(bytesOf));

/** Good bytes of one of those, bent: cut, spliced, or with bytes of chance in them. */
const bent = (all: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> =>
  fc.tuple(fc.nat(all.length - 1), fc.array(fc.tuple(fc.nat(4096), fc.nat(255)), { maxLength: 4 }), fc.nat(4096), fc.uint8Array({ maxLength: 24 }), fc.nat(3))
    .map(([which, changes, cut, tail, how]) => {
      let bytes: Uint8Array = all[which]!.slice();
      for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte;
      if (how === 1) bytes = bytes.slice(0, cut % (bytes.length + 1));
      if (how === 2) bytes = concat(bytes.slice(0, cut % (bytes.length + 1)), tail);
      if (how === 3) bytes = concat(bytes, tail);
      return bytes;
    });

function only(read: () => unknown): void {
  try {
    read();
  } catch (error) {
    assert.ok(error instanceof ProtocolError || error instanceof VersionMismatch, (error as Error).stack);
  }
}

const READERS: Readonly<Record<string, (bytes: Uint8Array) => unknown>> = {
  probe: wire.probeUntrusted, indirect: wire.indirectUntrusted, hello: wire.helloUntrusted, summary: wire.summaryUntrusted,
  digest: wire.digestUntrusted, delta: wire.deltaUntrusted, ihave: wire.ihaveUntrusted, graft: wire.graftUntrusted, haves: wire.havesUntrusted,
  relay: wire.relayUntrusted, gone: wire.goneUntrusted, record: wire.recordUntrusted, accusation: wire.accusationUntrusted,
  proof: wire.proofUntrusted, type: wire.frameTypeUntrusted, carried: carriedUntrusted, losses: statementUntrusted, profile: profileOf,
  items: (bytes) => wire.itemsUntrusted(bytes, 2), gossip: (bytes) => wire.gossipUntrusted(bytes, ROOM, 16_384),
  keep: (bytes) => wire.keepUntrusted(bytes, ROOM), signal: (bytes) => wire.signalUntrusted(bytes, 16_384, 12),
};

test("every reader throws its declared error and nothing else", () => {
  const readers = Object.values(READERS), each = Math.ceil(RUNS / readers.length);
  readers.forEach((read, seed) => fc.assert(fc.property(bent([...GOOD, ...PARTS]), (bytes) => only(() => read(bytes))), { numRuns: each, seed }));
});

test("words of a server, and envelopes", () => {
  const texts: string[] = vectors("signaling").server.map((one: { text: string }) => one.text);
  const spoilt = fc.tuple(fc.nat(texts.length - 1), fc.nat(2000), fc.string({ maxLength: 12 }), fc.nat(6)).map(([which, at, more, less]) => {
    const text = texts[which]!, place = at % (text.length + 1);
    return text.slice(0, place) + more + text.slice(place + less);
  });
  fc.assert(fc.property(spoilt, (text) => only(() => decodeServerUntrusted(text))), { numRuns: Math.ceil(RUNS / 20), seed: 3 });
  const identity = Identity.fromSeed(new Uint8Array(32).fill(9));
  const to = { recipient: identity.peerId, sender: identity.peerId, room: "//r", nowMs: 1e12 };
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), fc.boolean(), (said, isSigned) => {
      const payload = utf8(said);
      const text = isSigned ? [payload, identity.publicKey, identity.sign("psyne-signal", payload)].map(toBase64Url).join(".") : said;
      only(() => openUntrusted(text, verifyUntrusted, to));
    }),
    { numRuns: 300, seed: 4 },
  );
});

test("a message that promises more than it holds is refused before room is made for it", () => {
  const [array, map] = [Uint8Array.of(0xdd, 0, 4, 0, 0), Uint8Array.of(0xdf, 0, 2, 0, 0)]; // 262,144 values each
  for (const head of [array, map]) {
    const bomb = concat(...Array.from({ length: 50_000 }, () => head), new Uint8Array(12_144));
    const before = process.memoryUsage().heapTotal;
    assert.throws(() => unpackUntrusted(bomb), ProtocolError);
    assert.ok(process.memoryUsage().heapTotal - before < 64 * 2 ** 20);
  }
  fc.assert(
    fc.property(fc.jsonValue(), fc.nat(200), fc.nat(255), (value, at, byte) => {
      const packed = pack(value);
      assert.deepEqual(JSON.stringify(unpackUntrusted(packed), (_, each: unknown) => (typeof each === "bigint" ? Number(each) : each)), JSON.stringify(value));
      packed[at % packed.length] = byte;
      only(() => unpackUntrusted(packed));
    }),
    { numRuns: Math.ceil(RUNS / 20), seed: 6 },
  );
});

const SIGNATURE_COST = 1500;

function nodeWith(seed: number): Node {
  let state = seed + 1;
  const rng = (): number => ((state = (state * 48_271) % 2_147_483_647) - 1) / 2_147_483_646;
  return new Node({
    identity: Identity.fromSeed(new Uint8Array(32).fill(seed)), room: ROOM, rng, verify: new Verifier(null).verify, epoch: 1_796_000_000_000n + BigInt(seed), name: `p${seed}`,
    metadata: new Uint8Array(0), maxPlayers: 8, calendar: { offsetS: 1_796_000_000, told: true }, now: 0, verifyUnits: SIGNATURE_COST,
  });
}

test("a node takes any frames of a neighbour, and a flooder is parted from within seconds", () => {
  const node = nodeWith(1), flooder = "f".repeat(32);
  node.start(0);
  node.linkUp(flooder, 0.1, null);
  node.takeOutputs();
  let now = 0.1;
  fc.assert(
    fc.property(bent(GOOD), fc.nat(1000), (frame, gap) => {
      now += gap / 1e6;
      node.receive(flooder, frame, now);
      node.statements(flooder, frame, now);
      if (node.nextTimeout() <= now) node.handleTimeout(now);
      node.takeEvents();
      if (!node.linked.includes(flooder)) {
        now += 61; // it is shunned for a minute
        node.linkUp(flooder, now, null);
      }
      assert.ok(node.takeOutputs().length < 500);
    }),
    { numRuns: Math.ceil(RUNS / 20), seed: 5 },
  );
  assert.ok(node.running);
});

test("a neighbour that has us verify signatures is dropped before it costs half a core", () => {
  const node = nodeWith(2), flooder = "e".repeat(32);
  node.start(0);
  node.linkUp(flooder, 0.1, null);
  const state = { incarnation: 0n, state: 0, reason: 0, joinedAt: 1n, seat: null, ballot: [], lifetime: 300, coordinates: null, name: "", metadata: new Uint8Array(0) };
  const stranger = Identity.fromSeed(new Uint8Array(32).fill(77));
  let now = 0.1, parted: number | null = null;
  for (let epoch = 1; now < 10 && parted === null; epoch++) {
    now += 0.002; // 500 a second
    const record = wire.signRecord({ ...state, epoch: BigInt(epoch) }, ROOM, stranger, 0n, 1_796_000_000);
    const spoilt = record.encoded.slice();
    spoilt[spoilt.length - 1]! ^= 1;
    node.receive(flooder, concat(wire.head(wire.TOLD), wire.item(wire.ITEM_RECORD, spoilt)), now);
    if (!node.linked.includes(flooder)) parted = now;
  }
  assert.ok(parted !== null && parted < 3, String(parted));
});
