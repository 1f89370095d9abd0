// node-datachannel: libdatachannel (C++) under JavaScript, by its own API, which is faster than its browser façade.

import nodeDataChannel from "node-datachannel";

class Channel {
  constructor(inner) {
    this.inner = inner;
  }
  send(data) {
    this.inner.sendMessageBinary(data);
  }
  hear(listener) {
    this.inner.onMessage(listener);
  }
  buffered() {
    return this.inner.bufferedAmount();
  }
  onLow(threshold, call) {
    this.inner.setBufferedAmountLowThreshold(threshold);
    this.inner.onBufferedAmountLow(call);
  }
}

export class Connection {
  constructor({ offerer, reliable }) {
    this.inner = new nodeDataChannel.PeerConnection("benchmark", { iceServers: [], disableAutoNegotiation: true });
    this.early = [];
    this.described = false;
    this.opened = new Promise((resolve) => {
      if (!offerer) return this.inner.onDataChannel((channel) => resolve(new Channel(channel)));
      const limits = reliable ? {} : { unordered: true, maxRetransmits: 0 };
      const channel = this.inner.createDataChannel("benchmark", limits);
      channel.onOpen(() => resolve(new Channel(channel)));
    });
  }

  onCandidate(send) {
    this.inner.onLocalCandidate((candidate, mid) => send({ candidate, mid }));
  }

  async offer(send) {
    this.inner.onLocalDescription((sdp) => send(sdp));
    this.inner.setLocalDescription("offer");
  }

  async answer(offer, send) {
    this.inner.onLocalDescription((sdp) => send(sdp));
    this.inner.setRemoteDescription(offer, "offer");
    this.inner.setLocalDescription("answer");
    this.flush();
  }

  async accept(answer) {
    this.inner.setRemoteDescription(answer, "answer");
    this.flush();
  }

  flush() {
    this.described = true;
    for (const { candidate, mid } of this.early) this.inner.addRemoteCandidate(candidate, mid);
    this.early = [];
  }

  addCandidate(candidate) {
    this.early.push(candidate);
    if (this.described) this.flush();
  }

  async close() {
    this.inner.close();
  }
}
