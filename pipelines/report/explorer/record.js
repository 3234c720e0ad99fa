// One record's page, under an address of its own (#record=ID): picture, conversation, every score and rank, who took it.
"use strict";
(() => {
  const { element } = window.vinnow;
  const { data, numberOf, taken } = window.vinnow.explorer;
  const dialog = document.getElementById("record");
  const thousands = (n) => n.toLocaleString("en-US");
  let before = null;

  const asked = () => /^#record=(.*)$/.exec(location.hash)?.[1] ?? null;

  function table(caption, head, rows) {
    const cells = (row, name) => element("tr", {}, ...row.map((value, n) => element(n === 0 ? "th" : name, { scope: n === 0 ? "row" : null, class: n > 0 && name === "td" ? "n" : null }, String(value))));
    const top = element("thead", {}, element("tr", {}, ...head.map((h, n) => element("th", { scope: "col", class: n > 0 ? "n" : null }, h))));
    const box = element("table", {}, element("caption", {}, caption), top, element("tbody", {}, ...rows.map((row) => cells(row, "td"))));
    return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, box);
  }

  function scores(i) {
    const rows = data.scores.map((s) =>
      s.rank[i] === 0
        ? [s.name, "–", "–", "–"]
        : [s.name, s.score[i], `${thousands(s.rank[i])} of ${thousands(s.rows)}`, `${((100 * s.rank[i]) / s.rows).toFixed(1)} %`],
    );
    return table("Scores (higher is better) and ranks", ["selector", "score", "rank", "of the pool"], rows);
  }

  const choices = (i) =>
    table(
      "Choices",
      ["choice", "rows", "this record"],
      data.choices.map((c, n) => [`${c.selector} at ${c.budget}, seed ${c.seed}`, thousands(c.rows), taken(n, i) ? "taken" : "passed over"]),
    );

  function conversation(i) {
    const full = data.full[i];
    if (!full) {
      return [element("p", {}, data.brief[i]), element("p", { class: "note" }, "This page holds its first letters only. The whole record: "), command(data.id[i])];
    }
    const picture = full.picture
      ? element("img", { src: full.picture, alt: `picture ${(full.images ?? []).join(", ")}` })
      : element("p", { class: "absent" }, [full.lacking, full.why].filter(Boolean).join(": "));
    const turns = full.turns.flatMap(([who, words]) => [element("dt", {}, who), element("dd", {}, words)]);
    const name = full.images ? element("p", { class: "note" }, full.images.join(", ")) : null;
    const cut = full.cut ? element("p", { class: "note" }, `… and ${thousands(full.cut)} letters more. The whole record: `) : null;
    return [picture, name, element("dl", { class: "turns" }, ...turns), cut, cut && command(data.id[i])].filter(Boolean);
  }

  const command = (id) => element("pre", {}, element("code", {}, `vinnow show RUN ${id}`));

  function fill(id) {
    const i = numberOf.get(id);
    const title = element("h2", { id: "record-title", tabindex: -1 }, `Record ${id}`);
    const close = element("button", { type: "button", id: "record-close" }, "Close");
    close.addEventListener("click", () => dialog.close());
    const top = element("div", { class: "record-top" }, title, close);
    if (i === undefined) {
      dialog.replaceChildren(top, element("p", {}, `This page holds ${thousands(data.id.length)} of ${thousands(data.total)} rows, and not this one. Ask the run:`), command(id));
      return;
    }
    const facts = `${data.sources[data.source[i]] || "no source"} · ${data.tasks[data.task[i]]} · ${thousands(data.letters[i])} characters`;
    dialog.replaceChildren(top, element("p", { class: "note" }, facts), ...conversation(i), scores(i), choices(i));
  }

  function show() {
    const id = asked();
    if (id === null) {
      if (dialog.open) dialog.close();
      return;
    }
    let name = id;
    try {
      name = decodeURIComponent(id);
    } catch {
      // an address that was typed may be no encoding at all
    }
    fill(name);
    if (!dialog.open) {
      before = document.activeElement;
      dialog.showModal();
    }
    document.getElementById("record-title").focus();
    dialog.scrollTop = 0;
  }

  dialog.addEventListener("close", () => {
    if (asked() !== null) history.pushState(null, "", "#explorer");
    if (before instanceof HTMLElement) before.focus({ preventScroll: true });
    before = null;
  });
  // a click beside it closes it, as Escape does
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  addEventListener("hashchange", show);
  document.addEventListener("DOMContentLoaded", show);
})();
