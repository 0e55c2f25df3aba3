/**
 * `window.foleypref`: the page's state, for tests and measurements. It is read-only.
 */

/** @param {import("./page.js").Page} page */
export function publishHooks(page) {
  const { player, session } = page;
  const hooks = {
    /** @returns {number} second of the clip that is heard */
    audioTime: () => player.position(),
    /** @returns {number} second of the clip that is seen */
    videoTime: () => page.picture.position(),
    /** @returns {string | null} letter of the current soundtrack */
    current: () => page.shown?.tracks[player.current].label ?? null,
    state: () => structuredClone({
      task_id: page.shown?.task_id ?? null,
      number: page.shown?.number ?? null,
      kind: page.shown?.kind ?? null,
      given: Object.fromEntries((page.shown?.tracks ?? []).map(({ label, given }) => [label, given])),
      heard: page.shown?.heard ?? {},
      order: page.mode && "order" in page.mode ? page.mode.order : null,
      busy: page.busy,
      playing: player.playing,
      loop: player.loop,
      context: player.context.state,
      network: session.outbox.state,
      unsaved: session.outbox.unsaved,
      done: session.me.done,
      total: session.me.total,
    }),
  };
  Object.defineProperty(window, "foleypref", { value: Object.freeze(hooks) });
}
