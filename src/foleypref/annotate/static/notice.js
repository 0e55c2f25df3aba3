/**
 * The card that replaces the clip while there is none to hear: on opening, while waiting, and after the last clip.
 */
import { byId } from "./dom.js";

/** Show the card in place of the clip. @param {string} title @param {string} text */
export function showNotice(title, text = "") {
  byId("page").hidden = true;
  byId("notice").hidden = false;
  byId("notice-title").textContent = title;
  byId("notice-text").textContent = text;
}

/** Show the page in place of the card. */
export function hideNotice() {
  byId("notice").hidden = true;
  byId("page").hidden = false;
}

/** @param {unknown} error @returns {string} */
export function reasonOf(error) {
  return error instanceof Error ? error.message : String(error);
}
