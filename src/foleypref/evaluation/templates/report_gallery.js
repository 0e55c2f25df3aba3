/**
 * The gallery. Its clips are data; elements are made of them a few at a time while the page is scrolled, so that
 * thousands open as fast as a few. Captions go into the page as text, never as markup.
 */
import { ClipCard, activate, active } from "./report_clip.js";

const STEP = 12; // clips that are made at a time
const data = JSON.parse(document.getElementById("gallery-data").textContent);
const list = document.querySelector("[data-list]"), end = document.querySelector("[data-end]");
const filters = [...document.querySelectorAll("[data-filter]")];
const [order, search] = ["[data-order]", "[data-search]"].map((name) => document.querySelector(name));
const count = document.querySelector("[data-count]");
const copyOf = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);
/** @type {Map<Element, ClipCard>} those on the page */
const cards = new Map();
let clips = [], made = 0; // clips that match the filters, in order; how many of them are on the page

function articleOf(clip) {
  const element = copyOf("clip-template"), part = (selector) => element.querySelector(selector), picture = part(".picture");
  element.dataset.id = clip.id;
  part(".prompt").textContent = clip.prompt || "(no caption)";
  part(".tag").textContent = clip.reason;
  part(".tag").classList.add(clip.reason);
  part(".about").textContent = [`change ${clip.said}`, clip.class, clip.id].filter(Boolean).join(" · ");
  if (clip.wrong) picture.prepend(Object.assign(document.createElement("p"), { className: "quiet", textContent: clip.wrong }));
  else picture.prepend(screenOf(clip, clip.video || `media/${clip.id}.mp4`));
  clip.sounds.forEach((sound, i) => {
    if (sound.own) part(".play").before(screenOf(clip, sound.video || `media/${sound.id}.mp4`, i));
    part(".status").before(trackOf(sound, i));
  });
  if (!clip.sounds.length) part(".status").textContent = "No soundtrack could be made for this clip.";
  return element;
}

/** A picture that loads its address later; `sound` is the index of the soundtrack that it was made with. */
function screenOf(clip, address, sound) {
  const element = copyOf("screen-template");
  element.dataset.src = address;
  if (sound !== undefined) element.dataset.sound = sound;
  for (const video of element.children) [video.width, video.height] = clip.size;
  return element;
}

function trackOf(sound, i) {
  const element = copyOf("track-template"), pick = element.querySelector(".pick"), image = element.querySelector("img");
  const { name, colour } = data.systems[sound.system];
  pick.querySelector("kbd").textContent = i + 1;
  pick.querySelector("i").style.background = colour;
  pick.append(name);
  image.alt = `Spectrogram and outline of ${name}`;
  image.src = sound.picture || `media/${sound.id}.webp`;
  sound.scores.forEach((score, k) => {
    const mark = document.createElement("span"), number = document.createElement("b");
    number.textContent = score;
    mark.append(data.columns[k] + " ", number);
    element.querySelector(".marks").append(mark, " ");
  });
  return element;
}

const near = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
  if (isIntersecting) cards.get(target)?.showVideo();
  else cards.get(target)?.forget();
}), { rootMargin: "600px" });

function more() {
  for (const clip of clips.slice(made, made + STEP)) {
    const element = articleOf(clip);
    list.append(element);
    cards.set(element, new ClipCard(element, clip.sounds.map(({ id }) => ({ id, script: `media/${id}.${data.format}.js` }))));
    near.observe(element);
  }
  made = Math.min(clips.length, made + STEP);
  end.hidden = made >= clips.length;
}
// The end is observed again after each step, because an end that stays in sight is reported only once.
const nearEnd = new IntersectionObserver((entries) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  more();
  nearEnd.unobserve(end);
  if (!end.hidden) nearEnd.observe(end);
}, { rootMargin: "900px" });

const ORDERS = {
  best: (a, b) => b.change - a.change,
  worst: (a, b) => a.change - b.change,
  class: (a, b) => a.class.localeCompare(b.class) || b.change - a.change,
};

function show() {
  activate(null);
  near.disconnect();
  nearEnd.disconnect();
  cards.forEach((card) => card.forget());
  cards.clear();
  list.replaceChildren();
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  clips = data.clips.filter((clip) =>
    filters.every((f) => !f.value || clip[f.dataset.filter] === f.value)
    && words.every((word) => `${clip.prompt} ${clip.class} ${clip.id}`.toLowerCase().includes(word)));
  if (ORDERS[order.value]) {
    const unscored = clips.filter((clip) => clip.change === null);
    clips = clips.filter((clip) => clip.change !== null).sort(ORDERS[order.value]).concat(unscored);
  }
  count.textContent = `${clips.length} of ${data.clips.length} clips`;
  made = 0;
  more();
  if (!end.hidden) nearEnd.observe(end);
}

/** Go to the next clip (1) or the one before (-1). @param {number} by */
function step(by) {
  const elements = [...list.children], place = by + (active ? elements.indexOf(active.element) : -1);
  if (place >= made && made < clips.length) { more(); return step(by); }
  const next = elements[Math.min(Math.max(place, 0), elements.length - 1)];
  if (!next) return;
  activate(cards.get(next));
  next.scrollIntoView({ block: "center", behavior: "instant" });
}

[...filters, order].forEach((element) => element.addEventListener("change", show));
search.addEventListener("input", show);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA|SUMMARY)$/.test(event.target.tagName)) return;
  if (event.key === "n") step(1);
  else if (event.key === "p") step(-1);
  else if (active && event.key >= "1" && event.key <= "9") active.choose(Number(event.key) - 1);
  else if (active && event.key === " " && event.target.tagName !== "BUTTON") {
    event.preventDefault();
    if (!event.repeat) active.toggle();
  }
});
show();
