// The bytes of gossip frames, and the statements in them that members sign. Version 2, as `psyne_mesh/gossip` has it.
//
// This file knows shapes, not meanings. Every `...Untrusted` function raises `ProtocolError` and nothing else.

import { blake2b } from "@noble/hashes/blake2.js";
import { sha256 } from "@noble/hashes/sha2.js";

import type { PeerId } from "../api.ts";
import { compareBytes, concat, equal, fromHex, Reader, sized, textUntrusted, toHex, u64, utf8, varint } from "../bytes.ts";
import { InvalidConfig, ProtocolError } from "../errors.ts";
import { type Identity, peerIdOf, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, type Verify } from "../identity.ts";

export const VERSION = 2;
export const UNRELIABLE_FRAME_MAX = 1100; // one SCTP chunk in one packet: nothing is fragmented on the unreliable channel
export const FRAME_MAX = 131_072;
/** Signatures of one frame: no honest one holds more items, and nobody verifies more. */
export const ITEMS_MAX = 24;

export const PING = 1, ACK = 2, PING_REQ = 3, INDIRECT = 4;
export const HELLO = 5, RUMOURS = 6, SUMMARY = 7, DIGEST = 8, DELTA = 9;
export const GOSSIP = 10, IHAVE = 11, GRAFT = 12, PRUNE = 13, HAVES = 14;
export const SIGNAL = 15, RELAY = 16;
export const FORWARD_JOIN = 17, SHUFFLE = 18, SHUFFLE_REPLY = 19, DISCONNECT = 20;
export const TOLD = 21, KEEP = 22;

export const ITEM_RECORD = 1, ITEM_ACCUSATION = 2, ITEM_GONE = 3, ITEM_PROOF = 4;

export const HASH_BYTES = 16;
export const NO_HASH: Uint8Array = new Uint8Array(HASH_BYTES);
export const LINKS_MASK = 0x7f, LARGE_ROOM = 0x80;
export const PROBE_BYTES = 39;
const INDIRECT_BYTES = 23;
export const BUCKETS = 16;
export const SUMMARY_BYTES = HASH_BYTES * BUCKETS;
export const ALL_BUCKETS = (1 << BUCKETS) - 1;

export const ALIVE = 0, LEAVING = 1;
export const LEAVE_REASONS = ["left", "capacity", "kicked"] as const;
export const SUSPECT = 0, DOWN = 1;

const RECORD_VERSION = 2;
export const RECORD_MAX_BYTES = 1040;
const ACCUSATION_MAX_BYTES = 160;
const NAME_MAX_BYTES = 64;
export const METADATA_MAX_BYTES = 512;
const SEATS_MAX = 1024;
export const BALLOT_MAX = 32;
const BALLOT_ID_BYTES = 6;
const AT_MAX = 1n << 40n;

export const RECORD_DOMAIN = "psyne-record";
export const ACCUSATION_DOMAIN = "psyne-accusation";
export const BROADCAST_DOMAIN = "psyne-broadcast";
const KEEP_DOMAIN = "psyne-keep";

/** A statement that somebody signed: what `verify` takes. */
export type Signed = readonly [publicKey: Uint8Array, domain: string, payload: Uint8Array, signature: Uint8Array];

export const head = (kind: number): Uint8Array => Uint8Array.of(VERSION, kind);
export const rawOf = fromHex;
export const roomOf = (key: string): Uint8Array => sha256(concat(utf8("psyne-room"), utf8(key)));
export const hash = (bytes: Uint8Array, size = HASH_BYTES): Uint8Array => blake2b(bytes, { dkLen: size });
export const keyedHash = (key: Uint8Array, bytes: Uint8Array): Uint8Array => blake2b(bytes, { key, dkLen: 8 });
/** H(room, peer), by which members divide tasks without a word. */
export const rank = (room: Uint8Array, peer: PeerId): Uint8Array => keyedHash(room, utf8(peer));

export function frameTypeUntrusted(frame: Uint8Array): number {
  if (frame.length < 2 || frame.length > FRAME_MAX) throw new ProtocolError("frame length out of bounds");
  if (frame[0] !== VERSION) throw new ProtocolError(`gossip version ${frame[0]}, ours is ${VERSION}`);
  return frame[1]!;
}

// ----------------------------------------------------------------------------------------------------------- records

export type Ballot = readonly (readonly [seat: number, holder: string])[];
export type Coordinates = readonly [x: number, y: number, z: number, height: number, error: number];

/** What a member says about itself; `signRecord` makes the record of it. */
export interface OwnState {
  readonly epoch: bigint;
  readonly incarnation: bigint;
  readonly state: number;
  readonly reason: number;
  readonly joinedAt: bigint;
  readonly seat: number | null;
  readonly ballot: Ballot;
  readonly lifetime: number;
  readonly coordinates: Coordinates | null;
  readonly name: string;
  readonly metadata: Uint8Array;
}

/** One signed statement of a member about itself; `encoded` is what travels, `versionHash` names these bytes. */
export interface MemberRecord extends OwnState {
  readonly kind: "record";
  readonly peer: PeerId;
  readonly room: Uint8Array;
  readonly instance: bigint;
  readonly at: number;
  readonly publicKey: Uint8Array;
  readonly body: Uint8Array;
  readonly signature: Uint8Array;
  readonly encoded: Uint8Array;
  readonly versionHash: Uint8Array;
}

export function signRecord(state: OwnState, room: Uint8Array, identity: Identity, instance: bigint, at: number): MemberRecord {
  const name = utf8(state.name);
  if (name.length > NAME_MAX_BYTES || state.metadata.length > METADATA_MAX_BYTES)
    throw new InvalidConfig(`a name is at most ${NAME_MAX_BYTES} bytes of UTF-8, metadata ${METADATA_MAX_BYTES}`);
  const body = concat(
    Uint8Array.of(RECORD_VERSION),
    room,
    u64(instance),
    varint(at),
    identity.publicKey,
    varint(state.epoch),
    varint(state.incarnation),
    Uint8Array.of(state.state, state.reason),
    varint(state.joinedAt),
    varint(state.seat === null ? 0 : state.seat + 1),
    varint(state.ballot.length),
    ...state.ballot.map(([seat, holder]) => concat(varint(seat), fromHex(holder))),
    varint(state.lifetime),
    state.coordinates === null ? Uint8Array.of(0) : concat(Uint8Array.of(1), coordinateBytes(state.coordinates)),
    sized(name),
    sized(state.metadata),
  );
  return recordUntrusted(concat(body, identity.sign(RECORD_DOMAIN, body)));
}

/** Read a record; the signature is NOT yet checked. */
export function recordUntrusted(encoded: Uint8Array): MemberRecord {
  if (encoded.length <= SIGNATURE_BYTES || encoded.length > RECORD_MAX_BYTES)
    throw new ProtocolError("record length out of bounds");
  encoded = encoded.slice();
  const body = encoded.subarray(0, -SIGNATURE_BYTES);
  const reader = new Reader(body);
  if (reader.u8Untrusted() !== RECORD_VERSION) throw new ProtocolError("unknown record version");
  const room = reader.takeUntrusted(16);
  const instance = reader.u64Untrusted();
  const at = atUntrusted(reader);
  const publicKey = reader.takeUntrusted(PUBLIC_KEY_BYTES);
  const epoch = reader.varintUntrusted(), incarnation = reader.varintUntrusted();
  const state = reader.u8Untrusted(), reason = reader.u8Untrusted();
  if (state > LEAVING || reason >= LEAVE_REASONS.length) throw new ProtocolError("unknown record state");
  const joinedAt = reader.varintUntrusted(), seat = reader.varintUntrusted();
  const ballot: [number, string][] = [];
  for (let left = reader.countUntrusted(BALLOT_MAX); left > 0; left--)
    ballot.push([Number(reader.varintUntrusted()), toHex(reader.takeUntrusted(BALLOT_ID_BYTES))]);
  const lifetime = reader.varintUntrusted();
  if (seat > BigInt(SEATS_MAX) || lifetime < 1n || lifetime > 86_400n)
    throw new ProtocolError("record seat or lifetime out of bounds");
  const coordinates = reader.u8Untrusted() === 0 ? null : coordinatesOf(reader.takeUntrusted(10));
  const rawName = reader.sizedUntrusted(NAME_MAX_BYTES), metadata = reader.sizedUntrusted(METADATA_MAX_BYTES);
  reader.doneUntrusted();
  return {
    kind: "record", peer: peerIdOf(publicKey), room, instance, at, publicKey, epoch, incarnation, state, reason, joinedAt,
    seat: seat === 0n ? null : Number(seat) - 1, ballot, lifetime: Number(lifetime), coordinates, name: textUntrusted(rawName),
    metadata, body, signature: encoded.subarray(-SIGNATURE_BYTES), encoded, versionHash: hash(encoded),
  };
}

/** Raises `ProtocolError` unless the record is of this room and its own key signed it. */
export function verifyRecordUntrusted(record: MemberRecord, room: Uint8Array, verify: Verify): void {
  if (!equal(record.room, room)) throw new ProtocolError("record of another room");
  verify(...signedOf(record));
}

export const signedOf = (record: MemberRecord): Signed => [record.publicKey, RECORD_DOMAIN, record.body, record.signature];

/** Negative, 0 or positive, as (epoch, incarnation) and then the state are ordered. */
export function compareVersions(one: Version, other: Version): number {
  if (one.epoch !== other.epoch) return one.epoch < other.epoch ? -1 : 1;
  if (one.incarnation !== other.incarnation) return one.incarnation < other.incarnation ? -1 : 1;
  return 0;
}
export const compareOrder = (one: MemberRecord, other: MemberRecord): number =>
  compareVersions(one, other) || one.state - other.state;

export interface Version {
  readonly epoch: bigint;
  readonly incarnation: bigint;
}

function atUntrusted(reader: Reader): number {
  const at = reader.varintUntrusted();
  if (at >= AT_MAX) throw new ProtocolError("signed at no time that there will ever be");
  return Number(at);
}

function coordinateBytes([x, y, z, height, error]: Coordinates): Uint8Array {
  const bytes = new Uint8Array(10), view = new DataView(bytes.buffer);
  [x, y, z].forEach((value, at) => view.setInt16(2 * at, value));
  view.setUint16(6, height);
  view.setUint16(8, error);
  return bytes;
}

function coordinatesOf(bytes: Uint8Array): Coordinates {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return [view.getInt16(0), view.getInt16(2), view.getInt16(4), view.getUint16(6), view.getUint16(8)];
}

/** The number of the room that these two found, the same for both. */
export function foundedBy(one: MemberRecord, other: MemberRecord): bigint {
  const elder =
    one.joinedAt < other.joinedAt || (one.joinedAt === other.joinedAt && one.peer < other.peer) ? one : other;
  const digest = keyedHash(elder.room, concat(elder.publicKey, u64(elder.joinedAt)));
  return new DataView(digest.buffer, digest.byteOffset).getBigUint64(0) || 1n;
}

// ------------------------------------------------------------------------------------------------------- accusations

/** `accuser` says: `subject`, last known at that version, is silent (SUSPECT) or gone (DOWN). */
export interface Accusation extends Version {
  readonly kind: "accusation";
  readonly instance: bigint;
  readonly subject: PeerId;
  readonly verdict: number;
  readonly accuser: PeerId;
  readonly signature: Uint8Array;
  readonly encoded: Uint8Array;
}

export function accuse(
  room: Uint8Array, identity: Identity, subject: PeerId, version: Version, verdict: number, instance: bigint,
): Accusation {
  const said = concat(
    u64(instance), rawOf(subject), varint(version.epoch), varint(version.incarnation), Uint8Array.of(verdict), rawOf(identity.peerId),
  );
  const signature = identity.sign(ACCUSATION_DOMAIN, concat(room, said));
  return accusationUntrusted(concat(said, signature));
}

/** Read an accusation; the signature is NOT yet checked. */
export function accusationUntrusted(encoded: Uint8Array): Accusation {
  if (encoded.length <= SIGNATURE_BYTES || encoded.length > ACCUSATION_MAX_BYTES)
    throw new ProtocolError("accusation length out of bounds");
  encoded = encoded.slice();
  const reader = new Reader(encoded);
  const instance = reader.u64Untrusted();
  const subject = reader.peerUntrusted();
  const epoch = reader.varintUntrusted(), incarnation = reader.varintUntrusted(), verdict = reader.u8Untrusted();
  const accuser = reader.peerUntrusted();
  const signature = reader.takeUntrusted(SIGNATURE_BYTES);
  reader.doneUntrusted();
  if (verdict > DOWN || accuser === subject) throw new ProtocolError("senseless accusation");
  return { kind: "accusation", instance, subject, epoch, incarnation, verdict, accuser, signature, encoded };
}

export const signedAccusation = (accusation: Accusation, room: Uint8Array, publicKey: Uint8Array): Signed => [
  publicKey, ACCUSATION_DOMAIN, concat(room, accusation.encoded.subarray(0, -SIGNATURE_BYTES)), accusation.signature,
];

export function verifyAccusationUntrusted(accusation: Accusation, room: Uint8Array, publicKey: Uint8Array, verify: Verify): void {
  if (verify(...signedAccusation(accusation, room, publicKey)) !== accusation.accuser)
    throw new ProtocolError("accusation signed by another key");
}

// ------------------------------------------------------------------------------------------------------------ proofs

/** Two records of one version, both signed: anybody can check that their key has two faces. */
export interface Proof {
  readonly kind: "proof";
  readonly peer: PeerId;
  readonly one: MemberRecord;
  readonly other: MemberRecord;
  readonly encoded: Uint8Array;
}

/** Two goodbyes of one version are none: one was left with the server at the start. */
export function contradict(one: MemberRecord, other: MemberRecord): boolean {
  return (
    one.peer === other.peer && equal(one.room, other.room) && compareOrder(one, other) === 0 && one.state === ALIVE &&
    !equal(one.encoded, other.encoded)
  );
}

export function prove(one: MemberRecord, other: MemberRecord): Proof {
  if (compareBytes(one.encoded, other.encoded) > 0) [one, other] = [other, one];
  return { kind: "proof", peer: one.peer, one, other, encoded: concat(sized(one.encoded), sized(other.encoded)) };
}

/** Read a proof; the signatures are NOT yet checked. */
export function proofUntrusted(encoded: Uint8Array): Proof {
  const reader = new Reader(encoded);
  const one = recordUntrusted(reader.sizedUntrusted(RECORD_MAX_BYTES));
  const other = recordUntrusted(reader.sizedUntrusted(RECORD_MAX_BYTES));
  reader.doneUntrusted();
  if (!contradict(one, other)) throw new ProtocolError("no contradiction");
  return prove(one, other);
}

export type News = MemberRecord | Accusation | Proof;

// ------------------------------------------------------------------------------------------------------------- items

export const item = (kind: number, data: Uint8Array): Uint8Array => concat(Uint8Array.of(kind), sized(data));

const ITEM_OF = { record: ITEM_RECORD, accusation: ITEM_ACCUSATION, proof: ITEM_PROOF } as const;
export const encodedNews = (news: News): Uint8Array => item(ITEM_OF[news.kind], news.encoded);
/** The frame that brings one piece of news directly. */
export const told = (news: News): Uint8Array => concat(head(TOLD), encodedNews(news));
export const goneItem = (seconds: number, record: MemberRecord): Uint8Array =>
  item(ITEM_GONE, concat(varint(Math.max(0, Math.floor(seconds))), record.encoded));

export function goneUntrusted(data: Uint8Array): [seconds: number, record: Uint8Array] {
  const reader = new Reader(data);
  const seconds = reader.varintUntrusted();
  return [Number(seconds < 86_400n ? seconds : 86_400n), reader.rest()];
}

/** Unknown types are kept: the reader skips them. */
export function itemsUntrusted(frame: Uint8Array, offset: number): [kind: number, data: Uint8Array][] {
  const reader = new Reader(frame, offset);
  const items: [number, Uint8Array][] = [];
  while (reader.more) {
    if (items.length === ITEMS_MAX) throw new ProtocolError("too many items in one frame");
    const kind = reader.u8Untrusted();
    items.push([kind, reader.sizedUntrusted(FRAME_MAX)]);
  }
  return items;
}

/** Frames that begin with `prefix` and hold whole items, each at most `limit` bytes unless one item is larger. */
export function packItems(prefix: Uint8Array, items: readonly Uint8Array[], limit: number): Uint8Array[] {
  const frames: Uint8Array[] = [];
  let parts = [prefix], size = prefix.length;
  for (const data of items) {
    if (parts.length > 1 && (size + data.length > limit || parts.length > ITEMS_MAX)) {
      frames.push(concat(...parts));
      parts = [prefix];
      size = prefix.length;
    }
    parts.push(data);
    size += data.length;
  }
  if (parts.length > 1) frames.push(concat(...parts));
  return frames;
}

// ------------------------------------------------------------------------------------------------------------ probes

export interface Probe {
  readonly kind: number;
  readonly sequence: number;
  readonly viewHash: Uint8Array;
  readonly srtt: number; // 0.1 ms
  readonly links: number; // and LARGE_ROOM
  readonly coordinates: Coordinates;
  readonly sent: number;
  readonly got: number;
}

export function encodeProbe(probe: Probe): Uint8Array {
  const bytes = new Uint8Array(PROBE_BYTES), view = new DataView(bytes.buffer);
  bytes[0] = VERSION;
  bytes[1] = probe.kind;
  view.setUint32(2, probe.sequence);
  bytes.set(probe.viewHash, 6);
  view.setUint16(22, probe.srtt);
  bytes[24] = probe.links;
  bytes.set(coordinateBytes(probe.coordinates), 25);
  view.setUint16(35, probe.sent);
  view.setUint16(37, probe.got);
  return bytes;
}

export function probeUntrusted(frame: Uint8Array): Probe {
  if (frame.length < PROBE_BYTES) throw new ProtocolError("probe too short");
  const view = new DataView(frame.buffer, frame.byteOffset);
  return {
    kind: frame[1]!, sequence: view.getUint32(2), viewHash: frame.slice(6, 22), srtt: view.getUint16(22), links: frame[24]!,
    coordinates: coordinatesOf(frame.subarray(25, 35)), sent: view.getUint16(35), got: view.getUint16(37),
  };
}

function indirectFrame(kind: number, sequence: number, target: PeerId, alive: boolean): Uint8Array {
  const bytes = new Uint8Array(INDIRECT_BYTES);
  bytes[0] = VERSION;
  bytes[1] = kind;
  new DataView(bytes.buffer).setUint32(2, sequence);
  bytes.set(rawOf(target), 6);
  bytes[22] = alive ? 1 : 0;
  return bytes;
}
export const pingReq = (sequence: number, target: PeerId): Uint8Array => indirectFrame(PING_REQ, sequence, target, false);
export const indirect = (sequence: number, target: PeerId, alive: boolean): Uint8Array =>
  indirectFrame(INDIRECT, sequence, target, alive);

export function indirectUntrusted(frame: Uint8Array): { sequence: number; target: PeerId; alive: boolean } {
  if (frame.length !== INDIRECT_BYTES) throw new ProtocolError("indirect probe of a wrong length");
  const sequence = new DataView(frame.buffer, frame.byteOffset).getUint32(2);
  return { sequence, target: toHex(frame.subarray(6, 22)), alive: frame[22] === 1 };
}

// ------------------------------------------------------------------------------------------------------------- hello

export const OUTBOUND = 1, ISOLATED = 2, UNSUMMARISED = 4, NEWCOMER = 8, LARGE = 16;
const HELLO_WALL = 11, HELLO_SUMMARY = 16;
export const HELLO_BYTES = HELLO_SUMMARY + SUMMARY_BYTES;

export interface Hello {
  readonly flags: number;
  readonly instance: bigint;
  readonly wallS: number;
  readonly buckets: readonly Uint8Array[];
  readonly items: [number, Uint8Array][];
}

export function encodeHello(
  flags: number, instance: bigint, wallS: number, buckets: readonly Uint8Array[], own: MemberRecord,
): Uint8Array {
  const wall = new Uint8Array(5);
  let rest = Math.max(0, Math.floor(wallS));
  for (let at = 4; at >= 0; at--) {
    wall[at] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  return concat(head(HELLO), Uint8Array.of(flags), u64(instance), wall, ...buckets, encodedNews(own));
}

export function helloUntrusted(frame: Uint8Array): Hello {
  if (frame.length < HELLO_BYTES) throw new ProtocolError("hello too short");
  let wallS = 0;
  for (const byte of frame.subarray(HELLO_WALL, HELLO_SUMMARY)) wallS = wallS * 256 + byte;
  return {
    flags: frame[2]!, instance: new Reader(frame, 3).u64Untrusted(), wallS, buckets: bucketsOf(frame, HELLO_SUMMARY),
    items: itemsUntrusted(frame, HELLO_BYTES),
  };
}

// ------------------------------------------------------------------------------------------------------ anti-entropy

export const ENTRY_ALIVE = 0, ENTRY_DOWN = 1, ENTRY_LEFT = 2;
const ENTRIES_MAX = 960;
const WANTS_MAX = 1024;

/** One line of a digest: which version of `peer` the sender has, and what it holds of it. */
export interface Entry extends Version {
  readonly peer: PeerId;
  readonly status: number;
  readonly versionHash: Uint8Array;
}

export const summary = (buckets: readonly Uint8Array[]): Uint8Array => concat(head(SUMMARY), ...buckets);

export function summaryUntrusted(frame: Uint8Array): Uint8Array[] {
  if (frame.length < 2 + SUMMARY_BYTES) throw new ProtocolError("summary too short");
  return bucketsOf(frame, 2);
}

const bucketsOf = (frame: Uint8Array, offset: number): Uint8Array[] =>
  Array.from({ length: BUCKETS }, (_, at) => frame.subarray(offset + HASH_BYTES * at, offset + HASH_BYTES * (at + 1)));

export function digest(mask: number, entries: readonly Entry[]): Uint8Array {
  const lines = entries.slice(0, ENTRIES_MAX).map((entry) =>
    concat(rawOf(entry.peer), varint(entry.epoch), varint(entry.incarnation), Uint8Array.of(entry.status), entry.versionHash),
  );
  return concat(head(DIGEST), Uint8Array.of(mask >> 8, mask & 0xff), ...lines);
}

export function digestUntrusted(frame: Uint8Array): { mask: number; entries: Entry[] } {
  const reader = new Reader(frame, 2);
  const raw = reader.takeUntrusted(2);
  const entries: Entry[] = [];
  while (reader.more) {
    if (entries.length === ENTRIES_MAX) throw new ProtocolError("digest too long");
    const peer = reader.peerUntrusted();
    const epoch = reader.varintUntrusted(), incarnation = reader.varintUntrusted(), status = reader.u8Untrusted();
    if (status > ENTRY_LEFT) throw new ProtocolError("unknown status in a digest");
    entries.push({ peer, epoch, incarnation, status, versionHash: reader.takeUntrusted(HASH_BYTES).slice() });
  }
  return { mask: (raw[0]! << 8) | raw[1]!, entries };
}

/** The first names what is wanted, the others hold what is given. */
export function delta(wants: readonly PeerId[], items: readonly Uint8Array[], limit: number): Uint8Array[] {
  const asked = wants.slice(0, WANTS_MAX);
  const frames = packItems(concat(head(DELTA), varint(0)), items, limit);
  return asked.length > 0 ? [concat(head(DELTA), varint(asked.length), ...asked.map(rawOf)), ...frames] : frames;
}
/** "We know no more than you, and lack nothing." */
export const nothing = (): Uint8Array => concat(head(DELTA), varint(0));

export function deltaUntrusted(frame: Uint8Array): { wants: PeerId[]; items: [number, Uint8Array][] } {
  const reader = new Reader(frame, 2);
  const wants: PeerId[] = [];
  for (let left = reader.countUntrusted(WANTS_MAX); left > 0; left--) wants.push(reader.peerUntrusted());
  return { wants, items: itemsUntrusted(frame, reader.offset) };
}

// -------------------------------------------------------------------------------------------------------- broadcasts

export const FLAT = 1, REPAIR = 2, BESIDE = 4;
export const ASK = 1;
export const KEEP_EPOCH = 0n;
const AGE_MAX = 1n << 24n;
export const IDS_MAX = 1024;
const AGE_UNITS = 100;

/** The name of a message. */
export interface MessageId {
  readonly origin: PeerId;
  readonly epoch: bigint;
  readonly sequence: bigint;
}
export const idKey = ({ origin, epoch, sequence }: MessageId): string => `${origin}.${epoch}.${sequence}`;

/** One broadcast. `body` is everything behind the hop count, as it travels; `floor`: the oldest that could be repaired. */
export interface Broadcasted extends MessageId {
  readonly publicKey: Uint8Array;
  readonly instance: bigint;
  readonly at: number;
  readonly floor: bigint;
  readonly payload: Uint8Array;
  readonly body: Uint8Array;
  readonly signed: Signed;
}

export interface BroadcastHead {
  readonly hops: number;
  readonly flags: number;
  readonly ageS: number;
}

export function signMessage(
  room: Uint8Array, identity: Identity, epoch: bigint, sequence: bigint, floor: bigint, payload: Uint8Array, instance: bigint,
  at: number,
): Broadcasted {
  const said = concat(
    identity.publicKey, u64(instance), varint(at), varint(epoch), varint(sequence), varint(sequence - floor),
  );
  const signature = identity.sign(BROADCAST_DOMAIN, concat(room, said, hash(payload, 32)));
  return gossipUntrusted(encodeGossip({ hops: 0, flags: 0, ageS: 0 }, concat(said, sized(payload), signature)), room, payload.length)
    .message;
}

export function encodeGossip({ hops, flags, ageS }: BroadcastHead, body: Uint8Array): Uint8Array {
  const age = Math.min(65_535, Math.max(0, Math.round(ageS * AGE_UNITS)));
  return concat(Uint8Array.of(VERSION, GOSSIP, Math.min(hops, 255), flags, age >> 8, age & 0xff), body);
}

/** The signature is NOT yet checked. */
export function gossipUntrusted(
  frame: Uint8Array, room: Uint8Array, payloadMax: number,
): { head: BroadcastHead; message: Broadcasted } {
  if (frame.length < 6) throw new ProtocolError("gossip frame too short");
  frame = frame.slice();
  const reader = new Reader(frame, 6);
  const publicKey = reader.takeUntrusted(PUBLIC_KEY_BYTES);
  const instance = reader.u64Untrusted(), at = atUntrusted(reader);
  const epoch = reader.varintUntrusted(), sequence = reader.varintUntrusted(), back = reader.varintUntrusted();
  const said = frame.subarray(6, reader.offset);
  const payload = reader.sizedUntrusted(payloadMax);
  const signature = reader.takeUntrusted(SIGNATURE_BYTES);
  reader.doneUntrusted();
  if (sequence === 0n || back >= sequence) throw new ProtocolError("broadcast sequences count from 1");
  const signed: Signed = [publicKey, BROADCAST_DOMAIN, concat(room, said, hash(payload, 32)), signature];
  return {
    head: { hops: frame[2]!, flags: frame[3]!, ageS: ((frame[4]! << 8) | frame[5]!) / AGE_UNITS },
    message: {
      origin: peerIdOf(publicKey), publicKey, instance, at, epoch, sequence, floor: sequence - back, payload,
      body: frame.subarray(6), signed,
    },
  };
}

const idBytes = ({ origin, epoch, sequence }: MessageId): Uint8Array => concat(rawOf(origin), varint(epoch), varint(sequence));

function idUntrusted(reader: Reader): MessageId {
  return { origin: reader.peerUntrusted(), epoch: reader.varintUntrusted(), sequence: reader.varintUntrusted() };
}

/** Ids, and how far each had come. */
export function ihaveUntrusted(frame: Uint8Array): [id: MessageId, hops: number][] {
  const reader = new Reader(frame, 2);
  const ids: [MessageId, number][] = [];
  while (reader.more) {
    if (ids.length === IDS_MAX) throw new ProtocolError("too many ids");
    ids.push([idUntrusted(reader), reader.u8Untrusted()]);
  }
  return ids;
}
export const encodeIhave = (ids: readonly (readonly [MessageId, number])[]): Uint8Array =>
  concat(head(IHAVE), ...ids.map(([id, hops]) => concat(idBytes(id), Uint8Array.of(Math.min(hops, 255)))));

export const encodeGraft = (ids: readonly MessageId[], flags: number): Uint8Array =>
  concat(head(GRAFT), Uint8Array.of(flags), ...ids.map(idBytes));

export function graftUntrusted(frame: Uint8Array): { flags: number; ids: MessageId[] } {
  const reader = new Reader(frame, 2);
  const flags = reader.u8Untrusted();
  const ids: MessageId[] = [];
  while (reader.more) {
    if (ids.length === IDS_MAX) throw new ProtocolError("too many ids");
    ids.push(idUntrusted(reader));
  }
  return { flags, ids };
}

/** The sender holds `origin`'s messages up to `high` without a gap, and can repeat those from `low` on. */
export interface Have {
  readonly origin: PeerId;
  readonly epoch: bigint;
  readonly high: bigint;
  readonly low: bigint;
  readonly ageS: number;
}

export const encodeHaves = (entries: readonly Have[], flags: number): Uint8Array =>
  concat(
    head(HAVES),
    Uint8Array.of(flags),
    ...entries.map(({ origin, epoch, high, low, ageS }) =>
      concat(
        idBytes({ origin, epoch, sequence: high }), varint(high - low + 1n), varint(Math.max(0, Math.round(ageS * AGE_UNITS))),
      ),
    ),
  );

export function havesUntrusted(frame: Uint8Array): { flags: number; entries: Have[] } {
  const reader = new Reader(frame, 2);
  const flags = reader.u8Untrusted();
  const entries: Have[] = [];
  while (reader.more) {
    if (entries.length === IDS_MAX) throw new ProtocolError("too many streams");
    const { origin, epoch, sequence: high } = idUntrusted(reader);
    const count = reader.varintUntrusted(), age = reader.varintUntrusted();
    if (count > high) throw new ProtocolError("broadcast sequences count from 1");
    entries.push({ origin, epoch, high, low: high - count + 1n, ageS: Number(age < AGE_MAX ? age : AGE_MAX) / AGE_UNITS });
  }
  return { flags, entries };
}

/** A sign of the tree's keeper in a large room. */
export interface Keep {
  readonly hops: number;
  readonly origin: PeerId;
  readonly instance: bigint;
  readonly at: number;
  readonly number: bigint;
  readonly signed: Signed;
  readonly body: Uint8Array;
}

export function keepUntrusted(frame: Uint8Array, room: Uint8Array): Keep {
  const reader = new Reader(frame, 2);
  const hops = reader.u8Untrusted(), from = reader.offset;
  const publicKey = reader.takeUntrusted(PUBLIC_KEY_BYTES);
  const instance = reader.u64Untrusted(), at = atUntrusted(reader), number = reader.varintUntrusted();
  const said = frame.subarray(from, reader.offset);
  const signature = reader.takeUntrusted(SIGNATURE_BYTES);
  reader.doneUntrusted();
  const signed: Signed = [publicKey, KEEP_DOMAIN, concat(room, said), signature];
  return { hops, origin: peerIdOf(publicKey), instance, at, number, signed, body: frame.subarray(from) };
}

// --------------------------------------------------------------------------------------------------- signals, relays

export interface SignalFrame {
  readonly number: bigint;
  readonly origin: PeerId;
  readonly to: PeerId;
  readonly ttl: number;
  readonly blob: Uint8Array;
}

export const encodeSignal = ({ number, origin, to, ttl, blob }: SignalFrame): Uint8Array =>
  concat(head(SIGNAL), u64(number), rawOf(origin), rawOf(to), Uint8Array.of(ttl), blob);

export function signalUntrusted(frame: Uint8Array, blobMax: number, ttlMax: number): SignalFrame {
  const reader = new Reader(frame, 2);
  const number = reader.u64Untrusted(), origin = reader.peerUntrusted(), to = reader.peerUntrusted(), ttl = reader.u8Untrusted();
  const blob = reader.rest();
  if (blob.length > blobMax) throw new ProtocolError(`signal of ${blob.length} bytes, the limit is ${blobMax}`);
  return { number, origin, to, ttl: Math.min(ttl, ttlMax), blob };
}

/** Ask a neighbour to hand `frame` to `to`, one hop further and no more. */
export const encodeRelay = (to: PeerId, frame: Uint8Array): Uint8Array => concat(head(RELAY), rawOf(to), frame);

export function relayUntrusted(frame: Uint8Array): { to: PeerId; inner: Uint8Array } {
  const reader = new Reader(frame, 2);
  return { to: reader.peerUntrusted(), inner: reader.rest() };
}

// ------------------------------------------------------------------------------------- what shapes a large room's overlay

const LINES_MAX = 16, LINE_AGE_MAX = 86_400n;

export function forwardJoinUntrusted(frame: Uint8Array): { ttl: number; record: Uint8Array } {
  const reader = new Reader(frame, 2);
  return { ttl: reader.u8Untrusted(), record: reader.rest() };
}

export interface Line {
  readonly record: Uint8Array;
  readonly age: number;
}

export function shuffleUntrusted(frame: Uint8Array): { number: Uint8Array; ttl: number; lines: Line[] } {
  const reader = new Reader(frame, 2);
  const number = reader.takeUntrusted(8), ttl = reader.u8Untrusted(), lines: Line[] = [];
  while (reader.more) {
    if (lines.length === LINES_MAX) throw new ProtocolError("too many records in a shuffle");
    const age = reader.varintUntrusted();
    lines.push({ age: Number(age < LINE_AGE_MAX ? age : LINE_AGE_MAX), record: reader.sizedUntrusted(RECORD_MAX_BYTES) });
  }
  return { number, ttl, lines };
}
