// From what a player wishes to one room: signed, found, and checked against its manifest.

import type { JoinOptions } from "./api.ts";
import {
  AppVersionMismatch, InvalidConfig, ManifestRefused, NotInvited, RoomError, UnknownCode, WrongPassword,
} from "./errors.ts";
import { METADATA_MAX_BYTES } from "./gossip/wire.ts";
import type { Identity } from "./identity.ts";
import type { Rng } from "./limits.ts";
import { pack, unpackUntrusted } from "./schema.ts";
import type { SignalingClient } from "./signaling/client.ts";
import { exactly } from "./signaling/exact.ts";
import {
  checkedName, checkKeyUntrusted, checkManifestUntrusted, codeOf, type JoinRequest, lobbyOf, newCode, OPEN, requestInto, type RoomInfo, roomKey,
  type Scalar, shownCode, signedManifest,
} from "./signaling/messages.ts";

const TRIES_MAX = 8, PROOF_ROOM_BYTES = 32;

/** What a player says about itself in its record: claims, not proofs. */
export interface Profile {
  readonly region: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/** `no_tunnel`: a browser cannot be the end of a tunnel, so nobody need wait for that rung. */
export function encodeProfile(region: string, skill: readonly [number, number] | null, metadata: Record<string, string>): Uint8Array {
  const encoded = pack({
    ...(region === "" ? {} : { region }), ...(skill === null ? {} : { skill }), ...(Object.keys(metadata).length > 0 ? { metadata } : {}),
    no_tunnel: true,
  });
  if (encoded.length > METADATA_MAX_BYTES - PROOF_ROOM_BYTES || Object.values(metadata).some((value) => typeof value !== "string"))
    throw new InvalidConfig(`metadata is text, and with the region at most ${METADATA_MAX_BYTES - PROOF_ROOM_BYTES} bytes`);
  return encoded;
}

/** One that we cannot read is no reason to shut a player out. */
export function profileOf(data: Uint8Array): Profile {
  try {
    const said = unpackUntrusted(data) as Record<string, unknown>;
    const metadata = typeof said.metadata === "object" && said.metadata !== null ? said.metadata : {};
    const texts = Object.entries(metadata).filter(([, value]) => typeof value === "string");
    return { region: typeof said.region === "string" ? said.region : "", metadata: Object.fromEntries(texts) };
  } catch {
    return { region: "", metadata: {} };
  }
}

/** The join of a lobby, as it would be made. `InvalidConfig` for what is out of bounds. */
export function requestOf(name: string, options: JoinOptions): JoinRequest {
  const { maxPlayers = 16, appId = "", appVersion = "", region = "", skillRange, roomMetadata = {}, create } = options;
  checkedName("a room name", name, 128, true);
  if (name === "" || /#[0-9A-HJKMNP-TV-Z]{8}$/.test(name)) throw new InvalidConfig(`${name} is no name of a room; enter by a code with joinRoom`);
  for (const [what, text] of Object.entries({ appId, appVersion, region })) checkedName(what, text, 64, false);
  if (!Number.isInteger(maxPlayers) || maxPlayers < 2 || maxPlayers > 1024) throw new InvalidConfig("maxPlayers must lie in 2 to 1024");
  if (skillRange !== undefined && !(skillRange[0] <= skillRange[1])) throw new InvalidConfig("skillRange must be [low, high]");
  const metadata: Record<string, Scalar> = {};
  for (const [key, value] of Object.entries(roomMetadata)) {
    if (typeof value === "number" && !Number.isFinite(value)) throw new InvalidConfig(`roomMetadata.${key} is no number`);
    metadata[key] = typeof value === "number" && !Number.isInteger(value) ? exactly(value) : value;
  }
  return {
    name, app_id: appId, region, max_players: maxPlayers, metadata, instance: "", manifest: { ...OPEN, app_version: appVersion },
    skill_range: skillRange === undefined ? null : [exactly(skillRange[0]), exactly(skillRange[1])],
    create: create === true ? "only" : create === false ? "never" : "or", record: "", door: "",
  };
}

export interface Wish {
  /** The name of a lobby, or the code of a room. */
  readonly name: string;
  readonly byCode: boolean;
  readonly options: JoinOptions;
}

/** 1. `place(tried)`: the join of exactly one room. 2. After a `RoomError`, `mayRetry` says whether to place again. */
export class Placement {
  readonly #wish: Wish;
  readonly #client: SignalingClient;
  readonly #identity: Identity;
  readonly #rng: Rng;

  constructor(wish: Wish, client: SignalingClient, identity: Identity, rng: Rng) {
    this.#wish = wish;
    this.#client = client;
    this.#identity = identity;
    this.#rng = rng;
  }

  async place(tried: readonly string[]): Promise<JoinRequest> {
    const { name, byCode, options } = this.#wish;
    if (byCode) return this.#found(codeOf(name), options);
    const request = this.#signed(requestOf(name, options));
    if (options.create === true) return request;
    const info = await this.#client.seek(request, tried.slice(-16));
    checkShown(info);
    if (lobbyOf(info.room) !== lobbyOf(keyOf(request)) || info.manifest.policy !== "open")
      throw new ManifestRefused(`the server shows ${info.room} for ${name}`);
    return requestInto(info, request, info.players > 0 ? "never" : "or");
  }

  mayRetry(error: unknown, tried: readonly string[]): boolean {
    const { byCode, options } = this.#wish;
    return error instanceof RoomError && !byCode && options.create !== true && tried.length < TRIES_MAX;
  }

  /** Whether the server let us into what it had shown. */
  check(info: RoomInfo, asked: JoinRequest): void {
    checkKeyUntrusted(info);
    checkManifestUntrusted(info);
    if (this.#wish.options.create !== true && JSON.stringify(info.manifest) !== JSON.stringify(asked.manifest))
      throw new ManifestRefused(`the server let us into another room than it had shown`);
  }

  async #found(code: string, options: JoinOptions): Promise<JoinRequest> {
    const { appId = "", appVersion = "" } = options;
    const info = (await this.#client.listRooms(appId, code)).find((room) => room.manifest.code === code);
    if (info === undefined) throw new UnknownCode(`no room has the code ${shownCode(code)}: it ended, or the code was misread`);
    checkShown(info);
    const { policy, app_version: theirs } = info.manifest;
    if (theirs !== appVersion)
      throw new AppVersionMismatch(`room ${shownCode(code)} plays version "${theirs}" of the game, you have "${appVersion}"`);
    if (policy === "invite") throw new NotInvited(`room ${shownCode(code)} is for the invited, whom pages cannot let in yet`);
    if (policy === "password") throw new WrongPassword(`room ${shownCode(code)} has a password, which pages cannot give yet`);
    return requestInto(info, requestOf("room", options), "never");
  }

  #signed(request: JoinRequest): JoinRequest {
    const manifest = { ...request.manifest, code: newCode(this.#rng) };
    return signedManifest({ ...request, manifest }, this.#identity);
  }
}

export const keyOf = (request: JoinRequest): string => roomKey(request.name, request.app_id, request.region, request.instance);

function checkShown(info: RoomInfo): void {
  if (info.manifest.signature === "") throw new ManifestRefused(`nobody signed room ${info.name}`);
  checkKeyUntrusted(info);
  checkManifestUntrusted(info);
}

