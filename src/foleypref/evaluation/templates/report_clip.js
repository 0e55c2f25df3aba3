/**
 * One clip of the gallery: its picture, the rows of its soundtracks, and its sound, which is decoded when it is first played.
 */
import { Picture } from "../../annotate/static/picture.js";
import { Player, looped } from "../../annotate/static/player.js";

/** @type {Player | null} one for the page; browsers want its AudioContext made after the first click or key */
let player = null;
/** @type {ClipCard | null} the clip that keys act on */
export let active = null;
/** @type {Map<string, (text: string) => void>} */
const waiting = new Map();

// A page opened from disk cannot fetch files, but it can run scripts: media/<id>.<format>.js passes its sound to this.
window.foleyprefSound = (/** @type {string} */ id, /** @type {string} */ text) => waiting.get(id)?.(text);

/** @param {{id: string, script: string}} sound @returns {Promise<string>} the file in base64 */
function base64Of({ id, script }) {
  const inline = document.getElementById("sound-" + id);
  if (inline) return Promise.resolve(inline.textContent);
  return new Promise((resolve, reject) => {
    waiting.set(id, resolve);
    const tag = document.createElement("script");
    tag.src = script;
    tag.onload = () => tag.remove();
    tag.onerror = () => reject(new Error("cannot load " + script));
    document.head.append(tag);
  });
}

/** @param {{id: string, script: string}} sound @returns {Promise<AudioBuffer>} */
async function decode(sound) {
  const text = atob((await base64Of(sound)).trim());
  waiting.delete(sound.id);
  return player.context.decodeAudioData(Uint8Array.from(text, (c) => c.charCodeAt(0)).buffer);
}

function openPlayer() {
  const made = new Player(new AudioContext());
  made.addEventListener("tick", () => active?.draw());
  made.addEventListener("change", () => active?.refresh());
  return made;
}

/** Make a clip the one that keys act on, and pause the one before. @param {ClipCard | null} card */
export function activate(card) {
  if (active === card) return;
  player?.pause();
  active?.element.classList.remove("active");
  active = card;
  active?.element.classList.add("active");
}

export class ClipCard {
  /** @param {HTMLElement} element @param {{id: string, script: string}[]} sounds in the order of the rows */
  constructor(element, sounds) {
    this.element = element;
    this.sounds = sounds;
    this.chosen = 0;
    this.at = 0; // second to start from
    this.sound = null; // once it is decoded
    this.screens = [...element.querySelectorAll(".screen")].map((screen) =>
      ({ screen, url: screen.dataset.src, own: screen.dataset.sound, picture: new Picture(...screen.children) }));
    this.picks = [...element.querySelectorAll(".pick")];
    this.cursors = [...element.querySelectorAll(".cursor")];
    this.button = element.querySelector(".play");
    this.status = element.querySelector(".status");
    for (const part of [this.button, ...this.screens.map(({ screen }) => screen)]) part.addEventListener("click", () => this.toggle());
    this.picks.forEach((pick, i) => pick.addEventListener("click", () => this.choose(i)));
    element.querySelectorAll(".sonogram").forEach((image, i) => image.addEventListener("click", (event) => {
      const box = image.getBoundingClientRect();
      this.choose(i);
      this.seek((event.clientX - box.left) / box.width);
    }));
    element.addEventListener("pointerenter", () => player?.playing || activate(this));
    this.refresh();
  }

  /** @returns {Picture | null} the picture that a joint model made with the chosen sound, else the clip's */
  get picture() {
    const own = this.screens.find((screen) => screen.own === String(this.chosen));
    return (own ?? this.screens.find((screen) => screen.own === undefined))?.picture ?? null;
  }

  /** @returns {boolean} whether the player has this clip */
  get loaded() {
    return this.sound !== null && player.sound === this.sound;
  }

  /** Load the first frames, once the clip is near the screen. */
  showVideo() {
    for (const { picture, url } of this.screens) picture.front.src ||= url;
  }

  /** Release pictures and sound: of thousands of clips, only those near the screen have them. */
  forget() {
    if (this === active) return;
    this.sound = this.loading = null;
    for (const video of this.element.querySelectorAll("video[src]")) {
      video.removeAttribute("src");
      video.load();
    }
  }

  /** @returns {Promise<boolean>} whether the clip can be played and is still the active one */
  async load() {
    player ??= openPlayer();
    if (!this.sound && this.sounds.length) {
      this.status.textContent = "loading…";
      try {
        const buffers = await (this.loading ??= Promise.all(this.sounds.map(decode)));
        this.seconds = buffers.map((buffer) => buffer.duration);
        const sound = looped(player.context, buffers);
        await Promise.all(this.screens.map(({ picture, url }) => picture.load(url, sound.loop)));
        this.sound = sound;
        this.status.textContent = "";
      } catch (error) {
        this.loading = null;
        this.status.textContent = "This browser cannot play the soundtracks: " + error.message;
      }
    }
    return this.sound !== null && this === active;
  }

  /** @param {number} at second of the clip */
  start(at) {
    if (!this.loaded) player.load(this.sound, this.picture, this.chosen);
    player.play(at);
  }

  async toggle() {
    activate(this);
    if (player?.playing) player.pause();
    else if (await this.load()) this.start(this.at);
  }

  /** @param {number} share of the chosen soundtrack's length */
  async seek(share) {
    if (await this.load()) this.start(Math.min(Math.max(share, 0), 0.999) * this.seconds[this.chosen]);
  }

  /** @param {number} index */
  choose(index) {
    if (index >= this.sounds.length) return;
    activate(this);
    this.chosen = index;
    if (this.loaded) {
      player.choose(index);
      player.show(this.picture);
    }
    this.refresh();
  }

  refresh() {
    if (this.loaded) this.at = player.at;
    this.button.textContent = this.loaded && player.playing ? "Pause" : "Play";
    this.picks.forEach((pick, i) => pick.setAttribute("aria-pressed", String(i === this.chosen)));
    for (const { screen, picture } of this.screens) screen.hidden = picture !== this.picture;
  }

  draw() {
    this.cursors.forEach((cursor, i) => {
      const share = player.position() / this.seconds[i];
      cursor.style.transform = `translateX(${share * cursor.parentElement.clientWidth - 1}px)`;
    });
  }
}

// A button that was clicked with the mouse keeps the focus and would get the space key.
document.addEventListener("click", (event) => {
  if (event.detail && event.target.closest("button")) document.activeElement.blur();
});
