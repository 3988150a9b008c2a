// An archive that is dropped or chosen, sent with its progress. Without script the form does the same.
"use strict";

(() => {
  const form = document.getElementById("send");
  if (!form) return;
  const part = (id) => document.getElementById(id);
  const [file, drop, chosen, bar, said, failed] = ["file", "drop", "chosen", "sending-bar", "sending-said", "send-failed"].map(part);
  const button = form.querySelector("button");
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

  const fail = (sentence) => {
    failed.textContent = sentence;
    failed.hidden = !sentence;
    part("sending").hidden = true;
    button.disabled = file.disabled = false;
  };
  const show = () => {
    const one = file.files[0];
    chosen.hidden = !one;
    if (one) chosen.textContent = `${one.name}, ${megabytes(one.size)}`;
    fail(one && one.size > Number(form.dataset.most) ? "This archive is larger than this backend takes." : "");
  };
  file.addEventListener("change", show);

  let depth = 0;
  const over = (change) => { depth = Math.max(0, depth + change); drop.classList.toggle("over", depth > 0); };
  drop.addEventListener("dragenter", (event) => { event.preventDefault(); over(1); });
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("dragleave", () => over(-1));
  // beside the zone a dropped file would be opened in place of the page
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    over(0);
    if (event.dataTransfer.files.length !== 1) return fail("Drop one zip at a time.");
    file.files = event.dataTransfer.files;
    show();
  });

  form.addEventListener("submit", (event) => {
    if (event.defaultPrevented || !file.files[0]) return;
    event.preventDefault();
    const request = new XMLHttpRequest();
    const body = new FormData(form); // before the input is disabled, which would leave the file out
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (sent) => {
      if (!sent.lengthComputable) return;
      bar.value = sent.loaded / sent.total;
      said.textContent = `${megabytes(sent.loaded)} of ${megabytes(sent.total)} sent`;
    });
    request.addEventListener("load", () => {
      if (request.status === 200) {
        location.assign(JSON.parse(request.responseText).to);
        return;
      }
      const page = new DOMParser().parseFromString(request.responseText, "text/html");
      fail(page.querySelector("main .flash")?.textContent || `The backend answered ${request.status}.`);
    });
    request.addEventListener("error", () => fail("The connection was cut. The archive may be too large, or the backend is away; try again."));
    fail("");
    part("sending").hidden = false;
    said.textContent = "sending";
    button.disabled = file.disabled = true;
    request.send(body);
  });
})();
