// The gallery: filters, the count of what matches here and in the whole pool, cards, more of them.
"use strict";
(() => {
  const { element, offer } = window.vinnow;
  const { data, taken, matches, inPool, choiceControls } = window.vinnow.explorer;
  const STEP = 24;
  const form = document.getElementById("explorer-filters");
  const list = document.getElementById("explorer-cards");
  const count = document.getElementById("explorer-count");
  const more = element("button", { type: "button", id: "explorer-next" });
  const thousands = (n) => n.toLocaleString("en-US");
  let found = [];
  let shown = 0;

  function select(name, label, options) {
    const box = element("select", { id: `explorer-${name}` }, ...options.map(([value, text]) => element("option", { value }, text)));
    box.addEventListener("change", update);
    form.append(element("label", { for: box.id }, `${label} `, box));
    return box;
  }

  const numbered = (names, all) => [["", all], ...names.map((name, i) => [String(i), name])];
  const choice = choiceControls("explorer", () => {
    cuts();
    update();
  });
  form.append(...choice.labels);
  const state = select("state", "records", [["all", "taken and passed"], ["taken", "taken"], ["passed", "passed over"]]);
  const source = select("source", "source", numbered(data.sources, "all sources"));
  const task = select("task", "task", numbered(data.tasks, "all tasks"));
  const picture = select("picture", "picture", [["", "with and without"], ["1", "with a picture"], ["0", "text only"]]);
  const from = select("from", "score from", []);
  const to = select("to", "down to", []);
  const order = select("order", "order", [["best", "highest score first"], ["worst", "lowest score first"], ["held", "as they were drawn"]]);
  const search = element("input", { type: "search", id: "explorer-search", placeholder: "words as they stand", autocomplete: "off" });
  form.append(element("label", { for: search.id }, "text, of the records here ", search));
  search.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("explorer-more").append(more);
  more.addEventListener("click", () => {
    const first = shown;
    cards();
    list.children[first]?.querySelector("a").focus();
  });

  // where the ranking of this choice's selector is cut, with the scores that stand there
  function cuts() {
    const { scores } = data.choices[choice.current()];
    [from, to].forEach((box, end) => {
      const before = box.value;
      const options = data.cuts.map((cut, i) => {
        const edge = scores === null ? null : data.scores[scores].edges[i];
        const share = 100 * (end === 0 ? (data.cuts[i - 1] ?? 0) : cut);
        const name = end === 0 ? (i === 0 ? "the top" : `top ${Number(share.toFixed(2))} %`) : i === data.cuts.length - 1 ? "the end" : `top ${Number(share.toFixed(2))} %`;
        return element("option", { value: String(i) }, edge === null ? name : `${name} (${edge[end]})`);
      });
      box.replaceChildren(...options);
      box.disabled = scores === null;
      box.value = before !== "" ? before : end === 0 ? "0" : String(data.cuts.length - 1);
    });
  }

  const number = (box) => (box.value === "" ? null : Number(box.value));
  const filter = () => ({
    choice: choice.current(),
    state: state.value,
    source: number(source),
    task: number(task),
    pictured: number(picture),
    from: Number(from.value),
    to: Number(to.value),
    text: search.value.trim().toLowerCase(),
  });

  function sorted(rows, f) {
    const { scores } = data.choices[f.choice];
    if (order.value === "held" || scores === null) return rows;
    const { rank } = data.scores[scores];
    const last = (i) => rank[i] || Infinity; // without a score: at the end, whichever way
    const down = order.value === "worst";
    return rows.sort((a, b) => (rank[a] === 0 || rank[b] === 0 ? last(a) - last(b) || a - b : down ? rank[b] - rank[a] : rank[a] - rank[b]));
  }

  function card(i, f) {
    const full = data.full[i];
    const { scores } = data.choices[f.choice];
    const picture = full.picture
      ? element("img", { src: full.picture, alt: "", loading: "lazy", width: 160, height: 120 })
      : element("span", { class: "nopic", title: full.why ?? null }, full.lacking ?? "");
    const badge = element("span", { class: taken(f.choice, i) ? "word better" : "word" }, taken(f.choice, i) ? "taken" : "passed over");
    const score = scores === null || data.scores[scores].rank[i] === 0 ? "no score" : `score ${data.scores[scores].score[i]}, rank ${thousands(data.scores[scores].rank[i])}`;
    const link = element("a", { href: `#record=${data.id[i]}` }, data.brief[i] || `record ${data.id[i]}`);
    return element("li", { class: "card" }, picture, element("p", { class: "facts" }, badge, ` ${data.tasks[data.task[i]]} · ${score}`), link);
  }

  function cards() {
    const f = filter();
    list.append(...found.slice(shown, shown + STEP).map((i) => card(i, f)));
    shown = Math.min(found.length, shown + STEP);
    more.hidden = shown === found.length;
    more.textContent = `Show ${Math.min(STEP, found.length - shown)} more`;
    say(f);
  }

  function say(f) {
    const here = `Showing ${thousands(shown)} of ${thousands(found.length)} matching records of the ${thousands(data.held)} held here`;
    const pool = `in the whole pool ${thousands(inPool(f))} of ${thousands(data.total)} rows match`;
    const not = f.text ? ", the text left aside, which only the records here are searched for" : "";
    count.textContent = `${here}; ${pool}${not}.`;
  }

  function update() {
    const f = filter();
    found = sorted([...Array(data.held).keys()].filter((i) => matches(f, i)), f);
    shown = 0;
    list.replaceChildren();
    cards();
  }

  function rows() {
    const f = filter();
    const { scores } = data.choices[f.choice];
    return found.map((i) => {
      const score = scores === null ? null : data.scores[scores];
      return [data.id[i], data.sources[data.source[i]], data.tasks[data.task[i]], taken(f.choice, i) ? 1 : 0, score?.score[i], score?.rank[i] || null, data.brief[i]];
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    offer(count, "records", "the records that match", () => ({ head: ["sample_id", "source", "task", "taken", "score", "rank", "text"], rows: rows() }));
  });
  cuts();
  update();
})();
