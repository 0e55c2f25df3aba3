/**
 * The rater's page: shows the current task with its sound and picture, and passes keys to the mode of its kind.
 */
import { CompareMode } from "./compare.js";
import { askToSkip, dialogIsOpen, showHelp } from "./dialogs.js";
import { byId } from "./dom.js";
import { Heard } from "./heard.js";
import { listenToKeys } from "./keys.js";
import { MediaCache } from "./media.js";
import { hideNotice, reasonOf, showNotice } from "./notice.js";
import { Picture } from "./picture.js";
import { Player } from "./player.js";
import { RankMode } from "./rank.js";
import { RateMode } from "./rate.js";
import { rounded } from "./session.js";
import { Stopwatch } from "./stopwatch.js";
import { Tracks } from "./tracks.js";

const MODES = { rate: RateMode, compare: CompareMode, rank: RankMode };
const RETRY_MS = 2000;

/** Connects the session with the screen. */
export class Page {
  /** @param {import("./session.js").Session} session @param {AudioContext} context */
  constructor(session, context) {
    this.session = session;
    this.media = new MediaCache(session.api, context);
    this.picture = new Picture(byId("video-1"), byId("video-2"));
    this.player = new Player(context);
    this.tracks = new Tracks(byId("tracks"), (i) => this.pick(i), (i, share) => this.#seek(i, share));
    this.watch = new Stopwatch();
    /** @type {import("./session.js").Task | null} the one on screen */
    this.shown = null;
    this.turn = 0; // counts calls of `open`, so that an outdated one notices
    this.busy = true; // between two clips, and during an undo
    this.tour = false; // whether each soundtrack plays once by itself
    this.player.onHeard = (i, seconds) => this.#hear(i, seconds);
    this.player.addEventListener("tick", () => this.tracks.cursor(this.player.position()));
    this.player.addEventListener("change", () => this.refresh());
    this.player.addEventListener("lap", () => this.#lap());
    session.addEventListener("refused", (e) => this.#refused(/** @type {CustomEvent} */ (e).detail));
    this.#listen();
  }

  /** @returns {import("./session.js").Task} */
  get task() {
    if (!this.shown) throw new Error("no task is open");
    return this.shown;
  }

  // -- opening -------------------------------------------------------------------------------------------------

  /** Show the session's current task and play it. @param {string} [label] the soundtrack to begin with */
  async open(label) {
    const turn = ++this.turn;
    this.busy = true;
    this.player.pause();
    try {
      const task = await this.session.next(showNotice);
      if (turn !== this.turn) return; // an undo or a refusal opened another one
      if (!task) return this.#finish();
      this.media.keep(this.session.tasks);
      const { url, sound } = await this.media.get(task);
      if (turn !== this.turn) return;
      this.#layOut(task, sound.loop);
      const index = task.tracks.findIndex((track) => track.label === label);
      this.player.load(sound, this.picture, index >= 0 ? index : this.mode.first());
      await this.picture.load(url, sound.loop);
    } catch (error) {
      return this.#retry(error, turn);
    }
    if (turn !== this.turn) return;
    this.busy = false;
    this.watch.reset();
    this.say("");
    this.player.play(0);
  }

  /** @param {import("./session.js").Task} task @param {number} loop */
  #layOut(task, loop) {
    this.shown = task;
    this.heard = new Heard(this.session, task);
    if (!(this.mode instanceof MODES[task.kind])) {
      this.mode = new MODES[task.kind](this);
      byId("panel").replaceChildren(this.mode.panel);
    }
    this.tour = task.kind !== "rate";
    hideNotice();
    byId("prompt").textContent = task.clip.prompt;
    byId("prompt").hidden = !task.clip.prompt;
    byId("marks").hidden = !task.events.length;
    byId("page").dataset.kind = task.kind;
    this.tracks.show(task, loop);
    task.tracks.forEach((_, i) => this.#showHeard(i));
  }

  #finish() {
    const { done } = this.session.me;
    this.shown = null;
    this.busy = false;
    showNotice("All done, thank you.", done ? "Press U to take back your last answer." : "There is nothing to listen to yet.");
  }

  /** @param {unknown} error @param {number} turn */
  #retry(error, turn) {
    if (turn !== this.turn) return;
    this.shown = null;
    showNotice("This clip cannot be loaded yet; trying again.", reasonOf(error));
    setTimeout(async () => {
      await this.session.resync().catch(() => {}); // the server may have left this task out
      if (turn === this.turn) this.open();
    }, RETRY_MS);
  }

  // -- for the modes -------------------------------------------------------------------------------------------

  /** Returns whether these were heard enough; if not, shows and plays what is missing. @param {string[]} labels */
  mayJudge(labels) {
    if (this.busy) return false;
    this.player.settle();
    const { heard, tracks } = this;
    const label = labels.find((one) => heard.missing(one) > 0);
    if (label === undefined) return true;
    this.say(`Listen to ${label} first: ${Math.max(0.1, heard.missing(label)).toFixed(1)} s more.`, "warning");
    const index = this.task.tracks.findIndex((track) => track.label === label);
    tracks.nudge(index);
    if (heard.missing(this.task.tracks[this.player.current].label) <= 0) this.pick(index, true);
    else if (!this.player.playing) this.player.play();
    return false;
  }

  /** Send a verdict. @param {{kind: string, [f: string]: any}} verdict @param {string[]} labels @param {boolean} finish */
  answer(verdict, labels, finish) {
    this.player.settle();
    const heard = Object.fromEntries(labels.map((label) => [label, rounded(this.heard.seconds(label))]));
    this.session.answer({ ...verdict, heard, seconds: rounded(this.watch.seconds) }, finish);
    this.watch.reset();
    this.say("");
    if (finish) this.open();
  }

  /** Switch to a soundtrack. @param {number} i @param {boolean} start also play if the player is paused */
  pick(i, start = false) {
    if (!this.shown || i >= this.task.tracks.length) return;
    if (i !== this.player.current) this.#reportListening();
    if (!start) this.tour = false; // the rater chose
    this.player.choose(i);
    if (start && !this.player.playing) this.player.play();
  }

  /** Show a message. @param {string} text @param {"" | "warning"} tone */
  say(text, tone = "") {
    const message = byId("message");
    message.textContent = text;
    message.className = tone;
  }

  refresh() {
    if (!this.shown || !this.mode) return;
    this.tracks.mark(this.player.current);
    this.tracks.cursor(this.player.position());
    this.mode.refresh();
    byId("screen").classList.toggle("paused", !this.player.playing);
    byId("play").firstChild.textContent = this.player.playing ? "Pause " : "Play ";
  }

  // -- keys and events -----------------------------------------------------------------------------------------

  #listen() {
    const play = () => this.shown && !this.busy && this.player.toggle();
    const again = () => this.shown && this.player.seek(0);
    const undo = () => this.undo(), skip = () => this.skip(), help = () => this.help();
    listenToKeys({
      pick: (i) => this.pick(i),
      keys: { " ": play, r: again, home: again, u: undo, s: skip, "?": help, h: help },
      other: (key, shift) => Boolean(this.shown && this.mode?.key(key, shift)),
      deaf: dialogIsOpen,
    });
    const clicks = { play, screen: play, undo, skip, help };
    for (const [id, run] of Object.entries(clicks)) byId(id).addEventListener("click", run);
    document.addEventListener("visibilitychange", () => document.hidden && this.#leave());
    addEventListener("pagehide", () => this.#leave());
  }

  help() {
    this.#resumeAfter(byId("help-dialog"));
    showHelp(this.mode?.hints ?? []);
  }

  skip() {
    if (!this.shown || this.busy) return;
    this.#resumeAfter(byId("skip-dialog"));
    askToSkip(this.session.me.skip_reasons, (reason, note) => {
      this.session.answer(note ? { kind: "skip", reason, note } : { kind: "skip", reason }, true);
      this.open();
    });
  }

  /** Pause while a dialog is open. @param {HTMLDialogElement} dialog */
  #resumeAfter(dialog) {
    const { playing } = this.player, { turn } = this;
    this.player.pause();
    const resume = () => playing && turn === this.turn && !document.hidden && this.player.play();
    dialog.addEventListener("close", resume, { once: true });
  }

  async undo() {
    if (this.busy) return;
    if (!this.session.canUndo) return this.say("There is nothing to undo.");
    this.busy = true;
    this.say("Taking back your last answer …");
    try {
      const label = await this.session.undo();
      await this.open(label);
      this.say("Your last answer was taken back.");
    } catch (error) {
      this.busy = false;
      this.say(reasonOf(error), "warning");
    }
  }

  /** The server refused an answer, and the session was read again. @param {string} reason */
  async #refused(reason) {
    await this.open();
    this.say(reason, "warning");
  }

  /** The tab is hidden or closed, so nobody listens. */
  #leave() {
    this.player.pause();
    this.#reportListening();
  }

  #lap() {
    this.#reportListening(true);
    const next = this.tour ? this.heard?.next(this.player.current) : undefined;
    if (next !== undefined) this.pick(next, true);
  }

  /** @param {boolean} rarely */
  #reportListening(rarely = false) {
    this.player.settle();
    if (this.shown) this.heard?.report(this.task.tracks[this.player.current].label, rarely);
  }

  /** @param {number} i @param {number} share of the loop */
  #seek(i, share) {
    this.pick(i);
    this.player.seek(share * this.player.loop);
  }

  /** @param {number} i @param {number} seconds */
  #hear(i, seconds) {
    if (!this.shown || !this.heard) return;
    const enough = this.heard.add(this.task.tracks[i].label, seconds);
    this.#showHeard(i);
    if (!enough) return;
    if (byId("message").className === "warning") this.say("");
    this.mode?.refresh();
  }

  /** @param {number} i */
  #showHeard(i) {
    const { label } = this.task.tracks[i];
    this.tracks.heard(i, this.heard?.seconds(label) ?? 0, this.heard?.needed(label) ?? 0);
  }
}
