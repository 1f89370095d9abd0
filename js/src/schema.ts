// Typed messages: what a Python game declares as `class Shot(Message)`, by the same bytes.
//
// On the wire a message is one MessagePack array `[tag, field, field, ...]`. `psyne-mesh schema --typescript` writes these
// types from the Python classes. Numbers: "int" is a JavaScript number, and what does not fit into one is refused;
// "bigint" holds all 64 bits, such as nanoseconds. NaN and infinite floats are refused on both sides.

import { InvalidConfig, ProtocolError, UnserialisableMessage } from "./errors.ts";
import { pack, unpackUntrusted } from "./msgpack.ts";

export { pack, unpackUntrusted } from "./msgpack.ts";

export interface Bounds {
  readonly ge?: number;
  readonly gt?: number;
  readonly le?: number;
  readonly lt?: number;
}
interface Lengths {
  readonly minLength?: number;
  readonly maxLength?: number;
}

export type FieldType =
  | "bool" | "int" | "bigint" | "float" | "str" | "bytes" | "none" | "any"
  | ({ readonly kind: "int" | "bigint" | "float" } & Bounds)
  | ({ readonly kind: "str"; readonly pattern?: string } & Lengths)
  | ({ readonly kind: "bytes" } & Lengths)
  /** An Enum by its values, or a Literal. */
  | { readonly kind: "enum"; readonly values: readonly (string | number)[] }
  /** list, set, frozenset and tuple[X, ...]. */
  | ({ readonly kind: "list"; readonly items: FieldType } & Lengths)
  | { readonly kind: "tuple"; readonly items: readonly FieldType[] }
  /** dict with text as keys. */
  | ({ readonly kind: "dict"; readonly values: FieldType } & Lengths)
  | { readonly kind: "union"; readonly of: readonly FieldType[] }
  /** A dataclass or struct: a map of its fields; `tag`: its tag field and what that holds. */
  | { readonly kind: "object"; readonly fields: Fields; readonly tag?: readonly [string, string | number] }
  /** A struct with array_like=True. */
  | { readonly kind: "array"; readonly fields: Fields; readonly tag?: string | number };

/** [name, type] or [name, type, default]. */
export type Fields = readonly (readonly [string, FieldType] | readonly [string, FieldType, unknown])[];

export interface MessageSpec {
  readonly tag: string | number;
  readonly fields: Fields;
  /** Of the Python class that it was made from: two sides with one hash understand each other. */
  readonly hash?: string;
  /** The same in words, for the difference to another version: see `announced.ts`. */
  readonly text?: string;
}

/** What may be left out is `D`: it has defaults. */
export type Input<T, D extends keyof T = never> = Omit<T, D> & Partial<Pick<T, D>>;

/** Made by `messageType`. `T`: as it is received. */
export interface MessageType<T, D extends keyof T = never> extends MessageSpec {
  /** A message that knows its type, for channels that carry several. */
  make(fields: Input<T, D>): T;
  is(message: unknown): message is T;
}

const DEPTH_MAX = 32; // of "any"
const made = new WeakMap<object, MessageType<any, any>>();

export function messageType<T extends object, D extends keyof T = never>(spec: MessageSpec): MessageType<T, D> {
  const names = new Set(spec.fields.map(([name]) => name));
  if (names.size !== spec.fields.length) throw new InvalidConfig(`message ${spec.tag} has two fields of one name`);
  const type: MessageType<T, D> = {
    ...spec,
    make(fields) {
      const message = withDefaults(spec.fields, fields as Record<string, unknown>) as T;
      made.set(message, type);
      return message;
    },
    is: (message): message is T => typeof message === "object" && message !== null && made.get(message) === type,
  };
  return type;
}

export type Payload = Uint8Array | string;

/** `encode` throws `UnserialisableMessage`, `decodeUntrusted` throws `ProtocolError`. */
export interface Codec {
  readonly types: readonly MessageType<any, any>[];
  encode(message: unknown): Payload;
  decodeUntrusted(payload: Payload): unknown;
}

/** Of a channel without types: bytes and text go through as they are. */
export const RAW: Codec = {
  types: [],
  encode(message) {
    if (message instanceof Uint8Array) return message;
    if (message instanceof ArrayBuffer) return new Uint8Array(message);
    if (typeof message === "string") {
      if (hasLoneSurrogates(message)) throw new UnserialisableMessage("text with lone surrogates has no UTF-8 form");
      return message;
    }
    throw new UnserialisableMessage("this channel has no message types, so it carries Uint8Array and string");
  },
  decodeUntrusted: (payload) => payload,
};

export function codecFor(types: readonly MessageType<any, any>[]): Codec {
  if (types.length === 0) return RAW;
  const byTag = new Map(types.map((type) => [type.tag, type]));
  if (byTag.size !== types.length) throw new InvalidConfig("two message types of one tag cannot share a channel");
  const names = types.map((type) => type.tag).join(", ");
  return {
    types,
    encode(message) {
      const own = typeof message === "object" && message !== null ? made.get(message) : undefined;
      const type = own ?? (types.length === 1 ? types[0] : undefined);
      if (type === undefined || byTag.get(type.tag) !== type)
        throw new UnserialisableMessage(`this channel carries ${names}; make messages by TYPE.make({...})`);
      if (typeof message !== "object" || message === null || Array.isArray(message))
        throw new UnserialisableMessage(`${type.tag} is sent as an object of its fields`);
      try {
        return pack([type.tag, ...writtenFields(type.fields, message as Record<string, unknown>, String(type.tag))]);
      } catch (error) {
        throw new UnserialisableMessage(`${type.tag} cannot be sent: ${(error as Error).message}`);
      }
    },
    decodeUntrusted(payload) {
      if (typeof payload === "string") throw new ProtocolError("text came on a channel of typed messages");
      const value = unpackUntrusted(payload);
      const type = Array.isArray(value) ? byTag.get(value[0]) : undefined;
      if (type === undefined) throw new ProtocolError("not a message of this channel");
      const message = readFields(type.fields, (value as unknown[]).slice(1), String(type.tag));
      made.set(message, type);
      return message;
    },
  };
}

// ---------------------------------------------------------------------------------------------------------- helpers

function withDefaults(fields: Fields, given: Record<string, unknown>): Record<string, unknown> {
  const message: Record<string, unknown> = {};
  for (const [name, , ...rest] of fields) {
    const value = given[name];
    message[name] = value === undefined && rest.length > 0 ? copied(rest[0]) : value;
  }
  return message;
}

const copied = (value: unknown): unknown => (typeof value === "object" && value !== null ? structuredClone(value) : value);

function writtenFields(fields: Fields, given: Record<string, unknown>, path: string): unknown[] {
  for (const name of Object.keys(given))
    if (!fields.some(([known]) => known === name)) throw new ProtocolError(`${path} has no field ${name}`);
  const whole = withDefaults(fields, given);
  return fields.map(([name, type]) => converted(type, whole[name], `${path}.${name}`, 0, true));
}

function readFields(fields: Fields, values: readonly unknown[], path: string): Record<string, unknown> {
  const message: Record<string, unknown> = {};
  fields.forEach(([name, type, ...rest], at) => {
    if (at < values.length) message[name] = converted(type, values[at], `${path}.${name}`, 0, false);
    else if (rest.length > 0) message[name] = copied(rest[0]);
    else throw new ProtocolError(`${path}.${name} is missing`);
  });
  return message;
}

/** The value as the type has it, to the wire or from it; `ProtocolError` names the field. */
function converted(type: FieldType, value: unknown, path: string, depth: number, writes: boolean): unknown {
  const wrong = (wanted: string): never => {
    throw new ProtocolError(`${path}: expected ${wanted}, got ${shown(value)}`);
  };
  const whole: Exclude<FieldType, string> | { kind: "bool" | "none" | "any" } =
    typeof type === "string" ? ({ kind: type } as { kind: "any" }) : type;
  switch (whole.kind) {
    case "bool":
      return typeof value === "boolean" ? value : wrong("bool");
    case "none":
      return value === null || value === undefined ? null : wrong("null");
    case "int": {
      const number = typeof value === "bigint" ? Number(value) : value;
      if (!Number.isSafeInteger(number)) return wrong("an integer that a JavaScript number holds");
      checkBounds(whole, number as number, path);
      return number;
    }
    case "bigint": {
      if (typeof value !== "bigint" && !Number.isSafeInteger(value)) return wrong("an integer");
      const number = BigInt(value as number);
      if (number < -(2n ** 63n) || number >= 2n ** 64n) return wrong("an integer of 64 bits");
      checkBounds(whole, Number(number), path);
      return number;
    }
    case "float": {
      const number = typeof value === "bigint" && !writes ? Number(value) : value;
      if (typeof number !== "number" || !Number.isFinite(number)) return wrong("a finite number");
      checkBounds(whole, number, path);
      return number;
    }
    case "str":
      if (typeof value !== "string" || (writes && hasLoneSurrogates(value))) return wrong("text");
      checkLengths(whole, [...value].length, path);
      if ("pattern" in whole && whole.pattern !== undefined && !new RegExp(whole.pattern, "u").test(value))
        return wrong(`text like ${whole.pattern}`);
      return value;
    case "bytes":
      if (!(value instanceof Uint8Array)) return wrong("bytes");
      checkLengths(whole, value.length, path);
      return value;
    case "enum":
      return whole.values.includes(value as string) ? value : wrong(`one of ${whole.values.join(", ")}`);
    case "list": {
      const items = value instanceof Set ? [...value] : value;
      if (!Array.isArray(items)) return wrong("a list");
      checkLengths(whole, items.length, path);
      return items.map((item, at) => converted(whole.items, item, `${path}[${at}]`, depth, writes));
    }
    case "tuple":
      if (!Array.isArray(value) || value.length !== whole.items.length) return wrong(`${whole.items.length} values`);
      return whole.items.map((item, at) => converted(item, value[at], `${path}[${at}]`, depth, writes));
    case "dict": {
      if (!isPlain(value)) return wrong("a dict");
      const entries = Object.entries(value);
      checkLengths(whole, entries.length, path);
      return Object.fromEntries(entries.map(([key, item]) => [key, converted(whole.values, item, `${path}.${key}`, depth, writes)]));
    }
    case "union":
      for (const option of whole.of) {
        try {
          return converted(option, value, path, depth, writes);
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
        }
      }
      return wrong("a value of one of its types");
    case "object": {
      if (!isPlain(value)) return wrong("an object");
      const { tag } = whole;
      if (writes) {
        const values = writtenFields(whole.fields, value, path);
        const named = Object.fromEntries(whole.fields.map(([name], at) => [name, values[at]]));
        return tag === undefined ? named : { [tag[0]]: tag[1], ...named };
      }
      if (tag !== undefined && value[tag[0]] !== tag[1]) return wrong(`an object with ${tag[0]} = ${tag[1]}`);
      const message: Record<string, unknown> = {};
      for (const [name, fieldType, ...rest] of whole.fields) {
        if (Object.hasOwn(value, name)) message[name] = converted(fieldType, value[name], `${path}.${name}`, depth, false);
        else if (rest.length > 0) message[name] = copied(rest[0]);
        else throw new ProtocolError(`${path}.${name} is missing`);
      }
      return message;
    }
    case "array": {
      const { tag } = whole;
      const tagged = tag === undefined ? [] : [tag];
      if (writes) return isPlain(value) ? [...tagged, ...writtenFields(whole.fields, value, path)] : wrong("an object");
      if (!Array.isArray(value) || (tag !== undefined && value[0] !== tag)) return wrong("a struct");
      return readFields(whole.fields, value.slice(tagged.length), path);
    }
    case "any":
      return anything(value, path, depth);
  }
}

function anything(value: unknown, path: string, depth: number): unknown {
  if (depth >= DEPTH_MAX) throw new ProtocolError(`${path} is nested deeper than ${DEPTH_MAX}`);
  if (typeof value === "number" && !Number.isFinite(value)) throw new ProtocolError(`${path} is no number that others can use`);
  if (value === null || value instanceof Uint8Array || ["number", "string", "boolean"].includes(typeof value)) return value;
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (Array.isArray(value)) return value.map((item, at) => anything(item, `${path}[${at}]`, depth + 1));
  if (isPlain(value))
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, anything(item, `${path}.${key}`, depth + 1)]));
  throw new ProtocolError(`${path}: ${shown(value)} cannot travel`);
}

function checkBounds({ ge, gt, le, lt }: Bounds, value: number, path: string): void {
  if (
    (ge !== undefined && !(value >= ge)) || (gt !== undefined && !(value > gt)) ||
    (le !== undefined && !(value <= le)) || (lt !== undefined && !(value < lt))
  )
    throw new ProtocolError(`${path} = ${value} is out of its bounds`);
}

function checkLengths({ minLength = 0, maxLength = Number.POSITIVE_INFINITY }: Lengths, length: number, path: string): void {
  if (length < minLength || length > maxLength) throw new ProtocolError(`${path} has a length of ${length}`);
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

const hasLoneSurrogates = (text: string): boolean => /\p{Surrogate}/u.test(text);

function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  return typeof value === "string" ? JSON.stringify(value.slice(0, 40)) : String(value).slice(0, 40);
}
