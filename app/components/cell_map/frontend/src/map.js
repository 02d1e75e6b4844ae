// The whole map: tools, panels, legend, the tip at the pointer, and the talk with the server.
import { count, element } from "./dom.js";
import { Legend } from "./legend.js";
import { decode, placesOf, SELECTED } from "./message.js";
import { Panel } from "./panel.js";
import { hasWebgl } from "./renderer.js";

const DWELL = 120;
const PATIENCE = 1500;
const NUMBERS_FIRST = 350;
const MOST_ANSWERS = 500;
const TOOLS = [
  ["pan", "Pan", "Drag to move, scroll to zoom"],
  ["lasso", "Lasso", "Draw around cells"],
  ["box", "Box", "Drag a box around cells"],
];
const MODES = [
  ["replace", "New", "Select these cells"],
  ["add", "Add", "Add to the selection (or hold Shift)"],
  ["remove", "Remove", "Take out of the selection (or hold Alt)"],
];
const HELP =
  "Arrow keys move the map, plus and minus zoom, 0 shows all cells, B starts a box to select with.";

// Maps on the page whose cameras move together, by the name of their link.
const linked = new Map();
let canDraw = null;

export class CellMap {
  constructor(host, send) {
    this.send = send;
    this.tool = "pan";
    this.mode = "replace";
    this.panels = [];
    this.answers = new Map();
    this.legend = new Legend(() => this.redraw());
    this.live = element("div", { class: "hidden-text", role: "status" });
    this.tip = element("div", { class: "tip", hidden: "" });
    this.grid = element("div", { class: "panels" });
    this.note = element("p", { class: "note", hidden: "" });
    this.bar = this.tools();
    this.root = element(
      "div",
      { class: "map" },
      this.bar,
      element("div", { class: "body" }, this.grid, this.legend.node),
      this.note,
      this.live,
    );
    this.frame = element("div", { class: "frame" }, this.root);
    host.append(this.frame);
    this.heard = (event) => this.answer(event.detail);
    this.placed = () => this.waiting && this.receive(this.waiting);
    window.addEventListener("faultline:cell", this.heard);
    window.addEventListener("faultline:places", this.placed);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.grid);
  }

  tools() {
    const choice = (label, options, name) => {
      const group = element("div", { class: "group", role: "group", "aria-label": label });
      for (const [value, text, title] of options) {
        const button = element("button", { type: "button", title, "aria-pressed": String(this[name] === value) }, text);
        button.addEventListener("click", () => {
          this[name] = value;
          for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
          for (const panel of this.panels) panel.outline.use(this.tool);
        });
        group.append(button);
      }
      return group;
    };
    const act = (text, title, run) => element("button", { type: "button", title, onclick: run }, text);
    this.modes = choice("What a drawn area does", MODES, "mode");
    this.acts = element(
      "div",
      { class: "group", role: "group", "aria-label": "Selection" },
      act("Invert", "Select the cells that are not selected", () => this.select({ mode: "invert" })),
      act("Clear", "Select nothing", () => this.select({ mode: "clear" })),
    );
    const view = element(
      "div",
      { class: "group", role: "group", "aria-label": "View" },
      act("+", "Zoom in", () => this.panels[0]?.zoom(0.8)),
      act("−", "Zoom out", () => this.panels[0]?.zoom(1.25)),
      act("Whole map", "Show all cells", () => this.panels.forEach((panel) => panel.reset())),
    );
    return element("div", { class: "bar", role: "toolbar", "aria-label": "Map" }, choice("Tool", TOOLS, "tool"), this.modes, this.acts, view);
  }

  receive(bytes) {
    const started = performance.now();
    const message = decode(bytes);
    const { header } = message;
    if (this.last?.header.version === header.version) return;
    canDraw ??= hasWebgl();
    if (!canDraw) {
      this.root.classList.add("no-webgl");
      this.note.hidden = false;
      this.note.textContent =
        "This browser cannot draw with WebGL here, so the map is shown as a picture of densities below.";
      this.root.dataset.state = "no-webgl";
      if (!header.has_picture) this.emit({ kind: "no_webgl" });
      return;
    }
    const places = placesOf(message);
    if (!places) {
      this.await(bytes);
      return;
    }
    clearTimeout(this.patience);
    this.waiting = null;
    this.root.dataset.state = "drawing";
    if (this.last?.header.about !== header.about) this.answers.clear();
    const canWait = this.hasSameColours(message);
    this.last = message;
    this.places = places;
    this.hasSelection = message.columns.flags.some((flags) => flags & SELECTED);
    this.facetKeys = null;
    this.legend.show(header);
    this.arrange(header);
    this.joinLink(header.link);
    this.acts.hidden = this.modes.hidden = false;
    // After a selection or a filter the numbers come first: drawing keeps slow machines busy.
    const begin = canWait ? new Promise((resolve) => setTimeout(resolve, NUMBERS_FIRST)) : null;
    Promise.resolve(begin)
      .then(() => this.last === message && this.draw())
      .then(() => {
        this.root.dataset.ms = String(Math.round(performance.now() - started));
      });
  }

  // Tells whether other cells are selected or in scope, and nothing is coloured by something else.
  hasSameColours({ header }) {
    const before = this.last?.header;
    const names = ["coordinates", "about", "mode", "legend_title"];
    return Boolean(before) && names.every((name) => before[name] === header[name]);
  }

  // Another map on the page may bring the coordinates; if none does, the server is asked.
  await(bytes) {
    this.root.dataset.state = "waiting";
    this.waiting = bytes;
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.emit({ kind: "coordinates" }), PATIENCE);
  }

  // Makes a panel for each facet; keeps those that are there, with their cameras.
  arrange(header) {
    const facets = header.facets.length > 1 ? header.facets : [null];
    const layout = JSON.stringify([header.coordinates, facets.map((facet) => facet?.name)]);
    if (layout !== this.layout) {
      for (const panel of this.panels) panel.destroy();
      this.grid.classList.toggle("many", facets.length > 1);
      this.panels = facets.map((facet, i) => new Panel(this, facet ? i : null));
      this.grid.replaceChildren(
        ...this.panels.map((panel) => {
          panel.caption = element("figcaption", { dir: "auto" });
          return element("figure", {}, facets.length > 1 || header.title ? panel.caption : null, panel.node);
        }),
      );
      this.layout = layout;
      const { width, height } = this.size();
      for (const panel of this.panels) {
        panel.node.style.height = `${height}px`;
        panel.start(width, height);
        panel.outline.use(this.tool);
      }
    }
    this.panels.forEach((panel, i) => {
      const facet = facets[i];
      const name = facet?.name ?? header.title ?? "";
      const n = facet?.n ?? header.n_in_scope;
      panel.caption.replaceChildren(name, element("span", {}, ` ${count(n)} cells`));
      panel.canvas.setAttribute("aria-label", `${header.label}${facet ? ` ${name}.` : ""}`);
      panel.node.setAttribute("aria-label", `${name || "Cell map"}. ${HELP}`);
    });
  }

  size() {
    const columns = this.panels.length > 1 && this.grid.clientWidth >= 420 ? 2 : 1;
    const wide = (this.grid.clientWidth || 600) - (columns - 1) * 10;
    const width = Math.max(120, Math.floor(wide / columns) - 2);
    const most = this.last.header.height ?? 540;
    const isMany = this.panels.length > 1 || this.last.header.link;
    const height = Math.round(isMany ? Math.min(most, width * 0.86) : Math.min(most, Math.max(300, width)));
    return { width, height };
  }

  resize() {
    if (!this.last || this.grid.clientWidth === 0) return;
    const { width, height } = this.size();
    for (const panel of this.panels) {
      panel.node.style.height = `${height}px`;
      panel.resize(width, height);
    }
  }

  redraw() {
    if (this.last) this.draw();
  }

  draw() {
    const content = { ...this.last, places: this.places, hidden: this.legend.hidden, hasSelection: this.hasSelection };
    const drawn = Promise.all(this.panels.map((panel) => panel.update(content)));
    return drawn.then(
      () =>
        new Promise((resolve) => {
          requestAnimationFrame(() =>
            requestAnimationFrame(() => {
              this.root.dataset.state = "drawn";
              this.root.dataset.version = content.header.version;
              resolve();
            }),
          );
        }),
    );
  }

  // Tells whether cells moved between panels since the last message.
  facetKey(columns) {
    if (this.facetKeys?.column !== columns.facet) {
      let hash = 0;
      for (const code of columns.facet) hash = (Math.imul(hash, 31) + code) | 0;
      this.facetKeys = { column: columns.facet, key: String(hash) };
    }
    return this.facetKeys.key;
  }

  joinLink(name) {
    if (this.linkName === name) return;
    linked.get(this.linkName)?.delete(this);
    this.linkName = name;
    if (!name) return;
    if (!linked.has(name)) linked.set(name, new Set());
    linked.get(name).add(this);
  }

  link(source, view) {
    const maps = this.linkName ? linked.get(this.linkName) : [this];
    for (const map of maps) {
      for (const panel of map.panels) if (panel !== source && panel.plot) panel.follow(view);
    }
  }

  say(text) {
    this.live.textContent = text;
  }

  emit(event) {
    this.send({ ...event, nonce: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` });
  }

  select({ kind = "lasso", mode, polygon = [], facet = null }) {
    const event = { kind, mode: mode ?? this.mode, polygon };
    if (facet !== null) event.facet = facet;
    if (!this.legend.shownAll && this.last.header.mode !== "continuous") event.hidden = [...this.legend.hidden];
    this.root.dataset.sent = JSON.stringify(event);
    this.emit(event);
  }

  point(panel, row) {
    clearTimeout(this.dwell);
    this.pointed?.panel.outline.mark(null);
    this.pointed = { panel, row };
    panel.outline.mark(panel.toPixel(row));
    this.tip.hidden = true;
    const known = this.answers.get(row);
    if (known) this.showTip(known);
    else this.dwell = setTimeout(() => this.emit({ kind: "hover", cell_index: row }), DWELL);
  }

  leave() {
    clearTimeout(this.dwell);
    this.pointed?.panel.outline.mark(null);
    this.pointed = null;
    this.tip.hidden = true;
  }

  answer(detail) {
    if (detail.about !== this.last?.header.about) return;
    if (this.answers.size > MOST_ANSWERS) this.answers.clear();
    this.answers.set(detail.cell_index, detail.facts);
    if (this.pointed?.row === detail.cell_index) this.showTip(detail.facts);
  }

  showTip(facts) {
    const { panel, row } = this.pointed;
    const list = element("dl");
    for (const [name, value] of facts) list.append(element("dt", {}, name), element("dd", { dir: "auto" }, value));
    this.tip.replaceChildren(list);
    panel.node.append(this.tip);
    this.tip.hidden = false;
    const [x, y] = panel.toPixel(row);
    const isLeft = x > panel.width / 2;
    this.tip.style.left = isLeft ? "" : `${x + 12}px`;
    this.tip.style.right = isLeft ? `${panel.width - x + 12}px` : "";
    const isLow = y > panel.height / 2;
    this.tip.style.top = isLow ? "" : `${y + 8}px`;
    this.tip.style.bottom = isLow ? `${panel.height - y + 8}px` : "";
  }

  destroy() {
    this.observer.disconnect();
    window.removeEventListener("faultline:cell", this.heard);
    window.removeEventListener("faultline:places", this.placed);
    clearTimeout(this.patience);
    this.joinLink(null);
    this.leave();
    for (const panel of this.panels) panel.destroy();
    this.frame.remove();
  }
}
