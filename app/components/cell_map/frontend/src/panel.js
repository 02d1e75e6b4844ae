// One panel: the points of one facet, its camera, and the tools over it.
import createScatterplot from "regl-scatterplot";
import { appearance, classOf, CLASSES, paletteOf } from "./colours.js";
import { element, reducesMotion } from "./dom.js";
import { CONTEXT } from "./message.js";
import { Outline } from "./outline.js";
import { borrow, giveBack } from "./renderer.js";

const MARGIN = 1.06;

export class Panel {
  constructor(map, facet) {
    this.map = map;
    this.facet = facet;
    this.node = element("div", {
      class: "panel",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "cell map",
    });
    this.canvas = element("canvas", { role: "img" });
    this.node.append(this.canvas);
    this.outline = new Outline(this.node, (drawn) => this.drawn(drawn), (text) => map.say(text));
    this.pending = null;
    this.work = Promise.resolve();
    this.rows = new Uint32Array(0);
    this.node.addEventListener("keydown", (event) => this.key(event));
    // A click of the library would select one point; here it only takes the focus.
    for (const name of ["click", "dblclick"]) {
      this.node.addEventListener(name, (event) => event.stopImmediatePropagation(), true);
    }
    this.node.addEventListener("mousedown", () => this.node.focus({ preventScroll: true }));
    // The wheel scrolls the page until the map is in use.
    this.node.addEventListener(
      "wheel",
      (event) => {
        if (!this.node.matches(":focus, :focus-within")) event.stopImmediatePropagation();
      },
      { capture: true, passive: true },
    );
    this.node.addEventListener("pointerleave", () => map.leave());
  }

  start(width, height) {
    this.width = width;
    this.height = height;
    this.plot = createScatterplot({
      renderer: borrow(),
      canvas: this.canvas,
      width,
      height,
      backgroundColor: [0, 0, 0, 0],
      colorBy: "valueA",
      opacityBy: "valueB",
      sizeBy: "valueB",
      lassoInitiator: false,
      lassoOnLongPress: false,
      deselectOnDblClick: false,
      deselectOnEscape: false,
      actionKeyMap: {},
      showReticle: false,
      pointSizeMouseDetection: 6,
      ...this.cameraStart(),
    });
    this.plot.subscribe("view", () => this.viewed(true));
    this.plot.subscribe("pointOver", (point) => this.map.point(this, this.rows[point]));
    this.plot.subscribe("pointOut", () => this.map.leave());
  }

  // The distance at which all places fit into the panel.
  cameraStart() {
    const [x, y] = this.map.places.extent;
    const aspect = this.width / this.height;
    return { cameraTarget: [0, 0], cameraDistance: MARGIN * Math.max(y, x / aspect, 0.05) };
  }

  resize(width, height) {
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    this.plot.set({ width, height });
    this.viewed(false);
  }

  // Draws the newest content; what comes while drawing waits, and only the last of it is drawn.
  update(content) {
    this.pending = content;
    this.work = this.work.then(async () => {
      if (this.pending !== content || this.isGone) return;
      await this.draw(content);
    });
    return this.work;
  }

  async draw({ header, columns, places, hidden, hasSelection }) {
    const { category, continuous, facet, flags } = columns;
    const codes = header.mode === "continuous" ? continuous : category;
    const colours = paletteOf(header);
    const contextColour = colours.length - 1;
    const isSame = this.drawnToken === places.token && this.facetKey === this.keyOf(columns);
    if (!isSame) this.rows = this.rowsOf(places, facet, header.n);
    const n = this.rows.length;
    const points = new Array(n);
    const classes = new Uint8Array(n);
    const sizes = new Uint32Array(CLASSES + 1);
    for (let i = 0; i < n; i++) {
      const row = this.rows[i];
      const cls = classOf(flags[row]);
      classes[i] = cls;
      sizes[cls + 1] += 1;
      const colour = flags[row] & CONTEXT ? contextColour : codes[row];
      points[i] = [places.x[row], places.y[row], colour, cls];
    }
    // Failures and what is selected are drawn last: a counting sort by class.
    for (let cls = 1; cls <= CLASSES; cls++) sizes[cls] += sizes[cls - 1];
    const order = new Array(n);
    for (let i = 0; i < n; i++) order[sizes[classes[i]]++] = i;
    this.plot.set({ pointColor: colours, ...appearance(header.n, hasSelection), pointOrder: order });
    const options = { zDataType: "categorical", wDataType: "categorical" };
    if (isSame && n > 0) options.spatialIndex = this.plot.get("spatialIndex");
    if (hidden.size > 0) {
      options.filter = [];
      for (let i = 0; i < n; i++) {
        const row = this.rows[i];
        if (flags[row] & CONTEXT || !hidden.has(category[row])) options.filter.push(i);
      }
    }
    this.drawnToken = places.token;
    this.facetKey = this.keyOf(columns);
    if (n === 0) this.plot.clear();
    else await this.plot.draw(points, options);
    this.viewed(false);
  }

  keyOf(columns) {
    return this.facet === null ? "all" : this.map.facetKey(columns);
  }

  rowsOf(places, facet, n) {
    const rows = new Uint32Array(n);
    let size = 0;
    for (let row = 0; row < n; row++) {
      if (places.x[row] === places.x[row] && (this.facet === null || facet[row] === this.facet)) {
        rows[size++] = row;
      }
    }
    return rows.slice(0, size);
  }

  // From places to pixels of the panel: pixel = scale * place + shift, y downwards.
  transform() {
    const view = this.plot.get("cameraView");
    const aspect = this.width / this.height;
    return {
      sx: ((view[0] / aspect) * this.width) / 2,
      tx: ((view[12] / aspect + 1) * this.width) / 2,
      sy: (-view[5] * this.height) / 2,
      ty: ((1 - view[13]) * this.height) / 2,
    };
  }

  toData([px, py]) {
    const { sx, tx, sy, ty } = this.transform();
    const { half, middle } = this.map.places;
    return [((px - tx) / sx) * half + middle[0], ((py - ty) / sy) * half + middle[1]];
  }

  toPixel(row) {
    const { sx, tx, sy, ty } = this.transform();
    return [this.map.places.x[row] * sx + tx, this.map.places.y[row] * sy + ty];
  }

  viewed(isOwn) {
    const { sx, tx, sy, ty } = this.transform();
    const { half, middle } = this.map.places;
    // Data to pixels, for those who drive the page from outside.
    const view = [sx / half, tx - (middle[0] * sx) / half, sy / half, ty - (middle[1] * sy) / half];
    this.node.dataset.view = JSON.stringify(view);
    this.map.leave();
    if (isOwn) this.map.link(this, this.plot.get("cameraView"));
  }

  follow(view) {
    this.plot.lookAt(view, { preventEvent: true });
    requestAnimationFrame(() => this.isGone || this.viewed(false));
  }

  reset() {
    const { cameraTarget, cameraDistance } = this.cameraStart();
    const transition = !reducesMotion();
    this.plot.zoomToLocation(cameraTarget, cameraDistance, { transition, transitionDuration: 250 });
  }

  zoom(factor) {
    this.plot.set({ cameraDistance: this.plot.get("cameraDistance") * factor });
  }

  pan(dx, dy) {
    const [x, y] = this.plot.get("cameraTarget");
    const step = 0.12 * this.plot.get("cameraDistance");
    this.plot.set({ cameraTarget: [x + dx * step, y + dy * step] });
  }

  key(event) {
    if (event.target !== this.node) return;
    const pans = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!this.outline.key(event)) {
      if (pans[event.key]) this.pan(...pans[event.key]);
      else if (event.key === "+" || event.key === "=") this.zoom(0.8);
      else if (event.key === "-") this.zoom(1.25);
      else if (event.key === "0") this.reset();
      else return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  drawn({ kind, corners, mode }) {
    this.map.select({ kind, mode, facet: this.facet, polygon: corners.map((corner) => this.toData(corner)) });
  }

  destroy() {
    this.isGone = true;
    this.plot?.destroy();
    if (this.plot) giveBack();
  }
}
