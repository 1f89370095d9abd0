// A player for tests in one room with Python processes: one command a line, [name, ...arguments], one answer each.
import type { Channel, DeliveryMode, Peer, Room, RoomEvent } from "../src/index.ts";
import { Identity, joinGameRoom, joinRoom, messageType } from "../src/index.ts";

interface Ping {
  sequence: number;
  x: number;
  text: string;
  blob: Uint8Array;
}
const Ping = messageType<Ping>({ tag: "Ping", fields: [["sequence", "int"], ["x", "float"], ["text", "str"], ["blob", "bytes"]] });

export class Member {
  room: Room | null = null;
  readonly events: RoomEvent[] = [];
  readonly channels = new Map<string, Channel<any, any>>();
  readonly kept = new Map<string, [Peer, any][]>();
  readonly platform: object | undefined;

  constructor(platform?: object) {
    this.platform = platform;
  }

  async run(line: string): Promise<string> {
    try {
      const [command, ...parameters] = JSON.parse(line) as [keyof Member, ...unknown[]];
      const result: unknown = await (this[command] as (...given: unknown[]) => unknown).call(this, ...parameters);
      return JSON.stringify({ result: result ?? null }, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value));
    } catch (error) {
      return JSON.stringify({ error: `${(error as Error).name}: ${(error as Error).stack ?? (error as Error).message}` });
    }
  }

  async join(name: string, url: string, options: Record<string, unknown> = {}): Promise<string> {
    const { seed, code, ...rest } = options as { seed?: number; code?: string };
    const identity = seed === undefined ? Identity.generate() : Identity.fromSeed(new Uint8Array(32).fill(seed));
    const given = { signaling: url, identity, ...rest, ...(this.platform === undefined ? {} : { platform: this.platform as never }) };
    this.room = code === undefined ? await joinGameRoom(name, given) : await joinRoom(code, given);
    this.room.poll();
    const { room } = this;
    void (async () => {
      for await (const event of room.events()) this.events.push(event);
    })();
    return room.me;
  }

  channel(name: string, mode: DeliveryMode, typed: boolean): void {
    const channel: Channel<any, any> = typed ? this.room!.channel(name, Ping, { mode }) : this.room!.channel(name, { mode });
    this.channels.set(name, channel);
    this.kept.set(name, []);
    channel.onMessage((sender, message) => this.kept.get(name)!.push([sender, message]));
  }

  /** Messages with these numbers, all at once or so many a second. */
  async send(name: string, first: number, count: number, perSecond = 0, to: string | null = null): Promise<number> {
    const channel = this.channels.get(name)!;
    let skipped = 0;
    for (let sequence = first; sequence < first + count; sequence++) {
      const message = { sequence, x: sequence / 2, text: "héllo", blob: Uint8Array.of(sequence & 0xff) };
      skipped += channel.send(channel.stats && this.#typed(name) ? message : `${sequence}`, to).skipped.size;
      if (perSecond > 0) await nap(1000 / perSecond);
    }
    return skipped;
  }

  /** On all of these channels, so many a second, by the clock and not by naps, which are late. */
  async play(names: string[], count: number, perSecond: number): Promise<void> {
    const began = performance.now();
    for (let sequence = 0; sequence < count; sequence++) {
      for (const name of names) this.channels.get(name)!.send({ sequence, x: 0.5, text: "", blob: new Uint8Array(0) });
      const due = began + (1000 * (sequence + 1)) / perSecond;
      await nap(Math.max(0, due - performance.now()));
    }
  }

  /** Milliseconds from here to the first message of somebody, as a page that has just been opened. */
  async firstMessage(name: string, url: string): Promise<number> {
    const began = performance.now();
    await this.join(name, url);
    this.channel("words", "reliable", true);
    while (this.kept.get("words")!.length === 0) await nap(1);
    return performance.now() - began;
  }

  #typed = (name: string): boolean => !name.startsWith("raw");

  async waitConnected(players: number): Promise<void> {
    await this.room!.waitConnected(players);
  }

  /** The numbers that came from that player, once there are so many. */
  async numbers(name: string, from: string, count: number): Promise<number[]> {
    const of = () =>
      this.kept.get(name)!.filter(([peer]) => peer.id === from).map(([, message]) => (typeof message === "string" ? Number(message) : (message as Ping).sequence));
    while (of().length < count) await nap(5);
    return of();
  }

  /** [type, peer, reason] of all events so far, and forgets none. */
  told(): unknown[] {
    return this.events.map((event) => [event.type, "peer" in event ? (typeof event.peer === "string" ? event.peer : event.peer.id) : null, "reason" in event ? event.reason : null]);
  }

  async waitEvent(type: string, peer: string | null = null): Promise<unknown> {
    for (;;) {
      const found = (this.told() as [string, string | null, string | null][]).find(([kind, id]) => kind === type && (peer === null || id === peer));
      if (found !== undefined) return found;
      await nap(5);
    }
  }

  peers(): unknown[] {
    return [...this.room!.peers.values()].map((peer) => ({
      id: peer.id, name: peer.name, connected: peer.connected, seat: peer.seat, rttMs: peer.rttMs, path: peer.path?.kind ?? null, relayed: peer.relayed, away: peer.away,
      metadata: peer.metadata, region: peer.region,
    }));
  }

  seat(): number | null {
    return this.room!.seat;
  }

  code(): string {
    return this.room!.code;
  }

  async nap(seconds: number): Promise<void> {
    await nap(seconds * 1000);
  }

  /** Stands still, as a game that computes or a debugger does. */
  block(seconds: number): void {
    const until = performance.now() + seconds * 1000;
    while (performance.now() < until);
  }

  /** As when a tab is closed. */
  goAway(): void {
    location.href = "about:blank";
  }

  async leave(): Promise<void> {
    await this.room!.leave();
  }
}

const nap = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
