// Vivaldi network coordinates (SIGCOMM'04) with height, as probes tell them: who is near, without asking everybody.

import type { Rng } from "../limits.ts";
import type { Coordinates } from "./wire.ts";

const CE = 0.25, CC = 0.25, ERROR_MAX = 1.5, HEIGHT_MIN_S = 1e-5, RTT_MAX_S = 10, UNIT_S = 1e-4;

export class Coordinate {
  wire: Coordinates = [0, 0, 0, 0, 1500];
  readonly #rng: Rng;
  #place: [number, number, number] = [0, 0, 0];
  #height = HEIGHT_MIN_S;
  #error = ERROR_MAX;

  constructor(rng: Rng) {
    this.#rng = rng;
  }

  update(theirs: Coordinates, rtt: number): void {
    if (!(rtt > 0 && rtt < RTT_MAX_S)) return;
    let apart = this.#place.map((value, at) => value - theirs[at]! * UNIT_S);
    let distance = Math.hypot(...apart);
    const heights = this.#height + theirs[3] * UNIT_S;
    const surprise = rtt - distance - heights;
    const weight = this.#error / (this.#error + (theirs[4] || 1) / 1000);
    this.#error = Math.min(ERROR_MAX, (CE * weight * Math.abs(surprise)) / rtt + this.#error * (1 - CE * weight));
    const force = CC * weight * surprise;
    if (distance > 1e-6)
      this.#height = Math.min(RTT_MAX_S, Math.max(HEIGHT_MIN_S, this.#height + (heights * force) / distance));
    else {
      apart = apart.map(() => this.#rng() - 0.5); // in one place: any direction will do
      distance = Math.hypot(...apart) || 1;
    }
    this.#place = this.#place.map((value, at) => value + (apart[at]! * force) / distance) as [number, number, number];
    const clip = (value: number): number => Math.max(-32_768, Math.min(32_767, Math.trunc(value / UNIT_S)));
    const [x, y, z] = this.#place;
    this.wire = [
      clip(x), clip(y), clip(z), Math.min(65_535, Math.trunc(this.#height / UNIT_S)), Math.trunc(this.#error * 1000),
    ];
  }
}
