/**
 * The page while a task is to rank: the order of the rows is the order from best to worst; equal places are ties.
 */
import { keycap, make } from "./dom.js";

const KEY = "foleypref.order";

/** Panel, keys and answer of a ranking. */
export class RankMode {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    /** @type {string[][]} letters by place, best first */
    this.order = [];
    this.done = make("button", { type: "button", class: "verdict" }, "Done: this is my order", keycap("Enter"));
    this.done.addEventListener("click", () => this.answer());
    const question = make("p", { class: "question" }, "Put them in order, the best on top.");
    this.panel = make("div", { class: "panel" }, question, make("div", { class: "verdicts" }, this.done));
    /** @type {[string, string][]} */
    this.hints = [["↑  ↓", "move the soundtrack you hear"], ["⇧ ↑  ⇧ ↓", "to the top, to the bottom"], ["T", "tie it with the one above"], ["Enter", "done"]];
  }

  /** @returns {number} index of the soundtrack to begin with */
  first() {
    this.order = this.#stored() ?? this.page.task.tracks.map((track) => [track.label]);
    return this.page.heard.next(-1) ?? 0;
  }

  refresh() {
    const { task, tracks } = this.page;
    const missing = task.tracks.some(({ label }) => this.page.heard.missing(label) > 0);
    this.done.setAttribute("aria-disabled", String(missing));
    const rowOf = new Map(task.tracks.map((track, i) => [track.label, tracks.rows[i]]));
    this.order.forEach((group, place) => group.forEach((label, i) => {
      const { answer, row } = /** @type {import("./tracks.js").Row} */ (rowOf.get(label));
      row.classList.toggle("tied", i > 0);
      if (!answer.firstChild) answer.replaceChildren(this.#arrows(label), make("span", { class: "place" }));
      /** @type {HTMLElement} */ (answer.lastChild).textContent = i > 0 ? "tie" : `${place + 1}.`;
    }));
    const rows = this.order.flat().map((label) => /** @type {import("./tracks.js").Row} */ (rowOf.get(label)).row);
    if (rows.some((row, i) => tracks.list.children[i] !== row)) this.#lay(rows);
  }

  /** @param {HTMLElement[]} rows */
  #lay(rows) {
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    this.page.tracks.list.append(...rows);
    focused?.focus(); // an element that is moved loses the focus
  }

  /** @param {string} label @returns {HTMLElement} buttons that move it, for mouse and touch */
  #arrows(label) {
    const buttons = [["↑", -1, "better"], ["↓", 1, "worse"]].map(([arrow, step, word]) => {
      const button = make("button", { type: "button", "aria-label": `${label} is ${word}` }, String(arrow));
      button.addEventListener("click", () => this.move(label, Number(step)));
      return button;
    });
    return make("span", { class: "arrows" }, ...buttons);
  }

  /** @param {string} key @param {boolean} shift @returns {boolean} whether the key has a meaning */
  key(key, shift) {
    const { label } = this.page.task.tracks[this.page.player.current];
    if (key === "arrowup") this.move(label, shift ? -Infinity : -1);
    else if (key === "arrowdown") this.move(label, shift ? Infinity : 1);
    else if (key === "t") this.tie(label);
    else if (key === "enter") this.answer();
    else return false;
    return true;
  }

  /** Move a soundtrack past its neighbour, or out of its tie. @param {string} label @param {number} step -1 is better, 1 worse */
  move(label, step) {
    const place = this.order.findIndex((group) => group.includes(label));
    const tied = this.order[place].length > 1;
    const rest = this.order.map((group) => group.filter((other) => other !== label));
    // From a tie it first steps out of the group; otherwise it steps past its neighbour.
    const next = tied ? (step < 0 ? place : place + 1) : place + step + (step > 0 ? 1 : 0);
    const target = Number.isFinite(step) ? next : step < 0 ? 0 : rest.length;
    rest.splice(Math.min(Math.max(target, 0), rest.length), 0, [label]);
    this.#set(rest.filter((group) => group.length));
  }

  /** Tie a soundtrack with the place above, or end that tie. @param {string} label */
  tie(label) {
    const place = this.order.findIndex((group) => group.includes(label));
    const group = this.order[place];
    if (group[0] !== label) {
      const i = group.indexOf(label);
      this.#set([...this.order.slice(0, place), group.slice(0, i), group.slice(i), ...this.order.slice(place + 1)]);
    } else if (place > 0) {
      this.#set([...this.order.slice(0, place - 1), [...this.order[place - 1], ...group], ...this.order.slice(place + 1)]);
    } else this.page.say("It is at the top, so there is nothing above it to tie with.");
  }

  answer() {
    const labels = this.page.task.tracks.map((track) => track.label);
    if (!this.page.mayJudge(labels)) return;
    this.page.answer({ kind: "rank", order: this.order }, labels, true);
    sessionStorage.removeItem(KEY);
  }

  /** @param {string[][]} order */
  #set(order) {
    this.order = order;
    sessionStorage.setItem(KEY, JSON.stringify({ task_id: this.page.task.task_id, order }));
    this.page.refresh();
  }

  /** @returns {string[][] | null} the order before a reload of the page */
  #stored() {
    const stored = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    return stored?.task_id === this.page.task.task_id ? stored.order : null;
  }
}
