// A job's log follows its end, unless somebody pauses it or reads further up; a long one stays light.
"use strict";

(() => {
  const MOST_CHUNKS = 40; // of at most a thousand lines each; what is older is in the download
  const log = document.getElementById("log");
  const end = document.getElementById("log-end");
  const note = document.getElementById("log-note");
  const pause = document.getElementById("log-pause");
  let known = Number(log.dataset.end);
  let asking = false;

  const paused = () => pause?.getAttribute("aria-pressed") === "true";
  const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const toEnd = () => { log.scrollTop = log.scrollHeight; };

  const catchUp = async () => {
    if (asking || paused() || Number(end.textContent) <= known) return;
    asking = true;
    try {
      const answer = await fetch(`${log.dataset.source}?after=${known}`);
      if (!answer.ok) return;
      const { lines, end: now, left_out: skipped } = await answer.json();
      const follows = atEnd();
      if (skipped) { note.hidden = false; note.textContent = "Of this long log the newest lines are shown; all are in the download."; }
      log.append(lines.map((line) => `${line}\n`).join(""));
      while (log.childNodes.length > MOST_CHUNKS) log.firstChild.remove();
      known = now;
      if (follows) toEnd();
    } finally { asking = false; }
  };

  pause?.addEventListener("click", () => {
    pause.setAttribute("aria-pressed", String(!paused()));
    pause.textContent = paused() ? "Go on" : "Pause";
    if (!paused()) { toEnd(); catchUp(); }
  });
  document.addEventListener("tator:filled", (event) => { if (event.target === end) catchUp(); });
  toEnd();
})();
