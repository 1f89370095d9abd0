// A peer in Node: `node node_peer.js werift|node-datachannel`, commands on stdin, one reply on stdout for each.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { Peer } from "./peer.js";

const stacks = {
  werift: {
    load: () => import("werift"),
    configuration: { iceAdditionalHostAddresses: ["127.0.0.1"] },
  },
  "node-datachannel": {
    load: () => import("node-datachannel/polyfill"),
    configuration: {},
  },
};

const name = process.argv[2];
const manifest = new URL(`./node_modules/${name}/package.json`, import.meta.url);
const { RTCPeerConnection } = await stacks[name].load();
const { version } = JSON.parse(readFileSync(manifest, "utf8"));
const peer = new Peer(RTCPeerConnection, stacks[name].configuration, version);
for await (const line of createInterface({ input: process.stdin })) process.stdout.write(`${await peer.run(line)}\n`);
peer.end();
process.exit(0);
