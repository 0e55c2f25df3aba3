/**
 * The page while a task is to compare: which of two soundtracks is better, or neither.
 */
import { keycap, make } from "./dom.js";

const ARROWS = ["arrowleft", "arrowdown", "arrowright"];
const LETTERS = ["a", "t", "b"];
const VALUES = [1, 0, -1]; // the first is better, a tie, the second is better

/** Panel, keys and answer of a comparison. */
export class CompareMode {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.words = VALUES.map(() => make("span"));
    this.buttons = ["←", "↓", "→"].map((arrow, i) => {
      const button = make("button", { type: "button", class: "verdict" }, this.words[i], keycap(arrow));
      button.addEventListener("click", () => this.answer(VALUES[i]));
      return button;
    });
    const question = make("p", { class: "question" }, "Which fits the picture better?");
    this.panel = make("div", { class: "panel" }, question, make("div", { class: "verdicts" }, ...this.buttons));
    /** @type {[string, string][]} */
    this.hints = [["←", "A is better"], ["↓", "tie"], ["→", "B is better"]];
  }

  /** @returns {number} index of the soundtrack to begin with */
  first() {
    return this.page.heard.next(-1) ?? 0;
  }

  refresh() {
    const { tracks } = this.page.task;
    const missing = tracks.some(({ label }) => this.page.heard.missing(label) > 0);
    const texts = [`${tracks[0].label} is better`, "Tie", `${tracks[1].label} is better`];
    this.words.forEach((word, i) => (word.textContent = texts[i]));
    this.buttons.forEach((button) => button.setAttribute("aria-disabled", String(missing)));
  }

  /** @param {string} key @returns {boolean} whether the key has a meaning */
  key(key) {
    const i = ARROWS.includes(key) ? ARROWS.indexOf(key) : LETTERS.indexOf(key);
    if (i < 0) return false;
    this.answer(VALUES[i]);
    return true;
  }

  /** @param {number} value */
  answer(value) {
    const [first, second] = this.page.task.tracks.map((track) => track.label);
    if (!this.page.mayJudge([first, second])) return;
    this.page.answer({ kind: "compare", first, second, value }, [first, second], true);
  }
}
