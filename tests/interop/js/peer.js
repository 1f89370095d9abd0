// A peer of some WebRTC stack with the W3C's API, driven by commands: [name, ...arguments], one at a time.
//
// A channel whose label begins with "echo" echoes; every other one keeps what it gets, to be counted and hashed.
// `aiortc_peer.py` understands the same commands.

const LOW_BYTES = 1_000_000; // sending goes on below it
const HIGH_BYTES = 4_000_000; // and waits above it: Chromium ends a channel that holds more than 16 MB
const NAP_MS = 5; // not every stack fires every event, so waiting also looks by itself

const RSA = {
  name: "RSASSA-PKCS1-v1_5",
  modulusLength: 2048,
  publicExponent: new Uint8Array([1, 0, 1]),
  hash: "SHA-256",
};

export class Peer {
  // PeerConnection: the class; configuration: what its constructor takes.
  constructor(PeerConnection, configuration, agent) {
    this.PeerConnection = PeerConnection;
    this.configuration = configuration;
    this.agent = agent;
    this.connection = null;
  }

  async run(line) {
    try {
      const [command, ...parameters] = JSON.parse(line);
      return JSON.stringify({ result: (await this[command](...parameters)) ?? null });
    } catch (error) {
      return JSON.stringify({ error: `${error?.name}: ${error?.message ?? error}` });
    }
  }

  // ---------------------------------------------------------------------------------------------------- connection

  // A new connection in the place of the last one, if asked with a key of the old kind; says which stack this is.
  async begin(rsa = false) {
    this.end();
    const certificates = rsa ? [await this.PeerConnection.generateCertificate(RSA)] : undefined;
    this.channels = {};
    this.kept = {};
    this.found = []; // candidates that no caller has taken; null after the last
    const connection = new this.PeerConnection({ ...this.configuration, certificates });
    this.connection = connection;
    connection.ondatachannel = (event) => this.adopt(event.channel);
    connection.onicecandidate = ({ candidate }) => this.found.push(candidate?.candidate || null);
    return this.agent;
  }

  end() {
    this.connection?.close();
    this.connection = null;
  }

  async offer(channels, trickle = false, restart = false) {
    for (const settings of channels) this.create(settings);
    if (restart) this.connection.restartIce();
    await this.connection.setLocalDescription(await this.connection.createOffer());
    return this.described(trickle);
  }

  async answer(sdp, channels, trickle = false) {
    for (const settings of channels) this.create(settings);
    await this.connection.setRemoteDescription({ type: "offer", sdp });
    await this.connection.setLocalDescription(await this.connection.createAnswer());
    return this.described(trickle);
  }

  // An offer that has sound and pictures before the data channels.
  async offer_with_media(channels) {
    this.connection.addTransceiver("audio");
    this.connection.addTransceiver("video");
    return this.offer(channels);
  }

  async accept(sdp) {
    await this.connection.setRemoteDescription({ type: "answer", sdp });
  }

  async described(trickle) {
    if (!trickle) {
      await until(() => this.connection.iceGatheringState === "complete");
      this.found = [];
    }
    return this.connection.localDescription.sdp;
  }

  candidates() {
    return this.found.splice(0);
  }

  async add_candidate(candidate, sdpMid) {
    await this.connection.addIceCandidate({ candidate, sdpMid, sdpMLineIndex: 0 });
  }

  async wait_state(...states) {
    await until(() => states.includes(this.connection.connectionState));
    return this.connection.connectionState;
  }

  // The parts of getStats that a test may ask for; stacks differ in which of them they have.
  async stats() {
    const reports = [];
    for (const report of (await this.connection.getStats()).values()) reports.push(report);
    return reports;
  }

  // ------------------------------------------------------------------------------------------------------ channels

  create({ label, ...init }) {
    this.adopt(this.connection.createDataChannel(label, init));
  }

  adopt(channel) {
    const label = channel.label;
    this.channels[label] = channel;
    this.kept[label] = [];
    channel.binaryType = "arraybuffer";
    channel.onmessage = ({ data }) => {
      if (label.startsWith("echo")) channel.send(data);
      else this.kept[label].push(data);
    };
  }

  async channel(label, state = "open") {
    await until(() => this.channels[label]?.readyState === state);
    return this.channels[label];
  }

  async open_later(settings) {
    this.create(settings);
    return (await this.channel(settings.label)).id;
  }

  async describe(label) {
    const { id, protocol, ordered, maxRetransmits, maxPacketLifeTime, negotiated } = await this.channel(label);
    return { id, label, protocol, ordered, maxRetransmits, maxPacketLifeTime, negotiated };
  }

  async close_channel(label) {
    this.channels[label].close();
  }

  async wait_channel_closed(label) {
    await this.channel(label, "closed");
  }

  // ------------------------------------------------------------------------------------------------------ messages

  async send_text(label, text) {
    (await this.channel(label)).send(text);
  }

  async send_bytes(label, size) {
    (await this.channel(label)).send(new Uint8Array(size).fill(7));
  }

  // Sends `count` messages of `size` random bytes; the hash of all.
  async flood(label, size, count) {
    const channel = await this.channel(label);
    const all = new Uint8Array(size * count);
    for (let at = 0; at < all.length; at += 65_536) crypto.getRandomValues(all.subarray(at, at + 65_536));
    channel.bufferedAmountLowThreshold = LOW_BYTES;
    for (let at = 0; at < all.length; at += size) {
      channel.send(all.slice(at, at + size));
      if (channel.bufferedAmount > HIGH_BYTES) await drained(channel);
    }
    return sha256(all);
  }

  // What came on a channel, once so many messages have: [messages, bytes, hash of the bytes in order]. Forgets them.
  async received(label, messages) {
    await until(() => this.kept[label]?.length >= messages);
    const parts = this.kept[label].map((data) => (typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data)));
    this.kept[label] = [];
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return [parts.length, all.length, await sha256(all)];
  }

  // How many messages have come so far on a channel that may lose some.
  count(label) {
    return this.kept[label]?.length ?? 0;
  }
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function until(ready) {
  while (!ready()) await nap();
}

const nap = () => new Promise((resolve) => setTimeout(resolve, NAP_MS));

async function drained(channel) {
  while (channel.bufferedAmount > LOW_BYTES && channel.readyState === "open")
    await Promise.race([nap(), new Promise((resolve) => (channel.onbufferedamountlow = resolve))]);
}
