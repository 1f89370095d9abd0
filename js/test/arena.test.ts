// Imported by path, as "psyne-mesh" is the name of the package itself here: what of the page has no need of a browser.
import assert from "node:assert/strict";
import { test } from "node:test";

import { goalOf, goalOfUri } from "../arena/link.ts";

test("links lead to rooms", () => {
  assert.deepEqual(goalOf("?code=K7QM3FHT"), { code: "K7QM3FHT" });
  assert.deepEqual(goalOf("?room=arena&region=eu"), { room: "arena", region: "eu" });
  assert.deepEqual(goalOf(""), {});
  assert.deepEqual(goalOf(`?room=${"x".repeat(200)}`), {});
});

test("the URI forms of Python lead to the same rooms", () => {
  assert.deepEqual(goalOfUri("webrtc://play.example:8080/combat%201"), { room: "combat 1", signaling: "ws://play.example:8080" });
  assert.deepEqual(goalOfUri("web+webrtc://play.example/arena?tls=1"), { room: "arena", signaling: "wss://play.example" });
  assert.deepEqual(goalOfUri("web+webrtcgame://ada?room=combat-1&region=us-west"), { room: "combat-1", region: "us-west" });
  assert.deepEqual(goalOf(`?uri=${encodeURIComponent("webrtc-game://ada?room=r")}`), { room: "r" });
});

test("what leads nowhere says so", () => {
  for (const uri of ["webrtc://ada", "webrtc-game://ada", "http://x/y", "javascript:alert(1)", "webrtc://a@b/c", "webrtc://x/%ff", "x".repeat(5000)])
    assert.match(goalOfUri(uri).wrong ?? "", /room|none of/);
});
