// The vectors that the Python stack writes (tests/vectors), and values as they hold them.
import { readFileSync } from "node:fs";

import { fromHex, toHex } from "../src/bytes.ts";

export interface Case {
  readonly name: string;
  readonly bytes: string;
  readonly read?: any;
  readonly refused?: true;
  readonly signed?: boolean;
}

export const vectors = (name: string): any => JSON.parse(readFileSync(new URL(`../tests/vectors/${name}.json`, `file://${process.cwd()}/`), "utf8"));

/** Bytes as hexadecimal text, large numbers as decimal text, names with underscores. */
export function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return toHex(value);
  if (typeof value === "bigint") return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : String(value);
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]));
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), plain(item)]),
    );
  return value;
}

export const bytesOf = (one: { readonly bytes: string }): Uint8Array => fromHex(one.bytes);
