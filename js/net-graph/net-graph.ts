// <psyne-net-graph>: what a room's links are like, over a game. `graph.room = room` is all; it draws four times a second
// while it is shown, and nothing while it is hidden. `hidden` and the key in `toggle="F3"` show it and hide it.

import type { Peer, PeerId, Room } from "psyne-mesh";

const EVERY_MS = 250;
const SAMPLES = 60; // fifteen seconds of round trips
const STYLE = `
  :host { position: absolute; inset: 12px auto auto 12px; pointer-events: none; font: 13px/1.35 ui-monospace, monospace; }
  :host([hidden]) { display: none; }
  table { border-collapse: collapse; color: #e2e8fa; background: #080a14cc; border: 1px solid #5668a07a; border-radius: 8px; }
  th, td { padding: 2px 9px; text-align: right; font-weight: normal; white-space: nowrap; }
  th { color: #8892b2; }
  td:first-child, th:first-child, td:nth-child(5), th:nth-child(5) { text-align: left; }
  canvas { display: block; width: 150px; height: 22px; }
`;

/** Mean difference between neighbours, as RFC 3550 has it, without its smoothing. */
export function jitterMs(trips: readonly number[]): number {
  let sum = 0;
  for (let at = 1; at < trips.length; at += 1) sum += Math.abs((trips[at] ?? 0) - (trips[at - 1] ?? 0));
  return trips.length > 1 ? sum / (trips.length - 1) : 0;
}

/** What is said of the way to a player. */
export function wayTo(peer: Pick<Peer, "connected" | "relayed" | "suspected" | "path">): string {
  if (peer.suspected) return "silent";
  if (peer.path !== null) return peer.path.kind === "relay" ? `relay, ${peer.path.protocol}` : peer.path.protocol || peer.path.kind;
  if (peer.relayed) return "through others, 20/s";
  return peer.connected ? "connected" : "dialling";
}

const Base: typeof HTMLElement = globalThis.HTMLElement ?? (class {} as typeof HTMLElement); // Node.js has none

export class NetGraph extends Base {
  #room: Room | null = null;
  #trips = new Map<PeerId, number[]>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #body: HTMLTableSectionElement | undefined;
  #keys = (event: KeyboardEvent): void => {
    if (event.key !== this.getAttribute("toggle")) return;
    event.preventDefault();
    this.hidden = !this.hidden;
  };

  /** Whose links are shown; null: nobody's. */
  get room(): Room | null {
    return this.#room;
  }
  set room(room: Room | null) {
    this.#room = room;
    this.#trips.clear();
    this.#draw();
  }

  connectedCallback(): void {
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet(); // no <style>: a strict Content-Security-Policy lets it pass
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const title of ["player", "round trip", "jitter", "waiting", "path", ""]) {
      const cell = document.createElement("th");
      cell.textContent = title;
      head.append(cell);
    }
    this.#body = table.createTBody();
    root.replaceChildren(table);
    this.#timer = setInterval(() => this.#draw(), EVERY_MS);
    addEventListener("keydown", this.#keys);
  }

  disconnectedCallback(): void {
    clearInterval(this.#timer);
    removeEventListener("keydown", this.#keys);
  }

  #draw(): void {
    const body = this.#body;
    if (body === undefined || this.hidden || document.hidden) return;
    const peers = this.#room === null || this.#room.closed ? [] : [...this.#room.peers.values()];
    for (const gone of [...this.#trips.keys()].filter((id) => !peers.some((peer) => peer.id === id))) this.#trips.delete(gone);
    while (body.rows.length > peers.length) body.deleteRow(-1);
    peers.forEach((peer, at) => this.#drawPeer(body.rows[at] ?? this.#newRow(body), peer));
  }

  #newRow(body: HTMLTableSectionElement): HTMLTableRowElement {
    const row = body.insertRow();
    for (let at = 0; at < 5; at += 1) row.insertCell();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [300, 44];
    row.insertCell().append(canvas);
    return row;
  }

  #drawPeer(row: HTMLTableRowElement, peer: Peer): void {
    const trips = this.#trips.get(peer.id) ?? [];
    this.#trips.set(peer.id, trips);
    if (peer.rttMs !== null) trips.push(peer.rttMs);
    if (trips.length > SAMPLES) trips.shift();
    const texts = [
      peer.name,
      peer.rttMs === null ? "-" : `${peer.rttMs.toFixed(1)} ms`,
      `${jitterMs(trips).toFixed(1)} ms`,
      peer.waitingBytes < 1024 ? `${peer.waitingBytes} B` : `${Math.round(peer.waitingBytes / 1024)} KiB`,
      wayTo(peer),
    ];
    texts.forEach((text, at) => {
      const cell = row.cells[at];
      if (cell !== undefined && cell.textContent !== text) cell.textContent = text;
    });
    const canvas = row.cells[5]?.firstElementChild as HTMLCanvasElement | null;
    const context = canvas?.getContext("2d");
    if (canvas === null || canvas === undefined || context === null || context === undefined) return;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.strokeStyle = colourOf(peer.id);
    context.lineWidth = 2;
    context.beginPath();
    const highest = Math.max(5, ...trips);
    trips.forEach((trip, x) => context.lineTo((x * canvas.width) / SAMPLES, canvas.height - 2 - (trip * (canvas.height - 4)) / highest));
    context.stroke();
  }
}

/** One of 24 colours, the same for a player everywhere. */
export function colourOf(id: PeerId, light = 62): string {
  return `hsl(${(Number.parseInt(id.slice(0, 6), 16) % 24) * 15} 85% ${light}%)`;
}

if (globalThis.customElements !== undefined && customElements.get("psyne-net-graph") === undefined)
  customElements.define("psyne-net-graph", NetGraph);

declare global {
  interface HTMLElementTagNameMap {
    "psyne-net-graph": NetGraph;
  }
}
