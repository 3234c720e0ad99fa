// The explorer's data and its questions: which records match a filter, and how many rows of the whole pool do.
"use strict";
window.vinnow.explorer = (() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const points = data.id.length;
  // sets of numbers as flags: the page asks for each record, often
  const flags = data.taken.map((rows) => {
    const set = new Uint8Array(points);
    rows.forEach((i) => (set[i] = 1));
    return set;
  });
  const numberOf = new Map(data.id.map((id, i) => [id, i]));
  let texts = null;

  const taken = (choice, i) => flags[choice][i] === 1;

  // in which part of a ranking a record stands; one without a score is in none
  function part(scores, i) {
    const { rank, rows } = data.scores[scores];
    return rank[i] === 0 ? data.cuts.length : data.cuts.findIndex((cut) => rank[i] <= Math.ceil(cut * rows));
  }

  function text(i) {
    texts ??= data.full.map((one) => one.turns.map((turn) => turn[1]).join("\n").toLowerCase());
    return texts[i] ?? data.brief[i].toLowerCase();
  }

  // all places of a ranking are wanted: then those without a score count too
  const whole = (f) => f.from === 0 && f.to === data.cuts.length - 1;

  function matches(f, i) {
    const { scores } = data.choices[f.choice];
    if (f.state !== "all" && taken(f.choice, i) !== (f.state === "taken")) return false;
    if (f.source !== null && data.source[i] !== f.source) return false;
    if (f.task !== null && data.task[i] !== f.task) return false;
    if (f.pictured !== null && data.pictured[i] !== f.pictured) return false;
    if (scores !== null && !whole(f)) {
      const place = part(scores, i);
      if (place < f.from || place > f.to) return false;
    }
    return f.text === "" || text(i).includes(f.text);
  }

  // rows of the whole pool; the text is not looked at, since the page does not hold it
  function inPool(f) {
    const { scores } = data.choices[f.choice];
    const fits = data.counts.cells.map(
      ([source, task, pictured]) =>
        (f.source === null || f.source === source) && (f.task === null || f.task === task) && (f.pictured === null || f.pictured === pictured),
    );
    const count = (triples) =>
      triples.reduce((sum, [cell, place, n]) => sum + (fits[cell] && (whole(f) || (place >= f.from && place <= f.to)) ? n : 0), 0);
    const chosen = () => count(data.counts.choices[f.choice]);
    if (f.state === "taken") return chosen();
    const all = scores === null ? data.counts.cells.reduce((sum, cell, i) => sum + (fits[i] ? cell[3] : 0), 0) : count(data.counts.rankings[scores]);
    return f.state === "all" ? all : all - chosen();
  }

  // three selects that hold only what there is together
  function choiceControls(prefix, changed) {
    const { element } = window.vinnow;
    const selects = ["selector", "budget", "seed"].map((name) => element("select", { id: `${prefix}-${name}` }));
    const names = ["selector", "budget", "seed"];
    const current = () => data.choices.findIndex((c) => names.every((name, n) => String(c[name]) === selects[n].value));
    function fill(from) {
      for (let n = from; n < names.length; n++) {
        const before = selects[n].value;
        const fitting = data.choices.filter((c) => names.slice(0, n).every((name, m) => String(c[name]) === selects[m].value));
        const values = [...new Set(fitting.map((c) => String(c[names[n]])))];
        selects[n].replaceChildren(...values.map((value) => element("option", { value }, value)));
        selects[n].value = values.includes(before) ? before : values[0];
      }
    }
    selects.forEach((select, n) =>
      select.addEventListener("change", () => {
        fill(n + 1);
        changed();
      }),
    );
    fill(0);
    const labels = names.map((name, n) => element("label", { for: selects[n].id }, `${name} `, selects[n]));
    return { labels, current };
  }

  return { data, points, taken, matches, inPool, numberOf, choiceControls };
})();
