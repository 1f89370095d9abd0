// Our MessagePack against the library: the same bytes out, the same values in, and one error.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Decoder, Encoder } from "@msgpack/msgpack";
import fc from "fast-check";

import { toHex } from "../src/bytes.ts";
import { ProtocolError } from "../src/errors.ts";
import { pack, unpackUntrusted } from "../src/msgpack.ts";

const RUNS = Number(process.env.PSYNE_FUZZ_RUNS ?? 500);
const ENCODER = new Encoder({ useBigInt64: true, ignoreUndefined: true }), DECODER = new Decoder({ useBigInt64: true });

const leaves = fc.oneof(
  fc.constant(null), fc.boolean(), fc.integer(), fc.double({ noNaN: true }), fc.string({ unit: "grapheme" }), fc.uint8Array({ maxLength: 300 }),
  fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }), fc.bigInt({ min: -(2n ** 63n), max: -(2n ** 53n) }),
  fc.integer({ min: -70_000, max: 70_000 }), fc.string({ minLength: 200, maxLength: 70_000 }),
);
const values = fc.letrec((tie) => ({
  value: fc.oneof({ maxDepth: 4 }, leaves, fc.array(tie("value"), { maxLength: 40 }), fc.dictionary(fc.string().filter((key) => key !== "__proto__"), tie("value"))),
})).value;

/** The library writes numbers of more than 32 bits as floats, which Python reads as floats. */
function whole(value: unknown): unknown {
  if (typeof value === "number" && Number.isSafeInteger(value) && (value >= 2 ** 32 || value < -(2 ** 31))) return BigInt(value);
  if (Array.isArray(value)) return value.map(whole);
  if (typeof value === "object" && value !== null && !(value instanceof Uint8Array))
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, whole(item)]));
  return value;
}

test("values go out as the library writes them, and come back", () => {
  fc.assert(
    fc.property(values, (value) => {
      const ours = pack(value);
      assert.equal(toHex(ours), toHex(ENCODER.encode(whole(value))));
      assert.deepEqual(pack(unpackUntrusted(ours)), ours);
    }),
    { numRuns: Math.min(RUNS, 5_000), seed: 1 },
  );
});

test("whole numbers of more than 32 bits stay whole", () => {
  for (const power of [7, 8, 15, 16, 31, 32, 33, 47, 52])
    for (const value of [2 ** power - 1, 2 ** power, -(2 ** power), -(2 ** power) - 1]) {
      const back = unpackUntrusted(pack(value));
      assert.equal(Number(back as number), value);
      assert.deepEqual(pack(BigInt(value)), pack(value));
    }
  assert.equal(toHex(pack(2 ** 32)), "cf0000000100000000");
  assert.equal(toHex(pack(-(2 ** 31) - 1)), "d3ffffffff7fffffff");
});

test("bytes are read as the library reads them, or refused", () => {
  let read = 0;
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.tuple(values, fc.nat(), fc.nat(255)).map(([value, at, byte]) => {
      const bytes = pack(value).slice();
      bytes[at % bytes.length] = byte;
      return bytes;
    })), (bytes) => {
      let ours: unknown;
      try {
        ours = unpackUntrusted(bytes);
      } catch (error) {
        assert.ok(error instanceof ProtocolError, String(error));
        return;
      }
      read++;
      assert.deepEqual(ours, DECODER.decode(bytes)); // what is read here the library reads too, and as the same
    }),
    { numRuns: RUNS, seed: 2 },
  );
  assert.ok(read > RUNS / 20);
});

test("what is nested, counted or spelled beyond reason is refused", () => {
  const nested = new Uint8Array(10_000).fill(0x91);
  const bad: number[][] = [
    [], [0xc1], [0xdd, 255, 255, 255, 255], [0xdf, 255, 255, 255, 255], [0xc6, 255, 255, 255, 255], [0xdb, 0, 0, 0, 9, 65], [0xa1, 0xff], [0xd4, 1, 1],
    [0xc7, 0, 1], [0xd6, 0xff, 0, 0, 0, 0], [0x81, 1, 1], [0x81, 0xa9, ...Buffer.from("__proto__"), 0x80], [0, 0], [0x81, 0xa1, 65],
  ];
  for (const bytes of [nested, ...bad.map((one) => Uint8Array.from(one))]) assert.throws(() => unpackUntrusted(bytes), ProtocolError, toHex(bytes.slice(0, 12)));
  const ring: unknown[] = [];
  ring.push(ring);
  assert.throws(() => pack(ring), RangeError);
  assert.throws(() => pack(() => 1), TypeError);
  assert.equal(toHex(pack({ a: undefined, b: [undefined] })), "81a16291c0");
});
