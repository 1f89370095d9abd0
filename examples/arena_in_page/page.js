// The window of main.py: loads the member, then Python, then the game, and draws what it says. Nothing comes from other hosts.
import * as psyneMesh from "/app/psyne-mesh.js";

import { loadPyodide } from "./pyodide/pyodide.mjs";
import { WALLS } from "./walls.js";

const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d"), asked = new URLSearchParams(location.search);
const keys = { left: 0, right: 0, up: 0, down: 0, fire: false, x: 0, y: 0 }, said = [];
const NAMES = { KeyA: "left", ArrowLeft: "left", KeyD: "right", ArrowRight: "right", KeyW: "up", ArrowUp: "up", KeyS: "down", ArrowDown: "down" };

globalThis.psyneMesh = psyneMesh;
globalThis.arena = {
  room: asked.get("room") ?? "arena", name: asked.get("name") ?? "page", autopilot: asked.has("autopilot"), closed: false, frames: 0, firstFrameMs: null,
  last: null, failed: null,
  pressed: () => JSON.stringify(keys),
  ended(why) {
    this.failed = why;
    document.querySelector("p").textContent = why.trim().split("\n").at(-1);
  },
  typed: () => JSON.stringify(said.splice(0)),
  draw(text) {
    this.last = JSON.parse(text);
    show(this.last);
    this.firstFrameMs ??= performance.now(); // since the page was opened
    this.frames++;
  },
};

for (const [kind, value] of [["keydown", 1], ["keyup", 0]])
  addEventListener(kind, ({ code, target }) => {
    if (target.localName === "input") return;
    if (NAMES[code] !== undefined) keys[NAMES[code]] = value;
    if (code === "Space") keys.fire = value === 1;
  });
canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => Object.assign(keys, { x: offsetX, y: offsetY }));
for (const [kind, fire] of [["pointerdown", true], ["pointerup", false]]) canvas.addEventListener(kind, () => (keys.fire = fire));
document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  said.push(event.target.elements.text.value);
  event.target.reset();
});

const colourOf = (id) => `hsl(${(Number.parseInt(id.slice(0, 6), 16) % 24) * 15} 85% 62%)`;

function show({ ships, bullets, lines }) {
  pen.fillStyle = "#0a0c16";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = "#262e4a";
  for (const wall of WALLS) pen.fillRect(...wall);
  for (const [x, y, owner] of bullets) {
    pen.fillStyle = colourOf(owner);
    pen.fillRect(x - 3, y - 3, 6, 6);
  }
  for (const { x, y, angle, hp, name, id } of ships) {
    pen.fillStyle = colourOf(id);
    pen.globalAlpha = hp > 0 ? 1 : 0.3;
    pen.beginPath();
    for (const [turn, r] of [[0, 23], [2.45, 18], [-2.45, 18]]) pen.lineTo(x + r * Math.cos(angle + turn), y + r * Math.sin(angle + turn));
    pen.fill();
    pen.globalAlpha = 1;
    pen.fillText(`${name} ${hp}`, x - 20, y - 28);
  }
  pen.fillStyle = "#e2e8fa";
  lines.forEach((line, row) => pen.fillText(line, 18, 640 + 16 * row));
}

const bytes = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());

try {
  const [python, names, main] = await Promise.all([loadPyodide(), (await fetch("archives.json")).json(), (await fetch("main.py")).text()]);
  const site = python.runPython("import site; site.getsitepackages()[0]");
  for (const [name, archive] of await Promise.all(names.map(async (name) => [name, await bytes(name)])))
    python.unpackArchive(archive, name.endsWith(".whl") ? "wheel" : "zip", { extractDir: site });
  await python.runPythonAsync(main, { globals: python.toPy({ __name__: "__main__" }) });
} catch (error) {
  globalThis.arena.ended(String(error));
}
