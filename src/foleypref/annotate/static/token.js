/**
 * Takes the token out of the page's address and keeps it for this tab.
 *
 * It is in the fragment, which browsers do not send. If it stayed there, it would show in bookmarks and on shared screens.
 */

const KEY = `foleypref.token ${location.pathname}`; // a rater's and the operator's page may share a tab

/** @returns {string} this tab's token, "" without one */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    sessionStorage.setItem(KEY, token);
    history.replaceState(null, "", location.pathname + location.search);
  }
  // Another address pasted over this one changes only the fragment, for which browsers load nothing.
  addEventListener("hashchange", () => location.reload());
  return sessionStorage.getItem(KEY) ?? "";
}
