// A run, live: the server draws it, and sends the drawing whenever it has changed. Without this script the page loads
// itself again instead.
"use strict";

const live = document.getElementById("live");
if (live?.dataset.stream) {
  const source = new EventSource(live.dataset.stream);
  source.addEventListener("picture", e => { live.innerHTML = e.data; });
  source.addEventListener("done", () => { source.close(); location.reload(); });
  source.addEventListener("error", () => { // it was refused, not lost
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 10000);
  });
}
