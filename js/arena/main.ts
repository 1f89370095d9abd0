// The page: a lobby that also opens offline, and the arena behind it, in one room with Python players.

import { joinGameRoom, joinRoom, PeerGone, type Room } from "psyne-mesh";

import type { NetGraph } from "../net-graph/net-graph.ts";
import "../net-graph/net-graph.ts";
import { Controls } from "./controls.ts";
import { goalOf } from "./link.ts";
import { Chat, Kill, Ship, Shot } from "./messages.ts";
import { INTERVAL_MS, NotShared, SharedObjects } from "./shared.ts";
import { View } from "./view.ts";
import { World } from "./world.ts";

const MAX_PLAYERS = 8;
const goal = goalOf(location.search);

const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const lobby = element<HTMLFormElement>("lobby");
const status = element<HTMLElement>("status");
const nameField = element<HTMLInputElement>("name");
const roomField = element<HTMLInputElement>("room");
const say = element<HTMLInputElement>("say");
const canvas = element<HTMLCanvasElement>("arena");
const graph = element<NetGraph>("graph");

function tell(text: string): void {
  status.textContent = text;
}

/** The lobby comes from the cache when there is no network; it says so, and waits. */
function showOnline(): void {
  document.body.classList.toggle("offline", !navigator.onLine);
  const button = lobby.querySelector("button");
  if (button !== null) button.disabled = !navigator.onLine;
  if (!navigator.onLine) tell("You are offline: this page is from the cache. Rooms open again when the network is back.");
  else if (status.textContent?.startsWith("You are offline") === true) tell("");
}

async function enter(): Promise<Room> {
  const options = { playerName: nameField.value.trim() || "guest", maxPlayers: MAX_PLAYERS, region: goal.region ?? "" };
  const signaling = goal.signaling === undefined ? {} : { signaling: goal.signaling };
  const text = roomField.value.trim() || "arena";
  const isCode = goal.code !== undefined || /^[0-9A-Za-z]{4}-[0-9A-Za-z]{4}$/.test(text);
  return isCode ? joinRoom(text, { ...options, ...signaling }) : joinGameRoom(text, { ...options, ...signaling });
}

function play(room: Room): void {
  const world = new World(room.me, room.player.name);
  const [view, controls] = [new View(canvas), new Controls(canvas)];
  const shots = room.channel("shots", Shot, { mode: "reliable_unordered" });
  const [kills, chat] = [room.channel("kills", Kill), room.channel("chat", Chat)];
  const traffic = room.channel("psyne.shared", { mode: "unreliable" });
  const shared = new SharedObjects(Ship);
  const nameOf = (id: string): string => (id === room.me ? world.name : (room.peers.get(id)?.name ?? id.slice(0, 8)));
  const told = new Set<string>();
  let [before, sent] = [performance.now(), 0];

  function listen(): void {
    for (const event of room.poll()) {
      if (event.type === "peerDiscovered") shared.joined(event.peer.id);
      if (event.type === "peerConnected") world.say(`${event.peer.name} is here (${event.peer.path?.kind ?? "connected"})`);
      if (event.type === "peerLeft") {
        shared.left(event.peer.id);
        world.gone(event.peer.id);
        world.say(`${event.peer.name} is gone (${event.reason})`);
      }
      if (event.type === "messageRefused") world.say(`${event.peer.name} plays another version: ${event.reason}`);
    }
    const moved = new Set<string>();
    for (const [sender, data] of traffic.poll())
      try {
        if (typeof data !== "string") shared.receive(sender.id, data);
        moved.add(sender.id);
      } catch (error) {
        if (!(error instanceof NotShared)) throw error;
      }
    for (const [owner, , ship] of shared.objects()) if (moved.has(owner)) world.saw(owner, ship as unknown as Ship);
    for (const [id, why] of shared.refused) if (!told.has(id)) world.say(`${nameOf(told.add(id) && id)} plays another version: ${why}`);
    for (const [sender, shot] of shots.poll()) world.fly(shot, sender.id);
    for (const [sender, kill] of kills.poll()) {
      if (kill.by === room.me) world.me.kills += 1;
      world.say(`${nameOf(kill.by)} > ${sender.name}`);
    }
    for (const [sender, line] of chat.poll()) world.say(`${sender.name}: ${line.text}`);
  }

  function tellShip(now: number): void {
    sent = now;
    for (const [peer, message] of shared.messages({ ...world.me }, now))
      try {
        traffic.send(message, peer);
      } catch (error) {
        if (!(error instanceof PeerGone)) throw error; // it counts as lost: the next one says it all again
      }
  }

  function frame(now: number): void {
    if (room.closed) {
      graph.room = null;
      document.body.classList.remove("playing");
      tell(`The room has ended: ${String(room.ended.reason ?? "left")}`);
      return;
    }
    const dt = Math.min(0.05, (now - before) / 1000);
    before = now;
    listen();
    const shot = world.move(controls.inputs(world.me.x, world.me.y), dt);
    if (shot !== null) {
      world.fly(shot, room.me);
      shots.send(shot);
    }
    if (world.hitBy !== "") {
      world.say(`${nameOf(world.hitBy)} > ${world.name}`);
      kills.send(Kill.make({ by: world.hitBy }));
    }
    if (now - sent >= INTERVAL_MS) tellShip(now);
    view.draw(world, world.ships(nameOf), dt);
    requestAnimationFrame(frame);
  }

  graph.room = room;
  document.body.classList.add("playing");
  say.form?.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = say.value.trim().slice(0, 80);
    say.value = "";
    say.blur();
    if (text === "" || room.closed) return;
    chat.send(Chat.make({ text }));
    world.say(`${world.name}: ${text}`);
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === document.body) say.focus();
  });
  document.addEventListener("visibilitychange", () => {
    world.me.paused = document.hidden; // nobody shoots at who does not look
    if (!room.closed) room.pause(document.hidden ? "another tab" : null);
    if (!room.closed) tellShip(performance.now());
  });
  requestAnimationFrame(frame);
}

lobby.addEventListener("submit", (event) => {
  event.preventDefault();
  tell("Entering ...");
  enter().then(
    (room) => {
      tell("");
      localStorage.setItem("psyne-name", nameField.value);
      const link = element<HTMLAnchorElement>("invite");
      if (room.code !== "") link.href = `/r/${room.code}`;
      link.textContent = room.code;
      play(room);
      dispatchEvent(new CustomEvent("psyne-room", { detail: room }));
    },
    (error: unknown) => tell(error instanceof Error ? `${error.name}: ${error.message}` : String(error)),
  );
});

nameField.value = localStorage.getItem("psyne-name") ?? `guest ${Math.floor(100 + Math.random() * 900)}`;
roomField.value = goal.code ?? goal.room ?? "arena";
if (goal.wrong !== undefined) tell(goal.wrong);
for (const type of ["online", "offline"] as const) addEventListener(type, showOnline);
showOnline();
if ("serviceWorker" in navigator) void navigator.serviceWorker.register("sw.js").catch(() => undefined); // a page without a cache is a page
