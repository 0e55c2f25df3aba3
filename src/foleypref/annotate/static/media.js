/**
 * Media of tasks, fetched and decoded before they are wanted.
 *
 * @typedef {{url: string, buffers: AudioBuffer[], loop: number}} Media `loop` in seconds, of all soundtracks
 */

/** Soundtracks brought to one length, so that they loop together to the sample. */
function equalised(/** @type {AudioContext} */ context, /** @type {AudioBuffer[]} */ buffers) {
  const length = Math.max(...buffers.map((buffer) => buffer.length));
  return buffers.map((buffer) => {
    if (buffer.length === length) return buffer;
    const longer = context.createBuffer(buffer.numberOfChannels, length, buffer.sampleRate);
    for (let c = 0; c < buffer.numberOfChannels; c++) longer.copyToChannel(buffer.getChannelData(c), c);
    return longer;
  });
}

/** Media by task. */
export class Shelf {
  /** @param {import("./api.js").Api} api @param {AudioContext} context */
  constructor(api, context) {
    this.api = api;
    this.context = context;
    /** @type {Map<string, Promise<Media>>} */
    this.media = new Map();
  }

  /** @param {import("./session.js").Task} task @returns {Promise<Media>} */
  get(task) {
    const there = this.media.get(task.task_id);
    if (there) return there;
    const made = this.#fetch(task);
    made.catch(() => this.media.delete(task.task_id)); // the next one who asks tries again
    this.media.set(task.task_id, made);
    return made;
  }

  /** Have these at hand, and let go of all others. @param {import("./session.js").Task[]} tasks */
  keep(tasks) {
    const wanted = new Set(tasks.map((task) => task.task_id));
    for (const [task_id, media] of this.media) {
      if (wanted.has(task_id)) continue;
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
    const buffers = equalised(this.context, decoded);
    return { url: URL.createObjectURL(video), buffers, loop: buffers[0].length / buffers[0].sampleRate };
  }
}
