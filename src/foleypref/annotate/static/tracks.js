/**
 * The rows of soundtracks: letter, a ring that shows how much was heard, outline with cursor, and answer.
 */
import { keycap, make } from "./dom.js";
import { drawWaveform, loudestPeak } from "./waveform.js";

/** @typedef {{row: HTMLElement, pick: HTMLElement, wave: HTMLElement, canvas: HTMLCanvasElement, cursor: HTMLElement,
 *   answer: HTMLElement, state: HTMLElement}} Row */

/** Shows soundtracks; clicks call `onPick(index)` and `onSeek(index, share)`. */
export class Tracks {
  /** @param {HTMLElement} list @param {(index: number) => void} onPick @param {(i: number, share: number) => void} onSeek */
  constructor(list, onPick, onSeek) {
    this.list = list;
    this.onPick = onPick;
    this.onSeek = onSeek;
    /** @type {Row[]} */
    this.rows = [];
    this.widths = [];
    new ResizeObserver(() => this.draw()).observe(list);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {import("./session.js").Task} task @param {number} loop seconds */
  show(task, loop) {
    this.task = task;
    this.loop = loop;
    this.rows = task.tracks.map((track, i) => this.#row(track, i));
    this.list.style.setProperty("--rows", String(this.rows.length));
    this.list.replaceChildren(...this.rows.map(({ row }) => row));
    this.draw();
  }

  /** @param {import("./session.js").Track} track @param {number} i @returns {Row} */
  #row({ label }, i) {
    const state = make("span", { class: "state" });
    const badge = make("span", { class: "ring" }, make("span", { class: "letter" }, label));
    const pick = make("button", { class: "pick", type: "button", "aria-pressed": "false" }, badge, keycap(String(i + 1)), state);
    const canvas = /** @type {HTMLCanvasElement} */ (make("canvas", { "aria-hidden": "true" }));
    const cursor = make("div", { class: "cursor" });
    const wave = make("div", { class: "wave" }, canvas, cursor);
    const answer = make("div", { class: "answer" });
    const row = make("li", { class: "track", "data-label": label }, pick, wave, answer);
    pick.addEventListener("click", () => this.onPick(i));
    wave.addEventListener("click", (event) => {
      const box = wave.getBoundingClientRect();
      this.onSeek(i, (event.clientX - box.left) / box.width);
    });
    return { row, pick, wave, canvas, cursor, answer, state };
  }

  draw() {
    const { task, loop } = this;
    if (!task || !loop) return;
    const loudest = loudestPeak(task.tracks);
    this.rows.forEach(({ canvas }, i) => {
      const { peaks, seconds } = task.tracks[i];
      drawWaveform(canvas, peaks, { seconds, loop, events: task.events, loudest });
    });
    this.widths = this.rows.map(({ wave }) => wave.clientWidth);
  }

  /** Highlight the current soundtrack. @param {number} current */
  mark(current) {
    if (this.rows[current]?.row.classList.contains("on")) return;
    this.rows.forEach(({ row, pick }, i) => {
      row.classList.toggle("on", i === current);
      pick.setAttribute("aria-pressed", String(i === current));
    });
    this.draw(); // the current outline has another colour
  }

  /** Show how much was heard. @param {number} i @param {number} seconds @param {number} needed before it may be judged */
  heard(i, seconds, needed) {
    const { row, state } = this.rows[i];
    if (row.classList.contains("ready")) return;
    const share = needed > 0 ? Math.min(1, seconds / needed) : 1;
    row.style.setProperty("--heard", share.toFixed(3));
    row.classList.toggle("ready", share >= 1);
    const text = share >= 1 ? "heard" : seconds > 0 ? `${(needed - seconds).toFixed(1)} s to go` : "unheard";
    if (state.textContent !== text) state.textContent = text;
  }

  /** Move all cursors. @param {number} at second of the loop */
  cursor(at) {
    const share = this.loop ? at / this.loop : 0;
    this.rows.forEach(({ cursor }, i) => {
      cursor.style.transform = `translateX(${(share * (this.widths[i] ?? 0)).toFixed(1)}px)`;
    });
  }

  /** Point at a soundtrack that must be heard first. @param {number} i */
  nudge(i) {
    const { row } = this.rows[i];
    row.classList.remove("nudge");
    void row.offsetWidth; // without a layout the animation would not start again
    row.classList.add("nudge");
  }
}
