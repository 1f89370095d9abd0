// A link's own words in their order, and a search for a path that nobody answers. The connection is a stand-in.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Link, type LinkOwner } from "../src/link.ts";

class Channel {
  readyState = "open";
  bufferedAmount = 0;
  onopen: (() => void) | null = null;
  onclose: (() => void) | null = null;
  readonly sent: unknown[] = [];
  send = (data: unknown): number => this.sent.push(data);
}

class Connection {
  static last: Connection;
  readonly channels: Channel[] = [];
  readonly said: string[] = [];
  connectionState = "connected";
  iceConnectionState = "connected";
  signalingState = "stable";
  sctp = { maxMessageSize: 262_144 };
  localDescription = { sdp: "v=0" };

  constructor() {
    Connection.last = this;
  }
  createDataChannel(): Channel {
    this.channels.push(new Channel());
    return this.channels.at(-1)!;
  }
  createOffer = async (): Promise<object> => ({ type: "offer" });
  async setLocalDescription({ type }: { type: string }): Promise<void> {
    this.said.push(type);
    this.signalingState = type === "offer" ? "have-local-offer" : "stable";
  }
  async setRemoteDescription(): Promise<void> {
    this.signalingState = "stable";
  }
  getStats = async (): Promise<Map<string, unknown>> => new Map();
  restartIce(): void {
    this.said.push("restart");
  }
  close(): void {}
}

const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
};

async function opened(): Promise<{ link: Link; pc: Connection; clock: { now: number } }> {
  const clock = { now: 0 }, nothing = () => undefined;
  const owner = { now: () => clock.now, post: nothing, onLinkOpen: nothing, onLinkGone: nothing } as unknown as LinkOwner;
  const platform = { RTCPeerConnection: Connection, WebSocket: null } as never;
  const link = new Link("b".repeat(32), "s", true, owner, platform, []), pc = Connection.last;
  await settled();
  link.hear({ kind: "answer", sequence: 0, body: "v=0" } as never);
  await settled();
  pc.channels[0]!.onopen!();
  assert.equal(link.state, "open");
  pc.said.length = 0;
  return { link, pc, clock };
}

test("what waited for a channel goes first, though the channel is open before its event says so", async () => {
  const { link, pc } = await opened();
  const make = pc.createDataChannel.bind(pc);
  pc.createDataChannel = () => Object.assign(make(), { readyState: "connecting" });
  const say = (text: string) => assert.equal(link.sendMessage("room/words", { ordered: true }, text, true), "sent");
  say("one");
  say("two");
  const channel = pc.channels.at(-1)!;
  assert.deepEqual(channel.sent, []);
  channel.readyState = "open"; // as in Chromium, whose event is a task of its own
  say("three");
  channel.onopen!();
  say("four");
  assert.deepEqual(channel.sent, ["one", "two", "three", "four"]);
});

test("a search that nobody answers is taken back, and tried again", async () => {
  const { link, pc, clock } = await opened();
  const until = async (time: number): Promise<void> => {
    while (link.nextTimeout() <= time) {
      clock.now = Math.max(clock.now, link.nextTimeout());
      link.handleTimeout(clock.now);
      await settled();
    }
    clock.now = time;
  };
  pc.connectionState = "disconnected"; // the peer stands still
  link.suspect();
  await until(0.1);
  assert.deepEqual(pc.said, ["restart", "offer"]);
  await until(2.5);
  assert.deepEqual(pc.said, ["restart", "offer", "rollback"]); // Firefox would end the connection after five seconds
  await until(4);
  assert.deepEqual(pc.said, ["restart", "offer", "rollback", "restart", "offer"]);
  link.hear({ kind: "answer", sequence: 1, body: "v=0" } as never);
  await settled();
  pc.connectionState = "connected";
  await until(6);
  assert.ok(pc.said.filter((word) => word === "rollback").length === 1, pc.said.join());
});
