/**
 * Plays all soundtracks of a clip on one clock. A switch only changes gains, so it is exact to the sample.
 *
 * All sources start at the same time of the AudioContext and loop over the same number of samples. The picture follows
 * the time that is heard (picture.js). The report contains this file and picture.js, too: see docs/design/008-annotate.md.
 *
 * @typedef {{buffers: AudioBuffer[], loop: number}} Sound buffers of equal length; `loop` is that length in seconds
 */

const FADE_S = 0.008;
const START_S = 0.06; // from the call of play() to the start of the sound, so that all sources are ready
const TRUSTED_S = 0.15;

/**
 * Returns the time of an AudioContext that is heard now, in seconds: its currentTime minus the latency of the device.
 * The output timestamp is finer than currentTime, which advances only once per block of the device.
 * @param {AudioContext} context @returns {number}
 */
function heardTime(context) {
  const coarse = context.currentTime - (context.outputLatency || context.baseLatency || 0);
  const stamp = context.getOutputTimestamp?.();
  if (!stamp?.performanceTime || stamp.contextTime === undefined) return coarse;
  const fine = stamp.contextTime + (performance.now() - stamp.performanceTime) / 1000;
  return Math.abs(fine - coarse) < TRUSTED_S ? fine : coarse;
}

/**
 * Extends soundtracks with silence to the length of the longest, so that they loop together to the sample.
 * @param {AudioContext} context @param {AudioBuffer[]} buffers @returns {Sound}
 */
export function looped(context, buffers) {
  const length = Math.max(...buffers.map((buffer) => buffer.length));
  const equal = buffers.map((buffer) => {
    if (buffer.length === length) return buffer;
    const longer = context.createBuffer(buffer.numberOfChannels, length, buffer.sampleRate);
    for (let c = 0; c < buffer.numberOfChannels; c++) longer.copyToChannel(buffer.getChannelData(c), c);
    return longer;
  });
  return { buffers: equal, loop: length / equal[0].sampleRate };
}

/** Events: "tick" on every frame while it plays, "change" when it starts, stops or switches, "lap" when the loop ends. */
export class Player extends EventTarget {
  /** @param {AudioContext} context */
  constructor(context) {
    super();
    this.context = context;
    /** @type {Sound | null} */
    this.sound = null;
    /** @type {import("./picture.js").Picture | null} */
    this.picture = null;
    /** @type {AudioBufferSourceNode[]} */
    this.sources = [];
    /** @type {GainNode[]} */
    this.gains = [];
    this.current = 0;
    this.playing = false;
    this.at = 0; // second of the clip where it was started, or where it stands while paused
    this.zero = 0; // context time at which second 0 of the first loop is (or would be) heard
    this.lap = 0;
    this.reported = 0; // seconds since the start that `onHeard` was told
    /** @type {(index: number, seconds: number) => void} */
    this.onHeard = () => {};
  }

  /** @returns {number} seconds of the loop */
  get loop() {
    return this.sound?.loop ?? 0;
  }

  /**
   * Replace the clip, paused at its beginning. The picture is loaded by the caller.
   * @param {Sound | null} sound @param {import("./picture.js").Picture | null} picture @param {number} index the soundtrack
   */
  load(sound, picture, index) {
    this.pause();
    this.sound = sound;
    this.picture = picture;
    this.current = index;
    this.at = 0;
  }

  /** Show another picture with the same sound. @param {import("./picture.js").Picture | null} picture */
  show(picture) {
    if (picture === this.picture) return;
    this.picture?.stop();
    this.picture = picture;
    if (this.playing) picture?.start(this.position());
    else picture?.stop(this.at);
  }

  /** @returns {number} second of the clip that is heard now */
  position() {
    if (!this.playing) return this.at;
    const since = heardTime(this.context) - this.zero;
    return since < this.at ? this.at : since % this.loop;
  }

  /** @param {number} at second of the clip */
  play(at = this.at) {
    if (!this.sound) return;
    this.#silence();
    if (this.context.state !== "running") this.context.resume();
    const begin = this.context.currentTime + START_S;
    this.at = this.#inside(at);
    this.gains = this.sound.buffers.map(() => this.context.createGain());
    this.sources = this.sound.buffers.map((buffer, i) => {
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
    this.reported = 0;
    this.playing = true;
    this.picture?.start(this.at);
    this.dispatchEvent(new Event("change"));
    this.frame ??= requestAnimationFrame(() => this.#tick());
  }

  pause() {
    if (!this.playing) return;
    this.settle();
    this.at = this.position();
    this.playing = false;
    this.#silence();
    this.picture?.stop();
    this.dispatchEvent(new Event("change"));
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  /** Switch to another soundtrack now. @param {number} index */
  choose(index) {
    if (!this.sound || index < 0 || index >= this.sound.buffers.length) return;
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
      this.at = this.#inside(at);
      this.picture?.stop(this.at);
      this.dispatchEvent(new Event("change"));
    }
  }

  /** Tell `onHeard` what was heard of the current soundtrack since the last call. */
  settle() {
    if (!this.playing) return;
    const heard = Math.max(0, heardTime(this.context) - this.zero - this.at);
    if (heard > this.reported) this.onHeard(this.current, heard - this.reported);
    this.reported = Math.max(heard, this.reported);
  }

  #tick() {
    this.frame = undefined;
    if (!this.playing) return;
    this.settle();
    const since = heardTime(this.context) - this.zero;
    const lap = Math.floor(Math.max(since, 0) / this.loop);
    this.picture?.follow(this.position(), since < this.at ? this.at - since : 0);
    this.dispatchEvent(new Event("tick"));
    if (lap > this.lap) {
      this.lap = lap;
      this.dispatchEvent(new Event("lap"));
    }
    this.frame ??= requestAnimationFrame(() => this.#tick());
  }

  /** @param {number} at @returns {number} */
  #inside(at) {
    return Math.min(Math.max(at, 0), this.loop - 0.01);
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
