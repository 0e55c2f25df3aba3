/**
 * Counts how much of each soundtrack of the current clip was heard, and whether that is enough to judge it.
 */

/** Listening to one clip. The seconds are in `task.heard`, which comes from the server. */
export class Heard {
  /** @param {import("./session.js").Session} session @param {import("./session.js").Task} task */
  constructor(session, task) {
    this.session = session;
    this.task = task;
  }

  /** @param {string} label @returns {number} */
  seconds(label) {
    return this.task.heard[label] ?? 0;
  }

  /** @param {string} label @returns {number} seconds that must be heard; all of a shorter soundtrack */
  needed(label) {
    const track = this.task.tracks.find((other) => other.label === label);
    return Math.min(this.session.me.require_listen_s, track?.seconds ?? 0);
  }

  /** @param {string} label @returns {number} seconds still missing, 0 when it may be judged */
  missing(label) {
    return Math.max(0, this.needed(label) - this.seconds(label));
  }

  /** @param {number} from index @returns {number | undefined} index of the next soundtrack that must still be heard */
  next(from) {
    const { tracks } = this.task;
    const order = tracks.map((_, step) => (from + 1 + step + tracks.length) % tracks.length);
    return order.find((i) => this.missing(tracks[i].label) > 0);
  }

  /** @param {string} label @param {number} seconds more @returns {boolean} whether this made it enough */
  add(label, seconds) {
    const before = this.missing(label);
    this.task.heard[label] = this.seconds(label) + seconds;
    return before > 0 && this.missing(label) <= 0;
  }

  /** Report to the server. @param {string} label @param {boolean} rarely */
  report(label, rarely = false) {
    this.session.listened(this.task, label, rarely);
  }
}
