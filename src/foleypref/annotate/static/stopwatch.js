/**
 * Measures how long the rater takes for an answer.
 */

/** Seconds since `reset`, without those while the page was hidden. */
export class Stopwatch {
  constructor() {
    this.reset();
    document.addEventListener("visibilitychange", () => this.#pauseOrResume());
  }

  reset() {
    this.before = 0; // ms up to the last pause
    this.since = document.hidden ? null : performance.now(); // null while it is paused
  }

  /** @returns {number} */
  get seconds() {
    return (this.before + (this.since === null ? 0 : performance.now() - this.since)) / 1000;
  }

  #pauseOrResume() {
    if (document.hidden && this.since !== null) {
      this.before += performance.now() - this.since;
      this.since = null;
    } else if (!document.hidden && this.since === null) {
      this.since = performance.now();
    }
  }
}
