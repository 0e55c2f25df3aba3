/**
 * The rater's session: the current task, the next ones, and the answers so far.
 *
 * Answers take effect here at once and are sent by the outbox; the server decides. If it refuses one, and after an undo,
 * everything is read from it again.
 *
 * @typedef {{label: string, seconds: number, peaks: [number, number][], given: number | null}} Track
 * @typedef {{task_id: string, number: number, kind: "rate" | "compare" | "rank", events: number[], tracks: Track[],
 *   clip: {prompt: string, seconds: number, fps: number}, heard: Record<string, number>}} Task
 * @typedef {{rater: string, task: string, labels: string[], skip_reasons: string[], require_listen_s: number,
 *   done: number, total: number, pace_per_hour: number | null, can_undo: boolean}} Me
 */
import { Refused } from "./api.js";
import { Outbox } from "./outbox.js";

const AHEAD = 2;
const RETRY_MS = 2000;
const MIN_REPORT_S = 0.05; // less listening than this is not worth a request

/** Events: "change" when counts change; "refused" with a reason, after which `task` may be another. */
export class Session extends EventTarget {
  /** @param {import("./api.js").Api} api @param {Me} me */
  constructor(api, me) {
    super();
    this.api = api;
    this.me = me;
    this.outbox = new Outbox(api, me.rater);
    /** @type {Task[]} the current one first */
    this.tasks = [];
    this.finished = new Set();
    /** @type {{task_id: string, label?: string}[]} answers given on this page, in order */
    this.answers = [];
    /** @type {Record<string, number>} seconds of listening that the server knows of, by task and letter */
    this.reported = {};
    this.outbox.addEventListener("sent", (e) => this.#sent(/** @type {CustomEvent} */ (e).detail));
    this.outbox.addEventListener("refused", (e) => this.#refused(/** @type {CustomEvent} */ (e).detail));
    this.outbox.addEventListener("change", () => this.dispatchEvent(new Event("change")));
  }

  /** @param {import("./api.js").Api} api @returns {Promise<Session>} after the events of an earlier visit were sent */
  static async open(api) {
    const session = new Session(api, await api.get("api/me"));
    await session.outbox.drained(3000);
    await session.refill();
    return session;
  }

  /** @returns {Task | undefined} */
  get task() {
    return this.tasks[0];
  }

  get canUndo() {
    return this.me.can_undo || this.outbox.unsaved > 0;
  }

  /** Ask for further tasks. @returns {Promise<boolean>} whether there is one to show now */
  async refill() {
    const tasks = await this.#ask();
    const known = new Set(this.tasks.map((task) => task.task_id));
    this.tasks.push(...tasks.filter(({ task_id }) => !known.has(task_id) && !this.finished.has(task_id)));
    return this.tasks.length > 0;
  }

  /**
   * Returns the current task, and waits for it if necessary; undefined if there are none left.
   * @param {(title: string, text: string) => void} onWait called with the reason for waiting
   */
  async next(onWait) {
    if (this.task) return this.task;
    if (this.outbox.unsaved) onWait("Sending your answers …", "");
    // An unsent event could finish a task that the server takes for open; once it has all events, its answer is right.
    await this.outbox.drained();
    this.finished.clear();
    await this.#patiently(() => this.refill(), (error) => onWait("Waiting for the server …", error.message));
    return this.task;
  }

  /** Read everything from the server again. */
  async resync() {
    await this.outbox.drained();
    const [me, tasks] = await this.#patiently(() => Promise.all([this.api.get("api/me"), this.#ask()]));
    this.me = me;
    this.finished.clear();
    this.tasks = tasks;
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Answer the current task.
   * @param {{kind: string, [field: string]: any}} content of the event @param {boolean} finish whether the task is done
   */
  answer(content, finish) {
    const task = /** @type {Task} */ (this.task);
    this.outbox.add({ ...content, task_id: task.task_id });
    this.answers.push({ task_id: task.task_id, label: content.label });
    Object.entries(content.heard ?? {}).forEach(([label, seconds]) => this.#noteReported(task, label, seconds));
    if (finish) {
      this.finished.add(task.task_id);
      this.tasks.shift();
      if (this.tasks.length <= AHEAD) this.refill().catch(() => {}); // `next` asks again if none is left
    }
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Report how long a soundtrack was heard; with `rarely`, only if it is much more than the server knows.
   * @param {Task} task @param {string} label @param {boolean} rarely
   */
  listened(task, label, rarely = false) {
    const seconds = rounded(task.heard[label] ?? 0);
    const reported = this.reported[`${task.task_id} ${label}`] ?? 0;
    if (seconds - reported < (rarely ? Math.max(MIN_REPORT_S, reported / 2) : MIN_REPORT_S)) return;
    this.#noteReported(task, label, seconds);
    this.outbox.add({ kind: "listen", task_id: task.task_id, label, seconds });
  }

  /** Take back the last answer. @returns {Promise<string | undefined>} the letter it was about, if known */
  async undo() {
    await this.outbox.add({ kind: "undo" });
    const last = this.answers.pop();
    await this.resync();
    return last?.task_id === this.task?.task_id ? last?.label : undefined;
  }

  /**
   * Ask until the server answers.
   * @template T @param {() => Promise<T>} ask @param {(error: Error) => void} onWait @returns {Promise<T>}
   */
  async #patiently(ask, onWait = () => {}) {
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (error instanceof Refused) throw error;
        onWait(/** @type {Error} */ (error));
        await new Promise((go) => setTimeout(go, RETRY_MS));
      }
    }
  }

  /** @returns {Promise<Task[]>} */
  async #ask() {
    const { tasks } = await this.api.get(`api/tasks/next?ahead=${AHEAD}`);
    for (const task of tasks) {
      Object.entries(task.heard).forEach(([label, seconds]) => this.#noteReported(task, label, Number(seconds)));
    }
    return tasks;
  }

  /** @param {Task} task @param {string} label @param {number} seconds */
  #noteReported(task, label, seconds) {
    this.reported[`${task.task_id} ${label}`] = seconds;
  }

  /** @param {{event: any, reply: any}} detail */
  async #sent({ event, reply }) {
    const { done, total, can_undo } = reply;
    const more = done > this.me.done;
    Object.assign(this.me, { done, total, can_undo });
    this.dispatchEvent(new Event("change"));
    if (more && event.kind !== "listen") {
      const me = await this.api.get("api/me").catch(() => null);
      if (me) this.me.pace_per_hour = me.pace_per_hour;
      this.dispatchEvent(new Event("change"));
    }
  }

  /** @param {{event: any, error: Error}} detail */
  async #refused({ event, error }) {
    if (event.kind === "listen" || event.kind === "undo") return; // `undo` throws the error itself
    await this.resync().catch(() => {});
    this.dispatchEvent(new CustomEvent("refused", { detail: error.message }));
  }
}

/** @param {number} seconds @returns {number} rounded down to milliseconds, so that no one has heard more than they did */
export function rounded(seconds) {
  return Math.floor(seconds * 1000) / 1000;
}
