// The map: a canvas of points, those that a choice took on top; a hint for the one that is pointed at, its page by a click.
"use strict";
(() => {
  const { element, offer } = window.vinnow;
  const { data, points, taken, choiceControls } = window.vinnow.explorer;
  const canvas = document.getElementById("map-canvas");
  if (!canvas || !data.map) return;
  const SCALE = 65535;
  const PAD = 12;
  const NEAR = 14;
  const hint = document.getElementById("map-hint");
  const keys = document.getElementById("map-keys");
  const known = [...Array(points).keys()].filter((i) => data.map.x[i] !== null);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let now = null;

  const choice = choiceControls("map", draw);
  const colour = element("select", { id: "map-colour" }, element("option", { value: "taken" }, "what was taken"), element("option", { value: "source" }, "source"), element("option", { value: "task" }, "task"));
  colour.addEventListener("change", draw);
  document.getElementById("map-controls").append(...choice.labels, element("label", { for: colour.id }, "colour by ", colour));

  const side = () => ({ width: canvas.clientWidth, height: canvas.clientHeight });
  function place(i) {
    const { width, height } = side();
    return [PAD + (data.map.x[i] / SCALE) * (width - 2 * PAD), height - PAD - (data.map.y[i] / SCALE) * (height - 2 * PAD)];
  }

  const palette = () => {
    const style = getComputedStyle(document.documentElement);
    return { colours: [...Array(7).keys()].map((n) => style.getPropertyValue(`--c${n}`).trim()), ink: style.getPropertyValue("--ink").trim() };
  };

  // the commonest six have a colour each, all others the grey
  function coloured(style, c) {
    if (colour.value === "taken") return { of: (i) => (taken(c, i) ? style.colours[1] : style.colours[6]), names: [["taken", style.colours[1]], ["passed over", style.colours[6]]] };
    const codes = data[colour.value];
    const names = data[`${colour.value}s`];
    const list = names.slice(0, 6).map((name, n) => [name || "(none)", style.colours[n]]);
    if (names.length > 6) list.push([`${names.length - 6} others`, style.colours[6]]);
    return { of: (i) => style.colours[Math.min(6, codes[i])], names: list };
  }

  function draw() {
    const { width, height } = side();
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.clearRect(0, 0, width, height);
    const style = palette();
    const c = choice.current();
    const { of, names } = coloured(style, c);
    const on = known.filter((i) => taken(c, i));
    for (const [rows, radius, alpha] of [[known.filter((i) => !taken(c, i)), 1.6, 0.45], [on, 2.2, 0.85]]) {
      pen.globalAlpha = alpha;
      for (const i of rows) {
        const [x, y] = place(i);
        pen.fillStyle = of(i);
        pen.beginPath();
        pen.arc(x, y, radius, 0, 7);
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
    if (now !== null) {
      const [x, y] = place(now);
      pen.strokeStyle = style.ink;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(x, y, 6, 0, 7);
      pen.stroke();
    }
    const said = `${on.length.toLocaleString("en-US")} of ${known.length.toLocaleString("en-US")} points were taken.`;
    keys.replaceChildren(...names.map(([name, shade]) => element("span", {}, swatch(shade), ` ${name}`)), element("span", {}, said));
  }

  function swatch(shade) {
    const one = element("span", { class: "swatch", "aria-hidden": "true" });
    one.style.background = shade;
    return one;
  }

  function tell(i) {
    now = i;
    hint.textContent = i === null ? "Point at a row to read it; click to open it." : `${data.sources[data.source[i]] || data.tasks[data.task[i]]}: ${data.brief[i]} (${taken(choice.current(), i) ? "taken" : "passed over"})`;
    draw();
  }

  function nearest(x, y, fits = () => true) {
    let best = null;
    let least = Infinity;
    for (const i of known) {
      const [px, py] = place(i);
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least && fits(i, px, py)) [best, least] = [i, far];
    }
    return { best, far: Math.sqrt(least) };
  }

  function under(event) {
    const box = canvas.getBoundingClientRect();
    const { best, far } = nearest(event.clientX - box.left, event.clientY - box.top);
    return far <= NEAR ? best : null;
  }

  const open = (i) => (location.hash = `#record=${data.id[i]}`);
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("pointermove", (event) => {
    const i = under(event);
    if (i !== now) tell(i);
  });
  canvas.addEventListener("click", (event) => {
    const i = under(event);
    if (i !== null) open(i);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (event.key === "Enter" && now !== null) open(now);
    if (!step) return;
    event.preventDefault();
    const { width, height } = side();
    const [x, y] = now === null ? [width / 2, height / 2] : place(now);
    // what lies in that direction, within 45 degrees of it
    const ahead = (i, px, py) => {
      const along = (px - x) * step[0] + (py - y) * step[1];
      return i !== now && along > 0.5 && Math.abs((px - x) * step[1] + (py - y) * step[0]) <= along;
    };
    const { best } = nearest(x, y, now === null ? undefined : ahead);
    if (best !== null) tell(best);
  });
  addEventListener("vinnow-theme", draw);
  dark.addEventListener("change", draw);
  new ResizeObserver(draw).observe(canvas);
  const head = () => ["sample_id", "x", "y", "source", "task", ...data.choices.map((c) => `taken by ${c.selector} ${c.budget} seed ${c.seed}`)];
  const rows = () => known.map((i) => [data.id[i], data.map.x[i], data.map.y[i], data.sources[data.source[i]], data.tasks[data.task[i]], ...data.choices.map((_, c) => (taken(c, i) ? 1 : 0))]);
  offer(document.getElementById("map-data"), "map", "the map's points", () => ({ head: head(), rows: rows() }));
})();
