/**
 * The silent picture, kept on the second that is heard.
 *
 * Two elements show the same file in turn: while one runs, the other waits on its first frame and takes over when
 * the sound begins again, as a single element would stand still for its seek. Small differences are made up by
 * running a little faster or slower, which nobody sees; large ones by a seek.
 */

const NEAR_S = 0.006; // closer than this is left alone
const FAR_S = 0.25; // farther than this needs a seek
const PULL = 4; // per second: 40 ms are made up at 1.16 times the speed
const MOST = 0.4; // change of speed at most
const SETTLE_MS = 300; // a seek is given time before the next one
const LEAD_S = 0.02; // from play() to the first movement, until it was measured
const LOAD_MS = 4000;

/** The picture of a clip. */
export class Picture {
  /** @param {HTMLVideoElement} first @param {HTMLVideoElement} second in one place, one above the other */
  constructor(first, second) {
    this.front = first;
    this.back = second;
    this.loop = 0;
    this.lead = LEAD_S;
    this.rolling = false; // whether the back one was started for its turn
    this.last = 0;
    this.patience = 0; // performance time until which no seek is made
    this.probe = 0; // performance time at which the start's delay is looked at, 0 never
    for (const video of [first, second]) video.muted = true;
  }

  /** @param {string} url @param {number} loop @returns {Promise<void>} when the first frame is there */
  async load(url, loop) {
    this.loop = loop;
    this.rolling = false;
    this.last = 0;
    const ready = [this.front, this.back].map((video) => new Promise((done) => {
      video.onloadeddata = done;
      video.onerror = done; // sound without a picture is still better than nothing
      setTimeout(done, LOAD_MS);
      video.pause();
      video.src = url;
      video.load();
    }));
    await Promise.all(ready);
  }

  /** Be ready at a second; it moves with `follow`. @param {number} at */
  start(at) {
    this.#rest(this.back);
    this.rolling = false;
    this.last = at;
    if (Math.abs(this.front.currentTime - at) > NEAR_S) this.#seek(at);
    this.probe = 0;
  }

  /** Stand still. @param {number} [at] */
  stop(at) {
    this.front.pause();
    this.#rest(this.back);
    this.rolling = false;
    if (at !== undefined) this.#seek(at);
  }

  /** Every frame: the second that is heard, and the seconds before it starts. @param {number} at @param {number} until */
  follow(at, until) {
    if (until > this.lead) return;
    if (until <= 0 && at < this.last - this.loop / 2) this.#swap();
    this.last = at;
    if (!this.rolling && this.loop - at < this.lead) {
      this.rolling = true;
      this.#run(this.back);
    }
    if (this.front.paused && !this.front.ended) {
      this.#run(this.front);
      this.probe = performance.now() + 120;
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
    this.probe = this.rolling ? performance.now() + 60 : 0;
    this.rolling = false;
    this.#rest(this.back);
  }

  /** @param {number} at */
  #steer(at) {
    const video = this.front;
    if (video.seeking || video.readyState < 2 || at > video.duration - 0.03) return; // the last frame stays
    const off = at - video.currentTime;
    if (this.probe && performance.now() > this.probe) {
      // What a start took this time says what the next one will take.
      if (Math.abs(off) < 0.1) this.lead = Math.min(Math.max(this.lead + off / 2, 0), 0.1);
      this.probe = 0;
    }
    if (Math.abs(off) > FAR_S && performance.now() > this.patience) return this.#seek(at);
    const change = Math.abs(off) < NEAR_S ? 0 : Math.min(Math.max(PULL * off, -MOST), MOST);
    if (Math.abs(1 + change - video.playbackRate) > 0.015 || (!change && video.playbackRate !== 1)) {
      video.playbackRate = 1 + change;
    }
  }

  /** @param {number} at */
  #seek(at) {
    this.patience = performance.now() + SETTLE_MS;
    this.front.currentTime = Math.min(at, (this.front.duration || at) - 0.001);
  }

  /** @param {HTMLVideoElement} video */
  #run(video) {
    video.playbackRate = 1;
    video.play().catch(() => {}); // interrupted by a pause: that is what was wanted
  }

  /** To the first frame, and wait there. @param {HTMLVideoElement} video */
  #rest(video) {
    video.pause();
    if (video.currentTime !== 0) video.currentTime = 0;
  }
}
