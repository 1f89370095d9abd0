// psyne-mesh for web pages: the same rooms, players and channels as in Python.

import type { JoinOptions, PlayerOptions, Platform, Room } from "./api.ts";
import { WebRtcMissing } from "./errors.ts";
import { Identity } from "./identity.ts";
import { Mesh } from "./mesh.ts";
import { requestOf } from "./placement.ts";
import { MeshRoom } from "./room.ts";
import { checkedName, codeOf } from "./signaling/messages.ts";

const GOODBYE_MS = 20; // a guess; no more than a frame or two of the page that comes

export type * from "./api.ts";
export * from "./errors.ts";
export { Identity } from "./identity.ts";
export type { Bounds, Fields, FieldType, Input, MessageSpec, MessageType } from "./schema.ts";
export { messageType } from "./schema.ts";

// The built file has classes of one or two letters: by its own exports they get their names back, which `error.name` shows.
import(import.meta.url)
  .then((all) => Object.entries(all).forEach(([value, kind]) => Object.defineProperty(kind, "name", { value })))
  .catch(() => undefined);

/**
 * `const room = await joinGameRoom("arena", { signaling: "wss://play.example.org", maxPlayers: 8 })`: the best room of that
 * lobby that has a seat for us, or a new one.
 *
 * Rejects with `SignalingUnreachable`, `InvalidConfig`, `WebRtcMissing`, with what `signal` was aborted with, or with a
 * `RoomError`.
 */
export async function joinGameRoom(name: string, options: JoinOptions = {}): Promise<Room> {
  requestOf(name, options); // what can be refused here is refused before anything is opened
  return enter({ name, byCode: false, options });
}

/** The room with that code, `K7QM-3FHT`. Rejects with `UnknownCode`, `RoomFull` and as `joinGameRoom`. */
export async function joinRoom(code: string, options: PlayerOptions = {}): Promise<Room> {
  codeOf(code);
  return enter({ name: code, byCode: true, options });
}

async function enter(wish: { name: string; byCode: boolean; options: JoinOptions }): Promise<Room> {
  const { signaling, identity, playerName = "", signal, iceServers = [], platform: given } = wish.options;
  signal?.throwIfAborted();
  checkedName("playerName", playerName, 64, true);
  const platform: Partial<Platform> = {
    RTCPeerConnection: given?.RTCPeerConnection ?? globalThis.RTCPeerConnection,
    WebSocket: given?.WebSocket ?? globalThis.WebSocket,
  };
  const { RTCPeerConnection, WebSocket } = platform;
  if (RTCPeerConnection === undefined || WebSocket === undefined)
    throw new WebRtcMissing(
      "this page has no RTCPeerConnection: a private mode, an extension or an old browser may have switched WebRTC off; use a current Chromium, Firefox or Safari",
    );
  const origin = globalThis.location?.origin;
  const urls = signaling === undefined ? (origin === undefined ? [] : [origin]) : typeof signaling === "string" ? [signaling] : signaling;
  const mesh = new Mesh({
    wish, urls, identity: identity ?? Identity.generate(), platform: { RTCPeerConnection, WebSocket }, iceServers, workerUrl: workerUrl(), rng: Math.random,
  });
  let room: MeshRoom | null = null;
  const aborted = new Promise<never>((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true }));
  aborted.catch(() => undefined);
  const entering = mesh.enter((info) => (room = new MeshRoom(mesh, info, playerName)));
  try {
    await Promise.race([entering, aborted]);
  } catch (error) {
    entering.then(() => mesh.leave()).catch(() => mesh.end());
    throw error;
  }
  const made = room as unknown as MeshRoom;
  signal?.addEventListener("abort", () => made.leaveNow(), { once: true });
  followPage(mesh, made);
  return made;
}

/** A page that goes says goodbye; one that is shown again, or has other addresses, looks after its links at once. */
function followPage(mesh: Mesh, room: MeshRoom): void {
  const { document, addEventListener } = globalThis;
  if (document === undefined || addEventListener === undefined) return;
  const { ended } = room;
  addEventListener("pagehide", () => {
    room.leaveNow();
    // Chromium ends the connections with the page, and its network thread needs a moment for what we have just said.
    for (const until = performance.now() + GOODBYE_MS; performance.now() < until; );
  }, { signal: ended });
  addEventListener("online", () => mesh.wake(), { signal: ended });
  document.addEventListener("resume", () => mesh.wake(), { signal: ended });
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && mesh.wake(), { signal: ended });
}

/** Of the file beside ours; a page that took ours from elsewhere does without. */
function workerUrl(): URL | null {
  try {
    const url = new URL("psyne-mesh-tick.js", import.meta.url);
    return url.origin === globalThis.location?.origin ? url : null;
  } catch {
    return null;
  }
}
