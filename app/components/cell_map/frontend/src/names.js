// Names written on the cells they belong to: so many colours cannot be told apart by hue alone.
import { element } from "./dom.js";
import { CONTEXT } from "./message.js";

const SAMPLE = 1500;

function median(values) {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

export class Names {
  constructor() {
    // The legend and the table say the same to screen readers.
    this.node = element("div", { class: "names", "aria-hidden": "true" });
    this.places = [];
  }

  // Finds the middle of each category among the drawn rows.
  show({ header, columns, places, hidden }, rows) {
    this.places = [];
    if (header.names_on_map) {
      const { category, flags } = columns;
      const members = header.categories.map(() => []);
      for (const row of rows) if (!(flags[row] & CONTEXT)) members[category[row]].push(row);
      members.forEach((found, code) => {
        if (found.length === 0 || hidden.has(code)) return;
        const step = Math.ceil(found.length / SAMPLE);
        const some = found.filter((_, i) => i % step === 0);
        const text = element("span", { dir: "auto" }, header.categories[code]);
        this.places.push({ text, x: median(some.map((row) => places.x[row])), y: median(some.map((row) => places.y[row])) });
      });
    }
    this.node.replaceChildren(...this.places.map(({ text }) => text));
  }

  move({ sx, tx, sy, ty }) {
    for (const { text, x, y } of this.places) {
      text.style.transform = `translate(${x * sx + tx}px, ${y * sy + ty}px) translate(-50%, -50%)`;
    }
  }
}
