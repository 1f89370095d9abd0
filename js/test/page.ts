// The member of `member.ts` in a page: its commands come over the WebSocket of the server that the page is from.
import { Member } from "./member.ts";

const member = new Member();
const socket = new WebSocket(`ws://${location.host}/`);
socket.onmessage = async ({ data }: MessageEvent<string>) => socket.send(await member.run(data));
