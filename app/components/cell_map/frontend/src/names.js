// Names written on the cells they belong to: so many colours cannot be told apart by hue alone.
import { element } from "./dom.js";
import { CONTEXT } from "./message.js";

const SAMPLE = 1500;

// The middle of each category among the drawn rows within the filters, over a sample of each: null
// where there is none. Rows are gone through twice, without a list of any category's rows.
function middles(rows, { category, flags }, places) {
  const counts = new Uint32Array(256);
  for (let i = 0; i < rows.length; i++) if (!(flags[rows[i]] & CONTEXT)) counts[category[rows[i]]] += 1;
  const steps = counts.map((n) => Math.ceil(n / SAMPLE));
  const samples = Array.from(counts, (n, code) => (n === 0 ? null : new Uint32Array(Math.ceil(n / steps[code]))));
  const seen = new Uint32Array(256);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i];
    if (flags[row] & CONTEXT) continue;
    const code = category[row];
    const at = seen[code]++;
    if (at % steps[code] === 0) samples[code][at / steps[code]] = row;
  }
  const median = (some, values) => Float32Array.from(some, (row) => values[row]).sort()[some.length >> 1];
  return samples.map((some) => some && { x: median(some, places.x), y: median(some, places.y) });
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
      const found = middles(rows, columns, places);
      header.categories.forEach((name, code) => {
        if (!found[code] || hidden.has(code)) return;
        this.places.push({ text: element("span", { dir: "auto" }, name), ...found[code] });
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
