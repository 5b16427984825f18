/**
 * How long to wait before the next attempt to connect.
 *
 * Decides only that: half a second at first, twice as long after each failure, up to ten, and a
 * little off so that the pages of a restarted server do not all come back at once.
 */

const FIRST_MS = 500;
const LONGEST_MS = 10_000; // longer, and people press Start again themselves
const JITTER = 0.2;

export class Backoff {
  #random;
  #delayMs = FIRST_MS;

  /** @param {{random?: () => number}} [options] numbers in [0, 1) */
  constructor({ random = Math.random } = {}) {
    this.#random = random;
  }

  /**
   * The wait before the next attempt.
   * @param {number} [minimumMs] what the server asked for
   */
  next(minimumMs = 0) {
    const jittered = this.#delayMs * (1 + JITTER * (2 * this.#random() - 1));
    this.#delayMs = Math.min(2 * this.#delayMs, LONGEST_MS);
    return Math.max(minimumMs, Math.round(jittered));
  }

  /** The server is there again. */
  reset() {
    this.#delayMs = FIRST_MS;
  }
}
