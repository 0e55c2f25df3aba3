/**
 * The operator's page: the raters' progress and agreement, their addresses, and the labels as files.
 */
import { Api, Refused } from "./api.js";
import { byId, make } from "./dom.js";
import { hideNotice, reasonOf, showNotice } from "./notice.js";
import { takeToken } from "./token.js";

const EVERY_MS = 5000;
const FORMATS = [["parquet", "Parquet"], ["csv", "CSV"], ["labelstudio", "Label Studio JSON"]];

/** @param {number | null | undefined} value @param {number} digits @returns {string} */
const number = (value, digits = 0) => (value === null || value === undefined ? "–" : value.toFixed(digits));

/** @param {number} part @param {number} of @returns {string} */
const share = (part, of) => (of ? `${part} of ${of}` : "–");

/** @param {number | null} ms @returns {string} */
function ago(ms) {
  if (!ms) return "never";
  const minutes = Math.floor((Date.now() - ms) / 60_000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min ago`;
  return minutes < 1440 ? `${Math.floor(minutes / 60)} h ago` : new Date(ms).toLocaleDateString();
}

/** @param {string} id @param {[string, string, string?][]} tiles name, value, and a line under it */
function showTiles(id, tiles) {
  byId(id).replaceChildren(...tiles.map(([name, value, note]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value), note ? make("dd", { class: "quiet" }, note) : "")));
}

/** The page of one campaign. */
class OperatorPage {
  /** @param {Api} api */
  constructor(api) {
    this.api = api;
    byId("exports").append(...FORMATS.map(([format, name]) => {
      const button = make("button", { type: "button", "data-format": format }, name);
      button.addEventListener("click", () => this.download(format));
      return button;
    }));
    byId("add").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.add(byId("name").value.trim(), false);
    });
    byId("address-copy").addEventListener("click", () => this.copy());
  }

  /** Read and show everything, now and every few seconds while the page is visible. */
  async run() {
    for (;;) {
      try {
        if (!document.hidden) this.show(await this.api.get("api/operator/summary"));
        this.network("idle", "");
      } catch (error) {
        if (error instanceof Refused) throw error;
        this.network("away", "The server does not answer, will retry");
      }
      await new Promise((go) => setTimeout(go, EVERY_MS));
    }
  }

  /** @param {any} summary */
  show({ task, raters, agreement, totals }) {
    hideNotice();
    const interval = agreement.interval ? `95 %: ${agreement.interval.map((/** @type {number} */ v) => number(v, 2)).join(" to ")}` : "";
    showTiles("tiles", [
      ["Task", task, `${totals.clips} clips, ${totals.overlap_clips} for every rater`],
      ["Clips done", String(totals.tasks_done), `${totals.verdicts} answers`],
      ["Krippendorff's alpha", number(agreement.alpha, 2), interval || "needs two raters on the same clips"],
      ["Pairs ordered alike", agreement.pairwise === null ? "–" : `${(100 * agreement.pairwise).toFixed(0)} %`, `${agreement.num_pairs ?? 0} pairs, ${agreement.overlap_items} items judged by two or more`],
      ["Repeats alike", share(totals.repeats.agree ?? 0, totals.repeats.of ?? 0)],
      ["Degraded caught", share(totals.degraded.caught ?? 0, totals.degraded.of ?? 0)],
    ]);
    showTiles("skipped", Object.entries(totals.skipped).map(([reason, times]) => [`Skipped: ${reason}`, String(times)]));
    document.querySelector("#raters tbody")?.replaceChildren(...raters.map((/** @type {any} */ rater) => this.row(rater)));
  }

  /** @param {any} rater @returns {HTMLElement} */
  row(rater) {
    const bar = make("progress", { max: String(Math.max(1, rater.total)), value: String(rater.done), "aria-label": `${rater.name}'s progress` });
    const renew = make("button", { type: "button" }, "New address");
    renew.addEventListener("click", () => {
      if (confirm(`Make a new address for ${rater.name}? The old one stops working.`)) this.add(rater.name, true);
    });
    const cells = [number(rater.per_hour), number(rater.median_seconds, 1), share(rater.repeats.agree, rater.repeats.of), share(rater.degraded.caught, rater.degraded.of)];
    return make("tr", {},
      make("th", { scope: "row" }, rater.name),
      make("td", {}, bar, ` ${rater.done} of ${rater.total}`),
      ...cells.map((text) => make("td", { class: "number" }, text)),
      make("td", {}, ago(rater.last_seen)), make("td", {}, renew));
  }

  /** @param {string} name @param {boolean} renew */
  async add(name, renew) {
    try {
      const rater = await this.api.post("api/operator/raters", { name, renew });
      byId("address-title").textContent = `${rater.name}'s address:`;
      byId("address-url").value = rater.url;
      byId("address").hidden = false;
      byId("address-url").focus();
      byId("address-url").select();
      byId("name").value = "";
      this.say("");
      this.show(await this.api.get("api/operator/summary"));
    } catch (error) {
      this.say(reasonOf(error), "warning");
    }
  }

  async copy() {
    const url = byId("address-url");
    url.select();
    try {
      await navigator.clipboard.writeText(url.value);
      this.say("Copied.");
    } catch {
      this.say("The browser does not allow copying here. The address is selected: press Ctrl C.");
    }
  }

  /** @param {string} format */
  async download(format) {
    try {
      const { blob, name } = await this.api.file(`api/operator/export?format=${format}`);
      const link = /** @type {HTMLAnchorElement} */ (make("a", { download: name }));
      link.href = URL.createObjectURL(blob);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      this.say(`${name}: ${Math.ceil(blob.size / 1024)} KB`);
    } catch (error) {
      this.say(reasonOf(error), "warning");
    }
  }

  /** @param {string} text @param {"" | "warning"} tone */
  say(text, tone = "") {
    byId("message").textContent = text;
    byId("message").className = tone;
  }

  /** @param {string} state @param {string} text */
  network(state, text) {
    byId("network").dataset.state = state;
    byId("network").textContent = text;
  }
}

async function main() {
  const token = takeToken();
  try {
    if (!token) throw new Error("Open the address that `foleypref annotate` printed; it ends in #token=…");
    await new OperatorPage(new Api(token)).run();
  } catch (error) {
    showNotice("This page cannot be shown", reasonOf(error));
  }
}

main();
