// Typed messages: both directions, defaults, and what is refused on either side.
import assert from "node:assert/strict";
import { test } from "node:test";

import { decode, encode } from "@msgpack/msgpack";
import fc from "fast-check";

import { ProtocolError, UnserialisableMessage } from "../src/errors.ts";
import { codecFor, messageType, RAW } from "../src/schema.ts";

interface Shot {
  weapon: number;
  x: number;
  stamp: bigint;
  tags: string[];
}
const Shot = messageType<Shot, "tags">({
  tag: "Shot",
  fields: [
    ["weapon", { kind: "int", ge: 0, le: 255 }],
    ["x", "float"],
    ["stamp", "bigint"],
    ["tags", { kind: "list", items: "str" }, []],
  ],
});
const Hit = messageType<{ target: string | null }>({ tag: "Hit", fields: [["target", { kind: "union", of: ["str", "none"] }]] });

test("a message travels as an array behind its tag", () => {
  const codec = codecFor([Shot]);
  const payload = codec.encode({ weapon: 3, x: 1.5, stamp: 2n ** 60n }) as Uint8Array;
  assert.deepEqual(decode(payload, { useBigInt64: true }), ["Shot", 3, 1.5, 2n ** 60n, []]);
  assert.deepEqual(codec.decodeUntrusted(payload), { weapon: 3, x: 1.5, stamp: 2n ** 60n, tags: [] });
});

test("missing fields at the end have their defaults, further ones are passed over", () => {
  const codec = codecFor([Shot]);
  assert.deepEqual(codec.decodeUntrusted(encode(["Shot", 1, 2, 3])), { weapon: 1, x: 2, stamp: 3n, tags: [] });
  assert.deepEqual(codec.decodeUntrusted(encode(["Shot", 1, 2, 3, ["a"], "new"])), { weapon: 1, x: 2, stamp: 3n, tags: ["a"] });
});

test("a channel of several types tells them apart", () => {
  const codec = codecFor([Shot, Hit]);
  const hit = codec.decodeUntrusted(codec.encode(Hit.make({ target: null })));
  assert.ok(Hit.is(hit) && !Shot.is(hit));
  assert.throws(() => codec.encode({ target: "x" }), UnserialisableMessage);
});

for (const [what, message] of Object.entries({
  "a field that is missing": { weapon: 1, x: 1 },
  "NaN": { weapon: 1, x: Number.NaN, stamp: 1n },
  "a number out of bounds": { weapon: 256, x: 1, stamp: 1n },
  "a fraction for an int": { weapon: 1.5, x: 1, stamp: 1n },
  "text for a number": { weapon: "1", x: 1, stamp: 1n },
  "a field that there is not": { weapon: 1, x: 1, stamp: 1n, y: 2 },
  "a lone surrogate": { weapon: 1, x: 1, stamp: 1n, tags: ["\ud800"] },
}))
  test(`${what} is not sent`, () => assert.throws(() => codecFor([Shot]).encode(message), UnserialisableMessage));

test("whatever bytes come, only the declared error leaves the decoder", () => {
  const codec = codecFor([Shot, Hit]);
  const good = encode(["Shot", 3, 1.5, 7, ["a", "b"]]);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(), fc.boolean(), (noise, at, splices) => {
      const bytes = splices ? Uint8Array.from([...good.slice(0, at % good.length), ...noise]) : noise;
      try {
        codec.decodeUntrusted(bytes);
      } catch (error) {
        assert.ok(error instanceof ProtocolError, String(error));
      }
    }),
    { numRuns: 20_000, seed: 1 },
  );
});

test("a channel without types carries bytes and text", () => {
  assert.equal(RAW.encode("hello"), "hello");
  assert.throws(() => RAW.encode({}), UnserialisableMessage);
  assert.throws(() => RAW.encode("\udfff"), UnserialisableMessage);
});
