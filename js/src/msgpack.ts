// MessagePack without extensions: as much of it as messages and records need, in a tenth of the bytes of the library, which the
// tests hold it against.
//
// Numbers that are whole are written as integers, in the fewest bytes. Integers of 64 bits are read as bigint.

import { concat, textUntrusted, utf8 } from "./bytes.ts";
import { ProtocolError } from "./errors.ts";

const DEPTH_MAX = 64; // twice what a field may have
const INTEGERS = ["Uint8", "Uint16", "Uint32", "BigUint64", "Int8", "Int16", "Int32", "BigInt64"] as const;

/** One byte and a number behind it. */
function headed(first: number, size: 0 | 1 | 2 | 4 | 8, write?: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(1 + size);
  bytes[0] = first;
  write?.(new DataView(bytes.buffer, 1));
  return bytes;
}

function integer(value: bigint | number): Uint8Array {
  if (value >= -32 && value < 128) return headed(Number(value) & 0xff, 0);
  const negative = value < 0, bits = negative ? ~BigInt(value) << 1n : BigInt(value);
  const power = bits < 256n ? 0 : bits < 65_536n ? 1 : bits < 2n ** 32n ? 2 : 3;
  return headed((negative ? 0xd0 : 0xcc) + power, (1 << power) as 1, (view) =>
    view[`set${INTEGERS[power + (negative ? 4 : 0)]!}` as "setUint8"](0, (power === 3 ? BigInt(value) : Number(value)) as number),
  );
}

/** `fixed`: the first byte of up to `most` things; `first`: that of lengths of 1 (if `small`), 2 and 4 bytes. */
function counted(count: number, fixed: number, most: number, first: number, small: boolean): Uint8Array {
  if (count < most) return headed(fixed | count, 0);
  if (small && count < 256) return headed(first, 1, (view) => view.setUint8(0, count));
  const next = small ? first + 1 : first;
  return count < 65_536 ? headed(next, 2, (view) => view.setUint16(0, count)) : headed(next + 1, 4, (view) => view.setUint32(0, count));
}

/** Of null, booleans, numbers, bigints, text, bytes, arrays and plain objects; what is undefined in these is left out. */
export function pack(value: unknown): Uint8Array {
  const parts: Uint8Array[] = [];
  const put = (one: unknown, depth: number): void => {
    if (depth > DEPTH_MAX) throw new RangeError(`nested deeper than ${DEPTH_MAX}`);
    if (one == null) parts.push(headed(0xc0, 0));
    else if (typeof one === "boolean") parts.push(headed(one ? 0xc3 : 0xc2, 0));
    else if (typeof one === "bigint" || Number.isSafeInteger(one)) parts.push(integer(one as number));
    else if (typeof one === "number") parts.push(headed(0xcb, 8, (view) => view.setFloat64(0, one)));
    else if (typeof one === "string") {
      const bytes = utf8(one);
      parts.push(counted(bytes.length, 0xa0, 32, 0xd9, true), bytes);
    } else if (one instanceof Uint8Array) parts.push(counted(one.length, 0, 0, 0xc4, true), one);
    else if (Array.isArray(one)) {
      parts.push(counted(one.length, 0x90, 16, 0xdc, false));
      for (const item of one) put(item, depth + 1);
    } else if (typeof one === "object") {
      const entries = Object.entries(one).filter(([, item]) => item !== undefined);
      parts.push(counted(entries.length, 0x80, 16, 0xde, false));
      for (const [key, item] of entries) {
        put(key, depth);
        put(item, depth + 1);
      }
    } else throw new TypeError(`a ${typeof one} cannot travel`);
  };
  put(value, 0);
  return concat(...parts);
}

/** One value and nothing behind it, or `ProtocolError`. */
export function unpackUntrusted(data: Uint8Array): unknown {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  let at = 0;
  const take = (size: number): number => {
    if (size > data.length - at) throw new ProtocolError("MessagePack is cut short");
    at += size;
    return at - size;
  };
  const length = (power: number): number => {
    const start = take(1 << power);
    return power === 0 ? view.getUint8(start) : power === 1 ? view.getUint16(start) : view.getUint32(start);
  };
  const bytes = (size: number): Uint8Array => {
    const start = take(size);
    return data.subarray(start, start + size);
  };
  const items = (count: number, depth: number, each: (depth: number) => void): void => {
    if (count > data.length - at || depth >= DEPTH_MAX) throw new ProtocolError("MessagePack holds too much");
    while (count-- > 0) each(depth + 1);
  };
  const list = (count: number, depth: number): unknown[] => {
    const whole: unknown[] = [];
    items(count, depth, (deeper) => whole.push(get(deeper)));
    return whole;
  };
  const map = (count: number, depth: number): unknown => {
    const whole: [string, unknown][] = [];
    items(count, depth, (deeper) => {
      const key = get(deeper);
      if (typeof key !== "string" || key === "__proto__") throw new ProtocolError("a map of MessagePack has another key than text");
      whole.push([key, get(deeper)]);
    });
    return Object.fromEntries(whole);
  };
  const get = (depth: number): unknown => {
    const first = view.getUint8(take(1));
    if (first < 0x80) return first;
    if (first < 0x90) return map(first & 15, depth);
    if (first < 0xa0) return list(first & 15, depth);
    if (first < 0xc0) return textUntrusted(bytes(first & 31));
    if (first >= 0xe0) return first - 256;
    if (first === 0xc0) return null;
    if (first === 0xc2 || first === 0xc3) return first === 0xc3;
    if (first >= 0xc4 && first <= 0xc6) return bytes(length(first - 0xc4)).slice();
    if (first === 0xca) return view.getFloat32(take(4));
    if (first === 0xcb) return view.getFloat64(take(8));
    if (first >= 0xcc && first <= 0xd3) return view[`get${INTEGERS[first - 0xcc]!}` as "getUint8"](take(1 << ((first - 0xcc) & 3)));
    if (first >= 0xd9 && first <= 0xdb) return textUntrusted(bytes(length(first - 0xd9)));
    if (first >= 0xdc && first <= 0xdd) return list(length(first - 0xdb), depth);
    if (first >= 0xde) return map(length(first - 0xdd), depth);
    throw new ProtocolError("MessagePack with an extension");
  };
  const value = get(0);
  if (at < data.length) throw new ProtocolError("bytes behind the end of MessagePack");
  return value;
}
