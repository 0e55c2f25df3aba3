/**
 * Calls what a key means. A key that is held down does not repeat: one press is one answer.
 */

/**
 * @param {{pick: (index: number) => void, keys: Record<string, () => void>, other: (key: string, shift: boolean) => boolean,
 *   deaf: () => boolean}} page `other` returns whether a key has a meaning; `deaf`, whether a dialog is open
 */
export function listenToKeys({ pick, keys, other, deaf }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || deaf()) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
    const key = event.key.toLowerCase();
    // A focused button keeps its own keys, for raters who use Tab.
    if ((key === " " || key === "enter") && target.tagName === "BUTTON") return;
    const used = event.repeat ? key in keys : press(key, event.shiftKey);
    if (used || key === " " || key.startsWith("arrow")) event.preventDefault(); // no scrolling
  });

  /** @param {string} key @param {boolean} shift @returns {boolean} */
  function press(key, shift) {
    if (/^[1-9]$/.test(key)) pick(Number(key) - 1);
    else if (key in keys) keys[key]();
    else return other(key, shift);
    return true;
  }

  // A button that was clicked with the mouse keeps the focus and would get the space key.
  document.addEventListener("click", (event) => {
    const button = /** @type {HTMLElement} */ (event.target).closest("button");
    if (event.detail && button && !button.closest("dialog")) button.blur();
  });
}
