// Shared objects as psyne_mesh/game/shared.py has them, for a page that shows one class and owns at most one object of it:
// what is ours goes out whole, what others say comes as they like, whole or as a difference to what we have acknowledged.

import { decode, encode } from "@msgpack/msgpack";

/** As `psyne-mesh schema --typescript` writes a class of shared objects. */
export interface SharedClass {
  readonly name: string;
  readonly fields: readonly {
    readonly name: string;
    readonly code: string;
    readonly bits: number;
    readonly smooth: boolean;
    readonly low?: number;
    readonly high?: number;
    readonly default: unknown;
  }[];
}

export type Values = Record<string, unknown>;
type Wire = bigint | Uint8Array;

const [VERSION, RESYNC, HEAD_BYTES, MESSAGE_BYTES_MAX] = [1, 1, 31, 16_000];
const [CLASS, FULL, DELTA, AT_REST] = [0, 1, 2, 4];
const [FIELDS_MAX, CLASSES_MAX, OBJECTS_MAX] = [64, 64, 1024];
const OWN_NUMBER = 2; // odd ones are the host's
export const INTERVAL_MS = 50;

/** What is read is none, and nothing of it counts. */
export class NotShared extends Error {
  override name = "NotShared";
}

interface Theirs {
  kind: TheirClass;
  wire: Wire[];
  last: number;
}
interface TheirClass {
  name: string;
  codes: readonly (readonly [string, string])[];
  widths: readonly number[];
}

/** What we say to one player, and what it said to us. */
class Link {
  session = newSession();
  sent = 0;
  knowsClass = false;
  heardSession = 0;
  heard = 0;
  before = 0;
  resync = false;
  ackDue = false;
  classes = new Map<number, TheirClass>();
  objects = new Map<number, Theirs>();
}

const newSession = (): number => (crypto.getRandomValues(new Uint32Array(1))[0] as number) | 1;

/**
 * 1. `joined(peer)`, `left(peer)`. 2. `receive(peer, bytes)` for what comes on "psyne.shared"; `NotShared` for what is none.
 * 3. `messages(values, nowMs)` every `INTERVAL_MS`: send each to its player. 4. `objects()`: those of the others, as said last.
 */
export class SharedObjects {
  #links = new Map<string, Link>();
  #announcement: Uint8Array;
  #last: Wire[] | null = null;
  /** Why a player's class cannot be shown, by player. */
  readonly refused = new Map<string, string>();

  constructor(private readonly ours: SharedClass) {
    this.#announcement = encode([ours.name, ours.fields.map((field) => [field.name, field.code])]);
  }

  joined(peer: string): void {
    this.#links.set(peer, new Link());
  }

  left(peer: string): void {
    this.#links.delete(peer);
    this.refused.delete(peer);
  }

  *objects(): Generator<[peer: string, number: number, values: Values]> {
    for (const [peer, link] of this.#links)
      for (const [number, { kind, wire }] of link.objects)
        if (kind.name === this.ours.name && !this.refused.has(peer)) yield [peer, number, this.#values(wire)];
  }

  messages(values: Values, nowMs: number): [peer: string, message: Uint8Array][] {
    const wire = this.ours.fields.map((field) => written(field, values[field.name]));
    const rests = this.#last !== null && this.ours.fields.every((field, at) => !field.smooth || this.#last?.[at] === wire[at]);
    this.#last = wire;
    const fields = joinedFields(this.ours.fields.map((field) => field.bits), wire);
    const object = [...varint((OWN_NUMBER << 3) | (rests ? AT_REST : 0) | FULL), 0, 0, ...fields];
    return [...this.#links].map(([peer, link]) => {
      link.sent += 1;
      const kind = link.knowsClass ? [] : [CLASS, ...varint(this.#announcement.length), ...this.#announcement];
      const message = new Uint8Array(HEAD_BYTES + kind.length + object.length);
      const view = new DataView(message.buffer);
      view.setUint8(0, VERSION);
      view.setUint8(1, link.resync ? RESYNC : 0);
      [link.session, link.sent, link.heardSession, link.heard, link.before].forEach((number, at) => view.setUint32(2 + 4 * at, number));
      view.setBigUint64(22, BigInt(Math.round(nowMs * 1000)));
      view.setUint8(30, INTERVAL_MS);
      message.set(kind, HEAD_BYTES);
      message.set(object, HEAD_BYTES + kind.length);
      link.resync = link.ackDue = false;
      return [peer, message];
    });
  }

  receive(peer: string, data: Uint8Array): void {
    const link = this.#links.get(peer);
    if (link === undefined) return;
    if (data.length < HEAD_BYTES || data.length > MESSAGE_BYTES_MAX || data[0] !== VERSION) throw new NotShared("no message of shared objects");
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    const [session, number, heardSession, heard] = [2, 6, 10, 14].map((at) => view.getUint32(at)) as [number, number, number, number];
    if (data[30] === 0) throw new NotShared("an impossible interval");
    const read = number === 0 ? null : readRecords(data, session === link.heardSession ? link : new Link());
    if (heardSession === link.session) {
      if ((view.getUint8(1) & RESYNC) !== 0) Object.assign(link, { session: newSession(), sent: 0, knowsClass: false });
      else if (heard > 0) link.knowsClass = true; // each message carried it until now
    }
    if (read === null) return;
    if (session !== link.heardSession) Object.assign(link, { heardSession: session, heard: 0, before: 0, classes: new Map(), objects: new Map() });
    const ahead = number - link.heard;
    if (ahead <= 0) return; // overtaken by a newer one, which says it all
    if (read.unknown) {
      link.resync = true;
      return;
    }
    link.ackDue = true;
    link.before = ahead > 32 ? 0 : Number(((BigInt(link.before) << BigInt(ahead)) | (link.heard > 0 ? 1n << BigInt(ahead - 1) : 0n)) & 0xffff_ffffn);
    link.heard = number;
    for (const [at, kind] of read.classes) {
      link.classes.set(at, kind);
      if (kind.name === this.ours.name) this.#compare(peer, kind);
    }
    for (const [at, object] of read.objects) link.objects.set(at, { ...object, last: number });
    for (const at of read.removed) link.objects.delete(at);
  }

  #compare(peer: string, theirs: TheirClass): void {
    for (const [at, { name, code }] of this.ours.fields.entries()) {
      const other = theirs.codes[at];
      if (other !== undefined && (other[0] !== name || other[1] !== code)) {
        this.refused.set(peer, `${theirs.name}.${name} is ${code} here and ${other.join(" ")} there`);
        return;
      }
    }
    this.refused.delete(peer);
  }

  #values(wire: readonly Wire[]): Values {
    return Object.fromEntries(this.ours.fields.map((field, at) => [field.name, wire[at] === undefined ? field.default : readValue(field, wire[at] as Wire)]));
  }
}

type Field = SharedClass["fields"][number];

function written(field: Field, value: unknown): Wire {
  if (field.bits === 0) return encode(value);
  if (field.code === "bool") return value === true ? 1n : 0n;
  const number = Number(value);
  if (!Number.isFinite(number)) throw new RangeError(`${field.name} = ${number} cannot be shared`);
  if (field.low !== undefined && field.high !== undefined) {
    const steps = stepsOf(field);
    const within = Math.min(Math.max(number, field.low), field.high);
    return BigInt(Math.floor(((within - field.low) * steps) / (field.high - field.low) + 0.5));
  }
  const view = new DataView(new ArrayBuffer(8));
  if (field.bits === 32) {
    view.setFloat32(0, number);
    return BigInt(view.getUint32(0));
  }
  view.setFloat64(0, number);
  return view.getBigUint64(0);
}

function readValue(field: Field, wire: Wire): unknown {
  if (typeof wire !== "bigint") {
    try {
      return decode(wire);
    } catch {
      return field.default;
    }
  }
  if (field.code === "bool") return wire === 1n;
  if (field.low !== undefined && field.high !== undefined) return field.low + (Number(wire) * (field.high - field.low)) / stepsOf(field);
  const view = new DataView(new ArrayBuffer(8));
  if (field.bits === 32) view.setUint32(0, Number(wire));
  else view.setBigUint64(0, wire);
  const number = field.bits === 32 ? view.getFloat32(0) : view.getFloat64(0);
  return Number.isFinite(number) ? number : field.default;
}

/** Around a middle of 0 their number is even, so that 0 is exactly 0: what rests must not creep. */
function stepsOf({ bits, low, high }: Field): number {
  const steps = 2 ** bits - 1;
  return low === -(high as number) && steps > 1 ? steps - 1 : steps;
}

function joinedFields(widths: readonly number[], wire: readonly Wire[]): number[] {
  let [bits, length] = [0n, 0];
  const packed: Uint8Array[] = [];
  widths.forEach((width, at) => {
    const value = wire[at];
    if (typeof value !== "bigint") packed.push(value as Uint8Array);
    else [bits, length] = [(bits << BigInt(width)) | value, length + width];
  });
  const whole = Math.ceil(length / 8);
  bits <<= BigInt(whole * 8 - length);
  const out = Array.from({ length: whole }, (_, at) => Number((bits >> BigInt(8 * (whole - 1 - at))) & 0xffn));
  if (packed.length === 0) return out;
  const section = [...(packed.length < 16 ? [0x90 | packed.length] : [0xdc, packed.length >> 8, packed.length & 0xff]), ...packed.flatMap((each) => [...each])];
  return [...out, ...varint(section.length), ...section];
}

function varint(number: number): number[] {
  const out: number[] = [];
  let rest = number;
  while (rest >= 0x80) {
    out.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  return [...out, rest];
}

interface Read {
  classes: Map<number, TheirClass>;
  objects: Map<number, { kind: TheirClass; wire: Wire[] }>;
  removed: number[];
  unknown: boolean;
}

/** The records of one message, read whole before anything of it counts. */
function readRecords(data: Uint8Array, link: Link): Read {
  const read: Read = { classes: new Map(), objects: new Map(), removed: [], unknown: false };
  const reader = new Reader(data);
  const named = new Set<number>();
  while (reader.at < data.length && !read.unknown) {
    const tag = reader.varint();
    const [number, kind] = [Math.floor(tag / 8), tag & 3];
    if (kind === CLASS) {
      if (number >= CLASSES_MAX) throw new NotShared("too many classes");
      read.classes.set(number, classOf(reader.take(reader.varint())));
      continue;
    }
    if (named.has(number)) throw new NotShared("a shared object twice in one message");
    named.add(number);
    if (kind === FULL) {
      const at = reader.varint();
      reader.varint(); // the term, which only objects of the host have
      const its = read.classes.get(at) ?? link.classes.get(at);
      if (its === undefined) read.unknown = true;
      else if (link.objects.size + read.objects.size >= 2 * OBJECTS_MAX) throw new NotShared("too many shared objects");
      else read.objects.set(number, { kind: its, wire: reader.fields(its.widths, (1n << BigInt(its.widths.length)) - 1n, []) });
    } else if (kind === DELTA) {
      const theirs = link.objects.get(number);
      if (theirs === undefined) {
        read.unknown = true;
        continue;
      }
      const { widths } = theirs.kind;
      const mask = reader.take(Math.ceil(widths.length / 8)).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
      if (mask >> BigInt(widths.length) !== 0n) throw new NotShared("a mask with more fields than the class has");
      read.objects.set(number, { kind: theirs.kind, wire: reader.fields(widths, mask, [...theirs.wire]) });
    } else read.removed.push(number);
  }
  return read;
}

function classOf(announcement: Uint8Array): TheirClass {
  let value: unknown;
  try {
    value = decode(announcement);
  } catch {
    throw new NotShared("not a class of shared objects");
  }
  const [name, codes] = Array.isArray(value) && value.length === 2 ? (value as [unknown, unknown]) : [null, null];
  if (typeof name !== "string" || !Array.isArray(codes) || codes.length < 1 || codes.length > FIELDS_MAX)
    throw new NotShared("not a class of shared objects");
  const pairs = codes.map((each: unknown): [string, string] => {
    if (!Array.isArray(each) || typeof each[0] !== "string" || typeof each[1] !== "string" || each[1].length > 64) throw new NotShared("a field without a name");
    return [each[0], each[1]];
  });
  return { name, codes: pairs, widths: pairs.map(([, code]) => widthOf(code)) };
}

function widthOf(code: string): number {
  const known = { bool: 1, float: 64, "float of 32 bits": 32 }[code];
  if (known !== undefined) return known;
  const digits = /^quantised to (\d+)/.exec(code)?.[1];
  if (digits === undefined) return 0;
  const bits = Number(digits);
  if (bits < 1 || bits > 32) throw new NotShared(`a field of ${code}`);
  return bits;
}

class Reader {
  at = HEAD_BYTES;
  constructor(private readonly data: Uint8Array) {}

  varint(): number {
    let [number, factor] = [0, 1];
    for (let count = 0; count < 5; count += 1) {
      const byte = this.data[this.at];
      if (byte === undefined) break;
      this.at += 1;
      number += (byte & 0x7f) * factor;
      if (byte < 0x80) return number;
      factor *= 128;
    }
    throw new NotShared("a number that ends nowhere");
  }

  take(size: number): Uint8Array {
    if (this.at + size > this.data.length) throw new NotShared("it ends too early");
    this.at += size;
    return this.data.subarray(this.at - size, this.at);
  }

  fields(widths: readonly number[], mask: bigint, wire: Wire[]): Wire[] {
    const named = widths.map((width, at) => ({ width, at })).filter(({ at }) => ((mask >> BigInt(at)) & 1n) === 1n);
    const length = named.reduce((sum, { width }) => sum + width, 0);
    const whole = Math.ceil(length / 8);
    let bits = this.take(whole).reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n) >> BigInt(whole * 8 - length);
    for (const { width, at } of [...named].reverse()) {
      if (width === 0) continue;
      wire[at] = bits & ((1n << BigInt(width)) - 1n);
      bits >>= BigInt(width);
    }
    const packed = named.filter(({ width }) => width === 0);
    if (packed.length === 0) return wire;
    let values: unknown;
    try {
      values = decode(this.take(this.varint()));
    } catch {
      throw new NotShared("fields that are no MessagePack");
    }
    if (!Array.isArray(values) || values.length !== packed.length) throw new NotShared("more or fewer fields than it says");
    packed.forEach(({ at }, index) => (wire[at] = encode((values as unknown[])[index])));
    return wire;
  }
}
