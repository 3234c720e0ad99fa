// What every page with tables has: light or dark by a button, the data of tables and figures as files, a filter of refused rows.
"use strict";
window.vinnow = (() => {
  const root = document.documentElement;
  const THEMES = ["auto", "dark", "light"];

  // elements are made of names and texts alone, so that no text is ever read as markup
  function element(name, attributes = {}, ...inside) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...inside.filter((one) => one !== null));
    return made;
  }

  function remembered(value) {
    try {
      if (value !== undefined) localStorage.setItem("vinnow-theme", value);
      return localStorage.getItem("vinnow-theme");
    } catch {
      return null; // a page opened from a file may have no storage
    }
  }

  function theme(name) {
    if (name === "auto") delete root.dataset.theme;
    else root.dataset.theme = name;
    dispatchEvent(new Event("vinnow-theme"));
  }

  function themeButton() {
    let now = THEMES.includes(remembered()) ? remembered() : "auto";
    const button = element("button", { type: "button", class: "theme", id: "theme" });
    const show = () => {
      button.textContent = `Colours: ${now}`;
      theme(now);
    };
    button.addEventListener("click", () => {
      now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
      remembered(now);
      show();
    });
    document.querySelector("header")?.append(button);
    show();
  }

  function save(name, kind, text) {
    const url = URL.createObjectURL(new Blob([text], { type: kind }));
    const link = element("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // a spreadsheet runs a cell that begins like a formula
  function field(text) {
    const safe = /^[=+@\t\r-]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  const csv = (head, rows) => [head, ...rows].map((row) => row.map((v) => field(String(v ?? ""))).join(",")).join("\r\n") + "\r\n";

  // a number as it is shown: thousands by commas, a true minus sign
  function plain(text, numeric) {
    const number = text.replaceAll(",", "").replace("\u2212", "-");
    if (numeric && text === "–") return "";
    return numeric && number !== "" && !Number.isNaN(Number(number)) ? number : text;
  }

  function words(cell) {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll("small").forEach((one) => one.prepend(" ("));
    copy.querySelectorAll("small").forEach((one) => one.append(")"));
    return copy.textContent.trim();
  }

  function tableData(table) {
    const cells = (row) => [...row.cells].map((c) => plain(words(c), c.classList.contains("n")));
    return { head: [...table.tHead.rows[0].cells].map((c) => c.textContent.trim()), rows: [...table.tBodies[0].rows].filter((r) => !r.hidden).map(cells) };
  }

  const fileName = (text) => (text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "data");

  function offer(after, name, what, data) {
    const one = (kind, text) => {
      const button = element("button", { type: "button", "aria-label": `${kind} of ${what}` }, kind);
      button.addEventListener("click", () => save(`${fileName(name)}.${kind.toLowerCase()}`, kind === "CSV" ? "text/csv" : "application/json", text(data())));
      return button;
    };
    const asCsv = ({ head, rows }) => csv(head, rows);
    const asJson = ({ head, rows }) => JSON.stringify(rows.map((row) => Object.fromEntries(head.map((h, i) => [h || "name", row[i]]))), null, 1);
    after.after(element("p", { class: "downloads" }, one("CSV", asCsv), one("JSON", asJson)));
  }

  function figures() {
    document.querySelectorAll("figure > .scroll > .chart").forEach((box) => {
      const traces = () => JSON.parse(document.getElementById(box.dataset.figure).textContent).data;
      const rows = () => traces().flatMap((t) => t.x.map((x, i) => [t.name ?? "", x, t.y[i]]));
      offer(box.parentElement, box.id, `the figure ${box.getAttribute("aria-label").slice(0, 60)}`, () => ({ head: ["line", "x", "y"], rows: rows() }));
    });
  }

  function refused() {
    document.querySelectorAll("[data-reasons]").forEach((box) => {
      const rows = [...document.getElementById(box.dataset.reasons).querySelectorAll("tbody tr")];
      const reasons = [...new Set(rows.map((row) => row.cells[0].textContent))];
      const choose = element("select", { id: `${box.dataset.reasons}-reason` }, element("option", { value: "" }, "all reasons"));
      choose.append(...reasons.map((reason, i) => element("option", { value: String(i) }, reason)));
      const count = element("span", { role: "status", class: "count" });
      const show = () => {
        const wanted = choose.value === "" ? null : reasons[Number(choose.value)];
        rows.forEach((row) => (row.hidden = wanted !== null && row.cells[0].textContent !== wanted));
        count.textContent = ` ${rows.filter((row) => !row.hidden).length} rows`;
      };
      choose.addEventListener("change", show);
      box.append(element("label", { for: choose.id }, "Reason ", choose), count);
      show();
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    themeButton();
    document.querySelectorAll(".scroll > table").forEach((table) => {
      const caption = table.caption?.textContent ?? "table";
      offer(table.parentElement, caption, `the table ${caption}`, () => tableData(table));
    });
    figures();
    refused();
  });
  return { element, offer };
})();
