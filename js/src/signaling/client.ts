// The signaling client: one WebSocket that comes back by itself, with questions that are promises.

import type { PeerId, Platform } from "../api.ts";
import { InvalidConfig, RemoteError, SignalingLost, SignalingUnreachable, VersionMismatch } from "../errors.ts";
import type { Identity } from "../identity.ts";
import type { Rng } from "../limits.ts";
import { ENVELOPE_CHARS_MAX, type JoinRequest, joinMessage, type MemberInfo, type RoomInfo, SUPERSEDED } from "./messages.ts";
import { type Answer, Session, type SessionEvent } from "./session.ts";

const BACKOFF_FIRST_S = 0.5, BACKOFF_MAX_S = 30, CONNECT_S = 10, SEEK_S = 30;
const NEVER = Number.POSITIVE_INFINITY;

export interface ClientOwner {
  /** What happened between; never answers. */
  onSignaling(event: Exclude<SessionEvent, { type: "ready" | "lost" | "answer" }>): void;
  onSignalingDown(reason: string, isFinal: boolean): void;
  /** Connected again: enter the room anew. */
  onSignalingBack(): void;
  /** The next deadline may have changed. */
  rearm(): void;
}

interface Asked {
  resolve(answer: Exclude<Answer, RemoteError>): void;
  reject(error: Error): void;
}

/** 1. `connect()`. 2. `join`, `seek`, `listRooms`, `sendSignal`. 3. `handleTimeout(now)` at `nextTimeout()`. 4. `close()`. */
export class SignalingClient {
  readonly urls: readonly URL[];
  readonly #identity: Identity;
  readonly #WebSocket: Platform["WebSocket"];
  readonly #owner: ClientOwner;
  readonly #rng: Rng;
  readonly #now: () => number;
  #at = 0;
  #socket: WebSocket | null = null;
  #session: Session | null = null;
  readonly #asked = new Map<number, Asked>();
  #clock: { readonly toldMs: number; readonly at: number } | null = null;
  #failures = 0;
  #againAt = NEVER;
  #openBy = NEVER;
  #isClosed = false;
  #first: { resolve(): void; reject(error: Error): void } | null = null;
  #tries = 0;

  constructor(
    urls: readonly string[], identity: Identity, WebSocket: Platform["WebSocket"], owner: ClientOwner, rng: Rng, now: () => number,
  ) {
    this.urls = urls.map(urlOf);
    if (this.urls.length === 0) throw new InvalidConfig("signaling: the URL of a server is missing");
    this.#identity = identity;
    this.#WebSocket = WebSocket;
    this.#owner = owner;
    this.#rng = rng;
    this.#now = now;
  }

  get isReady(): boolean {
    return this.#session?.isReady ?? false;
  }

  get server(): string {
    return this.urls[this.#at]!.host;
  }

  /** `SignalingUnreachable` when none of the servers answers. Later losses are told to the owner. */
  connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#first = { resolve, reject };
      this.#dial();
    });
  }

  /** The server's wall clock in Unix milliseconds, if it tells it. */
  timeMs(now: number): number | null {
    return this.#clock === null ? null : this.#clock.toldMs + (now - this.#clock.at) * 1000;
  }

  async join(request: JoinRequest): Promise<{ info: RoomInfo; peers: readonly MemberInfo[] }> {
    return roomOf(await this.#ask((ref) => joinMessage(request, ref)));
  }

  async seek(join: JoinRequest, avoid: readonly string[]): Promise<RoomInfo> {
    const seek = (ref: number) => ({
      type: "seek", ref, join: joinMessage(join, ref), players: 0, party: "", party_size: 1, avoid, rtt_ms: {},
    });
    return roomOf(await this.#ask(seek, SEEK_S)).info;
  }

  async listRooms(appId: string, code: string): Promise<readonly RoomInfo[]> {
    const answer = await this.#ask((ref) => ({ type: "list", ref, app_id: appId, code }));
    if (!Array.isArray(answer)) throw new RemoteError("the server answered a question with something else");
    return answer;
  }

  /** False: it is not connected, and nothing was sent. */
  sendSignal(to: PeerId, room: string, envelope: string): boolean {
    if (envelope.length > ENVELOPE_CHARS_MAX) return false;
    return this.#say({ type: "signal", to, room, envelope });
  }

  /** Our last word, and nobody waits for the answer. */
  leave(room: string, record: string): void {
    if (this.#session !== null) this.#say({ type: "leave", ref: this.#session.unasked(), room, record });
  }

  close(): void {
    this.#isClosed = true;
    this.#againAt = NEVER;
    this.#fail(new SignalingLost("the room was left"));
    const socket = this.#socket;
    this.#session = this.#socket = null;
    socket?.close(1000, "bye");
  }

  nextTimeout(): number {
    return Math.min(this.#againAt, this.#openBy, this.#session?.nextTimeout() ?? NEVER);
  }

  handleTimeout(now: number): void {
    if (now >= this.#againAt) this.#dial();
    if (now >= this.#openBy) this.#lost(new SignalingLost("no answer in time"));
    if (this.#session !== null && now >= this.#session.nextTimeout()) {
      this.#session.handleTimeout(now);
      this.#pump();
    }
  }

  #dial(): void {
    this.#againAt = NEVER;
    if (this.#isClosed || this.#socket !== null) return;
    const now = this.#now(), url = this.urls[this.#at]!;
    let socket: WebSocket;
    try {
      socket = new this.#WebSocket(url.href);
    } catch (error) {
      this.#lost(error as Error);
      return;
    }
    this.#socket = socket;
    this.#openBy = now + CONNECT_S;
    this.#tries++;
    const session = (this.#session = new Session(this.#identity, url.host, now));
    const isOurs = (): boolean => this.#socket === socket;
    socket.onmessage = ({ data }) => {
      if (!isOurs()) return;
      session.receive(data, this.#now());
      this.#pump();
    };
    socket.onclose = ({ code, reason }) => {
      if (isOurs()) this.#lost(new SignalingLost(`the connection ended (${code}${reason ? `: ${reason}` : ""})`), code === SUPERSEDED);
    };
    socket.onerror = () => {
      if (isOurs() && socket.readyState !== socket.OPEN) this.#lost(new SignalingLost("nobody answers there"));
    };
    this.#owner.rearm();
  }

  #pump(): void {
    const session = this.#session;
    if (session === null) return;
    for (const text of session.takeOutputs()) if (this.#socket?.readyState === 1) this.#socket.send(text);
    for (const event of session.takeEvents()) {
      if (event.type === "ready") {
        this.#openBy = NEVER;
        this.#failures = this.#tries = 0;
        if (event.timeMs !== null) this.#clock = { toldMs: event.timeMs, at: this.#now() };
        const first = this.#first;
        this.#first = null;
        if (first !== null) first.resolve();
        else this.#owner.onSignalingBack();
      } else if (event.type === "lost") this.#lost(event.error);
      else if (event.type === "answer") {
        const asked = this.#asked.get(event.ref);
        this.#asked.delete(event.ref);
        if (event.answer instanceof RemoteError) asked?.reject(event.answer);
        else asked?.resolve(event.answer);
      } else this.#owner.onSignaling(event);
    }
    this.#owner.rearm();
  }

  #ask(message: (ref: number) => { readonly type: string } & Record<string, unknown>, patienceS?: number): Promise<Exclude<Answer, RemoteError>> {
    const ref = this.#session?.ask(message(0), this.#now(), patienceS) ?? null;
    if (ref === null) return Promise.reject(new SignalingLost("not connected to the signaling server"));
    const answer = new Promise<Exclude<Answer, RemoteError>>((resolve, reject) => this.#asked.set(ref, { resolve, reject }));
    this.#pump();
    return answer;
  }

  #say(message: { readonly type: string } & Record<string, unknown>): boolean {
    const said = this.#session?.say(message, this.#now()) ?? false;
    this.#pump();
    return said;
  }

  #lost(error: Error, isFinal = false): void {
    const socket = this.#socket, wasReady = this.isReady;
    this.#session = this.#socket = null;
    this.#openBy = NEVER;
    socket?.close();
    this.#fail(new SignalingLost(error.message));
    if (this.#isClosed) return;
    const failed = this.urls[this.#at]!;
    this.#at = (this.#at + 1) % this.urls.length;
    if (this.#first !== null && (this.#tries >= this.urls.length || error instanceof VersionMismatch)) {
      const first = this.#first;
      this.#isClosed = true;
      first.reject(
        error instanceof VersionMismatch
          ? error
          : new SignalingUnreachable(
              `no signaling server at ${failed.href}: ${error.message}. Is it running (psyne-mesh serve), are host and port right, and may pages of this origin connect?`,
            ),
      );
      return;
    }
    if (this.#first === null && (wasReady || isFinal)) this.#owner.onSignalingDown(error.message, isFinal);
    if (isFinal) {
      this.#isClosed = true;
      return;
    }
    const ceiling = this.#first !== null ? 0 : Math.min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** Math.min(this.#failures++, 30));
    this.#againAt = this.#now() + ceiling * (0.5 + 0.5 * this.#rng());
    this.#owner.rearm();
  }

  #fail(error: Error): void {
    for (const { reject } of this.#asked.values()) reject(error);
    this.#asked.clear();
  }
}

function roomOf(answer: Exclude<Answer, RemoteError>): { info: RoomInfo; peers: readonly MemberInfo[] } {
  if (answer === null || !("info" in answer)) throw new RemoteError("the server answered a question with something else");
  return answer;
}

function urlOf(text: string): URL {
  let url: URL;
  try {
    url = new URL(text, globalThis.location?.href);
  } catch {
    throw new InvalidConfig(`signaling = ${text}: must be the URL of a server, ws:// or wss://`);
  }
  if (url.protocol === "https:") url.protocol = "wss:";
  if (url.protocol === "http:") url.protocol = "ws:";
  if (url.protocol !== "ws:" && url.protocol !== "wss:") throw new InvalidConfig(`signaling = ${text}: must begin with ws:// or wss://`);
  return url;
}
