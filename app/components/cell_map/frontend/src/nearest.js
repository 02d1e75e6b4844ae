// Which cell is nearest to the pointer: places sorted into squares, in linear time.

const SIDE = 256;

export class Nearest {
  // Places are those of the rows given; [-1, 1] on both axes.
  constructor(rows, places) {
    this.rows = rows;
    this.places = places;
    const n = rows.length;
    const squares = new Uint32Array(n);
    this.starts = new Uint32Array(SIDE * SIDE + 1);
    for (let i = 0; i < n; i++) {
      squares[i] = this.square(places.x[rows[i]], places.y[rows[i]]);
      this.starts[squares[i] + 1] += 1;
    }
    for (let s = 0; s < SIDE * SIDE; s++) this.starts[s + 1] += this.starts[s];
    const next = this.starts.slice();
    this.sorted = new Uint32Array(n);
    for (let i = 0; i < n; i++) this.sorted[next[squares[i]]++] = rows[i];
  }

  step(value) {
    return Math.min(SIDE - 1, Math.max(0, Math.floor(((value + 1) / 2) * SIDE)));
  }

  square(x, y) {
    return this.step(y) * SIDE + this.step(x);
  }

  // Returns the row of the nearest cell within a distance, or -1.
  find(x, y, within) {
    let best = -1;
    let least = within * within;
    for (let sy = this.step(y - within); sy <= this.step(y + within); sy++) {
      const first = this.starts[sy * SIDE + this.step(x - within)];
      const last = this.starts[sy * SIDE + this.step(x + within) + 1];
      for (let i = first; i < last; i++) {
        const row = this.sorted[i];
        const distance = (this.places.x[row] - x) ** 2 + (this.places.y[row] - y) ** 2;
        if (distance < least) {
          least = distance;
          best = row;
        }
      }
    }
    return best;
  }
}
