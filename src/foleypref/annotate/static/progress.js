/**
 * The line at the top: progress, pace, and whether everything is saved.
 */
import { byId } from "./dom.js";

/** @param {number} minutes @returns {string} */
function duration(minutes) {
  if (minutes < 1) return "less than a minute";
  if (minutes < 90) return `about ${Math.round(minutes)} min`;
  return `about ${Math.floor(minutes / 60)} h ${Math.round(minutes % 60)} min`;
}

/** @param {import("./session.js").Session} session */
export function showProgress({ me, outbox, canUndo }) {
  const bar = byId("progress");
  bar.max = Math.max(1, me.total);
  bar.value = me.done;
  byId("count").textContent = `${me.done} of ${me.total} clips`;
  const pace = me.pace_per_hour;
  byId("pace").textContent = pace ? `${Math.round(pace)} per hour · ${duration((60 * Math.max(0, me.total - me.done)) / pace)} left` : "";
  byId("undo").setAttribute("aria-disabled", String(!canUndo));
  const network = byId("network");
  const [state, text] = saved(outbox);
  network.dataset.state = state;
  if (network.textContent !== text) network.textContent = text;
}

/** @param {import("./outbox.js").Outbox} outbox @returns {[string, string]} */
function saved({ state, unsaved, trouble }) {
  if (state === "away" && trouble) return ["away", trouble];
  if (state === "away") return ["away", unsaved ? `Offline: ${unsaved} not sent yet, will retry` : "Offline, will retry"];
  return unsaved ? ["sending", "Saving …"] : ["idle", "Saved"];
}
