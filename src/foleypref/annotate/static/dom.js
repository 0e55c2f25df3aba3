/**
 * Makes elements. Text goes in as text: markup in a caption is shown, never run.
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

/** @param {string} key @returns {HTMLElement} a drawing of a key */
export function keycap(key) {
  return make("kbd", {}, key);
}

/** @param {string} id @returns {any} the page's element with this id */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}
