// Draws the plots of a page from the JSON beside each, in the sheet's colours, again when they change.
"use strict";

(() => {
  const source = document.currentScript.dataset.plotly;
  const drawn = new Map(); // by key: the element that Plotly draws in, which outlives what is filled around it
  const open = new Set(); // keys of the tables that somebody opened
  const LIGHT = ["#1f5f8b", "#b4540a", "#1d6f42", "#8b2f7f", "#6b5b00", "#a8202d"];
  const DARK = ["#7cbde8", "#f0a35b", "#7fd6a2", "#e19ad8", "#d9c95a", "#ff9aa2"];
  const dark = matchMedia("(prefers-color-scheme: dark)");

  let library = null;
  const plotly = () => {
    library ??= new Promise((done, failed) => { // large, so only where there is something to draw
      const script = document.createElement("script");
      script.src = source;
      script.addEventListener("load", () => done(window.Plotly));
      script.addEventListener("error", failed);
      document.head.append(script);
    });
    return library;
  };

  const axis = (given, line, quiet) => ({
    gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, ...given,
    title: { font: { color: quiet, size: 12 }, standoff: 8, ...given?.title },
  });

  const styled = (figure) => {
    const sheet = getComputedStyle(document.documentElement);
    const colour = (name) => sheet.getPropertyValue(name).trim();
    const [text, quiet, line] = ["--text", "--quiet", "--line"].map(colour);
    const { xaxis, yaxis, ...layout } = figure.layout;
    return {
      data: figure.data,
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: dark.matches ? DARK : LIGHT,
        font: { family: "system-ui, 'DejaVu Sans', sans-serif", size: 13, color: text },
        margin: { l: 8, r: 8, t: 8, b: 8 }, hovermode: "x unified",
        hoverlabel: { bgcolor: colour("--card"), bordercolor: line, font: { color: text } },
        legend: { orientation: "h", traceorder: "normal", y: 1.02, yanchor: "bottom", x: 0 },
        uirevision: "kept", bargap: 0.25, ...layout,
        xaxis: axis(xaxis, line, quiet), yaxis: axis(yaxis, line, quiet),
      },
    };
  };

  const draw = async (root) => {
    const places = [...root.querySelectorAll("[data-plot]")];
    if (!places.length) return;
    for (const place of places) {
      const table = document.getElementById(`${place.dataset.plot}-table`);
      if (table && open.has(table.id)) table.open = true;
      const before = drawn.get(place.dataset.plot);
      if (before && before !== place) place.replaceWith(before);
      else drawn.set(place.dataset.plot, place);
    }
    const Plotly = await plotly();
    for (const key of new Set(places.map((place) => place.dataset.plot))) {
      const place = drawn.get(key);
      const given = document.getElementById(`${key}-figure`);
      if (!place.isConnected || !given) continue;
      const { data, layout } = styled(JSON.parse(given.textContent));
      await Plotly.react(place, data, layout, { displayModeBar: false, responsive: true });
    }
  };

  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details[data-plot-table]")) {
      if (event.target.open) open.add(event.target.id); else open.delete(event.target.id);
    }
  }, true);
  document.addEventListener("tator:filled", (event) => draw(event.target));
  dark.addEventListener("change", () => draw(document));
  draw(document);
})();
