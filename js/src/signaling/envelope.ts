// Sealed offers, answers, candidates and goodbyes: what travels through signaling that nobody has to trust.
//
// `payload.key.signature`, each base64url; the payload is JSON, and the signature is over its exact bytes.

import type { PeerId } from "../api.ts";
import { fromBase64UrlUntrusted, textUntrusted, toBase64Url, utf8 } from "../bytes.ts";
import { MessageTooLarge, ProtocolError } from "../errors.ts";
import { type Identity, peerIdUntrusted, type Verify } from "../identity.ts";
import { forgetOldest } from "../limits.ts";

export const SIGNAL_DOMAIN = "psyne-signal";
const VERSION = 1, BODY_MAX = 32_768, TEXT_MAX = 49_152, LIFETIME_MS = 30_000, CLOCK_SKEW_MS = 570_000;

const KINDS = ["offer", "answer", "candidate", "restart", "bye"] as const;
export type Kind = (typeof KINDS)[number];

export interface Envelope {
  readonly kind: Kind;
  readonly sender: PeerId;
  readonly recipient: PeerId;
  readonly room: string;
  readonly session: string;
  readonly sequence: number;
  readonly expiresAtMs: number;
  readonly body: string;
}

/** `tampered`: it cannot have come like this from the peer whom it names. */
export class EnvelopeRefused extends ProtocolError {
  readonly tampered: boolean;
  constructor(reason: string, tampered: boolean) {
    super(reason);
    this.tampered = tampered;
  }
}

export function seal(
  identity: Identity, said: Pick<Envelope, "kind" | "recipient" | "room" | "session" | "sequence" | "body">, nowMs: number,
): string {
  const payload = utf8(
    JSON.stringify({
      kind: said.kind, sender: identity.peerId, recipient: said.recipient, room: said.room, session: said.session,
      sequence: said.sequence, expires_at_ms: Math.floor(nowMs) + LIFETIME_MS, body: said.body, v: VERSION,
    }),
  );
  const text = [payload, identity.publicKey, identity.sign(SIGNAL_DOMAIN, payload)].map(toBase64Url).join(".");
  if (text.length > TEXT_MAX) throw new MessageTooLarge(`an envelope of ${text.length} characters; ${TEXT_MAX} is the most`);
  return text;
}

/** The parts of an envelope, for who verifies beforehand; or `EnvelopeRefused`. */
export function splitUntrusted(text: string): readonly [payload: Uint8Array, publicKey: Uint8Array, signature: Uint8Array] {
  if (text.length > TEXT_MAX) throw new EnvelopeRefused(`an envelope of ${text.length} characters`, false);
  const parts = text.split(".");
  if (parts.length !== 3) throw new EnvelopeRefused("an envelope has three parts", true);
  try {
    return parts.map(fromBase64UrlUntrusted) as [Uint8Array, Uint8Array, Uint8Array];
  } catch {
    throw new EnvelopeRefused("the parts of an envelope are base64url", true);
  }
}

/** The envelope, proved to be from its sender and meant for us; or `EnvelopeRefused`. Ask a `ReplayGuard` next. */
export function openUntrusted(
  text: string, verify: Verify, { recipient, sender, room, nowMs }: { recipient: PeerId; sender: PeerId; room: string; nowMs: number },
): Envelope {
  const [payload, publicKey, signature] = splitUntrusted(text);
  let signer: PeerId;
  try {
    signer = verify(publicKey, SIGNAL_DOMAIN, payload, signature);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    throw new EnvelopeRefused("the signature of the envelope is not valid", true);
  }
  const said = payloadUntrusted(payload);
  if (said.sender !== signer) throw new EnvelopeRefused(`signed by ${signer.slice(0, 8)}, but it names ${said.sender.slice(0, 8)}`, true);
  if (signer !== sender) throw new EnvelopeRefused(`signed by ${signer.slice(0, 8)}, handed over as ${sender.slice(0, 8)}`, true);
  if (said.recipient !== recipient) throw new EnvelopeRefused("meant for another player", true);
  if (said.room !== room) throw new EnvelopeRefused("meant for another room", true);
  if (nowMs > said.expiresAtMs + CLOCK_SKEW_MS || said.expiresAtMs > nowMs + LIFETIME_MS + CLOCK_SKEW_MS)
    throw new EnvelopeRefused("its sender's clock and ours differ by minutes, or it was played again", false);
  return said;
}

function payloadUntrusted(payload: Uint8Array): Envelope {
  const wrong = (what: string): never => {
    throw new EnvelopeRefused(`not an envelope of version ${VERSION}: ${what}`, false); // its signer wrote this himself
  };
  let said: Record<string, unknown>;
  try {
    said = JSON.parse(textUntrusted(payload));
  } catch {
    return wrong("no JSON");
  }
  if (typeof said !== "object" || said === null || (said.v ?? VERSION) !== VERSION) return wrong("no object of that version");
  const { kind, room, session, sequence, body, expires_at_ms: expiresAtMs } = said;
  if (!KINDS.includes(kind as Kind)) return wrong("kind");
  if (typeof room !== "string" || [...room].length > 258) return wrong("room");
  if (typeof session !== "string" || session.length === 0 || [...session].length > 64) return wrong("session");
  if (!Number.isInteger(sequence) || (sequence as number) < 0 || (sequence as number) >= 2 ** 31) return wrong("sequence");
  if (!Number.isSafeInteger(expiresAtMs) || (expiresAtMs as number) < 0) return wrong("expires_at_ms");
  if (typeof body !== "string" || [...body].length > BODY_MAX) return wrong("body");
  try {
    return {
      kind: kind as Kind, sender: peerIdUntrusted(said.sender), recipient: peerIdUntrusted(said.recipient), room, session,
      sequence: sequence as number, expiresAtMs: expiresAtMs as number, body,
    };
  } catch {
    return wrong("peer ids");
  }
}

const WINDOW = 64, SENDERS_MAX = 1024, SESSIONS_MAX = 32;

interface Window {
  highest: number;
  seen: bigint;
  expiresAtMs: number;
}

/** Which envelopes have been seen: per sender and session a window of sequence numbers. */
export class ReplayGuard {
  readonly #senders = new Map<PeerId, { windows: Map<string, Window>; floorMs: number }>();

  accept(envelope: Envelope, nowMs: number): boolean {
    const sender = this.#senders.get(envelope.sender) ?? { windows: new Map<string, Window>(), floorMs: 0 };
    this.#senders.delete(envelope.sender);
    this.#senders.set(envelope.sender, sender);
    forgetOldest(this.#senders, SENDERS_MAX);
    let window = sender.windows.get(envelope.session);
    if (window === undefined) {
      if (envelope.expiresAtMs <= sender.floorMs) return false;
      for (const [session, old] of sender.windows) if (old.expiresAtMs + CLOCK_SKEW_MS < nowMs) sender.windows.delete(session);
      while (sender.windows.size >= SESSIONS_MAX) {
        const [session, first] = [...sender.windows].reduce((a, b) => (b[1].expiresAtMs < a[1].expiresAtMs ? b : a));
        sender.floorMs = Math.max(sender.floorMs, first.expiresAtMs);
        sender.windows.delete(session);
      }
      window = { highest: -1, seen: 0n, expiresAtMs: 0 };
      sender.windows.set(envelope.session, window);
    }
    window.expiresAtMs = Math.max(window.expiresAtMs, envelope.expiresAtMs);
    return isFresh(window, envelope.sequence);
  }
}

/** Whether a number is new to a window of 64; then it is taken note of. */
export function isFresh(window: { highest: number; seen: bigint }, number: number): boolean {
  const ahead = number - window.highest;
  if (ahead > 0) {
    window.seen = BigInt.asUintN(WINDOW, (window.seen << BigInt(Math.min(ahead, WINDOW))) | 1n);
    window.highest = number;
    return true;
  }
  const bit = -ahead >= WINDOW ? 0n : 1n << BigInt(-ahead);
  if (bit === 0n || (window.seen & bit) !== 0n) return false;
  window.seen |= bit;
  return true;
}
