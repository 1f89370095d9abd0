// One wire, proved against the bytes that Python writes: read alike, refused alike, and written alike.
import assert from "node:assert/strict";
import { test } from "node:test";

import { concat, equal, fromHex, toHex, utf8, varint } from "../src/bytes.ts";
import { carried, carriedUntrusted, lostUntrusted, lostWord, Seals } from "../src/carried.ts";
import { ManifestRefused, ProtocolError, VersionMismatch } from "../src/errors.ts";
import { assign, Seats } from "../src/gossip/seats.ts";
import { View } from "../src/gossip/view.ts";
import * as wire from "../src/gossip/wire.ts";
import { Identity, peerIdOf, verifyUntrusted } from "../src/identity.ts";
import { statementUntrusted } from "../src/owed.ts";
import { profileOf } from "../src/placement.ts";
import { EnvelopeRefused, isFresh, openUntrusted, seal } from "../src/signaling/envelope.ts";
import { parseExactUntrusted } from "../src/signaling/exact.ts";
import * as words from "../src/signaling/messages.ts";
import { bytesOf, type Case, plain, vectors } from "./vectors.ts";

const frames = vectors("frames"), ROOM = fromHex(frames.room);
const { PAYLOAD_MAX, BLOB_MAX, TTL_MAX } = frames.limits;

/** What `read` makes of it, or that it throws its one declared error. */
function held(one: { readonly refused?: true; readonly read?: unknown; readonly name?: string }, read: () => unknown): void {
  if (one.refused) {
    assert.throws(read, (error) => error instanceof ProtocolError || assert.fail(String(error)), one.name);
    return;
  }
  assert.deepEqual(plain(read()), one.read, one.name);
}

const signedBy = (signed: wire.Signed): boolean => {
  try {
    verifyUntrusted(...signed);
    return true;
  } catch (error) {
    assert.ok(error instanceof ProtocolError);
    return false;
  }
};

const messageOf = ({ origin, publicKey, instance, at, epoch, sequence, floor, payload, body }: wire.Broadcasted): unknown => ({
  origin, publicKey, instance, at, epoch, sequence, floor, payload, body,
});

function shown(frame: Uint8Array): unknown {
  const kind = wire.frameTypeUntrusted(frame);
  switch (kind) {
    case wire.PING:
    case wire.ACK: {
      const { kind: type, coordinates: [x, y, z, height, error], ...probe } = wire.probeUntrusted(frame);
      return { version: 2, type, ...probe, x, y, z, height, error, items: wire.itemsUntrusted(frame, wire.PROBE_BYTES) };
    }
    case wire.PING_REQ:
    case wire.INDIRECT:
      return wire.indirectUntrusted(frame);
    case wire.HELLO:
      return wire.helloUntrusted(frame);
    case wire.RUMOURS:
    case wire.TOLD:
    case wire.DISCONNECT:
      return { items: wire.itemsUntrusted(frame, 2) };
    case wire.SUMMARY: {
      // Against a view whose last bucket differs, as the vector says.
      const buckets = wire.summaryUntrusted(frame);
      return { buckets };
    }
    case wire.DIGEST:
      return wire.digestUntrusted(frame);
    case wire.DELTA:
      return wire.deltaUntrusted(frame);
    case wire.GOSSIP: {
      const { head, message } = wire.gossipUntrusted(frame, ROOM, PAYLOAD_MAX);
      return { head, message: messageOf(message) };
    }
    case wire.IHAVE:
      return wire.ihaveUntrusted(frame).map(([id, hops]) => ({ id, hops }));
    case wire.GRAFT:
      return wire.graftUntrusted(frame);
    case wire.PRUNE:
      return {};
    case wire.HAVES:
      return wire.havesUntrusted(frame);
    case wire.SIGNAL:
      return wire.signalUntrusted(frame, BLOB_MAX, TTL_MAX);
    case wire.RELAY: {
      const { to, inner } = wire.relayUntrusted(frame);
      return { to, frame: inner };
    }
    case wire.FORWARD_JOIN:
      return wire.forwardJoinUntrusted(frame);
    case wire.SHUFFLE:
    case wire.SHUFFLE_REPLY:
      return wire.shuffleUntrusted(frame);
    case wire.KEEP: {
      const { hops, signed, ...keep } = wire.keepUntrusted(frame, ROOM);
      return { hops, keep: { ...keep, publicKey: signed[0] } };
    }
    default:
      return { unknown: true };
  }
}

/** The same frame, made anew from what was read. */
function written(frame: Uint8Array): Uint8Array {
  const kind = frame[1]!;
  const items = (read: readonly (readonly [number, Uint8Array])[]): Uint8Array[] => read.map(([type, data]) => wire.item(type, data));
  switch (kind) {
    case wire.PING:
    case wire.ACK:
      return concat(wire.encodeProbe(wire.probeUntrusted(frame)), ...items(wire.itemsUntrusted(frame, wire.PROBE_BYTES)));
    case wire.PING_REQ: {
      const { sequence, target } = wire.indirectUntrusted(frame);
      return wire.pingReq(sequence, target);
    }
    case wire.INDIRECT: {
      const { sequence, target, alive } = wire.indirectUntrusted(frame);
      return wire.indirect(sequence, target, alive);
    }
    case wire.HELLO: {
      const { flags, instance, wallS, buckets, items: said } = wire.helloUntrusted(frame);
      const record = said.find(([type]) => type === wire.ITEM_RECORD)?.[1];
      if (record === undefined) return frame; // we never say that
      const whole = wire.encodeHello(flags, instance, wallS, buckets, wire.recordUntrusted(record));
      return concat(whole, ...items(said.slice(1)));
    }
    case wire.RUMOURS:
    case wire.TOLD:
    case wire.DISCONNECT:
      return wire.packItems(wire.head(kind), items(wire.itemsUntrusted(frame, 2)), 2 ** 20)[0] ?? wire.head(kind);
    case wire.SUMMARY:
      return wire.summary(wire.summaryUntrusted(frame));
    case wire.DIGEST: {
      const { mask, entries } = wire.digestUntrusted(frame);
      return wire.digest(mask, entries);
    }
    case wire.DELTA: {
      const { wants, items: said } = wire.deltaUntrusted(frame);
      return wire.delta(wants, items(said), 2 ** 20)[0] ?? wire.nothing();
    }
    case wire.GOSSIP: {
      const { head, message } = wire.gossipUntrusted(frame, ROOM, PAYLOAD_MAX);
      return wire.encodeGossip(head, message.body);
    }
    case wire.IHAVE:
      return wire.encodeIhave(wire.ihaveUntrusted(frame));
    case wire.GRAFT: {
      const { flags, ids } = wire.graftUntrusted(frame);
      return wire.encodeGraft(ids, flags);
    }
    case wire.HAVES: {
      const { flags, entries } = wire.havesUntrusted(frame);
      return wire.encodeHaves(entries, flags);
    }
    case wire.SIGNAL:
      return wire.encodeSignal(wire.signalUntrusted(frame, BLOB_MAX, 255));
    case wire.RELAY: {
      const { to, inner } = wire.relayUntrusted(frame);
      return wire.encodeRelay(to, inner);
    }
    default:
      return frame; // of the overlay of a large room, which a page does not shape
  }
}

test("keys, ids and signatures", () => {
  const { keys, signatures } = vectors("identity");
  for (const { seed, public_key, peer_id } of keys) {
    const identity = Identity.fromSeed(fromHex(seed));
    assert.deepEqual([toHex(identity.publicKey), identity.peerId], [public_key, peer_id]);
  }
  for (const { seed, domain, payload, signature } of signatures)
    assert.equal(toHex(Identity.fromSeed(fromHex(seed)).sign(domain, fromHex(payload))), signature);
});

test("records", () => {
  const { cases, ranks, room } = vectors("records");
  for (const one of cases as Case[]) {
    held(one, () => {
      const { kind, body, encoded, ...record } = wire.recordUntrusted(bytesOf(one));
      return record;
    });
    if (one.refused) continue;
    const record = wire.recordUntrusted(bytesOf(one));
    const isOurs = equal(record.room, fromHex(room));
    assert.equal(isOurs && signedBy(wire.signedOf(record)), one.signed, one.name);
  }
  for (const { peer, rank } of ranks) assert.equal(toHex(wire.rank(fromHex(room), peer)), rank);
});

test("our own records are those that Python would sign", () => {
  const { cases } = vectors("records");
  const seeds = new Map(vectors("identity").keys.map(({ seed, public_key }: any) => [public_key, seed]));
  let compared = 0;
  for (const one of cases as Case[]) {
    if (one.refused || !one.signed) continue;
    const record = wire.recordUntrusted(bytesOf(one)), seed = seeds.get(toHex(record.publicKey)) as string | undefined;
    if (seed === undefined) continue;
    const made = wire.signRecord(record, record.room, Identity.fromSeed(fromHex(seed)), record.instance, record.at);
    assert.equal(toHex(made.encoded), one.bytes, one.name);
    compared++;
  }
  assert.ok(compared >= 5);
});

test("accusations and proofs", () => {
  for (const one of vectors("accusations").cases) {
    held(one, () => {
      const { kind, ...accusation } = wire.accusationUntrusted(bytesOf(one));
      return accusation;
    });
    if (!one.refused) {
      const accusation = wire.accusationUntrusted(bytesOf(one)), key = fromHex(one.key);
      const signed = signedBy(wire.signedAccusation(accusation, ROOM, key)) && peerIdOf(key) === accusation.accuser;
      assert.equal(signed, one.signed, one.name);
    }
  }
  for (const one of vectors("proofs").cases) held(one, () => wire.proofUntrusted(bytesOf(one)).encoded);
});

test("hashes of views", () => {
  for (const { records, buckets, whole } of vectors("views").cases) {
    const view = new View(256, 600);
    for (const { peer, version_hash } of records) {
      const record = { peer, versionHash: fromHex(version_hash), state: wire.ALIVE, epoch: 1n, incarnation: 0n, joinedAt: 1n };
      view.apply(record as unknown as wire.MemberRecord, 0, peer);
    }
    assert.deepEqual([plain(view.buckets), toHex(view.viewHash)], [buckets, whole]);
  }
});

test("seats", () => {
  const { cases, stories, room } = vectors("seats");
  for (const { count, claims, held: holders, seats } of cases) {
    const given = new Map(Object.entries(holders).map(([seat, peer]) => [Number(seat), peer as string]));
    const ballots = claims.filter((claim: any) => claim.proven).map((claim: any) => claim.ballot);
    assert.deepEqual(assign(fromHex(room), count, claims, ballots, given), seats);
  }
  for (const { max_players, own, steps } of stories) {
    const seats = new Seats(max_players, fromHex(room), own, () => 0.5, false);
    seats.start(100);
    steps.forEach((step: any, at: number) => {
      if (at === 0) seats.metOthers(step.now);
      seats.view(step.claims, step.now);
      assert.deepEqual([seats.seats, seats.contested], [step.seats, step.contested]);
    });
  }
});

for (const file of ["frames", "hostile"])
  test(`${file}: each is read or refused as in Python`, () => {
    for (const one of vectors(file).cases as Case[]) {
      if (one.read?.mask !== undefined && one.read.entries === undefined) {
        assert.equal(wire.summaryUntrusted(bytesOf(one)).length, wire.BUCKETS, one.name); // the rest depends on our own view
        continue;
      }
      held(one, () => shown(bytesOf(one)));
    }
  });

test("frames: each is written as in Python", () => {
  for (const one of frames.cases as Case[]) if (!one.refused) assert.equal(toHex(written(bytesOf(one))), one.bytes, one.name);
});

test("signatures of broadcasts and keepers' signs", () => {
  for (const one of frames.signatures) {
    const frame = bytesOf(one);
    const signed = frame[1] === wire.KEEP ? wire.keepUntrusted(frame, ROOM).signed : wire.gossipUntrusted(frame, ROOM, PAYLOAD_MAX).message.signed;
    assert.equal(signedBy(signed), one.signed, one.name);
  }
});

test("envelopes", () => {
  const { cases, replays } = vectors("envelopes");
  for (const one of cases) {
    const { recipient, sender, room, now_ms: nowMs, text } = one;
    try {
      const { publicKey, ...envelope } = { ...openUntrusted(text, verifyUntrusted, { recipient, sender, room, nowMs }), publicKey: null };
      assert.ok(!one.refused, one.name);
      const { public_key, ...read } = one.read;
      assert.deepEqual(plain(envelope), read, one.name);
    } catch (error) {
      if (!(error instanceof EnvelopeRefused)) throw error;
      assert.equal(one.refused, true, `${one.name}: ${error.message}`);
      assert.equal(error.tampered, one.tampered ?? false, one.name); // no word: it is untimely
    }
  }
  for (const { sequences, new: fresh } of replays) {
    const window = { highest: -1, seen: 0n };
    assert.deepEqual(sequences.map((sequence: number) => isFresh(window, sequence)), fresh);
  }
});

test("an envelope of ours is opened again", () => {
  const [one, other] = [1, 2].map((seed) => Identity.fromSeed(new Uint8Array(32).fill(seed))) as [Identity, Identity];
  const said = { kind: "offer", recipient: other.peerId, room: "//arena", session: "s", sequence: 3, body: "v=0\r\né" } as const;
  const opened = openUntrusted(seal(one, said, 1e12), verifyUntrusted, { recipient: other.peerId, sender: one.peerId, room: "//arena", nowMs: 1e12 });
  assert.deepEqual({ ...opened, expiresAtMs: 0 }, { ...said, sender: one.peerId, expiresAtMs: 0 });
});

test("what members carry for each other", () => {
  const { carried: cases, never_came: neverCame, seals } = vectors("links");
  for (const one of cases) {
    held(one, () => {
      const { name: channel, payload, reliable } = carriedUntrusted(bytesOf(one));
      return { channel, payload, reliable };
    });
    if (!one.refused) {
      const { channel, payload, reliable } = one.read;
      assert.equal(toHex(carried(channel, one.is_text ? payload : fromHex(payload), reliable)), one.bytes);
    }
  }
  for (const one of neverCame) {
    held(one, () => lostUntrusted(bytesOf(one)));
    if (one.count !== undefined) assert.equal(toHex(lostWord(one.count)), one.bytes);
  }
  for (const story of [seals]) {
    const me = vectors("identity").keys.find(({ peer_id }: any) => peer_id === story.recipient);
    if (me === undefined) continue;
    const ours = new Seals(Identity.fromSeed(fromHex(me.seed)), fromHex(story.tag), BigInt(story.recipient_joined_at));
    const record = { peer: story.sender, publicKey: fromHex(story.sender_key), epoch: BigInt(story.sender_epoch) } as unknown as wire.MemberRecord;
    for (const step of story.steps) held(step, () => ours.openUntrusted(record, bytesOf(step), verifyUntrusted));
  }
});

test("words about losses, and profiles", () => {
  const { losses, profiles } = vectors("links");
  for (const one of losses) held(one, () => statementUntrusted(bytesOf(one)));
  for (const one of profiles) {
    const { region, metadata } = profileOf(bytesOf(one)); // one that cannot be read is an empty one
    if (!one.refused) assert.deepEqual({ region, metadata }, { region: one.read.region, metadata: one.read.metadata }, one.name);
  }
});

test("words of signaling", () => {
  const { server, hello, keys, codes, manifests, refused_by_the_server: foreign } = vectors("signaling");
  for (const one of server) {
    const message = words.decodeServerUntrusted(one.text);
    assert.equal(message.type, JSON.parse(one.text).type);
  }
  for (const { seed, nonce, audience, payload, signature } of [hello]) {
    const bytes = words.helloPayload(nonce, audience);
    assert.equal(toHex(bytes), payload);
    if (signature !== undefined) assert.equal(toHex(Identity.fromSeed(fromHex(seed)).sign(words.HELLO_DOMAIN, bytes)), signature);
  }
  for (const { room, key } of keys)
    if (utf8(room).length !== 16) // else it is taken for a hash
      assert.equal(toHex(wire.roomOf(room)).slice(0, key.length), key);
  for (const { typed, code } of codes) assert.equal(words.codeOf(typed), code);
  for (const one of foreign) {
    if (one.read !== undefined) continue;
    assert.throws(() => words.decodeServerUntrusted(one.text), (error) => error instanceof ProtocolError || error instanceof VersionMismatch, one.name);
  }
  for (const { name, info: said, refused } of manifests) {
    const info = words.roomInfoUntrusted(parseExactUntrusted(JSON.stringify(said)));
    // What vectors hold are numbers; a server spells a range of skills as Python does.
    if (refused) assert.throws(() => words.checkManifestUntrusted(info), ManifestRefused, name);
    else words.checkManifestUntrusted(info);
  }
});

test("numbers of any size are written as they are read", () => {
  for (const value of [0n, 127n, 128n, 2n ** 31n, 2n ** 53n, 2n ** 64n - 1n]) {
    const encoded = varint(value);
    assert.equal(varint(value < 2n ** 31n ? Number(value) : value).length, encoded.length);
  }
  assert.equal(toHex(utf8("é")), "c3a9");
});
