/**
 * The token in the page's address: taken out of it at once, kept for this tab alone.
 *
 * It comes in the fragment, which browsers send to nobody. Left there it would stand in bookmarks and on shared
 * screens.
 */

const KEY = `foleypref.token ${location.pathname}`; // a rater's and the operator's page may share a tab

/** @returns {string} the token of this tab, "" without one */
export function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(KEY, found);
    history.replaceState(null, "", location.pathname + location.search);
  }
  // Another address pasted over this one changes the fragment alone, and browsers then load nothing.
  addEventListener("hashchange", () => location.reload());
  return sessionStorage.getItem(KEY) ?? "";
}
