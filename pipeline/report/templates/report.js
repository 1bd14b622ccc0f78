"use strict";
// The gallery: an image opens large, its masks can be walked over and filtered, and the images sorted.
// Without this script the page shows the same pictures with the same masks.

const at = (id) => document.getElementById(id);
const viewer = at("viewer"), stage = at("stage"), filters = at("filters"), images = at("images");
const cards = [...document.querySelectorAll(".card")].map(cardOf);
let opened = null; // the card whose picture is in the viewer
let current = null; // its mask that was chosen with a key or a click
let limits = {};

function cardOf(figure) {
  const svg = figure.querySelector("svg");
  const [width, height] = figure.dataset.size.split(" ").map(Number);
  const masks = [...svg.querySelectorAll(".masks path")].map((path, number) => {
    const [iou, stability, area, layer, output, x, y, w, h, px, py] = path.dataset.about.split(" ").map(Number);
    return { path, number, iou, stability, pixels: area, area: area / (width * height), layer, output, x, y, w, h, px, py };
  });
  return { figure, svg, masks, width, height, link: figure.querySelector("a"), count: figure.querySelector(".count") };
}

// --- Filters

function slidersOf(range) {
  const [low, high] = range.querySelectorAll("input");
  const { low: least, high: most, scale } = range.dataset;
  const valueOf = (input) => scale === "log" ? least * (most / least) ** input.value : Number(input.value);
  return { low, high, valueOf };
}

/** From the sliders: a slider at its end sets no limit. */
function readLimits() {
  limits = {};
  for (const range of filters.querySelectorAll(".range")) {
    const { low, high, valueOf } = slidersOf(range);
    const written = range.dataset.scale === "log" ? percent : (value) => value.toFixed(2);
    limits[range.dataset.of] = [
      low.value === low.min ? -Infinity : valueOf(low), high.value === high.max ? Infinity : valueOf(high),
    ];
    range.querySelector(".said").textContent = `${written(valueOf(low))} to ${written(valueOf(high))}`;
    for (const input of [low, high]) input.setAttribute("aria-valuetext", written(valueOf(input)));
  }
  limits.layers = [...filters.querySelectorAll("[name=layer]:checked")].map((box) => Number(box.value));
}

function passes(mask) {
  const within = ["iou", "stability", "area"].every((name) => mask[name] >= limits[name][0] && mask[name] <= limits[name][1]);
  return within && limits.layers.includes(mask.layer);
}

function filter() {
  readLimits();
  for (const card of cards) {
    for (const mask of card.masks) mask.path.classList.toggle("off", !passes(mask));
    const left = visible(card).length, all = card.masks.length;
    card.figure.classList.toggle("none", !left);
    if (all) card.count.textContent = left === all ? counted(Number(card.figure.dataset.count)) : `${left} of ${counted(all)}`;
  }
  if (opened) choose(current && !current.path.classList.contains("off") ? current : null);
  say();
}

function say() {
  const looked = opened ? [opened] : cards;
  const sum = (countOf) => looked.reduce((total, card) => total + countOf(card), 0);
  at("matching").textContent = `${whole(sum((card) => visible(card).length))} of ${counted(sum((card) => card.masks.length))} drawn`;
}

function visible(card) {
  return card.masks.filter((mask) => !mask.path.classList.contains("off"));
}

// --- The order of the images

function sort() {
  const [key, direction = 1] = at("order").value.split(" ");
  const valueOf = (card) => Number(card.figure.dataset[key]) * direction;
  cards.sort((a, b) => valueOf(a) - valueOf(b) || a.figure.dataset.order - b.figure.dataset.order);
  images.append(...cards.map((card) => card.figure));
}

// --- One image, large

function show(card) {
  putBack();
  opened = card;
  stage.append(card.svg);
  card.svg.setAttribute("role", "group");
  const list = card.svg.querySelector(".masks");
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", `Masks of ${card.link.textContent}, the largest first`);
  for (const mask of card.masks) {
    mask.path.setAttribute("role", "option");
    mask.path.setAttribute("aria-label", spoken(mask, card));
  }
  const { id, source } = card.figure.dataset;
  at("viewer-name").textContent = card.link.textContent;
  at("viewer-about").textContent = `image_id ${id}, ${card.width} x ${card.height}, ${counted(card.masks.length)}. ${source}`;
  at("away").append(filters);
  if (!viewer.open) viewer.showModal();
  viewer.focus();
  history.replaceState(null, "", `#${card.figure.id}`);
  choose(null);
  say();
}

function putBack() {
  if (!opened) return;
  const { svg, figure, masks } = opened;
  svg.querySelector(".marks")?.remove();
  svg.classList.remove("told");
  svg.setAttribute("role", "img");
  for (const name of ["role", "aria-label"]) svg.querySelector(".masks").removeAttribute(name);
  for (const { path } of masks) for (const name of ["role", "aria-label", "aria-selected", "tabindex"]) path.removeAttribute(name);
  figure.prepend(svg);
  opened = current = null;
}

function closed() {
  const link = opened?.link;
  putBack();
  at("home").append(filters);
  history.replaceState(null, "", location.pathname + location.search);
  say();
  link?.focus();
}

function step(by) {
  show(cards[(cards.indexOf(opened) + by + cards.length) % cards.length]);
}

// --- Its masks

/** The mask that keys start from; only it, or the first one, is a tab stop. */
function choose(mask) {
  current = mask;
  const stop = mask ?? visible(opened)[0];
  for (const each of opened.masks) {
    each.path.setAttribute("tabindex", each === stop ? 0 : -1);
    each.path.setAttribute("aria-selected", each === mask);
  }
  tell(mask);
}

/** Draws its outline, box and prompt point, and says what is known of it. */
function tell(mask) {
  if (!opened) return;
  opened.svg.querySelector(".marks")?.remove();
  for (const place of viewer.querySelectorAll("[data-detail]")) place.textContent = mask ? detail(mask, place.dataset.detail) : "-";
  opened.svg.classList.toggle("told", Boolean(mask));
  if (!mask) return;
  const view = opened.svg.viewBox.baseVal, sx = view.width / opened.width, sy = view.height / opened.height;
  const marks = drawn("g", { class: "marks", "aria-hidden": "true" });
  const r = Math.max(view.width, view.height) / 130;
  marks.append(
    drawn("path", { class: "ring", d: mask.path.getAttribute("d"), transform: "translate(.5 .5)" }),
    drawn("rect", { class: "box", x: mask.x * sx, y: mask.y * sy, width: (mask.w + 1) * sx, height: (mask.h + 1) * sy }),
    drawn("circle", { class: "under", cx: mask.px * sx, cy: mask.py * sy, r }),
    drawn("circle", { class: "point", cx: mask.px * sx, cy: mask.py * sy, r }),
  );
  opened.svg.append(marks);
}

function drawn(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function detail(mask, name) {
  const details = {
    mask: `${mask.number + 1} of ${opened.masks.length}`,
    iou: mask.iou.toFixed(3),
    stability: mask.stability.toFixed(3),
    area: `${whole(mask.pixels)} px, ${percent(mask.area)}`,
    box: `${mask.w} x ${mask.h} at ${mask.x}, ${mask.y}`,
    point: `${mask.px.toFixed(1)}, ${mask.py.toFixed(1)}`,
    layer: `${mask.layer}, ${mask.output}`,
  };
  return details[name];
}

function spoken(mask, card) {
  return `Mask ${mask.number + 1} of ${card.masks.length}: predicted IoU ${mask.iou.toFixed(2)}, stability ` +
    `${mask.stability.toFixed(2)}, ${whole(mask.pixels)} pixels, layer ${mask.layer}`;
}

function maskOf(event) {
  return opened?.masks.find((mask) => mask.path === event.target);
}

function key(event) {
  const paging = { PageDown: 1, PageUp: -1 }[event.key];
  if (event.target.matches("input, select") || event.altKey || event.ctrlKey || event.metaKey) return;
  if (paging) { event.preventDefault(); step(paging); return; }
  const left = visible(opened), from = left.indexOf(current), last = left.length - 1;
  const to = { ArrowRight: from + 1, ArrowDown: from + 1, ArrowLeft: from - 1, ArrowUp: from - 1, Home: 0, End: last }[event.key];
  if (to === undefined || last < 0) return;
  event.preventDefault();
  left[to < 0 ? last : to > last ? 0 : to].path.focus();
}

// --- Words

const whole = (count) => count.toLocaleString("en");
const counted = (count) => `${whole(count)} ${count === 1 ? "mask" : "masks"}`;
const percent = (share) => `${Number((100 * share).toPrecision(2))}%`;

function follow() {
  const card = cards.find(({ figure }) => `#${figure.id}` === location.hash);
  if (card && card !== opened) show(card);
  else if (!card && viewer.open) viewer.close();
}

function start() {
  document.documentElement.classList.add("scripted");
  filters.hidden = at("sorting").hidden = false;
  filters.addEventListener("input", (event) => {
    const range = event.target.closest(".range");
    if (range) {
      const { low, high } = slidersOf(range);
      if (Number(low.value) > Number(high.value)) (event.target === low ? high : low).value = event.target.value;
    }
    filter();
  });
  filters.addEventListener("reset", () => setTimeout(() => { document.body.classList.remove("bare"); filter(); }));
  filters.addEventListener("submit", (event) => event.preventDefault());
  at("drawn").addEventListener("change", (event) => document.body.classList.toggle("bare", !event.target.checked));
  at("order").addEventListener("change", sort);
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", closed);
  viewer.addEventListener("keydown", key);
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  stage.addEventListener("pointerover", (event) => tell(maskOf(event) ?? current));
  stage.addEventListener("pointerleave", () => tell(current));
  stage.addEventListener("click", (event) => maskOf(event)?.path.focus());
  stage.addEventListener("focusin", (event) => { const mask = maskOf(event); if (mask) choose(mask); });
  addEventListener("hashchange", follow);
  filter();
  follow();
}

if (filters) start();
