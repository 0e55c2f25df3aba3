/**
 * All soundtracks of a clip on one clock: a switch moves gains alone, so it is exact to the sample.
 *
 * Every source starts at the same time of the AudioContext and loops over the same number of samples. The picture
 * follows the time that is heard (picture.js).
 */
import { heardTime } from "./clock.js";

const FADE_S = 0.008;
const START_S = 0.06; // from asking for sound to its start, so that all sources are ready

/** Events: "tick" every frame while it plays, "change" when it starts, stops or switches, "lap" at a loop's end. */
export class Player extends EventTarget {
  /** @param {AudioContext} context @param {import("./picture.js").Picture} picture */
  constructor(context, picture) {
    super();
    this.context = context;
    this.picture = picture;
    /** @type {import("./media.js").Media | null} */
    this.media = null;
    /** @type {AudioBufferSourceNode[]} */
    this.sources = [];
    /** @type {GainNode[]} */
    this.gains = [];
    this.current = 0;
    this.playing = false;
    this.at = 0; // where it stands while it does not play
    this.zero = 0; // the context's time at which the loop's first beginning is (or would be) heard
    this.lap = 0;
    this.last = 0;
    /** @type {(index: number, seconds: number) => void} */
    this.onHeard = () => {};
  }

  /** @returns {number} seconds of the loop */
  get loop() {
    return this.media?.loop ?? 0;
  }

  /** Put another clip in, stopped at its beginning. @param {import("./media.js").Media} media @param {number} index */
  async load(media, index) {
    this.pause();
    this.media = media;
    this.current = index;
    this.at = 0;
    await this.picture.load(media.url, media.loop);
  }

  /** @returns {number} second of the clip that is heard now */
  position() {
    if (!this.playing) return this.at;
    const since = heardTime(this.context) - this.zero;
    return since < this.at ? this.at : since % this.loop;
  }

  /** Start from a second of the clip. @param {number} at */
  play(at = this.at) {
    if (!this.media) return;
    this.#silence();
    if (this.context.state !== "running") this.context.resume();
    const begin = this.context.currentTime + START_S;
    this.at = Math.min(Math.max(at, 0), this.loop - 0.01);
    this.gains = this.media.buffers.map(() => this.context.createGain());
    this.sources = this.media.buffers.map((buffer, i) => {
      const source = this.context.createBufferSource();
      source.buffer = buffer;
      source.loop = true;
      this.gains[i].gain.value = i === this.current ? 1 : 0;
      source.connect(this.gains[i]).connect(this.context.destination);
      source.start(begin, this.at);
      return source;
    });
    this.zero = begin - this.at;
    this.lap = 0;
    this.last = 0;
    this.playing = true;
    this.picture.start(this.at);
    this.dispatchEvent(new Event("change"));
    this.frame ??= requestAnimationFrame(() => this.#tick());
  }

  pause() {
    if (!this.playing) return;
    this.settle();
    this.at = this.position();
    this.playing = false;
    this.#silence();
    this.picture.stop();
    this.dispatchEvent(new Event("change"));
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  /** Hear another soundtrack from this moment on. @param {number} index */
  choose(index) {
    if (!this.media || index < 0 || index >= this.media.buffers.length) return;
    this.settle();
    const now = this.context.currentTime;
    if (index !== this.current) {
      this.gains.forEach(({ gain }, i) => {
        gain.cancelScheduledValues(now);
        gain.setValueAtTime(gain.value, now);
        gain.linearRampToValueAtTime(i === index ? 1 : 0, now + FADE_S);
      });
    }
    this.current = index;
    this.dispatchEvent(new Event("change"));
  }

  /** @param {number} at second of the clip */
  seek(at) {
    if (this.playing) {
      this.settle();
      this.play(at);
    } else {
      this.at = Math.min(Math.max(at, 0), this.loop - 0.01);
      this.picture.stop(this.at);
      this.dispatchEvent(new Event("change"));
    }
  }

  #tick() {
    this.frame = undefined;
    if (!this.playing) return;
    this.settle();
    const since = heardTime(this.context) - this.zero;
    const lap = Math.floor(Math.max(since, 0) / this.loop);
    this.picture.follow(this.position(), since < this.at ? this.at - since : 0);
    this.dispatchEvent(new Event("tick"));
    if (lap > this.lap) {
      this.lap = lap;
      this.dispatchEvent(new Event("lap"));
    }
    this.frame ??= requestAnimationFrame(() => this.#tick());
  }

  /** Book what was heard since the last time to the soundtrack that was on. */
  settle() {
    if (!this.playing) return;
    const heard = Math.max(0, heardTime(this.context) - this.zero - this.at);
    if (heard > this.last) this.onHeard(this.current, heard - this.last);
    this.last = Math.max(heard, this.last);
  }

  #silence() {
    const now = this.context.currentTime;
    this.sources.forEach((source, i) => {
      const { gain } = this.gains[i];
      gain.cancelScheduledValues(now);
      gain.setValueAtTime(gain.value, now);
      gain.linearRampToValueAtTime(0, now + FADE_S);
      source.stop(now + FADE_S + 0.002);
      source.onended = () => source.disconnect();
    });
    this.sources = [];
    this.gains = [];
  }
}
