// psyne-mesh for web pages: the same rooms, players and channels as in Python.

import type { JoinOptions, Room } from "./api.ts";
import { WebRtcMissing } from "./errors.ts";

export type * from "./api.ts";
export * from "./errors.ts";
export { Identity } from "./identity.ts";
export type { Bounds, Fields, FieldType, Input, MessageSpec, MessageType } from "./schema.ts";
export { messageType } from "./schema.ts";

/**
 * `const room = await joinGameRoom("arena", { signaling: "wss://play.example.org", maxPlayers: 8 })`: the best room of that
 * lobby that has a seat for us, or a new one.
 *
 * Rejects with `SignalingUnreachable`, `InvalidConfig`, `WebRtcMissing`, with what `signal` was aborted with, or with a
 * `RoomError`.
 */
export async function joinGameRoom(_name: string, _options: JoinOptions = {}): Promise<Room> {
  throw new WebRtcMissing("this build has the types of rooms only");
}

/** The room with that code, `K7QM-3FHT`. */
export async function joinRoom(_code: string, _options: JoinOptions = {}): Promise<Room> {
  throw new WebRtcMissing("this build has the types of rooms only");
}
