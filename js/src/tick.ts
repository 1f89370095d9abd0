// The worker: rings so many milliseconds after the last message to it.
let timer: ReturnType<typeof setTimeout> | undefined;
self.onmessage = ({ data }: MessageEvent<number>) => {
  clearTimeout(timer);
  timer = setTimeout(() => self.postMessage(0), data);
};
