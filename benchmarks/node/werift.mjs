// werift: a stack in TypeScript, with the browser's API.

import { RTCPeerConnection } from "werift";

class Channel {
  constructor(inner) {
    this.inner = inner;
  }
  send(data) {
    this.inner.send(data);
  }
  hear(listener) {
    this.inner.onMessage.allUnsubscribe();
    this.inner.onMessage.subscribe(listener);
  }
  buffered() {
    return this.inner.bufferedAmount;
  }
  onLow(threshold, call) {
    this.inner.bufferedAmountLowThreshold = threshold;
    this.inner.bufferedAmountLow.subscribe(call);
  }
}

export class Connection {
  constructor({ offerer, reliable }) {
    this.inner = new RTCPeerConnection({ iceServers: [] });
    this.opened = new Promise((resolve) => {
      if (!offerer) {
        this.inner.onDataChannel.subscribe((channel) => {
          const adopted = new Channel(channel);
          if (channel.readyState === "open") resolve(adopted);
          else channel.stateChanged.subscribe((state) => state === "open" && resolve(adopted));
        });
        return;
      }
      const channel = this.inner.createDataChannel("benchmark", { ordered: reliable, maxRetransmits: reliable ? undefined : 0 });
      channel.stateChanged.subscribe((state) => state === "open" && resolve(new Channel(channel)));
    });
  }

  onCandidate() {} // all of them are in the descriptions

  async offer(send) {
    await this.inner.setLocalDescription(await this.inner.createOffer());
    send(this.inner.localDescription.sdp);
  }

  async answer(offer, send) {
    await this.inner.setRemoteDescription({ type: "offer", sdp: offer });
    await this.inner.setLocalDescription(await this.inner.createAnswer());
    send(this.inner.localDescription.sdp);
  }

  async accept(answer) {
    await this.inner.setRemoteDescription({ type: "answer", sdp: answer });
  }

  addCandidate() {}

  async close() {
    await this.inner.close();
  }
}
