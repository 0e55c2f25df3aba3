/**
 * The page while a task is to rate: one key per soundtrack, then the next unrated one plays by itself.
 */
import { keycap, make } from "./dom.js";

const KEYS = ["b", "m", "g"]; // value 0, 1, 2

/** @param {string} word @returns {string} */
const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

/** Panel, keys and answers of a rating. */
export class RateMode {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.question = make("p", { class: "question" });
    this.buttons = page.session.me.labels.map((label, value) => {
      const button = make("button", { type: "button", class: `verdict value${value}` }, capital(label), keycap(KEYS[value].toUpperCase()));
      button.addEventListener("click", () => this.rate(value));
      return button;
    });
    this.panel = make("div", { class: "panel" }, this.question, make("div", { class: "verdicts" }, ...this.buttons));
    /** @type {[string, string][]} */
    this.hints = KEYS.map((key, value) => [key.toUpperCase(), page.session.me.labels[value]]);
    this.hints.push(["←  →", "previous, next soundtrack"]);
  }

  /** @returns {number} index of the soundtrack to begin with */
  first() {
    return Math.max(0, this.page.task.tracks.findIndex((track) => track.given === null));
  }

  refresh() {
    const { task, tracks, player } = this.page;
    const { labels } = this.page.session.me;
    const current = task.tracks[player.current];
    this.question.textContent = `Soundtrack ${current.label} is …`;
    this.buttons.forEach((button, value) => {
      button.classList.toggle("chosen", current.given === value);
      button.setAttribute("aria-pressed", String(current.given === value));
      button.setAttribute("aria-disabled", String(this.page.heard.missing(current.label) > 0));
    });
    task.tracks.forEach((track, i) => {
      const { answer, row } = tracks.rows[i];
      answer.textContent = track.given === null ? "" : capital(labels[track.given]);
      answer.className = track.given === null ? "answer" : `answer value${track.given}`;
      row.classList.toggle("answered", track.given !== null);
    });
  }

  /** @param {string} key @returns {boolean} whether the key has a meaning */
  key(key) {
    const { task, player } = this.page;
    const value = KEYS.indexOf(key);
    if (value >= 0) this.rate(value);
    else if (key === "arrowright" || key === "arrowleft") {
      const step = key === "arrowright" ? 1 : task.tracks.length - 1;
      this.page.pick((player.current + step) % task.tracks.length);
    } else return false;
    return true;
  }

  /** Rate the current soundtrack. @param {number} value */
  rate(value) {
    const { task, player } = this.page;
    const current = task.tracks[player.current];
    if (!this.page.mayJudge([current.label])) return;
    current.given = value;
    const next = this.#nextUnrated(player.current);
    this.page.answer({ kind: "rate", label: current.label, value }, [current.label], next < 0);
    if (next >= 0) this.page.pick(next, true);
  }

  /** @param {number} from @returns {number} index of the next soundtrack without a rating, -1 for none */
  #nextUnrated(from) {
    const { tracks } = this.page.task;
    for (let step = 1; step <= tracks.length; step++) {
      const i = (from + step) % tracks.length;
      if (tracks[i].given === null) return i;
    }
    return -1;
  }
}
