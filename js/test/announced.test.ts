import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import { announcement, differenceUntrusted } from "../src/announced.ts";
import { ProtocolError } from "../src/errors.ts";
import type { MessageSpec } from "../src/schema.ts";

const HASH = "0123456789abcdef";
const type = (hash: string, fields: unknown[], tag = "Shot"): MessageSpec => ({ tag, fields: [], hash, text: JSON.stringify([tag, fields]) });
const OURS = type(HASH, [["x", "float"], ["y", "float"], ["hp", "int", 1]]);
const said = (...fields: unknown[]): string => announcement([type("f".repeat(16), fields)]);

test("the same types, older and newer ones are read", () => {
  assert.equal(differenceUntrusted(announcement([OURS]), [OURS]), null);
  assert.equal(differenceUntrusted(said(["x", "float"], ["y", "float"]), [OURS]), null);
  assert.equal(differenceUntrusted(said(["x", "float"], ["y", "float"], ["hp", "int"], ["team", "str"]), [OURS]), null);
  assert.equal(differenceUntrusted("", [OURS]), null);
  assert.equal(differenceUntrusted("chat", [OURS]), null);
});

test("another version is told by its field", () => {
  assert.equal(differenceUntrusted(said(["x", "float"], ["y", "str"]), [OURS]), "Shot.y is float here and str there");
  assert.match(differenceUntrusted(said(["y", "float"]), [OURS]) ?? "", /^field 1 of Shot is x here and y there; new fields go/);
  assert.match(differenceUntrusted(said(["x", "float"]), [OURS]) ?? "", /^Shot has y here and not there/);
});

test("what is long goes by its hash, and what has none says nothing", () => {
  const long = type(HASH, Array.from({ length: 64 }, (_, at) => [`field_${at}`, "int"]));
  assert.equal(announcement([long]), `psyne-types/1\n${HASH}`);
  assert.equal(differenceUntrusted(announcement([long]), [OURS]), null);
  assert.equal(announcement([{ tag: "Shot", fields: [] }]), "");
  assert.equal(announcement([]), "");
});

test("anything else is the declared error", () => {
  for (const text of ["", "0", "A".repeat(16), `${HASH} [`, `${HASH} ["a",[["b"]]]`, "\n".repeat(70), `${HASH} ["a",[["b","\\u202e"]]]`])
    assert.throws(() => differenceUntrusted(`psyne-types/1\n${text}`, [OURS]), ProtocolError);
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json().map((text) => `${HASH} ${text}`), fc.array(fc.string()).map((lines) => lines.join("\n"))), (text) => {
      try {
        differenceUntrusted(`psyne-types/1\n${text}`, [OURS]);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
    }),
  );
});
