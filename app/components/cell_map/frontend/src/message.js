// Reads the server's message: see docs/cell-map.md for its bytes.

const MAGIC = 0x314d4c46; // "FLM1", little-endian
const MISSING = 65535;
const LAST = 65534;
const COLUMNS = { x: 2, y: 2, category: 1, continuous: 1, facet: 1, flags: 1 };

export const WRONG = 1;
export const CONFIDENT = 2;
export const SELECTED = 4;
export const CONTEXT = 8;

// Places by token, the newest last: they outlive a map that is taken off the page, so that a
// recolouring or a return to the page needs no coordinates again.
const places = new Map();
const MOST_PLACES = 3;

export function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) throw new Error("not a cell map");
  const length = view.getUint32(4, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  let offset = Math.ceil((8 + length) / 8) * 8;
  const columns = {};
  for (const name of header.columns) {
    const end = offset + header.n * COLUMNS[name];
    // A copy, because a view of two-byte numbers must begin at an even address.
    const part = bytes.slice(offset, end);
    columns[name] = COLUMNS[name] === 2 ? new Uint16Array(part.buffer) : part;
    offset = end;
  }
  return { header, columns };
}

// Both axes use one scale, so that shapes are those of the embedding.
function toPlace(header, columns) {
  const { n, x_min, x_max, y_min, y_max } = header;
  const half = Math.max(x_max - x_min, y_max - y_min) / 2;
  const middle = [(x_min + x_max) / 2, (y_min + y_max) / 2];
  const x = new Float32Array(n);
  const y = new Float32Array(n);
  const xStep = (x_max - x_min) / LAST / half;
  const yStep = (y_max - y_min) / LAST / half;
  const xStart = (x_min - middle[0]) / half;
  const yStart = (y_min - middle[1]) / half;
  for (let i = 0; i < n; i++) {
    const isMissing = columns.x[i] === MISSING;
    x[i] = isMissing ? NaN : xStart + columns.x[i] * xStep;
    y[i] = isMissing ? NaN : yStart + columns.y[i] * yStep;
  }
  const extent = [(x_max - x_min) / 2 / half, (y_max - y_min) / 2 / half];
  return { x, y, half, middle, extent, token: header.coordinates };
}

// Returns the places of a message, or null when it has none and they are not known here.
export function placesOf({ header, columns }) {
  const token = header.coordinates;
  let found = places.get(token);
  if (!found) {
    if (!columns.x) return null;
    found = toPlace(header, columns);
    queueMicrotask(() => window.dispatchEvent(new CustomEvent("faultline:places")));
  }
  places.delete(token);
  places.set(token, found);
  while (places.size > MOST_PLACES) places.delete(places.keys().next().value);
  return found;
}
