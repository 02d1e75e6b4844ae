// The legend: what each colour means and how many cells have it; entries hide and isolate.
import { count, element } from "./dom.js";

const SEARCH_FROM = 16;

export class Legend {
  constructor(onChange) {
    this.hidden = new Set();
    this.onChange = onChange;
    this.names = "";
    this.node = element("section", { class: "legend", "aria-label": "Legend" });
  }

  get shownAll() {
    return this.hidden.size === 0;
  }

  show(header) {
    const names = JSON.stringify([header.mode, header.categories]);
    // Other categories: what was hidden means nothing any more.
    if (names !== this.names) this.hidden.clear();
    this.names = names;
    this.header = header;
    const title = element("h4", {}, header.legend_title ?? "Colour");
    if (header.mode === "continuous") this.node.replaceChildren(title, ...this.scale(header));
    else this.node.replaceChildren(title, ...this.entries(header));
  }

  scale(header) {
    const scale = element("div", { class: "scale" });
    scale.style.background = `linear-gradient(to right, ${header.colours.join(", ")})`;
    const ends = element("div", { class: "ends" }, element("span", {}, "0"), element("span", {}, "1"));
    return [scale, ends];
  }

  entries(header) {
    const rows = header.categories.map((name, code) =>
      header.counts[code] > 0 ? this.entry(name, code) : null,
    );
    const list = element("ul", { tabindex: "0", "aria-label": "Colours" }, ...rows);
    const all = element("button", { type: "button", class: "only", onclick: () => this.set([]) }, "Show all");
    all.hidden = this.shownAll;
    this.all = all;
    if (rows.filter(Boolean).length < SEARCH_FROM) return [list, all];
    const search = element("input", { type: "search", placeholder: "Find a name", "aria-label": "Find a name in the legend" });
    search.addEventListener("input", () => {
      const wanted = search.value.trim().toLowerCase();
      for (const row of list.children) row.hidden = !row.dataset.name.toLowerCase().includes(wanted);
      for (const row of list.children) row.style.display = row.hidden ? "none" : "";
    });
    return [search, list, all];
  }

  entry(name, code) {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = this.header.colours[code];
    const text = element("span", { class: "name", dir: "auto" }, name);
    const n = element("span", { class: "count" }, count(this.header.counts[code]));
    const button = element(
      "button",
      {
        type: "button",
        class: "entry",
        title: name,
        "aria-pressed": String(!this.hidden.has(code)),
        onclick: () => this.toggle(code),
        ondblclick: () => this.isolate(code),
      },
      swatch,
      text,
      n,
    );
    const only = element(
      "button",
      { type: "button", class: "only", "aria-label": `Only ${name}`, onclick: () => this.isolate(code) },
      "only",
    );
    const row = element("li", {}, button, only);
    row.dataset.name = name;
    row.dataset.code = code;
    return row;
  }

  toggle(code) {
    const hidden = new Set(this.hidden);
    if (!hidden.delete(code)) hidden.add(code);
    this.set(hidden);
  }

  isolate(code) {
    const others = this.header.categories.map((_, i) => i).filter((i) => i !== code);
    const isAlone = !this.hidden.has(code) && others.every((i) => this.hidden.has(i) || !this.header.counts[i]);
    // A second double click brings the others back.
    this.set(isAlone ? [] : others);
  }

  set(hidden) {
    this.hidden = new Set(hidden);
    for (const row of this.node.querySelectorAll("li")) {
      row.firstChild.setAttribute("aria-pressed", String(!this.hidden.has(Number(row.dataset.code))));
    }
    this.all.hidden = this.shownAll;
    this.onChange();
  }
}
