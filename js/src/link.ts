// One link: one RTCPeerConnection to one player, from the first envelope to the last message.
//
// Two channels stand from the beginning (0 reliable, 1 unordered without retransmissions) and carry frames behind the room's
// tag; each channel of a room is announced with its first message, under `tag/name`.

import type { Path, PeerId, Platform } from "./api.ts";
import { utf8 } from "./bytes.ts";
import { ConnectFailed } from "./errors.ts";
import { TokenBucket } from "./limits.ts";
import type { Payload } from "./schema.ts";
import type { Envelope, Kind } from "./signaling/envelope.ts";

const HARD_BUDGET_BYTES = 12 * 2 ** 20; // of one receiver on all channels; Chromium ends a channel at 16 MB
export const UNRELIABLE_BUDGET_BYTES = 256 * 1024; // 50 ms at 40 Mbit/s
const GOSSIP_BUDGET_BYTES = 128 * 1024;
const DIAL_S = 20, INBOX_MAX = 64, CHANNELS_MAX = 256, LABEL_CHARS_MAX = 145, EARLY_MAX = 64;
const FLUSH_S = 0.5, SEARCH_S = 0.5, SEARCH_EVERY_S = 3, ANSWER_S = 2, SEARCH_MAX_S = 20, PATH_S = 2, MESSAGE_MIN_BYTES = 131_080;
const ADOPTED_MAX = 512, MESSAGE_MAX_BYTES = 262_144; // channels of a peer, of all our rooms; what Python takes, too
const WORDS = 64, WORDS_PER_S = 8, NEGOTIATIONS = 8, NEGOTIATIONS_PER_S = 0.5, CANDIDATES_MAX = 64;
const PARTING = 3, PARTED = 4; // the last byte of these frames; the others are 0xff
const NEVER = Number.POSITIVE_INFINITY;
const MID = "0"; // of the data section, in an offer of Python

export type LinkState = "dialing" | "open" | "closing" | "gone";

export interface LinkOwner {
  now(): number;
  post(link: Link, kind: Kind, sequence: number, body: string): void;
  onLinkOpen(link: Link): void;
  onFrame(link: Link, frame: Uint8Array): void;
  /** What the peer says of the types of its channel: see `announced.ts`. */
  onChannelTypes(link: Link, label: string, protocol: string): void;
  onChannelMessage(link: Link, label: string, data: Payload, reliable: boolean): void;
  /** The peer sends more than it may. */
  onFlood(link: Link): void;
  /** It ended; `error`: it never opened, and why. */
  onLinkGone(link: Link, error: ConnectFailed | null): void;
}

export interface ChannelInit {
  readonly ordered: boolean;
  readonly maxRetransmits?: number;
  readonly maxPacketLifeTime?: number;
  readonly protocol?: string;
}

interface Outgoing {
  readonly channel: RTCDataChannel;
  /** What waits for the channel to open. */
  early: Payload[];
  earlyBytes: number;
  readonly reliable: boolean;
  sent: number;
}

export class Link {
  readonly peer: PeerId;
  readonly session: string;
  readonly offerer: boolean;
  state: LinkState = "dialing";
  /** The peer is silent and was given up; keys and queues are kept, and the first sign of life revives it. */
  asleepSince: number | null = null;
  /** The peer closes it once all has come that was sent over it; nothing more is sent. */
  isParting = false;
  newestHeardMs = 0;
  /** It took the place of a link that the room counts on. */
  replacesOpen = false;
  path: Path | null = null;
  /** What the peer may say beside gossip and channels: pauses, losses, that it parts. */
  readonly words: TokenBucket;
  /** Reliable messages by label that went and came over it. */
  readonly came = new Map<string, number>();
  readonly #owner: LinkOwner;
  readonly #pc: RTCPeerConnection;
  readonly #control: RTCDataChannel;
  readonly #gossip: RTCDataChannel;
  readonly #outgoing = new Map<string, Outgoing>();
  readonly #inbox: Envelope[] = [];
  readonly #candidates: string[] = []; // that came before the description
  #isBusy = false;
  #sequence = 0;
  #newest: Record<"offer" | "answer", number> = { offer: -1, answer: -1 };
  #awaitsAnswer = false;
  #rollBackAt = NEVER;
  #deadline: number;
  #searchAt = NEVER;
  #searchPauseS = SEARCH_EVERY_S;
  #pathAt = NEVER;
  #parting: { readonly until: number } | null = null;
  #heard = false; // an envelope of the peer: it knows of us
  #adopted = 0; // channels of the peer
  #candidatesLeft = CANDIDATES_MAX; // of one description: each is a path that the browser tries
  readonly #negotiations: TokenBucket;

  constructor(
    peer: PeerId, session: string, offerer: boolean, owner: LinkOwner, platform: Platform, iceServers: RTCIceServer[],
  ) {
    this.peer = peer;
    this.session = session;
    this.offerer = offerer;
    this.#owner = owner;
    this.#deadline = owner.now() + DIAL_S;
    this.words = new TokenBucket(WORDS, WORDS_PER_S, owner.now());
    this.#negotiations = new TokenBucket(NEGOTIATIONS, NEGOTIATIONS_PER_S, owner.now());
    const pc = (this.#pc = new platform.RTCPeerConnection({ iceServers }));
    this.#control = pc.createDataChannel("psyne-control", { negotiated: true, id: 0 });
    this.#gossip = pc.createDataChannel("psyne-gossip", { negotiated: true, id: 1, ordered: false, maxRetransmits: 0 });
    for (const channel of [this.#control, this.#gossip]) {
      channel.binaryType = "arraybuffer";
      channel.onopen = () => this.#opened();
      channel.onclose = () => this.#ended(null);
      channel.onmessage = ({ data }) => {
        if (data instanceof ArrayBuffer) this.#owner.onFrame(this, new Uint8Array(data));
      };
    }
    pc.ondatachannel = ({ channel }) => this.#adopt(channel);
    pc.onicecandidate = ({ candidate }) => {
      if (this.state !== "gone") this.#post("candidate", candidate?.candidate ?? "");
    };
    pc.onconnectionstatechange = () => this.#connectionChanged();
    if (offerer) this.#run(() => this.#offer());
  }

  // ---------------------------------------------------------------------------------------------------------- inputs

  /** An envelope of this session. When too many wait, the newest is dropped: its sender repeats what matters. */
  hear(envelope: Envelope): void {
    this.#heard = true;
    const { kind, sequence } = envelope;
    if (kind === "offer" || kind === "answer") {
      if (sequence <= this.#newest[kind]) return; // held back on the way
      this.#newest[kind] = sequence;
    }
    if (this.#inbox.length < INBOX_MAX) this.#inbox.push(envelope);
    void this.#work();
  }

  /** The peer has been silent, or this machine has moved: look for another path. */
  suspect(): void {
    if (this.state === "open" && this.#searchAt === NEVER) this.#searchAt = this.#owner.now();
  }

  sendFrame(frame: Uint8Array, reliable: boolean): void {
    const channel = reliable ? this.#control : this.#gossip;
    if (channel.readyState !== "open" || this.state === "gone") return;
    if (!reliable && channel.bufferedAmount > GOSSIP_BUDGET_BYTES) return; // it would come late
    if (reliable && this.waiting > HARD_BUDGET_BYTES) {
      this.close("overflow");
      return;
    }
    this.#put(channel, frame);
  }

  /** On our own channel of that label, which is announced with its first message. `parts`: who is too far behind loses its link. */
  sendMessage(label: string, init: ChannelInit, payload: Payload, parts: boolean): "sent" | "not connected" | "congested" | "too large" | "overflow" {
    if (this.state !== "open" || this.isParting) return "not connected";
    const reliable = init.maxRetransmits === undefined && init.maxPacketLifeTime === undefined;
    if (sizeOf(payload) > this.messageMax) return "too large";
    const out = this.#outgoing.get(label) ?? this.#announce(label, init, reliable);
    if (out === null) return "not connected";
    if (!reliable && out.channel.bufferedAmount + out.earlyBytes > UNRELIABLE_BUDGET_BYTES) return "congested";
    if (reliable && this.waiting > HARD_BUDGET_BYTES) {
      if (parts) this.close("overflow");
      return "overflow";
    }
    if (out.channel.readyState === "connecting") {
      if (!reliable && out.early.length >= EARLY_MAX) out.earlyBytes -= sizeOf(out.early.shift()!);
      out.early.push(payload);
      out.earlyBytes += sizeOf(payload);
    } else {
      this.#sendEarly(out);
      if (!this.#put(out.channel, payload)) return "not connected";
    }
    out.sent++;
    return "sent";
  }

  /** "Close it once what was sent over it has come": the frame of the peer that parts, and our answer. */
  hearParting(frame: Uint8Array): void {
    if (frame[7] !== PARTING || this.isParting) return;
    this.isParting = true;
    this.#parting = { until: this.#owner.now() + 30 };
  }

  /** End it, behind what was sent reliably so far as far as that leaves quickly. */
  close(_reason: string): void {
    if (this.state === "closing" || this.state === "gone") return;
    if (this.state === "dialing") {
      if (this.#heard || this.offerer) this.#post("bye", "closed");
      this.#ended(null);
      return;
    }
    this.state = "closing";
    this.#deadline = this.#owner.now() + FLUSH_S;
  }

  /** At once, and nobody is told. */
  abandon(): void {
    this.#ended(null);
  }

  // ----------------------------------------------------------------------------------------------------------- views

  /** Bytes accepted and not yet handed to the network, on all channels. */
  get waiting(): number {
    let bytes = this.#control.bufferedAmount;
    for (const out of this.#outgoing.values()) bytes += out.channel.bufferedAmount + out.earlyBytes;
    return bytes;
  }

  get messageMax(): number {
    return this.#pc.sctp?.maxMessageSize || MESSAGE_MIN_BYTES;
  }

  /** Reliable messages by label that we sent over it. */
  get sent(): ReadonlyMap<string, number> {
    return new Map([...this.#outgoing].filter(([, out]) => out.reliable).map(([label, out]) => [label, out.sent]));
  }

  get wasOpen(): boolean {
    return this.state === "open" || this.state === "closing";
  }

  // ------------------------------------------------------------------------------------------------------------ time

  nextTimeout(): number {
    const waits = this.state === "dialing" || this.state === "closing" || this.#parting !== null;
    return Math.min(waits ? (this.state === "open" ? this.#owner.now() + 0.05 : this.#deadline) : NEVER, this.#searchAt, this.#rollBackAt, this.#pathAt);
  }

  handleTimeout(now: number): void {
    if (this.state === "dialing" && now >= this.#deadline) {
      const phase = !this.#heard ? "signaling" : this.#pc.iceConnectionState === "connected" ? "dtls" : "ice";
      this.#post("bye", "timeout");
      this.#ended(new ConnectFailed(phase, `no link to ${this.peer.slice(0, 8)} within ${DIAL_S} s`));
    } else if (this.state === "closing" && (now >= this.#deadline || this.waiting === 0)) this.#ended(null);
    else if (this.#parting !== null && (this.waiting === 0 || now >= this.#parting.until)) {
      this.#parting = null;
      this.sendFrame(Uint8Array.of(255, 255, 255, 255, 255, 255, 255, PARTED), true);
    }
    if (now >= this.#rollBackAt) this.#run(() => this.#rollBack());
    if (now >= this.#searchAt) this.#search(now);
    if (now >= this.#pathAt) {
      this.#pathAt = now + (this.path === null ? PATH_S : 10 * PATH_S);
      void this.#findPath();
    }
  }

  // --------------------------------------------------------------------------------------------------------- helpers

  #put(channel: RTCDataChannel, data: Payload): boolean {
    if (channel.readyState !== "open") return false;
    try {
      channel.send(data as string);
      return true;
    } catch {
      return false; // it ended a moment ago, or the browser's own buffer is full: its events say which
    }
  }

  #announce(label: string, init: ChannelInit, reliable: boolean): Outgoing | null {
    if (this.#outgoing.size >= CHANNELS_MAX) return null;
    let channel: RTCDataChannel;
    try {
      channel = this.#pc.createDataChannel(label, init);
    } catch {
      return null;
    }
    channel.binaryType = "arraybuffer";
    const out: Outgoing = { channel, early: [], earlyBytes: 0, reliable, sent: 0 };
    this.#outgoing.set(label, out);
    channel.onopen = () => this.#sendEarly(out);
    return out;
  }

  /** Before anything else goes: in Chromium a channel is open for some tasks before its event says so. */
  #sendEarly(out: Outgoing): void {
    for (const payload of out.early) this.#put(out.channel, payload);
    out.early = [];
    out.earlyBytes = 0;
  }

  #adopt(channel: RTCDataChannel): void {
    const { label } = channel, reliable = channel.maxRetransmits === null && channel.maxPacketLifeTime === null;
    channel.binaryType = "arraybuffer";
    if (label.length > LABEL_CHARS_MAX) return; // not a channel of a room
    if (++this.#adopted > ADOPTED_MAX) return this.#owner.onFlood(this);
    if (channel.protocol !== "") this.#owner.onChannelTypes(this, label, channel.protocol);
    channel.onmessage = ({ data }) => {
      if (sizeOf(data) > MESSAGE_MAX_BYTES) return this.#owner.onFlood(this);
      if (reliable && (this.came.has(label) || this.came.size < CHANNELS_MAX)) this.came.set(label, (this.came.get(label) ?? 0) + 1);
      this.#owner.onChannelMessage(this, label, typeof data === "string" ? data : new Uint8Array(data), reliable);
    };
  }

  #opened(): void {
    if (this.state !== "dialing" || this.#control.readyState !== "open" || this.#gossip.readyState !== "open") return;
    if (this.messageMax < MESSAGE_MIN_BYTES) {
      this.#post("bye", "its messages are too small");
      this.#ended(new ConnectFailed("channels", `${this.messageMax} bytes a message; gossip needs ${MESSAGE_MIN_BYTES}`));
      return;
    }
    this.state = "open";
    this.#pathAt = this.#owner.now();
    this.#owner.onLinkOpen(this);
  }

  #connectionChanged(): void {
    const { connectionState } = this.#pc, now = this.#owner.now();
    if (connectionState === "connected") {
      this.#searchAt = NEVER;
      this.#searchPauseS = SEARCH_EVERY_S;
      this.#pathAt = now;
    } else if (connectionState === "closed") this.#ended(null);
    else if (connectionState === "failed" && this.state === "dialing")
      this.#ended(new ConnectFailed("ice", `no path to ${this.peer.slice(0, 8)}: UDP may be blocked; a TURN server in iceServers helps`));
    else if ((connectionState === "disconnected" || connectionState === "failed") && this.state === "open")
      this.#searchAt = Math.min(this.#searchAt, now + SEARCH_S);
  }

  /** The offerer restarts ICE, the answerer asks it to. */
  #search(now: number): void {
    this.#searchAt = NEVER;
    if (this.state !== "open") return;
    if (this.#pc.connectionState !== "connected") {
      this.#searchAt = now + this.#searchPauseS;
      this.#searchPauseS = Math.min(SEARCH_MAX_S, 1.5 * this.#searchPauseS);
    }
    if (!this.offerer) this.#post("restart", "");
    else
      this.#run(async () => {
        await this.#rollBack();
        this.#pc.restartIce();
        this.#rollBackAt = this.#owner.now() + ANSWER_S;
        await this.#offer();
      });
  }

  /** Nobody answers the search: the old path is all there is. Firefox ends a connection five seconds into a search without answer. */
  async #rollBack(): Promise<void> {
    this.#rollBackAt = NEVER;
    if (!this.#awaitsAnswer || this.state !== "open" || this.#pc.signalingState !== "have-local-offer") return;
    this.#awaitsAnswer = false;
    await this.#pc.setLocalDescription({ type: "rollback" });
  }

  async #offer(): Promise<void> {
    await this.#pc.setLocalDescription(await this.#pc.createOffer());
    this.#awaitsAnswer = true;
    this.#post("offer", this.#pc.localDescription?.sdp ?? "");
  }

  async #work(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      for (let envelope = this.#inbox.shift(); envelope !== undefined && this.state !== "gone"; envelope = this.#inbox.shift())
        await this.#negotiate(envelope);
    } catch (error) {
      this.#failed(error as Error);
    } finally {
      this.#isBusy = false;
    }
    if (this.#inbox.length > 0) void this.#work();
  }

  async #negotiate({ kind, body }: Envelope): Promise<void> {
    const pc = this.#pc;
    switch (kind) {
      case "offer":
        if (this.offerer || !this.#negotiations.allow(this.#owner.now())) return;
        this.#candidatesLeft = CANDIDATES_MAX;
        await pc.setRemoteDescription({ type: "offer", sdp: body });
        await this.#addCandidates();
        await pc.setLocalDescription(await pc.createAnswer());
        this.#post("answer", pc.localDescription?.sdp ?? "");
        return;
      case "answer":
        if (!this.#awaitsAnswer || pc.signalingState !== "have-local-offer") return;
        this.#candidatesLeft = CANDIDATES_MAX;
        this.#awaitsAnswer = false;
        this.#rollBackAt = NEVER;
        await pc.setRemoteDescription({ type: "answer", sdp: body });
        await this.#addCandidates();
        return;
      case "candidate":
        if (this.#candidates.length < INBOX_MAX && this.#candidatesLeft-- > 0) this.#candidates.push(body);
        if (pc.remoteDescription !== null) await this.#addCandidates();
        return;
      case "restart":
        if (this.offerer && this.state === "open" && this.#negotiations.allow(this.#owner.now())) this.#searchAt = Math.min(this.#searchAt, this.#owner.now());
        return;
      case "bye":
        if (this.state === "dialing") this.#ended(new ConnectFailed("signaling", `the other side gave up: ${body.slice(0, 80)}`));
    }
  }

  async #addCandidates(): Promise<void> {
    for (const candidate of this.#candidates.splice(0)) {
      if (candidate === "") continue;
      try {
        await this.#pc.addIceCandidate({ candidate, sdpMid: MID, sdpMLineIndex: 0 });
      } catch {
        continue; // one that this stack does not understand is no reason to do without the others
      }
    }
  }

  #run(job: () => Promise<void>): void {
    job().catch((error: Error) => this.#failed(error));
  }

  /** The other's words made no sense to the browser. */
  #failed(error: Error): void {
    if (this.state === "dialing") this.#ended(new ConnectFailed("signaling", `the descriptions do not fit: ${error.message}`));
  }

  #post(kind: Kind, body: string): void {
    this.#owner.post(this, kind, this.#sequence++, body);
  }

  async #findPath(): Promise<void> {
    let reports: RTCStatsReport;
    try {
      reports = await this.#pc.getStats();
    } catch {
      return;
    }
    const all = new Map<string, Record<string, unknown>>();
    reports.forEach((report: Record<string, unknown>) => all.set(String(report.id), report));
    const transport = [...all.values()].find((report) => report.type === "transport");
    const pair =
      all.get(String(transport?.selectedCandidatePairId)) ??
      [...all.values()].find((report) => report.type === "candidate-pair" && report.state === "succeeded" && (report.nominated || report.selected));
    const ends = [all.get(String(pair?.localCandidateId)), all.get(String(pair?.remoteCandidateId))];
    const kinds = ends.map((end) => String(end?.candidateType ?? "host"));
    if (pair === undefined) return;
    const kind = (["relay", "srflx", "prflx"] as const).find((one) => kinds.includes(one)) ?? "host";
    const rtt = pair.currentRoundTripTime;
    this.path = { kind, protocol: String(ends[0]?.protocol ?? "udp").toLowerCase(), rttMs: typeof rtt === "number" ? rtt * 1000 : null };
  }

  #ended(error: ConnectFailed | null): void {
    if (this.state === "gone") return;
    const { state } = this;
    this.state = "gone";
    this.#searchAt = this.#rollBackAt = this.#pathAt = NEVER;
    this.#parting = null;
    this.#pc.onicecandidate = this.#pc.onconnectionstatechange = this.#pc.ondatachannel = null;
    this.#control.onclose = this.#gossip.onclose = null;
    this.#pc.close();
    this.#owner.onLinkGone(this, state === "dialing" ? (error ?? new ConnectFailed("ice", "the attempt ended")) : null);
  }
}

export const sizeOf = (payload: Payload | ArrayBuffer): number =>
  typeof payload === "string" ? utf8(payload).length : payload.byteLength;
