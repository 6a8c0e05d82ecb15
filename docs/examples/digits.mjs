// Trains the digits net of digits.wasm, in a page and in Node alike.

const ROWS = 1797, PIXELS = 64, TRAINING = 1437, CLASSES = 10;

export class Digits {
  constructor(exports, data) {
    this.run = exports;
    this.memory = exports.memory.buffer;
    this.batch = exports.digits_batch.value;
    this.pixels = data.subarray(0, ROWS * PIXELS);
    this.labels = data.subarray(ROWS * PIXELS);
    // State and work lie at the heap's start, and then the arrays of a call.
    this.state = exports.__heap_base.value;
    this.work = this.state + exports.digits_state_bytes.value;
    let end = this.work + exports.digits_work_bytes.value;
    const take = (kind, count) => {
      const array = new kind(this.memory, end, count);
      end += (array.byteLength + 7) & ~7;
      return array;
    };
    this.x = take(Float32Array, this.batch * PIXELS);
    this.y = take(BigInt64Array, this.batch);
    this.scores = take(Float32Array, this.batch * CLASSES);
    this.rows = Array.from({ length: ROWS }, (_, i) => i);
    this.seed = 1;
    this.shuffle(ROWS);
    exports.digits_init(this.state);
  }

  shuffle(count) {
    for (let i = count - 1; i > 0; --i) {
      this.seed = (Math.imul(this.seed, 1664525) + 1013904223) >>> 0;
      const j = Math.floor((this.seed / 2 ** 32) * (i + 1));
      [this.rows[i], this.rows[j]] = [this.rows[j], this.rows[i]];
    }
  }

  feed(rows) {
    rows.forEach((row, i) => {
      this.y[i] = BigInt(this.labels[row]);
      for (let p = 0; p < PIXELS; ++p)
        this.x[i * PIXELS + p] = this.pixels[row * PIXELS + p] / 16;
    });
    return rows.length;
  }

  epoch() {
    this.shuffle(TRAINING);
    for (let i = 0; i < TRAINING; i += this.batch) {
      const n = this.feed(this.rows.slice(i, Math.min(i + this.batch, TRAINING)));
      this.run.digits_train_step(
        this.state, this.work, n, this.x.byteOffset, this.y.byteOffset, this.scores.byteOffset);
    }
  }

  guesses(rows) {
    const n = this.feed(rows);
    this.run.digits_infer(this.state, this.work, n, this.x.byteOffset, this.scores.byteOffset);
    return rows.map((_, i) => {
      const scores = this.scores.subarray(i * CLASSES, (i + 1) * CLASSES);
      return scores.indexOf(Math.max(...scores));
    });
  }

  accuracy() {
    const test = this.rows.slice(TRAINING);
    let right = 0;
    for (let i = 0; i < test.length; i += this.batch) {
      const rows = test.slice(i, i + this.batch);
      this.guesses(rows).forEach((guess, j) => (right += guess === this.labels[rows[j]]));
    }
    return right / test.length;
  }
}

export async function load(wasm, data) {
  const { instance } = await WebAssembly.instantiate(wasm, {});
  return new Digits(instance.exports, new Uint8Array(data));
}
