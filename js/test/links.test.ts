// What a peer may do to a link, beside frames: channels, messages, paths, new descriptions. The connection is a stand-in.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Link, type LinkOwner } from "../src/link.ts";
import type { Envelope, Kind } from "../src/signaling/envelope.ts";

class StandInChannel {
  readyState = "open";
  bufferedAmount = 0;
  binaryType = "";
  onopen: (() => void) | null = null;
  onclose: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  readonly protocol = "";
  readonly label: string;
  readonly maxRetransmits = null;
  readonly maxPacketLifeTime = null;

  constructor(label: string) {
    this.label = label;
  }
  send(): void {}
}

class StandInConnection {
  static last: StandInConnection;
  readonly channels: StandInChannel[] = [];
  readonly sctp = { maxMessageSize: 262_144 };
  readonly done = { offers: 0, answers: 0, candidates: 0, described: 0 };
  connectionState = "connected";
  iceConnectionState = "connected";
  signalingState = "stable";
  localDescription = { sdp: "v=0" };
  remoteDescription: object | null = null;
  ondatachannel: ((event: { channel: StandInChannel }) => void) | null = null;

  constructor() {
    StandInConnection.last = this;
  }
  createDataChannel(label: string): StandInChannel {
    const channel = new StandInChannel(label);
    this.channels.push(channel);
    return channel;
  }
  async createOffer(): Promise<object> {
    this.done.offers++;
    this.signalingState = "have-local-offer";
    return {};
  }
  async createAnswer(): Promise<object> {
    this.done.answers++;
    return {};
  }
  async setLocalDescription(): Promise<void> {}
  async setRemoteDescription(description: object): Promise<void> {
    this.done.described++;
    this.remoteDescription = description;
    this.signalingState = "stable";
  }
  async addIceCandidate(): Promise<void> {
    this.done.candidates++;
  }
  async getStats(): Promise<Map<string, unknown>> {
    return new Map();
  }
  restartIce(): void {}
  close(): void {}
}

interface Seen {
  floods: number;
  messages: number;
}

/** An open link, what its owner was told, and a clock that is set by hand. */
async function opened(offerer: boolean): Promise<{ link: Link; connection: StandInConnection; seen: Seen; clock: { now: number } }> {
  const seen: Seen = { floods: 0, messages: 0 }, clock = { now: 100 };
  const owner: LinkOwner = {
    now: () => clock.now, post() {}, onLinkOpen() {}, onFrame() {}, onChannelTypes() {}, onLinkGone() {},
    onChannelMessage: () => void seen.messages++, onFlood: () => void seen.floods++,
  };
  const link = new Link("a".repeat(32), "s", offerer, owner, { RTCPeerConnection: StandInConnection as never, WebSocket: null as never }, []);
  const connection = StandInConnection.last;
  if (!offerer) link.hear(envelope("offer", 0));
  await settled();
  if (offerer) link.hear(envelope("answer", 0));
  await settled();
  for (const channel of connection.channels) channel.onopen?.();
  assert.equal(link.state, "open");
  return { link, connection, seen, clock };
}

const envelope = (kind: Kind, sequence: number): Envelope =>
  ({ kind, sequence, body: kind === "candidate" ? `candidate:${sequence} 1 udp 1 192.0.2.1 ${sequence + 1} typ host` : "v=0" }) as Envelope;

async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

test("more channels than any game has, and messages larger than any, are a flood", async () => {
  const { connection, seen } = await opened(true);
  for (let number = 0; number < 512; number++) connection.ondatachannel!({ channel: new StandInChannel(`t/${number}`) });
  assert.equal(seen.floods, 0);
  const further = new StandInChannel("t/further");
  connection.ondatachannel!({ channel: further });
  assert.deepEqual([seen.floods, further.onmessage], [1, null]);
  const channel = new StandInChannel("t/large"), other = await opened(true);
  other.connection.ondatachannel!({ channel });
  channel.onmessage!({ data: new ArrayBuffer(262_144) });
  assert.deepEqual(other.seen, { floods: 0, messages: 1 });
  channel.onmessage!({ data: "é".repeat(131_073) });
  assert.deepEqual(other.seen, { floods: 1, messages: 1 });
});

test("a description names few paths, and new descriptions come seldom", async () => {
  const { link, connection, clock } = await opened(false);
  for (let number = 1; number <= 500; number++) {
    link.hear(envelope("candidate", number));
    await settled();
  }
  assert.equal(connection.done.candidates, 64);
  for (let number = 1; number <= 500; number++) {
    clock.now += 0.01;
    link.hear(envelope("offer", number));
    await settled();
  }
  assert.ok(connection.done.answers <= 11, String(connection.done.answers));
  clock.now += 20;
  link.hear(envelope("offer", 501));
  await settled();
  link.hear(envelope("candidate", 502));
  await settled();
  assert.equal(connection.done.candidates, 65, "of the newer description");
});

test("a peer that asks for another path again and again gets some", async () => {
  const { link, connection, clock } = await opened(true), before = connection.done.offers;
  for (let number = 1; number <= 500; number++) {
    clock.now += 0.01;
    link.hear(envelope("restart", number));
    await settled();
    link.handleTimeout(clock.now);
    await settled();
  }
  assert.ok(connection.done.offers - before <= 11, String(connection.done.offers - before));
});

test("what else a peer says is counted", async () => {
  const { link, clock } = await opened(true);
  let said = 0;
  while (link.words.allow(clock.now)) said++;
  assert.equal(said, 64);
  clock.now += 10;
  assert.ok(link.words.allow(clock.now));
});
