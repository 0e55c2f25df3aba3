"use strict";
// The gallery: its clips are data, and articles are made of them a few at a time as the page is scrolled, so that
// thousands open as fast as a few. What people wrote goes into the page as text, never as markup.
(() => {
  const source = document.getElementById("gallery-data");
  if (!source) return;
  const STEP = 12;
  const { Player, activate, active } = foleyprefReport;
  const data = JSON.parse(source.textContent);
  const list = document.querySelector("[data-list]"), end = document.querySelector("[data-end]");
  const filters = [...document.querySelectorAll("[data-filter]")];
  const [order, search] = ["[data-order]", "[data-search]"].map((name) => document.querySelector(name));
  const count = document.querySelector("[data-count]");
  const template = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);
  const players = new Map(); // article -> player, of those that were made
  let wanted = [], made = 0;

  function article(clip) {
    const found = template("clip-template"), picture = found.querySelector(".picture"), part = (name) => found.querySelector(name);
    found.dataset.id = clip.id;
    part(".prompt").textContent = clip.prompt || "(no caption)";
    part(".tag").textContent = clip.reason;
    part(".tag").classList.add(clip.reason);
    part(".about").textContent = [`change ${clip.said}`, clip.class, clip.id].filter(Boolean).join(" · ");
    if (clip.wrong) picture.prepend(Object.assign(document.createElement("p"), { className: "quiet", textContent: clip.wrong }));
    else picture.prepend(video(clip, clip.video || `media/${clip.id}.mp4`));
    clip.sounds.forEach((sound, i) => {
      if (sound.own) picture.querySelector(".play").before(video(clip, sound.video || `media/${sound.id}.mp4`, i));
      part(".status").before(track(sound, i));
    });
    if (!clip.sounds.length) part(".status").textContent = "No soundtrack could be made for this clip.";
    return found;
  }

  function video(clip, address, sound) { // without `src` until it comes near the screen
    const found = template("video-template");
    [found.width, found.height] = clip.size;
    found.dataset.src = address;
    if (sound !== undefined) { found.dataset.sound = sound; found.hidden = true; }
    return found;
  }

  function track(sound, i) {
    const found = template("track-template"), pick = found.querySelector(".pick"), image = found.querySelector("img");
    const { name, colour } = data.systems[sound.system];
    pick.setAttribute("aria-pressed", String(i === 0));
    pick.querySelector("kbd").textContent = i + 1;
    pick.querySelector("i").style.background = colour;
    pick.append(name);
    image.alt = `Spectrogram and outline of ${name}`;
    image.src = sound.picture || `media/${sound.id}.webp`;
    sound.scores.forEach((value, k) => {
      const mark = document.createElement("span"), number = document.createElement("b");
      number.textContent = value;
      mark.append(data.columns[k] + " ", number);
      found.querySelector(".marks").append(mark, " ");
    });
    return found;
  }

  const near = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
    const player = players.get(target);
    if (player && isIntersecting) player.showVideo();
    else if (player) player.forget();
  }), { rootMargin: "600px" });

  function more() {
    for (const clip of wanted.slice(made, made + STEP)) {
      const element = article(clip);
      list.append(element);
      players.set(element, new Player(element, clip.sounds.map(({ id }) => ({ id, script: `media/${id}.${data.format}.js` }))));
      near.observe(element);
    }
    made = Math.min(wanted.length, made + STEP);
    end.hidden = made >= wanted.length;
  }
  // Observed anew after each step: an end that stays in sight is reported once.
  const last = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    more();
    last.unobserve(end);
    if (!end.hidden) last.observe(end);
  }, { rootMargin: "900px" });

  const ORDERS = {
    best: (a, b) => b.change - a.change,
    worst: (a, b) => a.change - b.change,
    class: (a, b) => a.class.localeCompare(b.class) || b.change - a.change,
  };

  function show() {
    activate(null);
    near.disconnect();
    last.disconnect();
    players.forEach((player) => player.forget());
    players.clear();
    list.replaceChildren();
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    wanted = data.clips.filter((clip) =>
      filters.every((f) => !f.value || clip[f.dataset.filter] === f.value)
      && words.every((word) => `${clip.prompt} ${clip.class} ${clip.id}`.toLowerCase().includes(word)));
    if (ORDERS[order.value]) {
      const unscored = wanted.filter((clip) => clip.change === null);
      wanted = wanted.filter((clip) => clip.change !== null).sort(ORDERS[order.value]).concat(unscored);
    }
    count.textContent = `${wanted.length} of ${data.clips.length} clips`;
    made = 0;
    more();
    if (!end.hidden) last.observe(end);
  }

  function step(by) { // to the next clip or the one before
    const all = [...list.children];
    const now = active() ? all.indexOf(active().element) : -1;
    if (now + by >= made && made < wanted.length) { more(); return step(by); }
    const next = all[Math.min(Math.max(now + by, 0), all.length - 1)];
    if (!next) return;
    activate(players.get(next));
    next.scrollIntoView({ block: "center", behavior: "instant" });
  }

  [...filters, order].forEach((element) => element.addEventListener("change", show));
  search.addEventListener("input", show);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA|SUMMARY)$/.test(event.target.tagName)) return;
    const player = active();
    if (event.key === "n") step(1);
    else if (event.key === "p") step(-1);
    else if (player && event.key >= "1" && event.key <= "9") player.choose(Number(event.key) - 1);
    else if (player && event.key === " " && event.target.tagName !== "BUTTON") {
      event.preventDefault();
      if (!event.repeat) player.toggle();
    }
  });
  show();
})();
