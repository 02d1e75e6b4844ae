// Colours and sizes of points. A point carries two numbers: its colour, and its class, which
// decides size and opacity and the order of drawing.
import { CONFIDENT, CONTEXT, SELECTED, WRONG } from "./message.js";

const GREY = "#9a9a9a";
const NO_VALUE = 255;
const STEPS = 255;

// 0 outside the filters, 1 correct or not scored, 2 wrong, 3 confidently wrong; 4 more if selected.
export const CLASSES = 8;

function classOf(flags) {
  const base = flags & CONTEXT ? 0 : flags & CONFIDENT ? 3 : flags & WRONG ? 2 : 1;
  return flags & SELECTED ? base + 4 : base;
}

export const CLASS_OF = Uint8Array.from({ length: 16 }, (_, flags) => classOf(flags));

function between(a, b, share) {
  const part = (i) => {
    const from = parseInt(a.slice(i, i + 2), 16);
    const to = parseInt(b.slice(i, i + 2), 16);
    return Math.round(from + (to - from) * share).toString(16).padStart(2, "0");
  };
  return `#${part(1)}${part(3)}${part(5)}`;
}

// The colours by code, grey for context as the last one.
export function paletteOf(header) {
  if (header.mode !== "continuous") return [...header.colours, GREY, GREY];
  const stops = header.colours;
  const colours = [];
  for (let code = 0; code < STEPS; code++) {
    const at = (code / (STEPS - 1)) * (stops.length - 1);
    const i = Math.min(Math.floor(at), stops.length - 2);
    colours.push(between(stops[i], stops[i + 1], at - i));
  }
  colours[NO_VALUE] = GREY;
  return [...colours, GREY];
}

export function appearance(n, hasSelection) {
  const size = n > 400000 ? 1.3 : n > 100000 ? 1.6 : n > 30000 ? 2 : n > 5000 ? 2.5 : n > 300 ? 4 : 8;
  const calm = n > 100000 ? 0.5 : 0.62;
  const sizes = [0.85, 1, 1.4, 1.6].map((factor) => factor * size);
  const opacities = hasSelection ? [0.06, 0.1, 0.16, 0.2] : [0.16, calm, 0.92, 0.95];
  return {
    pointSize: [...sizes, ...sizes.map((value) => value * 1.15)],
    opacity: [...opacities, 0.3, 0.9, 0.98, 1],
  };
}
