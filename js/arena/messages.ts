// Made by `psyne-mesh schema --typescript examples.arena.world`; make it again instead of changing it.
import { messageType } from "psyne-mesh";

export interface Shot {
  x: number;
  y: number;
  angle: number;
}
export const Shot = messageType<Shot>({
  tag: "Shot",
  fields: [
    ["x", "float"],
    ["y", "float"],
    ["angle", "float"],
  ],
  hash: "5d56c8d6c094a436",
  text: '["Shot",[["x","float"],["y","float"],["angle","float"]]]',
});

export interface Kill {
  by: string;
}
export const Kill = messageType<Kill>({
  tag: "Kill",
  fields: [
    ["by", "str"],
  ],
  hash: "5f7b6798ddc1c657",
  text: '["Kill",[["by","str"]]]',
});

export interface Chat {
  text: string;
}
export const Chat = messageType<Chat>({
  tag: "Chat",
  fields: [
    ["text", "str"],
  ],
  hash: "3e81d1ec6241635e",
  text: '["Chat",[["text","str"]]]',
});

export interface Ship {
  x: number;
  y: number;
  angle: number;
  hp: number;
  kills: number;
  deaths: number;
  paused: boolean;
}
export const Ship = {
  name: "Ship",
  fields: [
    { name: "x", code: "float of 32 bits", bits: 32, smooth: true, default: 0 },
    { name: "y", code: "float of 32 bits", bits: 32, smooth: true, default: 0 },
    { name: "angle", code: "quantised to 10 bits from -3.14159 to 3.14159", bits: 10, smooth: true, low: -3.141592653589793, high: 3.141592653589793, default: 0 },
    { name: "hp", code: "int", bits: 0, smooth: false, default: 100 },
    { name: "kills", code: "int", bits: 0, smooth: false, default: 0 },
    { name: "deaths", code: "int", bits: 0, smooth: false, default: 0 },
    { name: "paused", code: "bool", bits: 1, smooth: false, default: false },
  ],
} as const;
