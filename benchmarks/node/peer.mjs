// A peer process on Node.js that obeys the commands of benchmarks/stacks/protocol.py: node peer.mjs PACKAGE
// The package's ways are in PACKAGE.mjs; here is what all of them share.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const STAMP_BYTES = 8;
const CELL_NS = 20_000n;
const LOST_AFTER_MS = 500;
const HIGH_WATER_BYTES = 2 ** 20;
const LOW_WATER_BYTES = 2 ** 18;

const name = process.argv[2];
const stack = await import(`./${name}.mjs`);
const { version } = JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url)));
const now = () => process.hrtime.bigint(); // CLOCK_MONOTONIC, the one that Python's time.monotonic_ns reads
const channels = new Map(); // player -> channels
let connections = [];

function adopt(player, channel, mode) {
  if (!channels.has(player)) channels.set(player, []);
  channels.get(player).push(channel);
  if (mode === "echo") channel.hear((data) => channel.send(data));
  else if (mode === "sink") channel.hear(sink.add);
  else if (mode === "latency") channel.hear(latencies.add);
}

// ------------------------------------------------------------------------------------------------------------ counting

const sink = {
  reset(warmSeconds) {
    Object.assign(sink, { warmNs: BigInt(Math.round(warmSeconds * 1e9)), messages: 0, bytes: 0, start: 0n, last: 0n, warm: null });
  },
  add(data) {
    const at = now();
    sink.messages += 1;
    sink.bytes += data.length;
    sink.last = at;
    if (sink.warm === null) {
      if (sink.start === 0n) sink.start = at;
      if (at - sink.start >= sink.warmNs) sink.warm = [at, sink.messages, sink.bytes];
    }
  },
  report() {
    const [at, messages, bytes] = sink.warm ?? [sink.start, 1, 0];
    return {
      messages: sink.messages, bytes: sink.bytes,
      span_ns: Number(sink.last - at), span_messages: sink.messages - messages, span_bytes: sink.bytes - bytes,
    };
  },
};
sink.reset(0);

const latencies = {
  beginNs: 0n,
  cells: new Map(),
  begin(startNs) {
    latencies.beginNs = startNs;
    latencies.cells.clear();
  },
  add(data) {
    const stamp = Buffer.from(data.buffer ?? data, data.byteOffset ?? 0, STAMP_BYTES).readBigInt64LE();
    if (stamp < latencies.beginNs) return;
    const cell = Number((now() - stamp) / CELL_NS);
    latencies.cells.set(cell, (latencies.cells.get(cell) ?? 0) + 1);
  },
  report() {
    return { received: [...latencies.cells.values()].reduce((a, b) => a + b, 0), cells: Object.fromEntries(latencies.cells) };
  },
};

// ----------------------------------------------------------------------------------------------------------- signaling

// JSON lines over TCP. Trickled candidates go to the connection as they come, once it has the other side's description.
class Wire {
  constructor(socket) {
    this.socket = socket.setNoDelay(true);
    this.messages = [];
    this.waiting = null;
    this.serial = 0;
    this.connection = null;
    createInterface({ input: socket }).on("line", (line) => this.heard(JSON.parse(line))).on("close", () => this.put(null));
  }

  heard(message) {
    if (!("candidate" in message)) this.put(message);
    else if (message.serial === this.serial) this.connection.addCandidate(message.candidate);
  }

  put(message) {
    if (this.waiting) {
      const waiting = this.waiting;
      this.waiting = null;
      waiting(message);
    } else this.messages.push(message);
  }

  begin(connection) {
    this.connection = connection;
    const serial = ++this.serial;
    connection.onCandidate((candidate) => this.send({ candidate, serial }));
  }

  send(message) {
    this.socket.write(JSON.stringify(message) + "\n");
  }

  async receive() {
    if (this.messages.length) return this.messages.shift();
    return new Promise((resolve) => (this.waiting = resolve));
  }
}

async function answerCalls(socket) {
  const wire = new Wire(socket);
  for (let wanted; (wanted = await wire.receive()) !== null; ) {
    const connection = new stack.Connection({ offerer: false, reliable: wanted.reliable });
    wire.begin(connection);
    wire.send({ made: true });
    await connection.answer((await wire.receive()).offer, (answer) => wire.send({ answer }));
    const channel = await connection.opened;
    wire.send({ opened_ns: Number(now()) });
    connections.push(connection);
    adopt(wanted.player, channel, wanted.mode);
  }
}

// ------------------------------------------------------------------------------------------------------------ commands

const commands = {
  async dial({ port, count, reliable, mine, theirs, from = "", to = null }) {
    const socket = connect(port, "127.0.0.1");
    await once(socket, "connect");
    const wire = new Wire(socket);
    const times = [];
    for (let number = 0; number < count; number++) {
      const created = now();
      const connection = new stack.Connection({ offerer: true, reliable });
      wire.begin(connection);
      wire.send({ reliable, mode: theirs, player: to ?? `player${number}` });
      await wire.receive();
      const began = now();
      await connection.offer((offer) => wire.send({ offer }));
      await connection.accept((await wire.receive()).answer);
      const channel = await connection.opened;
      const mineOpened = Number(now());
      const opened = Math.max(mineOpened, (await wire.receive()).opened_ns);
      times.push({ setup_ns: opened - Number(began), created_ns: opened - Number(created) });
      connections.push(connection);
      adopt(from, channel, mine);
    }
    socket.end();
    return times;
  },

  async hang_up() {
    channels.clear();
    const closing = connections;
    connections = [];
    for (const connection of closing) await connection.close();
    return null;
  },

  async ping({ count, size }) {
    const channel = channels.values().next().value[0];
    const message = Buffer.alloc(size);
    const times = [];
    let lost = 0;
    await new Promise((resolve) => {
      let started = now();
      let seen = -1;
      const watch = setInterval(() => {
        if (times.length === seen) {
          lost += 1;
          channel.send(message);
        }
        seen = times.length;
      }, LOST_AFTER_MS);
      channel.hear(() => {
        times.push(Number(now() - started));
        if (times.length === count) {
          clearInterval(watch);
          channel.hear(() => {});
          return resolve();
        }
        started = now();
        channel.send(message);
      });
      started = now();
      channel.send(message);
    });
    return { times_ns: times, lost };
  },

  async flood({ size, seconds }) {
    const message = Buffer.alloc(size);
    const end = now() + BigInt(Math.round(seconds * 1e9));
    const flood = async (channel) => {
      let sent = 0;
      let wake = () => {};
      channel.onLow(LOW_WATER_BYTES, () => wake());
      while (now() < end) {
        const low = new Promise((resolve) => (wake = resolve));
        while (channel.buffered() <= HIGH_WATER_BYTES && now() < end) {
          channel.send(message);
          sent += 1;
        }
        if (channel.buffered() > LOW_WATER_BYTES) await Promise.race([low, sleep(1000)]);
        else await sleep(0);
      }
      return sent;
    };
    const all = await Promise.all([...channels.values()].flat().map(flood));
    return { sent: all.reduce((a, b) => a + b, 0) };
  },

  async sink({ warm_s }) {
    sink.reset(warm_s);
    return null;
  },

  async sunk() {
    return sink.report();
  },

  async tick({ size, hz, seconds, start_ns, phases }) {
    let sent = 0;
    let late = 0;
    const start = BigInt(start_ns);
    const tickNs = BigInt(Math.floor(1e9 / hz));
    latencies.begin(start);
    const play = async ([player, phase]) => {
      let due = start + BigInt(Math.floor(phase * Number(tickNs)));
      for (let number = 0; number < Math.floor(seconds * hz); number++) {
        const wait = Number(due - now()) / 1e6;
        if (wait > 0) await sleep(wait);
        const message = Buffer.alloc(size);
        message.writeBigInt64LE(due);
        for (const channel of channels.get(player)) {
          try {
            channel.send(message);
            sent += 1;
          } catch {
            late += 1;
          }
        }
        due += tickNs;
      }
    };
    await Promise.all(Object.entries(phases).map(play));
    return { sent, late };
  },

  async latencies() {
    return latencies.report();
  },

  async usage({ tidy }) {
    if (tidy) globalThis.gc?.();
    const { userCPUTime, systemCPUTime } = process.resourceUsage();
    return { cpu_s: (userCPUTime + systemCPUTime) / 1e6, rss_kib: process.memoryUsage.rss() / 1024 };
  },
};

const server = createServer(answerCalls);
server.listen(0, "127.0.0.1");
await once(server, "listening");
const say = (reply) => process.stdout.write(JSON.stringify(reply) + "\n");
say({ result: { signaling: server.address().port, versions: { [name]: version, node: process.version } } });
for await (const line of createInterface({ input: process.stdin })) {
  const { do: word, ...rest } = JSON.parse(line);
  if (word === "quit") break;
  try {
    say({ result: (await commands[word](rest)) ?? null });
  } catch (error) {
    say({ error: String(error?.stack ?? error) });
  }
}
process.exit(0);
