// The rules of examples/arena/world.py: ships, walls, bullets. Each player moves its own ship, and says itself when it is hit.

import { type Ship as Pose, Shot } from "./messages.ts";

export const WIDTH = 1280;
export const HEIGHT = 720;
export const RADIUS = 16;
const SPEED = 250;
const BULLET_SPEED = 640;
export const BULLET_S = 1.1;
const RELOAD_S = 0.22;
const DAMAGE = 20;
const RESPAWN_S = 2;
const SHOWN_S = 0.1; // others are shown so far behind, between two of their poses: at 20 Hz there are always two
const SILENT_S = 3; // no pose for so long: not at play
export const WALLS: readonly (readonly [number, number, number, number])[] = [
  [250, 150, 28, 200], [250, 520, 220, 28], [610, 330, 60, 60], [810, 170, 220, 28], [1000, 380, 28, 200],
];

export interface Inputs {
  dx: number;
  dy: number;
  aim: number;
  fire: boolean;
}

export interface Bullet {
  x: number;
  y: number;
  angle: number;
  owner: string;
  left: number;
}

/** A ship as it is shown. */
export interface Ship extends Pose {
  owner: string;
  name: string;
  mine: boolean;
}

/** Another player's ship: its last two poses, and when they came. */
class Track {
  #before: [number, Pose] | null = null;
  #last: [number, Pose];

  constructor(pose: Pose, now: number) {
    this.#last = [now, pose];
  }

  add(pose: Pose, now: number): void {
    this.#before = this.#last;
    this.#last = [now, pose];
  }

  isSilent(now: number): boolean {
    return now - this.#last[0] > SILENT_S;
  }

  at(now: number): Pose {
    const [came, pose] = this.#last;
    if (this.#before === null) return pose;
    const [earlier, from] = this.#before;
    if (Math.hypot(pose.x - from.x, pose.y - from.y) > 150) return pose; // a jump is shown as one
    const part = Math.min(1, Math.max(0, (now - SHOWN_S - earlier) / Math.max(0.001, came - earlier)));
    return { ...pose, x: from.x + part * (pose.x - from.x), y: from.y + part * (pose.y - from.y) };
  }
}

export class World {
  readonly me: Pose = { x: 0, y: 0, angle: 0, hp: 100, kills: 0, deaths: 0, paused: false };
  readonly lines: { text: string; said: number }[] = [];
  readonly sparks: { x: number; y: number; owner: string; count: number }[] = [];
  bullets: Bullet[] = [];
  now = 0;
  hitBy = "";
  #tracks = new Map<string, Track>();
  #reload = 0;
  #dead = 0;
  #random: () => number;

  constructor(readonly id: string, readonly name: string, random: () => number = Math.random) {
    this.#random = random;
    this.spawn();
  }

  spawn(): void {
    this.#dead = 0;
    this.me.hp = 100;
    for (;;) {
      const x = 60 + this.#random() * (WIDTH - 120);
      const y = 60 + this.#random() * (HEIGHT - 120);
      if (blocked(x, y, 3 * RADIUS)) continue;
      [this.me.x, this.me.y] = [x, y];
      return;
    }
  }

  say(text: string): void {
    this.lines.push({ text: text.slice(0, 100), said: this.now });
    while (this.lines.length > 7 || (this.lines[0] !== undefined && this.now - this.lines[0].said > 20)) this.lines.shift();
  }

  saw(owner: string, pose: Pose): void {
    const track = this.#tracks.get(owner);
    if (track === undefined) this.#tracks.set(owner, new Track(pose, this.now));
    else track.add(pose, this.now);
  }

  gone(owner: string): void {
    this.#tracks.delete(owner);
  }

  ships(nameOf: (owner: string) => string): Ship[] {
    const others = [...this.#tracks].filter(([, track]) => !track.isSilent(this.now));
    return [
      { ...this.me, owner: this.id, name: this.name, mine: true },
      ...others.map(([owner, track]) => ({ ...track.at(this.now), owner, name: nameOf(owner), mine: false })),
    ];
  }

  fly(shot: Shot, owner: string): void {
    this.bullets.push({ ...shot, owner, left: BULLET_S });
  }

  /** One frame of our ship and all bullets: the shot that it fires. `hitBy` is who has just shot us down. */
  move(inputs: Inputs, dt: number): Shot | null {
    this.now += dt;
    this.#reload = Math.max(0, this.#reload - dt);
    this.hitBy = "";
    this.#flyOn(dt);
    const { me } = this;
    this.#dead = me.hp <= 0 ? this.#dead + dt : 0;
    if (this.#dead > RESPAWN_S) this.spawn();
    if (me.hp <= 0 || me.paused) return null;
    const length = Math.hypot(inputs.dx, inputs.dy) || 1;
    const x = me.x + (SPEED * dt * inputs.dx) / length;
    const y = me.y + (SPEED * dt * inputs.dy) / length;
    if (!blocked(x, me.y, RADIUS)) me.x = x;
    if (!blocked(me.x, y, RADIUS)) me.y = y;
    me.angle = Math.atan2(Math.sin(inputs.aim), Math.cos(inputs.aim));
    if (!inputs.fire || this.#reload > 0) return null;
    this.#reload = RELOAD_S;
    return Shot.make({ x: me.x + 20 * Math.cos(me.angle), y: me.y + 20 * Math.sin(me.angle), angle: me.angle });
  }

  #flyOn(dt: number): void {
    const ships = this.ships(() => "");
    for (const bullet of this.bullets) {
      bullet.left -= dt;
      bullet.x += BULLET_SPEED * dt * Math.cos(bullet.angle);
      bullet.y += BULLET_SPEED * dt * Math.sin(bullet.angle);
      for (const ship of ships) {
        if (ship.owner === bullet.owner || ship.hp <= 0 || ship.paused) continue;
        if (Math.hypot(ship.x - bullet.x, ship.y - bullet.y) >= RADIUS + 4) continue;
        bullet.left = 0;
        this.sparks.push({ x: bullet.x, y: bullet.y, owner: ship.owner, count: ship.hp <= DAMAGE ? 40 : 12 });
        if (ship.mine) this.#hit(bullet);
      }
      if (bullet.left > 0 && blocked(bullet.x, bullet.y, 2)) {
        bullet.left = 0;
        this.sparks.push({ x: bullet.x, y: bullet.y, owner: bullet.owner, count: 8 });
      }
    }
    this.bullets = this.bullets.filter((bullet) => bullet.left > 0);
  }

  #hit(bullet: Bullet): void {
    const { me } = this;
    if (me.hp <= 0) return;
    me.hp = Math.max(0, me.hp - DAMAGE);
    if (me.hp > 0) return;
    me.deaths += 1;
    this.hitBy = bullet.owner;
  }
}

export function blocked(x: number, y: number, r: number): boolean {
  if (x < r || x > WIDTH - r || y < r || y > HEIGHT - r) return true;
  return WALLS.some(([wx, wy, w, h]) => wx - r < x && x < wx + w + r && wy - r < y && y < wy + h + r);
}
