// One timer that hidden tabs do not throttle: a worker's. Where there are no workers, the window's, and events do the rest.

/** 1. `set(delayS)` when to ring next, as often as that changes. 2. `close()`. */
export class Alarm {
  readonly #ring: () => void;
  #worker: Worker | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(ring: () => void, workerUrl: URL | null) {
    this.#ring = ring;
    if (workerUrl === null || typeof Worker === "undefined") return;
    try {
      const worker = new Worker(workerUrl);
      worker.onmessage = () => this.#ring();
      worker.onerror = () => this.#doWithout();
      this.#worker = worker;
    } catch {
      this.#worker = null; // the page's policy does not let us
    }
  }

  set(delayS: number): void {
    const delayMs = Math.max(0, Math.ceil(delayS * 1000));
    if (this.#worker !== null) this.#worker.postMessage(delayMs);
    // Beside the worker's, in case that has ended; a hidden tab makes it late, which does no harm then.
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#ring, this.#worker === null ? delayMs : delayMs + 1000);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#worker?.terminate();
    this.#worker = null;
  }

  #doWithout(): void {
    this.#worker?.terminate();
    this.#worker = null;
    this.#ring();
  }
}
