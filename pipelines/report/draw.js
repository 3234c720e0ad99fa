// Draws every figure of the page by its JSON, in the page's own colours, and again when these turn light or dark.
"use strict";
(() => {
  const NAMED = /^var\((--[\w-]+)\)$/;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // only what is a colour is looked up: a label may read like one
  function coloured(value, key, style) {
    if (Array.isArray(value)) return value.map((one) => coloured(one, "", style));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, one]) => [k, coloured(one, k, style)]));
    }
    const name = typeof value === "string" && /color$/.test(key) && NAMED.exec(value);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  }

  async function draw(box) {
    const style = getComputedStyle(document.documentElement);
    const figure = coloured(JSON.parse(document.getElementById(box.dataset.figure).textContent), "", style);
    const config = {
      displaylogo: false,
      displayModeBar: "hover",
      responsive: true,
      // Plotly's own default is a button that sends the figure to its makers' site
      showSendToCloud: false,
      plotlyServerURL: "",
      modeBarButtonsToRemove: ["lasso2d", "select2d"],
      toImageButtonOptions: { filename: box.id, scale: 2 },
    };
    try {
      await Plotly.react(box, figure.data, figure.layout, config);
    } catch (error) {
      box.textContent = "This chart could not be drawn; its numbers stand below.";
      console.error(error);
    }
  }

  const all = () => document.querySelectorAll(".chart").forEach(draw);
  document.addEventListener("DOMContentLoaded", all);
  dark.addEventListener("change", all);
  addEventListener("vinnow-theme", all);
})();
