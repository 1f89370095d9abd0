// JSON whose floats keep their spelling: what a room's creator signed holds `1200.0`, and JavaScript knows 1200 only.

import { ProtocolError } from "../errors.ts";

/** A float as it was written. */
export interface Exact {
  readonly $f: string;
}

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/gs;
const FLOAT = /^-?\d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)$/;
const DEPTH_MAX = 64;

/** `ProtocolError` for what is no JSON. Floats are `Exact`. */
export function parseExactUntrusted(text: string): unknown {
  try {
    return JSON.parse(text.replace(TOKEN, (token) => (FLOAT.test(token) ? `{"$f":"${token}"}` : token)));
  } catch {
    throw new ProtocolError("not JSON");
  }
}

export const isExact = (value: unknown): value is Exact =>
  typeof value === "object" && value !== null && typeof (value as Exact).$f === "string" && FLOAT.test((value as Exact).$f) &&
  Object.keys(value).length === 1;

/** With numbers in place of floats. */
export function plainOf(value: unknown, depth = 0): unknown {
  if (depth > DEPTH_MAX) throw new ProtocolError("nested too deeply");
  if (isExact(value)) return Number(value.$f);
  if (Array.isArray(value)) return value.map((item) => plainOf(item, depth + 1));
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plainOf(item, depth + 1)]));
  return value;
}

/** A float's spelling, of a number that may be whole. */
export function exactly(value: number | Exact): Exact {
  if (typeof value !== "number") return value;
  const text = String(value).replace("e+", "e");
  return { $f: /[.e]/.test(text) ? text : `${text}.0` };
}

/** As Python's msgspec writes it, with keys in order. */
export function stringifyExact(value: unknown): string {
  if (isExact(value)) return value.$f;
  if (Array.isArray(value)) return `[${value.map(stringifyExact).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    entries.sort(([one], [other]) => compareText(one, other));
    return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${stringifyExact(item)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

/** By code points, as UTF-8 sorts; JavaScript compares UTF-16. */
export function compareText(one: string, other: string): number {
  const left = [...one], right = [...other];
  for (let at = 0; at < Math.min(left.length, right.length); at++) {
    const order = left[at]!.codePointAt(0)! - right[at]!.codePointAt(0)!;
    if (order !== 0) return order;
  }
  return left.length - right.length;
}
