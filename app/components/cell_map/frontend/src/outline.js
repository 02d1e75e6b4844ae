// Drawing a lasso or a box over a panel, with pointer or keyboard. Corners are pixels of the panel.
const SVG = "http://www.w3.org/2000/svg";
const MOST_CORNERS = 500;
const NEAREST = 3;

export class Outline {
  constructor(panel, onDone, say) {
    this.panel = panel;
    this.onDone = onDone;
    this.say = say;
    this.tool = "pan";
    this.corners = null;
    this.box = null;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("aria-hidden", "true");
    this.shape = document.createElementNS(SVG, "polygon");
    this.shape.setAttribute("class", "outline");
    this.ring = document.createElementNS(SVG, "circle");
    this.ring.setAttribute("class", "ring");
    this.ring.setAttribute("r", "0");
    this.svg.append(this.shape, this.ring);
    panel.append(this.svg);
    this.svg.addEventListener("pointerdown", (event) => this.start(event));
    this.svg.addEventListener("pointermove", (event) => this.extend(event));
    this.svg.addEventListener("pointerup", (event) => this.end(event));
    this.svg.addEventListener("pointercancel", () => this.cancel());
  }

  use(tool) {
    this.tool = tool;
    this.cancel();
    this.panel.classList.toggle("draws", tool !== "pan");
  }

  // Rings the cell at a pixel; none takes the ring away.
  mark(pixel) {
    this.ring.setAttribute("r", pixel ? "6" : "0");
    if (!pixel) return;
    this.ring.setAttribute("cx", pixel[0]);
    this.ring.setAttribute("cy", pixel[1]);
  }

  at(event) {
    const box = this.panel.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  start(event) {
    if (this.tool === "pan" || event.button !== 0) return;
    this.svg.setPointerCapture(event.pointerId);
    this.corners = [this.at(event)];
    event.preventDefault();
    this.panel.focus({ preventScroll: true });
  }

  extend(event) {
    if (!this.corners) return;
    // A fast pointer leaves several places behind for one event.
    const steps = event.getCoalescedEvents?.() ?? [];
    for (const step of steps.length ? steps : [event]) this.add(this.at(step));
    this.draw();
  }

  add([x, y]) {
    if (this.tool === "box") {
      const [x0, y0] = this.corners[0];
      this.corners = [[x0, y0], [x, y0], [x, y], [x0, y]];
      return;
    }
    const [lastX, lastY] = this.corners[this.corners.length - 1];
    if (Math.hypot(x - lastX, y - lastY) < NEAREST) return;
    this.corners.push([x, y]);
    if (this.corners.length > 2 * MOST_CORNERS) this.corners = this.corners.filter((_, i) => i % 2 === 0);
  }

  end(event) {
    if (!this.corners) return;
    this.extend(event);
    const corners = this.corners;
    this.cancel();
    this.finish(this.tool, corners, event.shiftKey ? "add" : event.altKey ? "remove" : null);
  }

  finish(kind, corners, mode) {
    const step = Math.ceil(corners.length / MOST_CORNERS);
    const kept = corners.filter((_, i) => i % step === 0);
    if (kept.length >= 3) this.onDone({ kind, corners: kept, mode });
  }

  cancel() {
    this.corners = null;
    this.box = null;
    this.draw();
  }

  draw() {
    const corners = this.box ? this.boxCorners() : (this.corners ?? []);
    this.shape.setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));
  }

  boxCorners() {
    const { x, y, w, h } = this.box;
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]];
  }

  // Returns whether the key was used. Arrows move the box, with Shift they change its size.
  key(event) {
    const { width, height } = this.panel.getBoundingClientRect();
    if (event.key === "b" && !this.box) {
      this.box = { x: width * 0.35, y: height * 0.35, w: width * 0.3, h: height * 0.3 };
      this.say("Box. Arrows move it, Shift and arrows resize it, Enter selects, Escape cancels.");
      this.draw();
      return true;
    }
    if (!this.box) return false;
    const step = event.ctrlKey ? 2 : 12;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key === "Escape") {
      this.cancel();
      this.say("Box cancelled.");
    } else if (event.key === "Enter") {
      const corners = this.boxCorners();
      this.cancel();
      this.finish("box", corners, null);
    } else if (moves[event.key]) {
      const [dx, dy] = moves[event.key];
      const { x, y, w, h } = this.box;
      this.box = event.shiftKey
        ? { x, y, w: Math.max(8, w + dx), h: Math.max(8, h + dy) }
        : { x: x + dx, y: y + dy, w, h };
      this.draw();
    } else return false;
    return true;
  }
}
