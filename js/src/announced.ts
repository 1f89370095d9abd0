// What a channel says of its message types, in the `protocol` of its data channel (RFC 8832 section 5.1): who has another
// version of the game is told by its field, before a message came. The same in Python: psyne_mesh/room/described.py.

import { ProtocolError } from "./errors.ts";
import type { MessageSpec } from "./schema.ts";

const PROTOCOL = "psyne-types/1";
// Of one channel, in bytes: 512 of them, names included, stay within the 256 KiB that a Python member takes. What is longer
// goes by its hashes alone.
const PROTOCOL_BYTES_MAX = 320;
/** What is longer is no announcement. */
export const PROTOCOL_CHARS_MAX = PROTOCOL.length + 1 + PROTOCOL_BYTES_MAX;
const TYPES_MAX = 64; // of one channel of a peer's
const HASH = /^[0-9a-f]{16}$/;

/** The `protocol` of a channel that carries these; "" where one of them was not made from a Python class. */
export function announcement(types: readonly MessageSpec[]): string {
  const hashes = types.map((type) => type.hash ?? "");
  if (hashes.length === 0 || !hashes.every((hash) => HASH.test(hash))) return "";
  if (types.every((type) => type.text !== undefined)) {
    const whole = [PROTOCOL, ...types.map((type) => `${type.hash} ${type.text}`)].join("\n");
    if (new TextEncoder().encode(whole).length <= PROTOCOL_BYTES_MAX) return whole;
  }
  const short = [PROTOCOL, ...hashes].join("\n");
  return short.length <= PROTOCOL_BYTES_MAX ? short : "";
}

/**
 * Where messages of a channel that announces itself so could not be read as ours, in words; null: nowhere, or nobody can
 * tell. A field with a default at the end is no difference. `ProtocolError` for what is no announcement.
 */
export function differenceUntrusted(protocol: string, ours: readonly MessageSpec[]): string | null {
  const [first, ...lines] = protocol.split("\n", TYPES_MAX + 2);
  if (first !== PROTOCOL) return null;
  if (protocol.length > PROTOCOL_CHARS_MAX || lines.length === 0 || lines.length > TYPES_MAX)
    throw new ProtocolError("an announcement of types that is too long or empty");
  let found: string | null = null;
  for (const line of lines) {
    const [hash = ""] = line.split(" ", 1);
    if (!HASH.test(hash)) throw new ProtocolError("an announcement of types without their hashes");
    if (hash.length === line.length) continue;
    const [tag, fields] = parsedUntrusted(line.slice(hash.length + 1));
    const mine = ours.find((type) => type.tag === tag);
    if (found === null && mine?.text !== undefined && mine.hash !== hash) found = difference(mine.tag, parsedUntrusted(mine.text)[1], fields);
  }
  return found;
}

type Field = readonly [name: string, words: string, hasDefault: boolean];

function difference(tag: string | number, ours: readonly Field[], theirs: readonly Field[]): string | null {
  for (const [at, [name, words]] of ours.entries()) {
    const other = theirs[at];
    if (other === undefined) break;
    if (name !== other[0])
      return `field ${at + 1} of ${tag} is ${name} here and ${other[0]} there; new fields go to the end, and the old ones keep their names and order`;
    if (words !== other[1]) return `${tag}.${name} is ${words} here and ${other[1]} there`;
  }
  const lacking = ours.slice(theirs.length).filter(([, , hasDefault]) => !hasDefault).map(([name]) => name);
  return lacking.length === 0 ? null : `${tag} has ${lacking.join(", ")} here and not there; give new fields a default`;
}

function parsedUntrusted(text: string): [tag: string | number | null, fields: Field[]] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ProtocolError("not the text of a type");
  }
  if (!Array.isArray(value) || value.length < 2 || !Array.isArray(value[1])) throw new ProtocolError("not the text of a type");
  const fields = value[1].map((field: unknown): Field => {
    if (!Array.isArray(field) || typeof field[0] !== "string" || typeof field[1] !== "string")
      throw new ProtocolError("the text of a type whose fields have no names");
    if (/[\p{C}\u2028\u2029]/u.test(field[0] + field[1])) throw new ProtocolError("the text of a type with unprintable names");
    return [field[0], field[1], field[2] === true || field[2] === 1];
  });
  const tag: unknown = value[0];
  if (tag !== null && typeof tag !== "string" && typeof tag !== "number") throw new ProtocolError("the text of a type with no tag");
  return [tag, fields];
}
