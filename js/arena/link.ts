// How a page is told where to go: /r/CODE leads here with ?code=, and the three URI forms come with ?uri=, as the manifest says.

export interface Goal {
  /** Of a lobby. */
  room?: string;
  /** Of one room: K7QM-3FHT. */
  code?: string;
  region?: string;
  /** ws:// or wss:// of another server than the page's own. */
  signaling?: string;
  /** Why what came leads nowhere. */
  wrong?: string;
}

const FORMS = "web+webrtc://server[:port]/room, or web+webrtcgame://peer-id?room=NAME&region=NAME";

/** What the query of the page's own address asks for. */
export function goalOf(search: string): Goal {
  const query = new URLSearchParams(search);
  const uri = query.get("uri");
  if (uri !== null) return goalOfUri(uri);
  const goal: Goal = {};
  for (const name of ["code", "room", "region"] as const) {
    const value = query.get(name);
    if (value !== null && value !== "" && value.length <= 128) goal[name] = value;
  }
  return goal;
}

/** webrtc://server/room and webrtc-game://peer?room=R&region=E, with or without "web+" before them. Browsers take
 *  letters only behind "web+", so there the second is web+webrtcgame (HTML, 8.10.1.4 custom scheme handlers). */
export function goalOfUri(uri: string): Goal {
  const match = /^(?:web\+)?(webrtc|webrtc-game|webrtcgame):\/\/([^/?#@]{1,255})(\/[^?#]*)?(?:\?([^#]*))?$/.exec(uri.slice(0, 1024));
  if (match === null) return { wrong: `${uri.slice(0, 80)} is none of ${FORMS}` };
  const [, scheme, authority = "", path = "", query = ""] = match;
  const options = new URLSearchParams(query);
  if (scheme !== "webrtc") {
    const room = options.get("room");
    if (room === null || room === "" || path.length > 1) return { wrong: `${uri.slice(0, 80)} names no room: ?room=NAME` };
    const region = options.get("region");
    return region === null ? { room } : { room, region };
  }
  let room: string;
  try {
    room = decodeURIComponent(path.slice(1));
  } catch {
    return { wrong: `${uri.slice(0, 80)} is none of ${FORMS}` };
  }
  if (room === "") return { wrong: `${uri.slice(0, 80)} names one player; in a page it takes a room: ${FORMS}` };
  return { room, signaling: `${options.get("tls") === "1" ? "wss" : "ws"}://${authority}` };
}
