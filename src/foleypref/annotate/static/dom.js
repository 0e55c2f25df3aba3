/**
 * Making elements. Text goes in as text alone: a caption with markup in it is shown, never run.
 */

/**
 * @param {string} tag @param {Record<string, string>} attributes `class`, `aria-label` …
 * @param {...(Node | string)} content @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content); // strings become text nodes
  return element;
}

/** @param {string} key @returns {HTMLElement} a key as it is printed on a keyboard */
export function keycap(key) {
  return make("kbd", {}, key);
}

/** @param {string} id @returns {any} the element that the page has under this id */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}
