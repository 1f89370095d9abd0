// The words between a page and a signaling server, version 1, and the manifests in them: see `psyne_mesh/signaling`.
//
// The server orders and lists; it is not believed. What comes is checked here against the bounds of Python's decoder.

import type { PeerId } from "../api.ts";
import { fromBase64Untrusted, toBase64, utf8 } from "../bytes.ts";
import * as errors from "../errors.ts";
import { InvalidConfig, ManifestRefused, ProtocolError, VersionMismatch } from "../errors.ts";
import { type Identity, peerIdOf, peerIdUntrusted, verifyUntrusted } from "../identity.ts";
import { choice, type Rng } from "../limits.ts";
import { type Exact, exactly, isExact, parseExactUntrusted, plainOf, stringifyExact } from "./exact.ts";

export const PROTOCOL_VERSION = 1;
export const HELLO_DOMAIN = "psyne-hello";
const MANIFEST_DOMAIN = "psyne-manifest";
const SERVER_FRAME_MAX = 2 ** 20;
const RECORD_CHARS_MAX = 2_800, MEMBERS_MAX = 256, PLAYERS_MAX = 10_000, LISTED_MAX = 100;
export const ENVELOPE_CHARS_MAX = 49_152;
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"; // Crockford's base 32
const CODE = /^[0-9A-HJKMNP-TV-Z]{8}$/;
const PRINTABLE = /^[ !#-[\]-~]*$/;
// Controls, separators of lines, and what turns the direction of other text round; see `names.py`.
const REFUSED = /[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/u;

/** Close codes of the WebSocket. */
export const SUPERSEDED = 4001;

export type Scalar = string | number | boolean | null | Exact;
export type Policy = "open" | "code" | "password" | "invite";

export interface Manifest {
  readonly code: string;
  readonly app_version: string;
  readonly policy: Policy;
  readonly visible: boolean;
  readonly lock: string;
  readonly spectators: number;
  readonly creator: string;
  readonly signature: string;
}

/** What a room is, in the words of the wire. */
export interface RoomInfo {
  readonly room: string;
  readonly name: string;
  readonly app_id: string;
  readonly region: string;
  readonly players: number;
  readonly max_players: number;
  readonly skill_range: readonly [Exact, Exact] | null;
  readonly metadata: Readonly<Record<string, Scalar>>;
  readonly instance: string;
  readonly manifest: Manifest;
}

export interface JoinRequest extends Omit<RoomInfo, "room" | "players"> {
  readonly create: "or" | "only" | "never";
  readonly record: string;
  readonly door: string;
}

export interface MemberInfo {
  readonly peerId: PeerId;
  readonly record: string;
}

export type ServerMessage =
  | { readonly type: "challenge"; readonly nonce: string }
  | { readonly type: "welcome"; readonly ref: number; readonly peerId: PeerId; readonly keepaliveS: number; readonly timeMs: number | null }
  | { readonly type: "joined"; readonly ref: number; readonly info: RoomInfo; readonly peers: readonly MemberInfo[] }
  | { readonly type: "placed"; readonly ref: number; readonly info: RoomInfo }
  | { readonly type: "left"; readonly ref: number }
  | { readonly type: "peer_joined"; readonly room: string; readonly peer: MemberInfo }
  | { readonly type: "peer_left"; readonly room: string; readonly peerId: PeerId; readonly record: string }
  | { readonly type: "room_list"; readonly ref: number; readonly rooms: readonly RoomInfo[] }
  | { readonly type: "signal"; readonly from: PeerId; readonly room: string; readonly envelope: string }
  | { readonly type: "pong"; readonly ref: number }
  | {
      readonly type: "error"; readonly code: string; readonly message: string; readonly ref: number | null;
      readonly room: string | null; readonly peerId: PeerId | null;
    };

export const encode = (message: { readonly type: string } & Record<string, unknown>): string =>
  stringifyExact({ v: PROTOCOL_VERSION, ...message });

/** `ProtocolError` for garbage, `VersionMismatch` for good JSON of another version. */
export function decodeServerUntrusted(text: unknown): ServerMessage {
  if (typeof text !== "string" || text.length > SERVER_FRAME_MAX) throw new ProtocolError("a frame of a server is text of 1 MiB at most");
  const said = fieldsOf(parseExactUntrusted(text));
  const version = said.v;
  if (version !== PROTOCOL_VERSION) {
    if (!Number.isInteger(version)) throw new ProtocolError("a message of no version");
    throw new VersionMismatch(`the server speaks version ${String(version)} of signaling, this page ${PROTOCOL_VERSION}`);
  }
  switch (said.type) {
    case "challenge":
      return { type: "challenge", nonce: textOf(said.nonce, 128) };
    case "welcome":
      return {
        type: "welcome", ref: numberOf(said.ref), peerId: peerIdUntrusted(said.peer_id), keepaliveS: periodOf(said.keepalive_s),
        timeMs: said.time_ms == null ? null : numberOf(said.time_ms),
      };
    case "joined":
      return {
        type: "joined", ref: numberOf(said.ref), info: roomInfoUntrusted(said.info), peers: listOf(said.peers, MEMBERS_MAX).map(memberUntrusted),
      };
    case "placed":
      return { type: "placed", ref: numberOf(said.ref), info: roomInfoUntrusted(said.info) };
    case "left":
      return { type: "left", ref: numberOf(said.ref) };
    case "peer_joined":
      return { type: "peer_joined", room: nameOf(said.room, 258), peer: memberUntrusted(said.peer) };
    case "peer_left":
      return {
        type: "peer_left", room: nameOf(said.room, 258), peerId: peerIdUntrusted(said.peer_id),
        record: plainText(said.record ?? "", RECORD_CHARS_MAX),
      };
    case "room_list":
      return { type: "room_list", ref: numberOf(said.ref), rooms: listOf(said.rooms, LISTED_MAX).map(roomInfoUntrusted) };
    case "signal":
      return {
        type: "signal", from: peerIdUntrusted(said.from), room: nameOf(said.room, 258), envelope: textOf(said.envelope, ENVELOPE_CHARS_MAX),
      };
    case "pong":
      return { type: "pong", ref: numberOf(said.ref) };
    case "error":
      return {
        type: "error", code: textOf(said.code, 32), message: textOf(said.message, 512), ref: said.ref == null ? null : numberOf(said.ref),
        room: said.room == null ? null : nameOf(said.room, 258), peerId: said.peer_id == null ? null : peerIdUntrusted(said.peer_id),
      };
    default:
      throw new ProtocolError("a message of no known type");
  }
}

const REFUSALS: Readonly<Record<string, new (message: string) => errors.RemoteError>> = {
  room_full: errors.RoomFull, room_not_found: errors.RoomNotFound, room_exists: errors.RoomExists,
  room_mismatch: errors.RoomMismatch, manifest: errors.ManifestRefused, wrong_password: errors.WrongPassword,
  not_invited: errors.NotInvited, invite_expired: errors.InviteExpired, app_version: errors.AppVersionMismatch,
  peer_gone: errors.PeerGone,
};

/** The exception that a refusal stands for. */
export const refusal = (code: string, message: string): errors.RemoteError =>
  new (REFUSALS[code] ?? errors.SignalingError)(message || code);

export const helloPayload = (nonce: string, audience: string): Uint8Array => utf8(`${nonce}\0${audience}`);

// -------------------------------------------------------------------------------------------------- rooms, manifests

/** The one text that names a room everywhere. */
export const roomKey = (name: string, appId: string, region: string, instance: string): string =>
  `${appId}/${region}/${name}`.normalize("NFC") + (instance === "" ? "" : `#${instance}`);

/** What the instances of a lobby share: application and name. */
export function lobbyOf(key: string): string {
  const slash = key.indexOf("/"), rest = key.slice(slash + 1);
  return `${key.slice(0, slash)}/${rest.slice(rest.indexOf("/") + 1).replace(/#[0-9A-HJKMNP-TV-Z]{8}$/, "")}`;
}

/** Text that a person can be shown, up to so many characters; or `InvalidConfig`. */
export function checkedName(what: string, text: unknown, charsMax: number, allowsSlash: boolean): string {
  if (typeof text !== "string" || [...text].length > charsMax || REFUSED.test(text) || (!allowsSlash && text.includes("/")))
    throw new InvalidConfig(
      `${what} is text of ${charsMax} characters at most, without controls and marks that turn text round${allowsSlash ? "" : ", and without slashes"}`,
    );
  return text;
}

/** `text` of a stranger without what cannot be shown. */
export const shownName = (text: string): string => [...text].filter((letter) => !REFUSED.test(letter)).join("");

export const newCode = (rng: Rng): string => Array.from({ length: 8 }, () => choice(rng, [...ALPHABET])).join("");

/** A code as a person typed it, or `InvalidConfig`. */
export function codeOf(text: string): string {
  const code = text.toUpperCase().replace(/[ -]/g, "").replaceAll("O", "0").replace(/[IL]/g, "1");
  if (!CODE.test(code)) throw new InvalidConfig(`${text} is no code of a room: 8 letters and digits, such as K7QM-3FHT`);
  return code;
}

export const shownCode = (code: string): string => (code === "" ? "" : `${code.slice(0, 4)}-${code.slice(4)}`);

export const OPEN: Manifest = { code: "", app_version: "", policy: "open", visible: true, lock: "", spectators: 0, creator: "", signature: "" };

export type Described = Pick<RoomInfo, "name" | "app_id" | "region" | "max_players" | "skill_range" | "metadata" | "manifest">;

export const manifestPayload = (room: Described): Uint8Array => {
  const { code, app_version, policy, visible, lock, spectators } = room.manifest;
  return utf8(
    stringifyExact([
      room.name, room.app_id, room.region, room.max_players, room.skill_range, room.metadata, code, app_version, policy, visible, lock,
      ...(spectators ? [spectators] : []),
    ]),
  );
};

export function signedManifest<R extends Described>(room: R, identity: Identity): R {
  const signature = identity.sign(MANIFEST_DOMAIN, manifestPayload(room));
  const manifest = { ...room.manifest, creator: toBase64(identity.publicKey), signature: toBase64(signature) };
  return { ...room, manifest };
}

/** `ManifestRefused` unless the key of the room is that of its name. */
export function checkKeyUntrusted(room: RoomInfo): void {
  if (room.room !== roomKey(room.name, room.app_id, room.region, room.instance))
    throw new ManifestRefused(`room ${room.name} is shown under a key that does not fit its name`);
}

/** `ManifestRefused` unless the room is as its creator signed it. */
export function checkManifestUntrusted(room: RoomInfo): void {
  const { manifest } = room, shown = `room ${room.name} ${shownCode(manifest.code)}`.trimEnd();
  const refuse = (why: string): never => {
    throw new ManifestRefused(`${shown} ${why}`);
  };
  if (room.instance !== "" && room.instance !== manifest.code) refuse("is shown under another code than its creator signed");
  if (room.players > room.max_players) refuse(`is for ${room.max_players} players by its manifest, and ${room.players} are in it`);
  if (manifest.signature === "") {
    if (manifest.policy !== "open" || manifest.lock !== "") refuse(`is ${manifest.policy}, and nobody signed that`);
    return;
  }
  if ((manifest.policy === "password" || manifest.policy === "invite") !== (manifest.lock !== ""))
    refuse(`is ${manifest.policy}, and its lock says something else`);
  try {
    verifyUntrusted(fromBase64Untrusted(manifest.creator), MANIFEST_DOMAIN, manifestPayload(room), fromBase64Untrusted(manifest.signature));
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    refuse("is not what its creator signed: limits, policy or lock were changed");
  }
}

export const creatorOf = (manifest: Manifest): PeerId | null =>
  manifest.creator === "" ? null : peerIdOf(fromBase64Untrusted(manifest.creator));

/** How to enter that room: it has its own properties and not those we had once asked for. */
export const requestInto = (info: RoomInfo, asked: JoinRequest, create: JoinRequest["create"] = "or"): JoinRequest => ({
  name: info.name, app_id: info.app_id, region: info.region, max_players: info.max_players, skill_range: info.skill_range,
  metadata: info.metadata, instance: info.instance, manifest: info.manifest, create, record: asked.record, door: asked.door,
});

export const joinMessage = (request: JoinRequest, ref: number): { readonly type: string } & Record<string, unknown> => {
  const { name, ...rest } = request;
  return { type: "join", v: PROTOCOL_VERSION, ref, room: name, ...rest };
};

// ---------------------------------------------------------------------------------------------------------- helpers

type Fields = Record<string, unknown>;

function fieldsOf(value: unknown): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new ProtocolError("not an object");
  return value as Fields;
}

function textOf(value: unknown, charsMax: number): string {
  if (typeof value !== "string" || value.length > 2 * charsMax || [...value].length > charsMax) throw new ProtocolError("not the text that was expected");
  return value;
}

function plainText(value: unknown, charsMax: number): string {
  const text = textOf(value, charsMax);
  if (!PRINTABLE.test(text)) throw new ProtocolError("text that is not plain");
  return text;
}

function nameOf(value: unknown, charsMax: number): string {
  const text = textOf(value, charsMax);
  if (REFUSED.test(text)) throw new ProtocolError("a name that cannot be shown");
  return text;
}

function numberOf(value: unknown, low = 0, high = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < low || value > high) throw new ProtocolError("not the number that was expected");
  return value;
}

function periodOf(value: unknown): number {
  const period = plainOf(value);
  if (typeof period !== "number" || !(period > 0 && period <= 3600)) throw new ProtocolError("a keepalive that cannot be");
  return period;
}

function listOf(value: unknown, lengthMax: number): unknown[] {
  if (!Array.isArray(value) || value.length > lengthMax) throw new ProtocolError("not the list that was expected");
  return value;
}

function memberUntrusted(value: unknown): MemberInfo {
  const said = fieldsOf(value);
  return { peerId: peerIdUntrusted(said.peer_id), record: plainText(said.record, RECORD_CHARS_MAX) };
}

export function roomInfoUntrusted(value: unknown): RoomInfo {
  const said = fieldsOf(value);
  return {
    room: nameOf(said.room, 258), name: nameOf(said.name, 128), app_id: nameOf(said.app_id, 64), region: nameOf(said.region, 64),
    players: numberOf(said.players, 0, PLAYERS_MAX), max_players: numberOf(said.max_players, 1, PLAYERS_MAX),
    skill_range: said.skill_range === null ? null : bandOf(said.skill_range), metadata: metadataOf(said.metadata),
    instance: instanceOf(said.instance ?? ""), manifest: manifestOf(fieldsOf(said.manifest ?? {})),
  };
}

function bandOf(value: unknown): [Exact, Exact] {
  const [low, high, ...more] = listOf(value, 2).map((end) => {
    if (typeof end !== "number" && !isExact(end)) throw new ProtocolError("a skill range is two numbers");
    return exactly(end);
  });
  if (low === undefined || high === undefined || more.length > 0 || !(Number(low.$f) <= Number(high.$f)) || !Number.isFinite(Number(high.$f) - Number(low.$f)))
    throw new ProtocolError("a skill range is (low, high)");
  return [low, high];
}

function metadataOf(value: unknown): Record<string, Scalar> {
  const metadata = fieldsOf(value);
  for (const item of Object.values(metadata)) {
    if (item === null || typeof item === "string" || typeof item === "boolean" || isExact(item)) continue;
    if (!Number.isSafeInteger(item)) throw new ProtocolError("metadata of a room holds plain values");
  }
  return metadata as Record<string, Scalar>;
}

function instanceOf(value: unknown): string {
  const code = textOf(value, 8);
  if (code !== "" && !CODE.test(code)) throw new ProtocolError("not a code of a room");
  return code;
}

function manifestOf(said: Fields): Manifest {
  const policy = said.policy ?? "open", visible = said.visible ?? true;
  if (policy !== "open" && policy !== "code" && policy !== "password" && policy !== "invite") throw new ProtocolError("no such policy");
  if (typeof visible !== "boolean") throw new ProtocolError("visible or not");
  return {
    code: instanceOf(said.code ?? ""), app_version: nameOf(said.app_version ?? "", 64), policy, visible,
    lock: plainText(said.lock ?? "", 128), spectators: numberOf(said.spectators ?? 0, 0, 256), creator: plainText(said.creator ?? "", 64), signature: plainText(said.signature ?? "", 128),
  };
}
