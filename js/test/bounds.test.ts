// What a hostile member may cost a page: in work for what it pays, in time until it is parted from, and in memory.
import assert from "node:assert/strict";
import { test } from "node:test";

import { fromHex } from "../src/bytes.ts";
import { type Node, type NodeEvent } from "../src/gossip/node.ts";
import * as wire from "../src/gossip/wire.ts";
import { peerIdOf } from "../src/identity.ts";
import * as limits from "../src/limits.ts";
import { cheapIdentity, cheapNode, cheapVerify, quickest, unitS, worst } from "./bounds.ts";
import { vectors } from "./vectors.ts";

const FACTOR = 4; // of work above what was paid for: units are a rough measure, and clocks on busy machines rougher
const BASE_UNITS = 60; // of any frame: it is looked at, and what became due is sent
const TURNS = 6; // a clock may be wrong by what else a machine does; what is wrong six times is wrong
const FRAME_UNITS_MAX = 10_000; // some 10 ms: no frame costs a page more than a few pictures
const PARTED_S = 3;
const KEPT_MAX = 8192 + 1; // entries of the largest table, before its oldest goes
const needsWorst = worst === null ? { skip: "PSYNE_WORST: python -m tests.js.worst FILE" } : {};
const KINDS = Object.keys(worst?.kinds ?? {}).map(Number);

test("both stacks count with the same numbers", () => {
  const { frames, neighbour, items_max: itemsMax } = vectors("costs");
  const here = Object.fromEntries(Object.entries(limits.COSTS).map(([kind, cost]) => [kind, [...cost, limits.sizeMax(Number(kind))]]));
  assert.deepEqual(here, frames);
  assert.equal(wire.ITEMS_MAX, itemsMax);
  assert.equal(limits.VERIFY, neighbour.verify);
  assert.equal(limits.ASKED_LINE, neighbour.asked_line);
  assert.deepEqual({ bytes: limits.ANSWERS_BYTES, per_byte: limits.ANSWERS_PER_BYTE, per_s: limits.ANSWERS_PER_S }, neighbour.answers);
  const budget = {
    bytes_per_s: limits.BYTES_PER_S, items_per_s: limits.ITEMS_PER_S, work_per_s: limits.WORK_PER_S, burst_s: limits.BURST_S, patience_s: limits.PATIENCE_S,
  };
  assert.deepEqual(budget, neighbour.budget);
});

test("what is told in several frames fits into each", () => {
  const items = Array.from({ length: 100 }, () => wire.item(99, new Uint8Array(3)));
  const frames = wire.packItems(wire.head(wire.TOLD), items, 16_384);
  assert.equal(frames.flatMap((frame) => wire.itemsUntrusted(frame, 2)).length, 100);
});

/** A room with made-up members and streams in it, and a neighbour who made them up. */
function infiltrated(options: Parameters<typeof cheapNode>[1] = {}): { node: Node; evil: string; now: number } {
  const met = linked(options), { node, evil } = met;
  let { now } = met;
  for (const frame of [...worst!.members, ...worst!.streams]) {
    node.receive(evil, fromHex(frame), now);
    now += 0.05;
    drain(node);
  }
  return { node, evil, now };
}

function linked(options: Parameters<typeof cheapNode>[1] = {}): { node: Node; evil: string; now: number } {
  const node = cheapNode(1, options), evil = cheapIdentity(worst!.evil).peerId, now = 0.1;
  node.start(0);
  node.linkUp(evil, now, null);
  return { node, evil, now };
}

function drain(node: Node): NodeEvent[] {
  node.takeOutputs();
  return node.takeEvents();
}

/** What is charged while `act` runs. */
function paid(act: () => void): number {
  const { frame, add } = limits.Cost.prototype;
  let units = 0, inside = false;
  limits.Cost.prototype.frame = function (kind, size, now) {
    inside = true;
    const [base, perByte] = limits.COSTS[kind]!;
    units += base + perByte * size;
    try {
      return frame.call(this, kind, size, now);
    } finally {
      inside = false;
    }
  };
  limits.Cost.prototype.add = function (more, now) {
    if (!inside) units += more;
    add.call(this, more, now);
  };
  try {
    act();
  } finally {
    Object.assign(limits.Cost.prototype, { frame, add });
  }
  return units;
}

/** What these frames of one shape cost us at most, in units, and what was paid for one. */
function measured(variants: readonly string[]): { cost: number; units: number } {
  // As where the browser verifies: what a signature costs the page's thread is in its units.
  const { node, evil, now } = infiltrated({ verify: peerIdOf, verifyUnits: limits.VERIFY });
  let at = now, units = 0;
  const runs = variants.map(fromHex).map((frame) => () => {
    at += 30; // its account is whole again
    if (!node.linked.includes(evil)) node.linkUp(evil, (at += 61), null);
    drain(node);
    units = Math.max(units, paid(() => node.receive(evil, frame, at)));
  });
  const seconds = quickest(runs);
  return { cost: seconds / unitS(), units };
}

test("what a frame makes us do is on its sender's account", needsWorst, () => {
  const found: string[] = [];
  for (const kind of KINDS)
    for (const variants of worst!.kinds[kind]!) {
      let wrong = "";
      for (let turn = 0; turn === 0 || (wrong !== "" && turn < TURNS); turn++) {
        const { cost, units } = measured(variants);
        const what = `kind ${kind}, ${variants[0]!.length / 2} bytes: ${cost.toFixed(0)} units, and ${units.toFixed(0)} were paid`;
        if (process.env.PSYNE_SHOW) console.log(what);
        wrong = cost > FACTOR * (units + BASE_UNITS) || cost > FRAME_UNITS_MAX ? what : "";
      }
      if (wrong !== "") found.push(wrong);
    }
  assert.deepEqual(found, []);
});

test("a frame's signatures are few and on the account, and so are those that the browser verifies", needsWorst, () => {
  for (const kind of KINDS)
    for (const [first] of worst!.kinds[kind]!) {
      let checked = 0;
      const { node, evil, now } = infiltrated({
        verify: (...signed) => {
          checked++;
          return cheapVerify(...signed);
        },
      });
      const frame = fromHex(first!);
      assert.ok(node.statements(evil, frame, now).length <= wire.ITEMS_MAX);
      checked = 0;
      const units = paid(() => node.receive(evil, frame, now));
      assert.ok(checked <= wire.ITEMS_MAX + 1, `kind ${kind}: ${checked} signatures`);
      assert.ok(units >= limits.VERIFY * checked, `kind ${kind}: ${checked} signatures for ${units} units`);
    }
});

test("nothing is verified for who is over its budget", needsWorst, () => {
  const { node, evil, now } = infiltrated();
  const frame = fromHex(worst!.kinds[wire.GOSSIP]![0]![0]!);
  assert.equal(node.statements(evil, frame, now).length, 1);
  for (let number = 0; number < 20_000 && node.statements(evil, frame, now).length > 0; number++) node.receive(evil, wire.head(wire.PRUNE), now);
  assert.ok(node.linked.includes(evil));
  assert.equal(node.statements(evil, frame, now).length, 0);
  assert.equal(node.statements("f".repeat(32), frame, now).length, 0, "nor for who has no link");
});

test("who asks again and again for the same costs one signature", needsWorst, () => {
  const bob = cheapIdentity(50);
  let signatures = 0;
  const mine = cheapIdentity(1), sign = mine.sign;
  const counted = { publicKey: mine.publicKey, peerId: mine.peerId, sign: (...said: Parameters<typeof sign>) => (signatures++, sign(...said)) };
  const { node, evil, now } = infiltrated({ identity: counted as never });
  const state = {
    epoch: 5n, incarnation: 0n, state: 0, reason: 0, joinedAt: 5n, seat: null, ballot: [], lifetime: 300, coordinates: null, name: "", metadata: new Uint8Array(0),
  };
  const record = wire.signRecord(state, fromHex(worst!.room), bob, BigInt(worst!.instance), worst!.at);
  node.receive(evil, wire.told(record), now);
  node.expel(bob.peerId, now);
  const older = wire.signRecord({ ...state, epoch: 4n }, fromHex(worst!.room), bob, BigInt(worst!.instance), worst!.at);
  const entries = Array.from({ length: 900 }, () => ({ peer: bob.peerId, epoch: 5n, incarnation: 0n, status: wire.ENTRY_ALIVE, versionHash: record.versionHash }));
  drain(node);
  signatures = 0;
  for (let number = 1; number <= 20; number++) {
    const [frame] = wire.packItems(wire.head(wire.TOLD), Array.from({ length: wire.ITEMS_MAX }, () => wire.encodedNews(older)), 20_000);
    node.receive(evil, frame!, now + number);
    node.receive(evil, wire.digest(wire.ALL_BUCKETS, entries), now + number);
  }
  assert.ok(signatures <= 2, `${signatures} signatures`);
});

test("whoever floods with frames of any kind is parted from within three seconds, and stays out", needsWorst, () => {
  const late: string[] = [];
  for (const kind of KINDS) {
    const frames = worst!.kinds[kind]!.flatMap((variants) => variants.map(fromHex)), { node, evil, now } = linked();
    let at = now, number = 0, reason = "";
    while (node.linked.includes(evil) && at < now + 2 * PARTED_S) {
      const frame = frames[number++ % frames.length]!, [base, perByte] = limits.COSTS[kind]!;
      // Twice its budget, by what is scarcest.
      at += 0.5 * Math.max(1 / limits.ITEMS_PER_S, frame.length / limits.BYTES_PER_S, (base + perByte * frame.length) / limits.WORK_PER_S);
      node.receive(evil, frame, at);
      if (node.nextTimeout() <= at) node.handleTimeout(at);
      for (const output of node.takeOutputs()) if (output.type === "close") reason = output.reason;
      node.takeEvents();
    }
    if (at - now > PARTED_S) late.push(`kind ${kind}: ${(at - now).toFixed(1)} s`);
    if (kind === wire.DISCONNECT) continue; // it ends its link itself, and by its account
    if (!["flooding", "misbehaving"].includes(reason)) late.push(`kind ${kind}: "${reason}"`);
    node.linkUp(evil, at, null);
    if (reason === "flooding" && node.takeOutputs().every((output) => output.type !== "close")) late.push(`kind ${kind} is let in again`);
  }
  assert.deepEqual(late, []);
});

/** Honest nodes and one that says what it likes, all linked, in virtual time. */
class Party {
  now = 0;
  readonly nodes = new Map<string, Node>();
  readonly heard: string[] = [];
  readonly lost: string[] = [];
  readonly parted = new Map<string, { at: number; reason: string }>();
  readonly evil = cheapIdentity(worst!.evil).peerId;
  #inFlight: { at: number; from: string; to: string; frame: Uint8Array }[] = [];

  constructor(size: number) {
    for (let number = 1; number <= size; number++) {
      const node = cheapNode(number, { maxPlayers: 8 });
      this.nodes.set(node.peerId, node);
      node.start(0);
    }
    for (const node of this.nodes.values()) for (const other of [...this.nodes.keys(), this.evil]) if (other !== node.peerId) node.linkUp(other, 0, 0.02);
  }

  run(until: number): void {
    for (; this.now < until; this.now += 0.005) {
      const due = this.#inFlight.filter((one) => one.at <= this.now);
      this.#inFlight = this.#inFlight.filter((one) => one.at > this.now);
      for (const { from, to, frame } of due) this.nodes.get(to)?.receive(from, frame, this.now);
      for (const node of this.nodes.values()) if (node.nextTimeout() <= this.now) node.handleTimeout(this.now);
      this.#carry();
    }
  }

  /** A frame of the hostile member, to all. */
  lie(frame: Uint8Array): void {
    for (const [peer, node] of this.nodes) if (!this.parted.has(peer)) node.receive(this.evil, frame, this.now);
    this.#carry();
  }

  #carry(): void {
    for (const [me, node] of this.nodes) {
      for (const output of node.takeOutputs()) {
        if (output.type === "send") this.#inFlight.push({ at: this.now + 0.02, from: me, to: output.peer, frame: output.frame });
        else if (output.type === "close" && output.peer === this.evil && !this.parted.has(me)) this.parted.set(me, { at: this.now, reason: output.reason });
      }
      for (const event of node.takeEvents()) {
        if (event.type === "broadcast" && this.nodes.has(event.origin)) this.heard.push(`${event.origin} ${me} ${event.payload[0]}`);
        if (event.type === "evicted") this.lost.push(`${me} is evicted`);
        if ((event.type === "left" || event.type === "suspected") && this.nodes.has(event.peer)) this.lost.push(`${me} ${event.type} ${event.peer}`);
      }
    }
  }
}

const AT_ONCE = 60; // frames of the flood in each step of 5 ms: 12,000 a second, or fewer large ones
const FLOODS = [wire.GOSSIP, wire.HAVES, wire.TOLD, wire.DIGEST, wire.SIGNAL, wire.PING];

test("beside a flood the room goes on, and the flooder is parted from with its reason", needsWorst, () => {
  for (const kind of FLOODS) {
    const party = new Party(3), frames = worst!.kinds[kind]!.flatMap((variants) => variants.map(fromHex));
    party.run(5); // settled: all know each other
    const began = party.now;
    let said = 0, number = 0;
    for (let step = 0; step < 800; step++) {
      if (step % 20 === 0) {
        said++;
        for (const node of party.nodes.values()) node.broadcast(Uint8Array.of(said), party.now);
      }
      for (let bytes = 0, count = 0; count < AT_ONCE && bytes < 60_000 && party.parted.size < 3; count++) {
        const frame = frames[number++ % frames.length]!;
        bytes += frame.length;
        party.lie(frame);
      }
      party.run(party.now + 0.005);
    }
    party.run(party.now + 2);
    assert.deepEqual(party.lost, [], `kind ${kind}`);
    assert.equal(party.heard.length, 6 * said, `kind ${kind}: every broadcast of the honest came once`);
    assert.equal(party.parted.size, 3, `kind ${kind}`);
    for (const { at, reason } of party.parted.values()) {
      assert.ok(at - began <= PARTED_S, `kind ${kind}: ${at - began} s`);
      assert.ok(reason === "flooding" || reason === "misbehaving", reason);
    }
  }
});

/** The largest table that grows while `act` runs. */
function mostKept(act: () => void): number {
  const { set } = Map.prototype, { add } = Set.prototype;
  let most = 0;
  Map.prototype.set = function (key: unknown, value: unknown) {
    set.call(this, key, value);
    most = Math.max(most, this.size);
    return this;
  };
  Set.prototype.add = function (value: unknown) {
    add.call(this, value);
    most = Math.max(most, this.size);
    return this;
  };
  try {
    act();
  } finally {
    Object.assign(Map.prototype, { set });
    Object.assign(Set.prototype, { add });
  }
  return most;
}

test("whatever is said, what is kept of it is bounded", needsWorst, () => {
  const room = fromHex(worst!.room), instance = BigInt(worst!.instance), payload = new Uint8Array(100);
  const state = { incarnation: 0n, state: 0, reason: 0, ballot: [], lifetime: 300, coordinates: null, name: "", metadata: payload };
  const { node, evil, now } = linked({ verify: peerIdOf, verifyUnits: 0 });
  let at = now;
  const most = mostKept(() => {
    for (let number = 0; number < 9_000; number++) {
      at += 0.004;
      if (!node.linked.includes(evil)) node.linkUp(evil, (at += 61), null);
      const someone = cheapIdentity(100_000 + number), origin = someone.peerId, epoch = 5n, today = worst!.at + Math.floor(at);
      const record = wire.signRecord({ ...state, epoch, joinedAt: epoch, seat: number % 64, state: number % 3 === 0 ? 1 : 0 }, room, someone, instance, today);
      const frames = [
        wire.encodeIhave([[{ origin, epoch, sequence: 2n }, 0]]),
        wire.encodeHaves([{ origin, epoch: 1n, high: 9n, low: 1n, ageS: 0 }], 0),
        wire.encodeSignal({ number: BigInt(number), origin, to: cheapIdentity(number % 3 === 0 ? 1 : number).peerId, ttl: 9, blob: payload }),
        wire.pingReq(number, origin),
        wire.told(record),
        wire.told(wire.accuse(room, someone, cheapIdentity(99_999 + number).peerId, record, 1, instance)),
        wire.encodeGossip({ hops: 0, flags: 0, ageS: 0 }, wire.signMessage(room, someone, epoch, 3n, 1n, payload, instance, today).body),
      ];
      for (const frame of number % 3 === 0 ? frames : frames.slice(-2)) node.receive(evil, frame, at);
      if (node.nextTimeout() <= at) node.handleTimeout(at);
      drain(node);
    }
  });
  assert.ok(most > 200, `only ${most}: the flood does not reach the tables`);
  assert.ok(most <= KEPT_MAX, `a table of ${most}`);
});
