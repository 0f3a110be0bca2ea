// One stream a tab, closed while nobody sees it. `offline` is told when the box has been silent for a while.

const SILENT_MS = 4000;
const AGAIN_MS = 2000;

export function follow(handlers, offline) {
  let source = null;
  let silence = 0;
  let again = 0;

  const heard = () => {
    clearTimeout(silence);
    silence = 0;
    offline(false);
  };
  const lost = () => {
    silence ||= setTimeout(() => offline(true), SILENT_MS);
    if (source?.readyState === EventSource.CLOSED) {
      clearTimeout(again);
      again = setTimeout(open, AGAIN_MS); // a proxy that answered with an error ends the browser's own tries
    }
  };
  const open = () => {
    close();
    source = new EventSource("api/events");
    source.onopen = heard;
    source.onerror = lost;
    for (const [kind, handle] of Object.entries(handlers)) {
      source.addEventListener(kind, (event) => {
        heard();
        handle(JSON.parse(event.data));
      });
    }
  };
  const close = () => {
    clearTimeout(again);
    source?.close();
    source = null;
  };

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  if (!document.hidden) open();
}
