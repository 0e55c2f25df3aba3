/**
 * The start of the rater's page: token, session, one key press that allows sound, then the first task.
 */
import { Api, Refused } from "./api.js";
import { byId } from "./dom.js";
import { publishHooks } from "./hooks.js";
import { reasonOf, showNotice } from "./notice.js";
import { Page } from "./page.js";
import { showProgress } from "./progress.js";
import { Session } from "./session.js";
import { takeToken } from "./token.js";

const RETRY_MS = 2000;
const PURPOSE = {
  rate: "You will see a clip with several soundtracks. Rate how well each fits the picture and how good it sounds.",
  compare: "You will see a clip with two soundtracks. Choose the one that fits the picture better and sounds better.",
  rank: "You will see a clip with several soundtracks. Put them in order, the best at the top.",
};

/** @param {Api} api @returns {Promise<Session>} */
async function openSession(api) {
  for (;;) {
    try {
      return await Session.open(api);
    } catch (error) {
      if (error instanceof Refused) throw error;
      showNotice("Waiting for the server …");
      await new Promise((go) => setTimeout(go, RETRY_MS));
    }
  }
}

/** Wait for a key or click, because a browser plays sound only after one. @param {AudioContext} context @param {Session} session */
async function begin(context, session) {
  const { me } = session;
  showNotice(me.done ? "Welcome back" : "Before you begin", PURPOSE[/** @type {"rate"} */ (me.task)] ?? "");
  byId("begin").hidden = false;
  byId("begin-button").focus();
  await new Promise((go) => {
    byId("begin-button").addEventListener("click", go, { once: true });
    document.addEventListener("keydown", function key(event) {
      if (event.key !== " ") return;
      event.preventDefault();
      document.removeEventListener("keydown", key);
      go(null);
    });
  });
  byId("begin").hidden = true;
  await context.resume();
}

async function main() {
  const token = takeToken();
  if (!token) return showNotice("This page needs your own address", "Ask the operator of this listening test for it; it ends in #token=…");
  try {
    const session = await openSession(new Api(token));
    const context = new AudioContext();
    const page = new Page(session, context);
    publishHooks(page);
    session.addEventListener("change", () => showProgress(session));
    showProgress(session);
    byId("tools").hidden = false;
    if (session.task) page.media.keep(session.tasks);
    if (session.task) await begin(context, session);
    await page.open();
  } catch (error) {
    showNotice("This page cannot be shown", reasonOf(error));
  }
}

main();
