// What all pages share: parts that change by themselves, and questions before what cannot be undone.
"use strict";

(() => {
  const address = document.body.dataset.live;
  if (address) {
    const fill = (parts) => {
      for (const [id, html] of Object.entries(parts)) {
        const place = document.getElementById(id);
        // what somebody is typing in or has opened stays until they are done
        if (!place || (place.contains(document.activeElement) && document.activeElement.matches("input, select, textarea"))) continue;
        const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
        place.innerHTML = html;
        // what is made for all who look has no token of anybody in it
        for (const token of place.querySelectorAll("input[name=csrf_token]")) token.value = document.querySelector("meta[name=csrf-token]").content;
        if (focused) document.getElementById(focused)?.focus();
        place.dispatchEvent(new CustomEvent("tator:filled", { bubbles: true }));
      }
    };
    const AGAIN_MILLISECONDS = 15000;
    let stream = null;
    const open = () => {
      if (stream) return;
      stream = new EventSource(address);
      stream.addEventListener("message", (event) => { document.body.classList.remove("stale"); fill(JSON.parse(event.data)); });
      stream.addEventListener("over", () => { stream.close(); document.body.dispatchEvent(new CustomEvent("tator:over")); });
      stream.addEventListener("signed-out", () => { stream.close(); document.body.classList.remove("stale"); document.body.classList.add("signed-out"); });
      stream.addEventListener("error", (event) => {
        document.body.classList.add("stale");
        // a cut connection the browser opens again by itself; after any status but 200 it never does
        if (event.target.readyState !== EventSource.CLOSED || event.target !== stream) return;
        stream = null;
        setTimeout(() => { if (!document.hidden) open(); }, AGAIN_MILLISECONDS);
      });
    };
    const close = () => { stream?.close(); stream = null; };
    // a page that nobody sees holds nothing open
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    if (!document.hidden) open();
  }

  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.ask ?? event.target.dataset.ask;
    if (question && !confirm(question)) event.preventDefault();
  });
})();
