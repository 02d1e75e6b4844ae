// One panel: the points of one facet, its camera, and the tools over it.
import createScatterplot from "regl-scatterplot";
import { appearance, CLASS_OF, CLASSES, paletteOf } from "./colours.js";
import { element, reducesMotion } from "./dom.js";
import { CONTEXT } from "./message.js";
import { Names } from "./names.js";
import { Nearest } from "./nearest.js";
import { Outline } from "./outline.js";
import { borrow, fit, giveBack } from "./renderer.js";

const MARGIN = 1.06;
const REACH = 7; // pixels around the pointer in which a cell is found

// The library looks for the point below the pointer in an index of its own, which takes longer to
// make than the picture, and draws all points again to mark it. It gets an empty index instead (the
// header of the format of KDBush), and `Nearest` answers.
const NO_INDEX = Uint8Array.of(0xdb, 0x18, 64, 0, 0, 0, 0, 0).buffer;

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
    this.names = new Names();
    this.node.append(this.canvas, this.names.node);
    this.outline = new Outline(this.node, (drawn) => this.drawn(drawn), (text) => map.say(text));
    this.pending = null;
    this.work = Promise.resolve();
    this.rows = [];
    this.listen();
  }

  listen() {
    const { node } = this;
    node.addEventListener("keydown", (event) => this.key(event));
    // A click of the library would select one point; here it only takes the focus.
    for (const name of ["click", "dblclick"]) {
      node.addEventListener(name, (event) => event.stopImmediatePropagation(), true);
    }
    node.addEventListener("mousedown", () => node.focus({ preventScroll: true }));
    // The wheel scrolls the page until the map is in use.
    const isIdle = () => !node.matches(":focus, :focus-within");
    const stop = (event) => isIdle() && event.stopImmediatePropagation();
    node.addEventListener("wheel", stop, { capture: true, passive: true });
    node.addEventListener("pointermove", (event) => this.moved(event));
    node.addEventListener("pointerleave", () => this.map.leave());
  }

  start(width, height) {
    this.width = width;
    this.height = height;
    this.plot = createScatterplot({
      renderer: borrow(width, height),
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
      ...this.cameraStart(),
    });
    // Not the event of the view, which is silent about changes that were not made by mouse.
    this.plot.subscribe("draw", () => this.viewed());
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
    fit(width, height);
    this.plot.set({ width, height });
  }

  // Draws the newest content; what comes while drawing waits, and only the last of it is drawn.
  update(content) {
    this.pending = content;
    this.work = this.work.then(async () => {
      if (this.pending === content && !this.isGone) await this.draw(content);
    });
    return this.work;
  }

  async draw(content) {
    const { header, columns, places, hidden, hasSelection } = content;
    const facetKey = this.facet === null ? "all" : this.map.facetKey(columns);
    if (this.token !== places.token || this.facetKey !== facetKey) {
      this.place(places, columns.facet, header.n);
      this.token = places.token;
      this.facetKey = facetKey;
    }
    const colours = paletteOf(header);
    const points = this.paint(header, columns, hidden, colours.length - 1);
    // Settings ask for a frame of their own; to wait for it first leaves one frame for both.
    await this.plot.set({ pointColor: colours, ...appearance(header.n, hasSelection) });
    if (this.isGone) return;
    if (points.length === 0) this.plot.clear();
    else {
      const types = { zDataType: "categorical", wDataType: "categorical" };
      await this.plot.draw(points, { ...types, spatialIndex: NO_INDEX });
    }
    this.nearest = null;
    this.names.show(content, this.rows);
    this.names.move(this.transform());
    this.viewed();
  }

  // Makes the points, once for their places; colours are put into them later.
  place(places, facet, n) {
    this.base = [];
    for (let row = 0; row < n; row++) {
      const isPlaced = places.x[row] === places.x[row];
      if (isPlaced && (this.facet === null || facet[row] === this.facet)) this.base.push(row);
    }
    this.points = this.base.map((row) => [places.x[row], places.y[row], 0, 0]);
  }

  // Puts colour and class into the points and returns those to draw, in order: failures and what
  // is selected come last, by a counting sort over classes.
  paint({ mode }, { category, continuous, flags }, hidden, contextColour) {
    const codes = mode === "continuous" ? continuous : category;
    const { base, points } = this;
    const n = base.length;
    const isHidden = new Uint8Array(256);
    for (const code of hidden) isHidden[code] = 1;
    const classes = new Uint8Array(n);
    const starts = new Uint32Array(CLASSES + 2);
    for (let i = 0; i < n; i++) {
      const row = base[i];
      const flag = flags[row];
      const isContext = flag & CONTEXT;
      const cls = isHidden[category[row]] && !isContext ? CLASSES : CLASS_OF[flag & 15];
      classes[i] = cls;
      starts[cls + 1] += 1;
      points[i][2] = isContext ? contextColour : codes[row];
      points[i][3] = cls;
    }
    for (let cls = 1; cls <= CLASSES; cls++) starts[cls] += starts[cls - 1];
    const drawn = new Array(starts[CLASSES]);
    this.rows = new Uint32Array(starts[CLASSES]);
    for (let i = 0; i < n; i++) {
      if (classes[i] === CLASSES) continue;
      const place = starts[classes[i]]++;
      drawn[place] = points[i];
      this.rows[place] = base[i];
    }
    return drawn;
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

  moved(event) {
    if (!this.plot || event.buttons !== 0) return;
    const { flags } = this.map.last.columns;
    const inScope = () => this.rows.filter((row) => !(flags[row] & CONTEXT));
    this.nearest ??= new Nearest(inScope(), this.map.places);
    const { sx, tx, sy, ty } = this.transform();
    const [px, py] = this.outline.at(event);
    const row = this.nearest.find((px - tx) / sx, (py - ty) / sy, REACH / Math.abs(sx));
    if (row < 0) this.map.leave();
    else if (this.map.pointed?.row !== row || this.map.pointed.panel !== this) this.map.point(this, row);
  }

  // Tells others when the camera has moved.
  viewed() {
    if (this.isGone) return;
    const { sx, tx, sy, ty } = this.transform();
    const { half, middle } = this.map.places;
    // Data to pixels, for those who drive the page from outside.
    const view = [sx / half, tx - (middle[0] * sx) / half, sy / half, ty - (middle[1] * sy) / half];
    const text = JSON.stringify(view);
    if (text === this.node.dataset.view) return;
    this.node.dataset.view = text;
    this.names.move({ sx, tx, sy, ty });
    this.map.leave();
    this.map.link(this, this.plot.get("cameraView"));
  }

  follow(view) {
    const own = this.plot.get("cameraView");
    if (view.every((value, i) => value === own[i])) return;
    // A copy, because a camera changes its matrix in place.
    this.plot.set({ cameraView: Float32Array.from(view) });
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
