// What goes through others while two players have no link, and over their link when it comes, keeps its order: in virtual time,
// two rooms and the ways between them. The same as tests/room/test_order_between_ways.py.
import assert from "node:assert/strict";
import { test } from "node:test";

import { concat } from "../src/bytes.ts";
import { ConnectFailed } from "../src/errors.ts";
import { Losses } from "../src/losses.ts";
import type { Mesh } from "../src/mesh.ts";
import { MeshRoom } from "../src/room.ts";
import { Waiting } from "../src/waiting.ts";

const LINK_S = 0.005, STAY = 1n;
type Id = string;

/** Things that happen at their time, in order. */
class World {
  now = 0;
  readonly #due: { at: number; order: number; act: () => void }[] = [];
  #order = 0;

  at(at: number, act: () => void): void {
    this.#due.push({ at: Math.max(at, this.now), order: this.#order++, act });
  }

  run(until: number): void {
    for (;;) {
      this.#due.sort((one, other) => one.at - other.at || one.order - other.order);
      if (this.#due.length === 0 || this.#due[0]!.at > until) break;
      const { at, act } = this.#due.shift()!;
      this.now = at;
      act();
    }
    this.now = until;
  }
}

/** What a room has of the mesh, with one other player in it. */
class Side {
  readonly world: World;
  readonly me: Id;
  readonly room: MeshRoom;
  other!: Side;
  link: "none" | "open" | "asleep" = "none";
  isLarge = false;
  detourS = 0.3;
  closed = false;
  readonly hasLinks = true;
  carries = 0;
  readonly missedCounts = { told: 0, untold: 0 };
  #inLink: (() => void)[] = []; // what waits in a link that carries nothing now
  #armedFor = Number.POSITIVE_INFINITY;

  constructor(world: World, me: Id) {
    this.world = world;
    this.me = me;
    const info = { name: "arena", max_players: 8, metadata: {}, manifest: { code: "" } };
    this.room = new MeshRoom(this as unknown as Mesh, info as never, me);
  }

  readonly node = { seats: [], ownSeat: null, rtt: () => null, isLarge: false };
  now = (): number => this.world.now;
  isLinked = (): boolean => this.link === "open";
  openCarriedUntrusted = (_: Id, blob: Uint8Array): Uint8Array => blob;

  send(_: Id, channel: string, init: { maxRetransmits?: number }, payload: Uint8Array, asleep = false): string {
    if (this.link === "none" || (this.link === "asleep" && !asleep)) return "not connected";
    const reliable = init.maxRetransmits === undefined, arrive = () => this.other.room.onMessage(this.me, channel, payload, reliable);
    if (this.link === "open") this.world.at(this.now() + LINK_S, arrive);
    else this.#inLink.push(arrive);
    return "sent";
  }

  carry(_: Id, blob: Uint8Array): string {
    this.carries++;
    this.world.at(this.now() + this.detourS, () =>
      this.other.room.onGossip({ type: "signal", origin: this.me, blob: concat(blob), carrier: "cid" }),
    );
    return "sent";
  }

  broadcast(payload: Uint8Array): void {
    this.world.at(this.now() + this.detourS, () =>
      this.other.room.onGossip({ type: "broadcast", origin: this.me, payload: concat(payload), ageS: this.detourS }),
    );
  }

  missed(_: Id, __: string, told: boolean): void {
    this.missedCounts[told ? "told" : "untold"]++;
  }

  rearm(): void {
    const next = this.room.nextTimeout();
    if (next === Number.POSITIVE_INFINITY || next === this.#armedFor) return;
    this.#armedFor = next;
    this.world.at(next, () => {
      this.#armedFor = Number.POSITIVE_INFINITY;
      this.room.handleTimeout(this.now());
      this.rearm();
    });
  }

  discover(): void {
    const record = { peer: this.other.me, joinedAt: STAY, name: this.other.me, metadata: new Uint8Array(0) };
    this.room.onGossip({ type: "discovered", record: record as never });
  }

  dialFails(): void {
    this.room.onLinkFailed(this.other.me, new ConnectFailed("ice", "no path"));
  }

  open(): void {
    this.link = "open";
    for (const arrive of this.#inLink.splice(0)) this.world.at(this.now() + LINK_S, arrive);
    this.room.onLinkOpen(this.other.me);
    this.rearm();
  }

  fallAsleep(): void {
    this.link = "asleep";
    this.room.onLinkDown(this.other.me);
  }
}

function pair(detourS: number): { world: World; ada: Side; bob: Side; got: number[] } {
  const world = new World(), ada = new Side(world, "a".repeat(32)), bob = new Side(world, "b".repeat(32)), got: number[] = [];
  ada.other = bob;
  bob.other = ada;
  ada.detourS = bob.detourS = detourS;
  bob.room.channel("numbers").onMessage((_: unknown, message: unknown) => got.push(Number(message)));
  for (const side of [ada, bob]) side.discover();
  return { world, ada, bob, got };
}

/** Numbers, so many a second for so long; how many were said. */
function count(ada: Side, seconds: number, toOne: boolean, perSecond = 30): number {
  const channel = ada.room.channel("numbers"), all = Math.round(seconds * perSecond);
  for (let number = 0; number < all; number++)
    ada.world.at(number / perSecond, () => assert.equal(channel.send(`${number}`, toOne ? ada.other.me : null).skipped.size, 0));
  return all;
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, number) => number);

for (const toOne of [true, false])
  for (const detourS of [0.01, 0.3, 0.9])
    test(`order between the link and the way through others, ${detourS} s, to ${toOne ? "one" : "everybody"}`, () => {
      const { world, ada, bob, got } = pair(detourS), sides = [ada, bob], all = count(ada, 50, toOne);
      world.at(2, () => sides.forEach((side) => side.dialFails())); // from here on others carry
      world.at(8, () => sides.forEach((side) => side.open()));
      world.at(20, () => sides.forEach((side) => side.fallAsleep()));
      world.at(22, () => sides.forEach((side) => side.dialFails())); // others again, until the link is back
      world.at(35, () => sides.forEach((side) => side.open()));
      world.run(60);
      assert.deepEqual(got, upTo(all));
    });

test("what others carry goes at the pace at which they pass it on, and the rest waits", () => {
  const { world, ada, bob, got } = pair(0.1), sides = [ada, bob], all = count(ada, 10, false, 60);
  world.at(1, () => sides.forEach((side) => side.dialFails()));
  world.run(9);
  assert.ok(ada.carries > 8 * 20 && ada.carries <= 64 + 8 * 32, `${ada.carries}`);
  assert.deepEqual(got, upTo(got.length));
  world.at(10, () => sides.forEach((side) => side.open()));
  world.run(15);
  assert.deepEqual(got, upTo(all));
});

test("who was linked once is waited for", () => {
  const { world, ada, bob, got } = pair(0.1), sides = [ada, bob], all = count(ada, 20, false);
  world.at(1, () => sides.forEach((side) => side.open()));
  world.at(5, () => sides.forEach((side) => ((side.link = "none"), side.room.onLinkDown(side.other.me))));
  world.at(8, () => sides.forEach((side) => side.dialFails()));
  world.at(15, () => sides.forEach((side) => side.open()));
  world.run(25);
  assert.equal(ada.carries, 0);
  assert.deepEqual(got, upTo(all));
});

test("a room that was large keeps its order when links come", () => {
  const { world, ada, bob, got } = pair(0.3), all = count(ada, 20, false);
  for (const side of [ada, bob]) (side.node as { isLarge: boolean }).isLarge = true;
  world.at(7, () => [ada, bob].forEach((side) => side.open()));
  world.run(30);
  assert.deepEqual(got, upTo(all));
});

test("what is said to everybody while one is silent waits in its link", () => {
  const { world, ada, bob, got } = pair(0.3), all = count(ada, 30, false);
  world.at(1, () => [ada, bob].forEach((side) => side.open()));
  world.at(5, () => ada.fallAsleep());
  world.at(6, () => ada.room.onGossip({ type: "left", peer: bob.me, reason: "timeout" }));
  world.at(12, () => ada.open());
  world.at(12.2, () => ada.discover());
  world.run(40);
  assert.deepEqual(got, upTo(all));
  assert.deepEqual(ada.missedCounts, { told: 0, untold: 0 });
});

test("who is silent for longer is owed what it misses", () => {
  const { world, ada, bob } = pair(0.3), all = count(ada, 70, false);
  world.at(0, () => [ada, bob].forEach((side) => side.open()));
  world.at(5, () => {
    ada.link = "none";
    ada.room.onLinkDown(bob.me);
    ada.room.onGossip({ type: "left", peer: bob.me, reason: "timeout" });
  });
  world.run(80);
  assert.equal(ada.missedCounts.untold, all - 5 * 30 - 1);
});

test("what waits has limits", () => {
  const waiting = new Waiting<number>();
  for (let number = 0; number < 1024; number++) assert.ok(waiting.put("one", number, 1));
  assert.ok(!waiting.put("one", 0, 1));
  assert.ok(!waiting.put("two", 0, 2 ** 20 + 1));
  for (const peer of ["two", "three", "four"]) assert.ok(waiting.put(peer, 0, 2 ** 20));
  assert.ok(!waiting.put("five", 0, 2 ** 20));
  assert.deepEqual(waiting.take("one"), upTo(1024));
  assert.ok(waiting.put("five", 0, 1024));
});

test("the author of what never came is told, and knows what is news", () => {
  const said: [number, number][] = [], told: [string, number, boolean][] = [];
  let now = 0;
  const bob = { id: "bob", stay: 1n };
  const losses = new Losses<typeof bob>(
    (peer, channel, count, ours) => told.push([`${peer.id} ${channel}`, count, ours]), (_, count) => said.push([now, count]),
  );
  losses.neverCame(bob, 3, now);
  for (const at of [0, 1, 3, 4, 10, 12])
    while (losses.nextTimeout() <= at) losses.handleTimeout((now = Math.max(now, losses.nextTimeout())));
  assert.deepEqual(said, [[0, 3], [1, 3], [3, 3], [10, 3]]);
  assert.equal(losses.nextTimeout(), Number.POSITIVE_INFINITY);
  losses.neverCame(bob, 2, 20);
  losses.handleTimeout((now = 20));
  assert.deepEqual(said.at(-1), [20, 5]); // all of this stay
  for (const [count, at] of [[5, 30], [5, 31], [7, 33], [1, 35]] as const) losses.neverArrived(bob, count, at);
  losses.neverArrived({ ...bob, stay: 2n }, 1, 40);
  assert.deepEqual(told, [["bob null", 3, false], ["bob null", 2, false], ["bob null", 5, true], ["bob null", 2, true], ["bob null", 1, true]]);
});

test("losses of one second are told together", () => {
  const told: number[] = [], losses = new Losses<{ id: string; stay: bigint }>((_, __, count) => told.push(count), () => undefined);
  for (const at of [0, 0.1, 0.2]) losses.note({ id: "bob", stay: 1n }, "shots", 1, false, at);
  assert.equal(losses.nextTimeout(), 1);
  losses.handleTimeout(1);
  losses.note({ id: "bob", stay: 1n }, "shots", 4, false, 1.5);
  losses.handleTimeout(2);
  assert.deepEqual(told, [1, 2, 4]);
});
