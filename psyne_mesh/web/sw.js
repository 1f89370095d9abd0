// The lobby opens without a network: its files are kept, and asked for anew whenever there is one. Rooms are never kept.
// Push calls a friend back, if the game's own server sends one: {"title": "...", "body": "...", "code": "K7QM-3FHT"}.

const CACHE = "psyne-app-c9826625bbaa995c"; // of the built files: another version is another cache
const FILES = ["./", "app.js", "psyne-mesh.js", "psyne-mesh-tick.js", "style.css", "manifest.webmanifest", "icon-192.png", "icon-512.png"];

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(FILES.map((file) => new Request(file, { cache: "reload" }))))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter((name) => name.startsWith("psyne-app-") && name !== CACHE).map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin || !url.pathname.startsWith("/app/")) return;
  event.respondWith(answer(request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true }); // ?code= and ?uri= are the page's own business
  if (kept !== undefined) {
    return kept; // at once; a new version comes with a new worker
  }
  return fetch(request);
}

self.addEventListener("push", (event) => {
  let said = {};
  try {
    said = event.data?.json() ?? {};
  } catch {
    return; // not of this game
  }
  const text = (value, otherwise) => (typeof value === "string" ? value.slice(0, 200) : otherwise);
  event.waitUntil(
    self.registration.showNotification(text(said.title, "arena"), {
      body: text(said.body, "a friend is waiting"),
      icon: "icon-192.png",
      tag: "psyne-call",
      data: { code: text(said.code, "") },
    }),
  );
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const code = /^[0-9A-Za-z]{4}-?[0-9A-Za-z]{4}$/.test(event.notification.data?.code ?? "") ? event.notification.data.code : "";
  event.waitUntil(self.clients.openWindow(code === "" ? "/app/" : `/r/${code}`));
});
