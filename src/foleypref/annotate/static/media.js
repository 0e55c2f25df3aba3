/**
 * Fetches and decodes the media of tasks before they are needed.
 *
 * @typedef {{url: string, sound: import("./player.js").Sound}} Media
 */
import { looped } from "./player.js";

/** The media of the current task and of the next ones. */
export class MediaCache {
  /** @param {import("./api.js").Api} api @param {AudioContext} context */
  constructor(api, context) {
    this.api = api;
    this.context = context;
    /** @type {Map<string, Promise<Media>>} */
    this.media = new Map();
  }

  /** @param {import("./session.js").Task} task @returns {Promise<Media>} */
  get(task) {
    const known = this.media.get(task.task_id);
    if (known) return known;
    const media = this.#fetch(task);
    media.catch(() => this.media.delete(task.task_id)); // the next call tries again
    this.media.set(task.task_id, media);
    return media;
  }

  /** Fetch the media of these tasks, and release all others. @param {import("./session.js").Task[]} tasks */
  keep(tasks) {
    const keep = new Set(tasks.map((task) => task.task_id));
    for (const [task_id, media] of this.media) {
      if (keep.has(task_id)) continue;
      this.media.delete(task_id);
      media.then(({ url }) => URL.revokeObjectURL(url), () => {});
    }
    tasks.forEach((task) => this.get(task).catch(() => {}));
  }

  /** @param {import("./session.js").Task} task @returns {Promise<Media>} */
  async #fetch(task) {
    const sounds = task.tracks.map(async ({ label }) => {
      const blob = await this.api.blob(`media/${task.task_id}/${label}`);
      return this.context.decodeAudioData(await blob.arrayBuffer());
    });
    const [video, ...decoded] = await Promise.all([this.api.blob(`media/${task.task_id}/video`), ...sounds]);
    return { url: URL.createObjectURL(video), sound: looped(this.context, decoded) };
  }
}
