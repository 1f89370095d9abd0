import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import fc from "fast-check";

import { NotShared, SharedObjects, type SharedClass } from "../arena/shared.ts";

// As in arena/messages.ts, which imports the package by its name.
const SHIP = {
  name: "Ship",
  fields: [
    { name: "x", code: "float of 32 bits", bits: 32, smooth: true, default: 0 },
    { name: "y", code: "float of 32 bits", bits: 32, smooth: true, default: 0 },
    { name: "angle", code: "quantised to 10 bits from -3.14159 to 3.14159", bits: 10, smooth: true, low: -Math.PI, high: Math.PI, default: 0 },
    { name: "hp", code: "int", bits: 0, smooth: false, default: 100 },
    { name: "kills", code: "int", bits: 0, smooth: false, default: 0 },
    { name: "deaths", code: "int", bits: 0, smooth: false, default: 0 },
    { name: "paused", code: "bool", bits: 1, smooth: false, default: false },
  ],
} satisfies SharedClass;
const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"));
const VECTORS = JSON.parse(readFileSync("../tests/vectors/shared.json", "utf8")) as { stories: { steps: { bytes: string; values?: Record<string, unknown>; lost?: true }[] }[] };

test("what Python says of its ships is seen", () => {
  for (const { steps } of VECTORS.stories) {
    const objects = new SharedObjects(SHIP);
    objects.joined("ada");
    for (const { bytes: hex, values, lost } of steps) {
      if (lost === true) continue;
      objects.receive("ada", bytes(hex));
      if (values === undefined || Object.keys(values).length === 0) continue;
      const [[, , seen] = []] = [...objects.objects()];
      for (const [name, value] of Object.entries(values)) {
        if (typeof value === "number") assert.ok(Math.abs((seen?.[name] as number) - value) < 1e-9, `${name}: ${seen?.[name]} is not ${value}`);
        else assert.equal(seen?.[name], value);
      }
    }
  }
});

test("a page sees what a page says, over loss", () => {
  const [ada, bob] = [new SharedObjects(SHIP), new SharedObjects(SHIP)];
  ada.joined("bob");
  bob.joined("ada");
  for (let step = 0; step < 40; step += 1) {
    const ship = { x: step, y: -step / 2, angle: step / 20, hp: 100 - step, kills: step, deaths: 0, paused: step % 2 === 0 };
    for (const [, message] of ada.messages(ship, step * 50)) {
      if (step % 3 === 1) continue;
      bob.receive("ada", message);
      const [[, , seen] = []] = [...bob.objects()];
      assert.ok(Math.abs((seen?.angle as number) - ship.angle) < 0.004);
      assert.deepEqual({ ...seen, angle: 0 }, { ...ship, angle: 0 });
    }
    for (const [, message] of bob.messages(ship, step * 50)) ada.receive("bob", message);
  }
});

test("a class of another version is named and not shown", () => {
  const [ada, bob] = [new SharedObjects({ ...SHIP, fields: SHIP.fields.map((field) => (field.name === "hp" ? { ...field, code: "str" } : field)) }), new SharedObjects(SHIP)];
  ada.joined("bob");
  bob.joined("ada");
  for (const [, message] of ada.messages({ x: 0, y: 0, angle: 0, hp: "full", kills: 0, deaths: 0, paused: false }, 0)) bob.receive("ada", message);
  assert.deepEqual([...bob.objects()], []);
  assert.match(bob.refused.get("ada") ?? "", /Ship\.hp is int here and hp str there/);
});

test("anything else is the declared error, and changes nothing", () => {
  const good = VECTORS.stories[0]?.steps[0]?.bytes ?? "";
  const objects = new SharedObjects(SHIP);
  objects.joined("ada");
  const look = (data: Uint8Array): void => {
    try {
      objects.receive("ada", data);
    } catch (error) {
      if (!(error instanceof NotShared)) throw error;
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), look), { numRuns: 300 });
  fc.assert(
    fc.property(fc.nat(), fc.nat(255), fc.nat(20), (place, value, cut) => {
      const bent = bytes(good);
      bent[place % bent.length] = value;
      look(bent.subarray(0, bent.length - cut));
    }),
    { numRuns: 1000 },
  );
});
