// One connection to a signaling server, pure: from its challenge to its end.
//
// 1. `receive(text, now)` each frame. 2. `ask(...)` and `say(...)` at any time once it is `ready`. 3. `handleTimeout(now)` at
// `nextTimeout()`. After each: send `takeOutputs()`, act on `takeEvents()`; after "lost" it is of no further use.

import type { PeerId } from "../api.ts";
import { toBase64 } from "../bytes.ts";
import { ProtocolError, type RemoteError, VersionMismatch } from "../errors.ts";
import type { Identity } from "../identity.ts";
import {
  decodeServerUntrusted, encode, HELLO_DOMAIN, helloPayload, type MemberInfo, refusal, type RoomInfo, type ServerMessage,
} from "./messages.ts";

const HELLO_S = 10, REQUEST_S = 10, SILENCE_FACTOR = 3, GARBAGE_MAX = 10, PENDING_MAX = 64;
const NEVER = Number.POSITIVE_INFINITY;

export type Answer = { readonly info: RoomInfo; readonly peers: readonly MemberInfo[] } | readonly RoomInfo[] | RemoteError | null;

export type SessionEvent =
  | { readonly type: "ready"; readonly timeMs: number | null }
  | { readonly type: "lost"; readonly error: Error }
  | { readonly type: "answer"; readonly ref: number; readonly answer: Answer }
  | { readonly type: "joined"; readonly room: string; readonly record: string }
  | { readonly type: "left"; readonly room: string; readonly peer: PeerId; readonly record: string }
  | { readonly type: "signal"; readonly room: string; readonly from: PeerId; readonly envelope: string }
  | { readonly type: "refused"; readonly room: string | null; readonly peer: PeerId | null };

type Message = { readonly type: string } & Record<string, unknown>;

export class Session {
  isReady = false;
  readonly #identity: Identity;
  readonly #audience: string;
  #outputs: string[] = [];
  #events: SessionEvent[] = [];
  #isLost = false;
  #nextRef = 1;
  readonly #pending = new Map<number, number>(); // and until when its answer is waited for
  #keepaliveS = HELLO_S;
  #heardAt: number;
  #spokenAt: number;
  #garbage = 0;

  /** `audience`: host[:port] as it was dialled, so that a rogue server cannot show our answer to an honest one. */
  constructor(identity: Identity, audience: string, now: number) {
    this.#identity = identity;
    this.#audience = audience;
    this.#heardAt = this.#spokenAt = now;
  }

  receive(text: unknown, now: number): void {
    if (this.#isLost) return;
    this.#heardAt = now;
    try {
      this.#read(decodeServerUntrusted(text), now);
    } catch (error) {
      if (error instanceof VersionMismatch) this.#lose(error);
      else if (!(error instanceof ProtocolError)) throw error;
      else if (!this.isReady || ++this.#garbage > GARBAGE_MAX) this.#lose(error);
    }
  }

  /** A question, by its number; the answer is an event. Null: too many are under way. */
  ask(message: Message, now: number, patienceS = REQUEST_S): number | null {
    if (!this.isReady || this.#pending.size >= PENDING_MAX) return null;
    const ref = this.#nextRef++;
    this.#pending.set(ref, now + patienceS);
    this.say({ ...message, ref }, now);
    return ref;
  }

  say(message: Message, now: number): boolean {
    if (!this.isReady) return false;
    this.#push(message, now);
    return true;
  }

  /** A number for what nobody waits for. */
  unasked = (): number => this.#nextRef++;

  nextTimeout(): number {
    if (this.#isLost) return NEVER;
    const silence = this.#heardAt + (this.isReady ? SILENCE_FACTOR * this.#keepaliveS : HELLO_S);
    const keepalive = this.isReady ? this.#spokenAt + this.#keepaliveS : NEVER;
    return Math.min(silence, keepalive, ...this.#pending.values());
  }

  handleTimeout(now: number): void {
    if (this.#isLost) return;
    const silence = now - this.#heardAt;
    if (silence >= (this.isReady ? SILENCE_FACTOR * this.#keepaliveS : HELLO_S)) {
      this.#lose(new ProtocolError(`the server said nothing for ${silence.toFixed(1)} s`));
      return;
    }
    if (this.isReady && now >= this.#spokenAt + this.#keepaliveS) this.#push({ type: "ping", ref: this.#nextRef++ }, now);
    for (const [ref, until] of [...this.#pending])
      if (now >= until) this.#answer(ref, refusal("timeout", "the signaling server gave no answer in time"));
  }

  takeOutputs(): string[] {
    const taken = this.#outputs;
    this.#outputs = [];
    return taken;
  }

  takeEvents(): SessionEvent[] {
    const taken = this.#events;
    this.#events = [];
    return taken;
  }

  #read(message: ServerMessage, now: number): void {
    if (!this.isReady) {
      if (message.type === "challenge") {
        const proof = this.#identity.sign(HELLO_DOMAIN, helloPayload(message.nonce, this.#audience));
        const hello = { type: "hello", ref: 0, peer_id: this.#identity.peerId, audience: this.#audience };
        this.#push({ ...hello, public_key: toBase64(this.#identity.publicKey), signature: toBase64(proof) }, now);
      } else if (message.type === "welcome" && message.peerId === this.#identity.peerId) {
        this.isReady = true;
        this.#keepaliveS = message.keepaliveS;
        this.#events.push({ type: "ready", timeMs: message.timeMs });
      } else if (message.type === "error") this.#lose(refusal(message.code, `the signaling server refused us: ${message.message}`));
      else throw new ProtocolError("a signaling server begins with a challenge and a welcome");
      return;
    }
    switch (message.type) {
      case "joined":
        this.#answer(message.ref, { info: message.info, peers: message.peers });
        break;
      case "placed":
        this.#answer(message.ref, { info: message.info, peers: [] });
        break;
      case "left":
        this.#answer(message.ref, null);
        break;
      case "room_list":
        this.#answer(message.ref, message.rooms);
        break;
      case "error":
        if (message.ref !== null) this.#answer(message.ref, refusal(message.code, message.message));
        else this.#events.push({ type: "refused", room: message.room, peer: message.peerId });
        break;
      case "peer_joined":
        this.#events.push({ type: "joined", room: message.room, record: message.peer.record });
        break;
      case "peer_left":
        this.#events.push({ type: "left", room: message.room, peer: message.peerId, record: message.record });
        break;
      case "signal":
        this.#events.push({ type: "signal", room: message.room, from: message.from, envelope: message.envelope });
        break;
      default:
        break; // a pong
    }
  }

  #answer(ref: number, answer: Answer): void {
    if (this.#pending.delete(ref)) this.#events.push({ type: "answer", ref, answer });
  }

  #push(message: Message, now: number): void {
    this.#spokenAt = now;
    this.#outputs.push(encode(message));
  }

  #lose(error: Error): void {
    this.#isLost = true;
    this.isReady = false;
    this.#events.push({ type: "lost", error });
  }
}
