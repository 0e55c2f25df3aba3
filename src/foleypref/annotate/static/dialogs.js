/**
 * The page's two dialogs: what the keys do, and why a clip is skipped.
 */
import { byId, keycap, make } from "./dom.js";

for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => /** @type {HTMLDialogElement} */ (button.closest("dialog")).close());
}

/** @returns {boolean} whether a dialog is open */
export function dialogIsOpen() {
  return document.querySelector("dialog[open]") !== null;
}

const COMMON = [["Space", "play, pause"], ["1  …  9", "switch to a soundtrack"], ["R", "from the start"]];
const LAST = [["U", "undo the last answer"], ["S", "skip this clip"], ["?", "this help"]];

/** @param {[string, string][]} hints keys of the current kind of task, and what they do */
export function showHelp(hints) {
  byId("help-keys").replaceChildren(...[...COMMON, ...hints, ...LAST].flatMap(([keys, meaning]) => [
    make("dt", {}, ...keys.split(/\s{2,}/).map(keycap)),
    make("dd", {}, meaning),
  ]));
  byId("help-dialog").showModal();
}

/** Ask why a clip is skipped. @param {string[]} reasons @param {(reason: string, note: string) => void} onSkip */
export function askToSkip(reasons, onSkip) {
  const dialog = byId("skip-dialog"), note = byId("skip-note");
  const choose = (/** @type {number} */ i) => {
    dialog.close();
    onSkip(reasons[i], note.value.trim());
  };
  const buttons = reasons.map((reason, i) => {
    const button = make("button", { type: "button" }, keycap(String(i + 1)), reason);
    button.addEventListener("click", () => choose(i));
    return button;
  });
  byId("skip-reasons").replaceChildren(...buttons);
  note.value = "";
  dialog.onkeydown = (/** @type {KeyboardEvent} */ event) => {
    if (event.target === note) {
      if (event.key === "Enter") buttons[0].focus(); // so that a digit chooses a reason
      return;
    }
    const i = Number(event.key) - 1;
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !reasons[i]) return;
    event.preventDefault();
    choose(i);
  };
  dialog.showModal();
}
