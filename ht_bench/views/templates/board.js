// Sorting, filters, the theme, and curves brought out. The page reads without any of it.
"use strict";

const all = (selector, from = document) => [...from.querySelectorAll(selector)];

function theme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                 set: (name) => { try { localStorage.setItem("theme", name); } catch { /* no storage */ } } };
  const now = () => document.documentElement.dataset.theme || (system.matches ? "dark" : "light");
  const show = () => { button.textContent = now() === "dark" ? "Light theme" : "Dark theme"; };
  if (kept.get() === "dark" || kept.get() === "light") document.documentElement.dataset.theme = kept.get();
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = now() === "dark" ? "light" : "dark";
    kept.set(now());
    show();
  });
  system.addEventListener("change", show);
  show();
}

function cellValue(row, index, kind) {
  const cell = row.cells[index];
  if (kind === "text") return cell.textContent.trim().toLowerCase();
  const text = cell.dataset.value;
  return text === undefined || text === "" || text === "nan" ? null : Number(text);
}

function sortTable(table, heading, index) {
  const kind = heading.dataset.sort;
  const down = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = all("tbody tr", table).map((row) => [cellValue(row, index, kind), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return down * (kind === "text" ? a.localeCompare(b) : a - b);
  });
  all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function sortable(table) {
  all("thead th[data-sort]", table).forEach((heading) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent.trim();
    heading.replaceChildren(button);
    button.addEventListener("click", () => sortTable(table, heading, heading.cellIndex));
  });
}

function filters() {
  const form = document.getElementById("filters");
  if (!form) return;
  const field = (name) => document.getElementById("f-" + name).value;
  const tabs = form.elements.suite;
  const apply = () => {
    const suite = tabs.value;
    const [kind, family, boundaries] = ["kind", "family", "boundaries"].map(field);
    const name = field("name").trim().toLowerCase();
    all(".suite").forEach((section) => {
      const { suite: own, kind: learner, families } = section.dataset;
      section.hidden = (suite !== "" && own !== suite) || (kind !== "" && learner !== kind)
        || (family !== "" && !families.split(" ").includes(family));
    });
    all(".suite [data-family]").forEach((cell) => {
      cell.hidden = family !== "" && cell.dataset.family !== family;
    });
    all("tr[data-kind]").forEach((row) => {
      row.hidden = (kind !== "" && row.dataset.kind !== kind)
        || (family !== "" && row.dataset.family !== family);
    });
    all("[data-entry]").forEach((one) => {
      const hidden = (boundaries !== "" && one.dataset.boundaries !== boundaries)
        || !one.dataset.entry.toLowerCase().includes(name);
      if (one instanceof SVGElement) one.style.display = hidden ? "none" : "";
      else one.hidden = hidden;
    });
    const sections = all(".suite").filter((section) => !section.hidden);
    const names = new Set(sections.map((section) => section.dataset.suite));
    all("[data-of]").forEach((picture) => { picture.hidden = !names.has(picture.dataset.of); });
    const shown = new Set(sections.flatMap((section) => all("tbody tr", section))
      .filter((row) => !row.hidden).map((row) => row.dataset.entry));
    document.getElementById("shown").textContent =
      `${shown.size} method(s) shown on ${sections.length} suite(s).`;
  };
  const follow = () => {  // a link to a suite opens its tab
    const name = location.hash.slice(1);
    if (document.querySelector(`.suite[id="${CSS.escape(name)}"]`)) tabs.value = name;
    apply();
    if (name) document.getElementById(name)?.scrollIntoView();
  };
  form.hidden = false;
  form.addEventListener("input", ({ target }) => {
    if (["f-kind", "f-family"].includes(target.id)) tabs.value = "";  // of whatever suite
    apply();
  });
  addEventListener("hashchange", follow);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  follow();
}

function legends() {
  all(".legend").forEach((legend) => {
    const lines = all("g[data-entry]", legend.closest("figure"));
    legend.addEventListener("change", ({ target }) => {
      const line = lines.find((one) => one.dataset.entry === target.value);
      const key = target.parentElement.querySelector(".key");
      [line, key].forEach((one) => {
        if (!one.dataset.style) one.dataset.style = one.getAttribute("class").replace("key", "").trim();
        const style = target.checked ? (one.dataset.style === "quiet" ? "out" : one.dataset.style) : "quiet";
        one.setAttribute("class", one === key ? `key ${style}` : style);
      });
      if (target.checked) line.parentElement.append(line);
    });
  });
}

theme();
all("table.sortable").forEach(sortable);
filters();
legends();
