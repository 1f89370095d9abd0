// The member of `member.ts` in Node.js: `node process.mjs POLYFILL`, where that file has an RTCPeerConnection.
import { createInterface } from "node:readline";

import { Member } from "./member.ts";

const { RTCPeerConnection } = (await import(process.argv[2]!)) as { RTCPeerConnection: never };
const member = new Member({ RTCPeerConnection });
for await (const line of createInterface({ input: process.stdin })) process.stdout.write(`${await member.run(line)}\n`);
process.exit(0);
