// Keys and mouse, or two thumbs: the left half of the screen is a stick, the right half aims and fires.

import { HEIGHT, type Inputs, WIDTH } from "./world.ts";

const STICK_PX = 50; // as far as a thumb moves for full speed
const KEYS: Readonly<Record<string, readonly [number, number]>> = {
  KeyW: [0, -1], ArrowUp: [0, -1], KeyS: [0, 1], ArrowDown: [0, 1], KeyA: [-1, 0], ArrowLeft: [-1, 0], KeyD: [1, 0], ArrowRight: [1, 0],
};

interface Thumb {
  id: number;
  x0: number;
  y0: number;
  x: number;
  y: number;
}

export class Controls {
  #held = new Set<string>();
  #mouse = { x: WIDTH / 2, y: 0, down: false };
  #move: Thumb | null = null;
  #aim: Thumb | null = null;
  #angle = 0;

  constructor(private readonly canvas: HTMLCanvasElement) {
    addEventListener("keydown", (event) => this.#key(event, true));
    addEventListener("keyup", (event) => this.#key(event, false));
    addEventListener("blur", () => this.#held.clear());
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#moved(event));
    for (const type of ["pointerup", "pointercancel"] as const) canvas.addEventListener(type, (event) => this.#up(event));
  }

  inputs(x: number, y: number): Inputs {
    const [move, aim] = [this.#move, this.#aim];
    if (move !== null || aim !== null) {
      if (aim !== null && Math.hypot(aim.x - aim.x0, aim.y - aim.y0) > 8) this.#angle = Math.atan2(aim.y - aim.y0, aim.x - aim.x0);
      const [dx, dy] = move === null ? [0, 0] : [(move.x - move.x0) / STICK_PX, (move.y - move.y0) / STICK_PX];
      return { dx: Math.abs(dx) < 0.2 ? 0 : dx, dy: Math.abs(dy) < 0.2 ? 0 : dy, aim: this.#angle, fire: aim !== null };
    }
    let [dx, dy] = [0, 0];
    for (const code of this.#held) {
      dx += KEYS[code]?.[0] ?? 0;
      dy += KEYS[code]?.[1] ?? 0;
    }
    this.#angle = Math.atan2(this.#mouse.y - y, this.#mouse.x - x);
    return { dx: Math.sign(dx), dy: Math.sign(dy), aim: this.#angle, fire: this.#mouse.down || this.#held.has("Space") };
  }

  #key(event: KeyboardEvent, down: boolean): void {
    if (event.target instanceof HTMLInputElement || !(event.code in KEYS || event.code === "Space")) return;
    event.preventDefault();
    if (down) this.#held.add(event.code);
    else this.#held.delete(event.code);
  }

  #place(event: PointerEvent): { x: number; y: number } {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) * WIDTH) / box.width, y: ((event.clientY - box.top) * HEIGHT) / box.height };
  }

  #down(event: PointerEvent): void {
    const { x, y } = this.#place(event);
    if (event.pointerType !== "touch") {
      this.#mouse = { x, y, down: true };
      return;
    }
    this.canvas.setPointerCapture(event.pointerId);
    const thumb = { id: event.pointerId, x0: event.clientX, y0: event.clientY, x: event.clientX, y: event.clientY };
    if (event.clientX < innerWidth / 2) this.#move ??= thumb;
    else this.#aim ??= thumb;
  }

  #moved(event: PointerEvent): void {
    if (event.pointerType !== "touch") {
      this.#mouse = { ...this.#mouse, ...this.#place(event) };
      return;
    }
    for (const thumb of [this.#move, this.#aim]) if (thumb?.id === event.pointerId) [thumb.x, thumb.y] = [event.clientX, event.clientY];
  }

  #up(event: PointerEvent): void {
    this.#mouse.down = false;
    if (this.#move?.id === event.pointerId) this.#move = null;
    if (this.#aim?.id === event.pointerId) this.#aim = null;
  }
}
