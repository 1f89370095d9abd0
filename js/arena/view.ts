// What is seen: ships, bullets, sparks, scores, chat. Drawn in the world's own 1280 x 720, whatever the window has.

import { colourOf } from "../net-graph/net-graph.ts";
import { BULLET_S, HEIGHT, RADIUS, type Ship, WALLS, WIDTH, type World } from "./world.ts";

const [BACK, GRID, WALL, EDGE, TEXT, DIM] = ["#0a0c16", "#14192a", "#262e4a", "#5668a0", "#e2e8fa", "#8892b2"];
const HULL: readonly (readonly [number, number])[] = [[0, 1.45], [2.45, 1.15], [Math.PI, 0.45], [-2.45, 1.15]];

interface Particle {
  x: number;
  y: number;
  vx: number;
  vy: number;
  left: number;
  owner: string;
}

export class View {
  #context: CanvasRenderingContext2D;
  #particles: Particle[] = [];

  constructor(canvas: HTMLCanvasElement) {
    [canvas.width, canvas.height] = [WIDTH, HEIGHT];
    const context = canvas.getContext("2d", { alpha: false });
    if (context === null) throw new Error("this browser draws no canvas");
    this.#context = context;
  }

  draw(world: World, ships: readonly Ship[], dt: number): void {
    const c = this.#context;
    c.fillStyle = BACK as string;
    c.fillRect(0, 0, WIDTH, HEIGHT);
    c.strokeStyle = GRID as string;
    c.lineWidth = 1;
    c.beginPath();
    for (let at = 0; at < WIDTH; at += 40) {
      c.moveTo(at, 0);
      c.lineTo(at, HEIGHT);
      c.moveTo(0, at);
      c.lineTo(WIDTH, at);
    }
    c.stroke();
    for (const [x, y, w, h] of WALLS) {
      c.fillStyle = WALL as string;
      c.strokeStyle = EDGE as string;
      c.fillRect(x, y, w, h);
      c.strokeRect(x, y, w, h);
    }
    for (const bullet of world.bullets) {
      const tail = 26 * Math.min(1, (BULLET_S - bullet.left) * 8);
      c.strokeStyle = colourOf(bullet.owner, 40);
      c.lineWidth = 3;
      c.beginPath();
      c.moveTo(bullet.x - tail * Math.cos(bullet.angle), bullet.y - tail * Math.sin(bullet.angle));
      c.lineTo(bullet.x, bullet.y);
      c.stroke();
    }
    for (const ship of ships) this.#ship(ship);
    this.#sparks(world, dt);
    this.#scores(ships);
    [...world.lines].reverse().forEach((line, row) => {
      c.globalAlpha = Math.max(0.3, 1 - (world.now - line.said) / 12);
      this.#write(line.text, 18, HEIGHT - 72 - 22 * row, TEXT as string);
    });
    c.globalAlpha = 1;
    if (world.me.hp <= 0 || world.me.paused) this.#write(world.me.paused ? "paused" : "shot down", WIDTH / 2, HEIGHT / 2, TEXT as string, 64, "center");
  }

  #ship(ship: Ship): void {
    const c = this.#context;
    c.lineWidth = 2;
    if (ship.hp <= 0) {
      c.strokeStyle = colourOf(ship.owner, 20);
      c.beginPath();
      c.arc(ship.x, ship.y, RADIUS, 0, 2 * Math.PI);
      c.stroke();
      return;
    }
    c.globalAlpha = ship.paused ? 0.35 : 1;
    c.fillStyle = colourOf(ship.owner);
    c.strokeStyle = "#ffffff";
    c.beginPath();
    for (const [turn, r] of HULL) c.lineTo(ship.x + RADIUS * r * Math.cos(ship.angle + turn), ship.y + RADIUS * r * Math.sin(ship.angle + turn));
    c.closePath();
    c.fill();
    c.stroke();
    c.globalAlpha = 1;
    c.fillStyle = "#3c141e";
    c.fillRect(ship.x - 22, ship.y - 36, 44, 4);
    c.fillStyle = ship.hp > 60 ? "#78ff8c" : ship.hp > 30 ? "#ffd25a" : "#ff5a5a";
    c.fillRect(ship.x - 22, ship.y - 36, (44 * ship.hp) / 100, 4);
    this.#write(`${ship.name}${ship.paused ? " (away)" : ""}`, ship.x, ship.y - 44, (ship.mine ? TEXT : DIM) as string, 14, "center");
  }

  #sparks(world: World, dt: number): void {
    for (const { x, y, owner, count } of world.sparks.splice(0))
      for (let number = 0; number < count; number += 1) {
        const [angle, speed] = [Math.random() * 2 * Math.PI, 30 + Math.random() * (50 + 5 * count)];
        this.#particles.push({ x, y, vx: speed * Math.cos(angle), vy: speed * Math.sin(angle), left: 0.7, owner });
      }
    const c = this.#context;
    for (const each of this.#particles) {
      each.x += each.vx * dt;
      each.y += each.vy * dt;
      each.left -= dt;
      c.fillStyle = colourOf(each.owner, (62 * Math.max(0, each.left)) / 0.7);
      c.fillRect(each.x - 2, each.y - 2, 4, 4);
    }
    this.#particles = this.#particles.filter((each) => each.left > 0).slice(-500);
  }

  #scores(ships: readonly Ship[]): void {
    const c = this.#context;
    c.fillStyle = "#080a14be";
    c.fillRect(WIDTH - 232, 12, 220, 34 + 22 * ships.length);
    this.#write("kills   deaths", WIDTH - 118, 32, DIM as string, 14);
    [...ships].sort((a, b) => b.kills - a.kills || a.deaths - b.deaths).forEach((ship, row) => {
      const y = 56 + 22 * row;
      c.fillStyle = colourOf(ship.owner);
      c.fillRect(WIDTH - 221, y - 10, 10, 10);
      this.#write(ship.name.slice(0, 12), WIDTH - 204, y, (ship.mine ? TEXT : DIM) as string);
      this.#write(String(ship.kills), WIDTH - 90, y, TEXT as string, 17, "right");
      this.#write(String(ship.deaths), WIDTH - 36, y, TEXT as string, 17, "right");
    });
  }

  #write(text: string, x: number, y: number, colour: string, size = 17, align: CanvasTextAlign = "left"): void {
    const c = this.#context;
    c.font = `${size}px system-ui, sans-serif`;
    c.textAlign = align;
    c.fillStyle = colour;
    c.fillText(text, x, y);
  }
}
