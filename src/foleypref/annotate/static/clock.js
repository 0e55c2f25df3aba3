/**
 * Which second of the sound reaches the ear now, and how long somebody has been at something.
 */

const TRUSTED_S = 0.15;

/**
 * The time of an AudioContext that is heard now, in its seconds: its currentTime less what the device holds back.
 * The output timestamp is finer than currentTime, which stands still between two blocks of the device.
 * @param {AudioContext} context @returns {number}
 */
export function heardTime(context) {
  const coarse = context.currentTime - (context.outputLatency || context.baseLatency || 0);
  const stamp = context.getOutputTimestamp?.();
  if (!stamp?.performanceTime || stamp.contextTime === undefined) return coarse;
  const fine = stamp.contextTime + (performance.now() - stamp.performanceTime) / 1000;
  return Math.abs(fine - coarse) < TRUSTED_S ? fine : coarse;
}

/** Seconds since `reset`, those while the page was hidden left out. */
export class Stopwatch {
  constructor() {
    this.reset();
    document.addEventListener("visibilitychange", () => this.#turn());
  }

  reset() {
    this.before = 0;
    this.since = document.hidden ? null : performance.now();
  }

  /** @returns {number} */
  get seconds() {
    return (this.before + (this.since === null ? 0 : performance.now() - this.since)) / 1000;
  }

  #turn() {
    if (document.hidden && this.since !== null) {
      this.before += performance.now() - this.since;
      this.since = null;
    } else if (!document.hidden && this.since === null) {
      this.since = performance.now();
    }
  }
}
