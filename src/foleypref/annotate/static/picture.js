/**
 * Keeps the silent picture at the second that is heard.
 *
 * Two elements show the same file in turn: while one plays, the other waits at its first frame and takes over when the
 * sound starts again, because a single element would stop for its seek. Small differences are removed by playing a
 * little faster or slower, which is not noticed; large ones by a seek.
 */

const NEAR_S = 0.006; // a smaller difference is ignored
const FAR_S = 0.25; // a larger difference needs a seek
const PULL = 4; // per second: 40 ms are removed at 1.16 times the speed
const MAX_CHANGE = 0.4; // of the speed
const SETTLE_MS = 300; // time that a seek gets before the next one
const LEAD_S = 0.02; // from play() to the first movement, until it is measured
const LOAD_MS = 4000;

/** The picture of a clip. */
export class Picture {
  /** @param {HTMLVideoElement} first @param {HTMLVideoElement} second the same place on the page, one above the other */
  constructor(first, second) {
    this.front = first;
    this.back = second;
    this.loop = 0;
    this.lead = LEAD_S;
    this.backPlays = false; // whether the back element was started for its turn
    this.last = 0;
    this.noSeekBefore = 0; // performance time
    this.measureAt = 0; // performance time at which the delay of a start is measured, 0 for never
    for (const video of [first, second]) video.muted = true;
  }

  /** @param {string} url @param {number} loop seconds @returns {Promise<void>} resolved when the first frame is there */
  async load(url, loop) {
    this.loop = loop;
    this.backPlays = false;
    this.last = 0;
    const ready = [this.front, this.back].map((video) => new Promise((done) => {
      video.onloadeddata = done;
      video.onerror = done; // sound without a picture is still better than nothing
      setTimeout(done, LOAD_MS);
      video.pause();
      if (video.getAttribute("src") === url && video.readyState >= 2) return done(null);
      video.src = url;
      video.load();
    }));
    await Promise.all(ready);
  }

  /** Prepare to play from a second; `follow` starts it. @param {number} at */
  start(at) {
    this.#rewind(this.back);
    this.backPlays = false;
    this.last = at;
    if (Math.abs(this.front.currentTime - at) > NEAR_S) this.#seek(at);
    this.measureAt = 0;
  }

  /** Pause, at a second if it is given. @param {number} [at] */
  stop(at) {
    this.front.pause();
    this.#rewind(this.back);
    this.backPlays = false;
    if (at !== undefined) this.#seek(at);
  }

  /** To be called on every frame. @param {number} at second that is heard @param {number} until seconds until it starts */
  follow(at, until) {
    if (until > this.lead) return;
    if (until <= 0 && at < this.last - this.loop / 2) this.#swap();
    this.last = at;
    if (!this.backPlays && this.loop - at < this.lead) {
      this.backPlays = true;
      this.#play(this.back);
    }
    if (this.front.paused && !this.front.ended) {
      this.#play(this.front);
      this.measureAt = performance.now() + 120;
    }
    if (until <= 0) this.#steer(at);
  }

  /** @returns {number} second of the clip that is seen now */
  position() {
    return this.front.currentTime;
  }

  #swap() {
    [this.front, this.back] = [this.back, this.front];
    this.front.dataset.front = "";
    delete this.back.dataset.front;
    this.measureAt = this.backPlays ? performance.now() + 60 : 0;
    this.backPlays = false;
    this.#rewind(this.back);
  }

  /** @param {number} at */
  #steer(at) {
    const video = this.front;
    if (video.seeking || video.readyState < 2 || at > video.duration - 0.03) return; // the last frame stays
    const off = at - video.currentTime;
    if (this.measureAt && performance.now() > this.measureAt) {
      // The next start will take about as long as this one did.
      if (Math.abs(off) < 0.1) this.lead = Math.min(Math.max(this.lead + off / 2, 0), 0.1);
      this.measureAt = 0;
    }
    if (Math.abs(off) > FAR_S && performance.now() > this.noSeekBefore) return this.#seek(at);
    const change = Math.abs(off) < NEAR_S ? 0 : Math.min(Math.max(PULL * off, -MAX_CHANGE), MAX_CHANGE);
    if (Math.abs(1 + change - video.playbackRate) > 0.015 || (!change && video.playbackRate !== 1)) {
      video.playbackRate = 1 + change;
    }
  }

  /** @param {number} at */
  #seek(at) {
    this.noSeekBefore = performance.now() + SETTLE_MS;
    this.front.currentTime = Math.min(at, (this.front.duration || at) - 0.001);
  }

  /** @param {HTMLVideoElement} video */
  #play(video) {
    video.playbackRate = 1;
    video.play().catch(() => {}); // a pause interrupted it, as it should
  }

  /** Pause at the first frame. @param {HTMLVideoElement} video */
  #rewind(video) {
    video.pause();
    if (video.currentTime !== 0) video.currentTime = 0;
  }
}
