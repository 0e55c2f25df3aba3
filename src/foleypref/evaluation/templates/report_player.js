"use strict";
// One clip's soundtracks, played together. `foleyprefReport` is all that the gallery's script sees of it.
const foleyprefReport = (() => {
  // All soundtracks of a clip start on one AudioContext clock and a switch moves gains alone, so switching is exact
  // to the sample. The picture follows the sound: it is moved only when it has drifted by more than the eye sees.
  const START_S = 0.08, DRIFT_S = 0.06, FADE_S = 0.004;
  let context = null, active = null;
  const waiting = new Map();

  window.foleyprefSound = (id, data) => {
    const found = waiting.get(id);
    if (found) { waiting.delete(id); found.resolve(data); }
  };

  function base64Of(sound) {
    const inline = document.getElementById("sound-" + sound.id);
    if (inline) return Promise.resolve(inline.textContent);
    return new Promise((resolve, reject) => {
      waiting.set(sound.id, { resolve });
      const tag = document.createElement("script");
      tag.src = sound.script;
      tag.onload = () => tag.remove();
      tag.onerror = () => reject(new Error("cannot load " + sound.script));
      document.head.append(tag);
    });
  }

  const latency = () => context.outputLatency || context.baseLatency || 0; // seconds from the clock to the ear

  async function decode(sound) {
    const text = atob((await base64Of(sound)).trim());
    const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
    return context.decodeAudioData(bytes.buffer);
  }

  class Player {
    constructor(element, sounds) { // sounds: [{id, script}] in the order of the rows
      this.element = element;
      this.sounds = sounds;
      this.clipVideo = element.querySelector("video:not([data-sound])");
      this.made = new Map([...element.querySelectorAll("video[data-sound]")].map((v) => [Number(v.dataset.sound), v]));
      this.video = this.videoOf(0);
      this.show();
      this.button = element.querySelector(".play");
      this.picks = [...element.querySelectorAll(".pick")];
      this.cursors = [...element.querySelectorAll(".cursor")];
      this.status = element.querySelector(".status");
      this.buffers = null; this.sources = []; this.gains = []; this.chosen = 0; this.at = 0; this.playing = false;
      this.button.addEventListener("click", () => this.toggle());
      for (const video of this.videos()) video.addEventListener("click", () => this.toggle());
      this.picks.forEach((pick, i) => pick.addEventListener("click", () => this.choose(i)));
      element.querySelectorAll(".sonogram").forEach((picture, i) => picture.addEventListener("click", (event) => {
        const box = picture.getBoundingClientRect();
        this.choose(i);
        this.seek((event.clientX - box.left) / box.width);
      }));
      element.addEventListener("pointerenter", () => { if (!active || !active.playing) activate(this); });
    }

    videos() { return [this.clipVideo, ...this.made.values()].filter(Boolean); }

    videoOf(index) { return this.made.get(index) || this.clipVideo; } // a joint model made the picture, too

    show() { for (const video of this.videos()) video.hidden = video !== this.video; }

    showVideo() { // once the clip is near the screen
      for (const video of this.videos()) if (!video.src) { video.preload = "auto"; video.src = video.dataset.src; }
    }

    forget() { // of thousands of clips, those far from the screen hold neither picture nor sound
      if (this === active) return;
      this.buffers = this.loading = null;
      for (const video of this.videos()) { video.removeAttribute("src"); video.load(); }
    }

    async load() {
      context ||= new AudioContext();
      if (context.state === "suspended") await context.resume();
      if (!this.buffers) {
        this.status.textContent = "loading…";
        this.loading ||= Promise.all(this.sounds.map(decode));
        this.buffers = await this.loading;
        this.duration = Math.max(...this.buffers.map((b) => b.duration));
        this.status.textContent = "";
      }
    }

    async toggle() {
      activate(this);
      if (this.playing) return this.pause();
      if (!this.sounds.length) return;
      try {
        this.showVideo();
        await this.load();
        if (active === this && !this.playing) this.start(this.at);
      } catch (error) {
        this.loading = null;
        this.status.textContent = "This browser cannot play the soundtracks: " + error.message;
      }
    }

    start(at) {
      this.stop();
      const when = context.currentTime + START_S;
      this.sources = this.buffers.map((buffer, i) => {
        const source = context.createBufferSource(), gain = context.createGain();
        source.buffer = buffer;
        gain.gain.value = i === this.chosen ? 1 : 0;
        source.connect(gain).connect(context.destination);
        source.start(when, Math.min(at, buffer.duration));
        this.gains[i] = gain;
        return source;
      });
      this.zero = when - at;
      this.begin = at;
      this.playing = true;
      this.button.textContent = "Pause";
      if (this.video) this.startVideo(at, START_S + latency());
      requestAnimationFrame(() => this.follow());
    }

    startVideo(at, delay) { // when the sound is heard, not when it is asked for
      this.video.pause();
      this.video.currentTime = at;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => { if (this.playing) this.video.play().catch(() => {}); }, 1000 * delay);
    }

    stop() {
      this.sources.forEach((source) => { source.onended = null; source.stop(); source.disconnect(); });
      this.sources = [];
      this.playing = false;
    }

    pause() {
      this.at = this.position();
      this.stop();
      if (this.video) this.video.pause();
      this.button.textContent = "Play";
    }

    position() { // seconds of the clip that are now heard
      if (!this.playing) return this.at;
      return Math.max(this.begin, context.currentTime - latency() - this.zero);
    }

    follow() {
      if (!this.playing) return;
      const now = this.position();
      if (now >= this.duration) return this.start(0); // again from the start
      this.draw(now);
      const video = this.video;
      if (video && !video.paused && video.readyState > 1 && !video.seeking && now < video.duration && Math.abs(video.currentTime - now) > DRIFT_S) video.currentTime = now;
      requestAnimationFrame(() => this.follow());
    }

    draw(now) {
      this.cursors.forEach((cursor, i) => {
        const length = this.buffers ? this.buffers[i].duration : this.duration;
        cursor.style.transform = `translateX(${(now / length) * cursor.parentElement.clientWidth - 1}px)`;
      });
    }

    choose(index) {
      if (index >= this.sounds.length) return;
      activate(this);
      this.chosen = index;
      this.picks.forEach((pick, i) => pick.setAttribute("aria-pressed", String(i === index)));
      const video = this.videoOf(index);
      if (video !== this.video) {
        if (this.video) this.video.pause();
        this.video = video;
        this.show();
        if (this.playing && video) this.startVideo(this.position(), 0);
      }
      if (this.playing) this.gains.forEach((gain, i) => gain.gain.setTargetAtTime(i === index ? 1 : 0, context.currentTime, FADE_S));
    }

    async seek(share) {
      if (!this.buffers) this.at = 0;
      try { await this.load(); } catch (error) { this.status.textContent = error.message; return; }
      this.at = Math.min(Math.max(share, 0), 0.999) * this.buffers[this.chosen].duration;
      this.start(this.at);
    }
  }

  function activate(player) {
    if (active === player) return;
    if (active) { if (active.playing) active.pause(); active.element.classList.remove("active"); }
    active = player;
    if (player) player.element.classList.add("active");
  }

  // A button that was clicked with the mouse keeps the focus and would swallow the space key.
  document.addEventListener("click", (event) => { if (event.detail && event.target.closest("button")) document.activeElement.blur(); });

  return { Player, activate, active: () => active };
})();
