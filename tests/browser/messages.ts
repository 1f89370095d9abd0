// Made by `psyne-mesh schema --typescript tests.browser.messages`; make it again instead of changing it.
import { type FieldType, messageType } from "psyne-mesh";

export const Action = { ATTACK: 0, BLOCK: 1, DODGE: 2, RELOAD: 3, USE_ITEM: 4 } as const;
export type Action = (typeof Action)[keyof typeof Action];

export const Team = { RED: "red", BLUE: "blue" } as const;
export type Team = (typeof Team)[keyof typeof Team];

/** What a player does to another; reliable and ordered, since a lost hit is a wrong score. */
export interface CombatAction {
  sequence: number;
  timestamp_ns: bigint;
  action: Action;
  target: string;
  direction: [number, number, number];
  weapon: number;
  damage: number;
  accuracy: number;
  item: string;
}
export const CombatAction = messageType<CombatAction, "target" | "direction" | "weapon" | "damage" | "accuracy" | "item">({
  tag: "CombatAction",
  fields: [
    ["sequence", "int"],
    ["timestamp_ns", "bigint"],
    ["action", { kind: "enum", values: [0, 1, 2, 3, 4] }],
    ["target", "str", ""],
    ["direction", { kind: "tuple", items: ["float", "float", "float"] }, [0, 0, 1]],
    ["weapon", { kind: "int", ge: 0, le: 255 }, 0],
    ["damage", { kind: "float", ge: 0, le: 1000 }, 0],
    ["accuracy", { kind: "float", ge: 0, le: 1 }, 1],
    ["item", "str", ""],
  ],
  hash: "9cdec52371321507",
  text: '["CombatAction",[["sequence","int"],["timestamp_ns","int"],["action","Action(0, 1, 2, 3, 4)"],["target","str",1],["direction","(float, float, float)",1],["weapon","int 0..255",1],["damage","float 0..1000",1],["accuracy","float 0..1",1],["item","str",1]]]',
});

/** Where a player is: metres, metres per second, radians. Sent at 60 Hz, unreliable: the next one replaces it. */
export interface PlayerPosition {
  sequence: number;
  timestamp_ns: bigint;
  x: number;
  y: number;
  z: number;
  vx: number;
  vy: number;
  vz: number;
  yaw: number;
  pitch: number;
  health: number;
  weapon: number;
  flags: number;
}
export const PlayerPosition = messageType<PlayerPosition, "x" | "y" | "z" | "vx" | "vy" | "vz" | "yaw" | "pitch" | "health" | "weapon" | "flags">({
  tag: "PlayerPosition",
  fields: [
    ["sequence", "int"],
    ["timestamp_ns", "bigint"],
    ["x", "float", 0],
    ["y", "float", 0],
    ["z", "float", 0],
    ["vx", "float", 0],
    ["vy", "float", 0],
    ["vz", "float", 0],
    ["yaw", "float", 0],
    ["pitch", "float", 0],
    ["health", { kind: "int", ge: 0, le: 255 }, 100],
    ["weapon", { kind: "int", ge: 0, le: 255 }, 0],
    ["flags", { kind: "int", ge: 0, le: 65535 }, 0],
  ],
  hash: "6ee9f3a00a763063",
  text: '["PlayerPosition",[["sequence","int"],["timestamp_ns","int"],["x","float",1],["y","float",1],["z","float",1],["vx","float",1],["vy","float",1],["vz","float",1],["yaw","float",1],["pitch","float",1],["health","int 0..255",1],["weapon","int 0..255",1],["flags","int 0..65535",1]]]',
});

/** A plain run of numbers, as psyne's first examples sent. */
export interface FloatVector {
  values: number[];
}
export const FloatVector = messageType<FloatVector>({
  tag: "FloatVector",
  fields: [
    ["values", { kind: "list", items: "float" }],
  ],
  hash: "2c320990d8a936d2",
  text: '["FloatVector",[["values","list of float"]]]',
});

/** Somebody fired. */
export interface Shot {
  x: number;
  y: number;
  weapon: number;
}
export const Shot = messageType<Shot, "weapon">({
  tag: "Shot",
  fields: [
    ["x", "float"],
    ["y", "float"],
    ["weapon", "int", 0],
  ],
  hash: "2ecffe075e51a189",
  text: '["Shot",[["x","float"],["y","float"],["weapon","int",1]]]',
});

export interface Hit {
  target: string;
  damage: number;
}
export const Hit = messageType<Hit>({
  tag: "h",
  fields: [
    ["target", "str"],
    ["damage", { kind: "float", gt: 0, le: 1000 }],
  ],
  hash: "a2f3fb5a28ab5661",
  text: '["h",[["target","str"],["damage","float ..1000 > 0"]]]',
});

export interface Point {
  x: number;
  y: number;
}
export const Point: FieldType = {
  kind: "array",
  fields: [
    ["x", "float"],
    ["y", "float", 0],
  ],
};

export interface Item {
  name: string;
  count: number;
}
export const Item: FieldType = {
  kind: "object",
  fields: [
    ["name", { kind: "str", minLength: 1, maxLength: 32 }],
    ["count", { kind: "int", ge: 1, le: 99 }, 1],
  ],
  tag: ["type", "item"],
};

export interface Coin {
  value: number;
}
export const Coin: FieldType = {
  kind: "object",
  fields: [
    ["value", "int"],
  ],
  tag: ["type", "coin"],
};

export interface Look {
  hat: string;
  colour: [number, number, number];
}
export const Look: FieldType = {
  kind: "object",
  fields: [
    ["hat", "str"],
    ["colour", { kind: "tuple", items: ["int", "int", "int"] }, [255, 255, 255]],
  ],
};

export interface Span {
  first: number;
  last: number;
}
export const Span: FieldType = {
  kind: "array",
  fields: [
    ["first", "int"],
    ["last", "int"],
  ],
};

/** One field of each kind. */
export interface Everything {
  flag: boolean;
  small: number;
  at_ns: bigint;
  ratio: number;
  word: string;
  blob: Uint8Array;
  team: Team;
  which: 0 | "left" | "right";
  point: Point;
  path: Point[];
  loot: Item | Coin | null;
  look: Look;
  span: Span;
  scores: Record<string, number>;
  pair: [number, string];
  trail: number[];
  seen: number[];
  owner: string | null;
  home: Point;
  first: Shot;
  anything: unknown;
  raw: Uint8Array;
  big: bigint;
}
export const Everything = messageType<Everything, "trail" | "seen" | "owner" | "home" | "first" | "anything" | "raw" | "big">({
  tag: 7,
  fields: [
    ["flag", "bool"],
    ["small", { kind: "int", ge: -8, lt: 8 }],
    ["at_ns", "bigint"],
    ["ratio", { kind: "float", ge: 0, le: 1 }],
    ["word", { kind: "str", maxLength: 8, pattern: "^[a-z]+$" }],
    ["blob", { kind: "bytes", maxLength: 4 }],
    ["team", { kind: "enum", values: ["red", "blue"] }],
    ["which", { kind: "enum", values: [0, "left", "right"] }],
    ["point", Point],
    ["path", { kind: "list", items: Point, maxLength: 16 }],
    ["loot", { kind: "union", of: [Item, Coin, "none"] }],
    ["look", Look],
    ["span", Span],
    ["scores", { kind: "dict", values: "int" }],
    ["pair", { kind: "tuple", items: ["int", "str"] }],
    ["trail", { kind: "list", items: "float" }, []],
    ["seen", { kind: "list", items: "int" }, []],
    ["owner", { kind: "union", of: ["str", "none"] }, null],
    ["home", Point, { x: 1, y: 2 }],
    ["first", { kind: "array", tag: "Shot", fields: Shot.fields }, { x: 1, y: 2, weapon: 0 }],
    ["anything", "any", null],
    ["raw", "bytes", Uint8Array.of(0, 255)],
    ["big", "bigint", 1152921504606846976n],
  ],
  hash: "0a420e0d6cb777f0",
  text: '[7,[["flag","bool"],["small","int -8.. < 8"],["at_ns","int"],["ratio","float 0..1"],["word","str of 0 to 8 like ^[a-z]+$"],["blob","bytes of 0 to 4"],["team","Team(blue, red)"],["which","one of (0, left, right)"],["point","Point{x float, y float}"],["path","list of Point{x float, y float} of 0 to 16"],["loot","Coin{value int} or Item{name str of 1 to 32, count int 1..99} or none"],["look","Look{hat str, colour (int, int, int)}"],["span","Span{first int, last int}"],["scores","dict of str to int"],["pair","(int, str)"],["trail","list of float",1],["seen","list of int",1],["owner","none or str",1],["home","Point{x float, y float}",1],["first","Shot{x float, y float, weapon int}",1],["anything","any",1],["raw","bytes",1],["big","int",1]]]',
});

/** An object that all see. */
export interface Ship {
  x: number;
  turret: number;
  hp: number;
  team: Team;
}
export const Ship = {
  name: "Ship",
  fields: [
    { name: "x", code: "float of 32 bits", bits: 32, smooth: true, default: 0 },
    { name: "turret", code: "quantised to 10 bits from -3.2 to 3.2", bits: 10, smooth: false, low: -3.2, high: 3.2, default: 0 },
    { name: "hp", code: "int", bits: 0, smooth: false, default: 100 },
    { name: "team", code: "enum Team", bits: 0, smooth: false, default: "red" },
  ],
} as const;
