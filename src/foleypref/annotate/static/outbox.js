/**
 * Sends the rater's events to the server: in order, and each again until it is acknowledged.
 *
 * Every event waits in localStorage under its own key until the server has it, so that no reload, closed tab or absent
 * server loses one; its client_id makes the server count it once. Each event has a key, because two tabs that kept a list
 * would overwrite each other's.
 */
import { Away, Refused } from "./api.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

/** @returns {string} a random UUID; crypto.randomUUID is missing on plain http that is not loopback */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/**
 * Events: "change" when its state or number changes; "sent" with {event, reply}; "refused" with {event, error}.
 */
export class Outbox extends EventTarget {
  /** @param {import("./api.js").Api} api @param {string} rater @param {Storage} storage */
  constructor(api, rater, storage = localStorage) {
    super();
    this.api = api;
    this.storage = storage;
    this.prefix = `foleypref.event ${rater} `;
    /** @type {{key: string, event: any}[]} */
    this.waiting = this.#stored();
    /** @type {"idle" | "sending" | "away"} */
    this.state = "idle";
    this.count = 0;
    this.wait = FIRST_WAIT_MS;
    addEventListener("online", () => this.#retryNow());
    if (this.waiting.length) this.#pump();
  }

  /** @returns {number} answers, without listening, that the server has not acknowledged */
  get unsaved() {
    return this.waiting.filter((item) => item.event.kind !== "listen").length;
  }

  /** @param {{kind: string, [field: string]: any}} content of an event @returns {Promise<any>} the server's reply */
  add(content) {
    const event = { ...content, client_id: newId(), client_time_ms: Date.now() };
    const key = `${this.prefix}${String(Date.now()).padStart(15, "0")} ${String(this.count++).padStart(6, "0")}`;
    try {
      this.storage.setItem(key, JSON.stringify(event));
    } catch {
      // Storage is full or forbidden: the event is sent from memory.
    }
    if (event.kind === "listen") this.#dropOlder(event);
    this.waiting.push({ key, event });
    const reply = new Promise((resolve, reject) => {
      this.addEventListener("settled", function settled(/** @type {any} */ { detail }) {
        if (detail.event !== event) return;
        this.removeEventListener("settled", settled);
        if (detail.error) reject(detail.error);
        else resolve(detail.reply);
      });
    });
    reply.catch(() => {}); // the page listens to "refused"; few callers wait for the reply
    this.#pump();
    return reply;
  }

  /** @param {number} patience_ms @returns {Promise<boolean>} whether everything was sent */
  async drained(patience_ms = Infinity) {
    const until = performance.now() + patience_ms;
    while (this.waiting.length && performance.now() < until) await new Promise((go) => setTimeout(go, 50));
    return !this.waiting.length;
  }

  /** Drop older events about the same listening, so that an hour offline does not leave a thousand. @param {any} event */
  #dropOlder({ task_id, label }) {
    const old = this.waiting.filter(({ event: e }, i) => i > 0 && e.kind === "listen" && e.task_id === task_id && e.label === label);
    old.forEach(({ key }) => this.storage.removeItem(key));
    this.waiting = this.waiting.filter((item) => !old.includes(item));
  }

  #stored() {
    const keys = Object.keys(this.storage).filter((key) => key.startsWith(this.prefix)).sort();
    return keys.flatMap((key) => {
      try {
        return [{ key, event: JSON.parse(this.storage.getItem(key) ?? "") }];
      } catch {
        return [];
      }
    });
  }

  async #pump() {
    this.#changed();
    if (this.busy) return;
    this.busy = true;
    while (this.waiting.length) {
      const item = this.waiting[0];
      try {
        this.#set(this.state === "away" ? "away" : "sending");
        const reply = await this.api.post("api/events", item.event);
        this.#drop(item, { reply });
      } catch (error) {
        if (error instanceof Refused && error.status !== 401) this.#drop(item, { error });
        else await this.#waitAfter(error);
      }
    }
    this.busy = false;
    this.#set("idle");
  }

  /** @param {{key: string, event: any}} item @param {{reply?: any, error?: Error}} end */
  #drop(item, end) {
    this.waiting.shift();
    this.storage.removeItem(item.key);
    this.wait = FIRST_WAIT_MS;
    this.#set(this.waiting.length ? "sending" : "idle");
    const detail = { event: item.event, ...end };
    this.dispatchEvent(new CustomEvent("settled", { detail }));
    this.dispatchEvent(new CustomEvent(end.error ? "refused" : "sent", { detail }));
  }

  /** @param {unknown} error of the last attempt */
  async #waitAfter(error) {
    this.trouble = error instanceof Refused ? error.message : "";
    if (!(error instanceof Away || error instanceof Refused)) console.error(error);
    this.#set("away");
    const jitter = 0.75 + Math.random() / 2; // so that fifty pages do not come back at the same moment
    await new Promise((go) => {
      this.go = go;
      setTimeout(go, this.wait * jitter);
    });
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT_MS);
  }

  #retryNow() {
    this.wait = FIRST_WAIT_MS;
    this.go?.();
  }

  /** @param {"idle" | "sending" | "away"} state */
  #set(state) {
    if (state !== "away") this.trouble = "";
    this.state = state;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
