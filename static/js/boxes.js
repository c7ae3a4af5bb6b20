/* Detect: boxes drawn on the moving picture, each a thing to click; the list beside it; questions about one box.
   Boxes are drawn in the canvas, never as elements, so that hundreds of them cost next to nothing. */
import { emit, on } from './bus.js';
import { chooser } from './chooser.js';
import { el, percent } from './dom.js';
import { explainTarget } from './explaining.js';
import { register } from './panel.js';
import { stage } from './stage.js';
import { labels, set, state } from './state.js';
import { chooseMethod } from './why.js';

const ROWS = 4;                     // boxes in the list; all of them are on the picture
const NAMED = 40;                   // boxes with their name on the picture, the surest first
const results = new WeakMap();      // bitmap -> the result that was made of it
let shown = null;                   // the result of the frame that is on the stage
let hovered = null;
let wanted = null;                  // a box that was clicked on the moving picture, looked for again in the still
let follow = null;                  // near:X,Y of the last click, for when the picture moves again
let below = false;                  // candidates under the threshold are shown too
let slots = [];
let spoken = '';
let stable = { text: '', since: 0 };
const parts = { rows: [] };

document.head.append(el('link', { rel: 'stylesheet', href: '/static/boxes.css' }));

/* Which box a target speaks of -------------------------------------------------------------------------------- */
const middle = ([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2];
const place = (box, [w, h]) => { const [x, y] = middle(box); return `near:${(x / w).toFixed(3)},${(y / h).toFixed(3)}`; };
const rest = (target) => (target ?? '').split('/').slice(1).map((part) => `/${part}`).join('');

function chosen(result = shown, target = state.target) {
  if (!result?.boxes) return null;
  const [, kind, value] = target?.match(/^(box|candidate|near):([^/]+)/) ?? [];
  if (kind === 'candidate') return result.candidates?.[Number(value)] ?? null;
  if (kind !== 'near') return result.boxes[Number(value ?? 0)] ?? null;
  const [x, y] = value.split(',').map(Number);
  const away = ({ box }) => { const [bx, by] = middle(box); return (bx / result.size[0] - x) ** 2 + (by / result.size[1] - y) ** 2; };
  return result.boxes.reduce((best, box) => (best && away(best) <= away(box) ? best : box), null);
}

function targetOf(box, result = shown) {
  const at = result.boxes.indexOf(box);
  return at >= 0 ? `box:${at}` : `candidate:${result.candidates.indexOf(box)}`;
}

function overlap(a, b) {
  const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const size = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
  return w <= 0 || h <= 0 ? 0 : (w * h) / (size(a) + size(b) - w * h);
}

const visible = () => (shown ? [...shown.boxes, ...(below ? shown.candidates ?? [] : [])] : []);

/* On the picture ---------------------------------------------------------------------------------------------- */
const hue = (index) => (index * 137.508 + 200) % 360;
export const colourOf = (index) => `hsl(${hue(index)} 85% 62%)`;

function drawBox(ctx, view, box, { strong, faint, dashed }) {
  const { x, y, w, h } = view.box(box.box);
  ctx.globalAlpha = faint ? 0.45 : 1;
  ctx.setLineDash(dashed ? [8, 6] : []);
  for (const [width, style] of [[strong ? 8 : 5, 'rgb(0 0 0 / 70%)'], [strong ? 5 : 2.5, strong ? '#fff' : colourOf(box.index)]]) {
    ctx.lineWidth = width;
    ctx.strokeStyle = style;
    ctx.strokeRect(x, y, w, h);
  }
  ctx.setLineDash([]);
}

const nameOf = (box) => `${box.label} ${box.confidence < 0.005 ? '<1' : Math.round(box.confidence * 100)} %`;

/* Where a name goes: above its box, always inside the picture. */
function namePlace(ctx, view, box, size) {
  const { x, y } = view.box(box.box);
  const text = nameOf(box);
  const width = ctx.measureText(text).width + 20;
  const high = size + 10;
  const left = Math.max(view.left, Math.min(x - 1, view.left + view.width * view.scale - width));
  const top = y - high >= view.top ? y - high : Math.max(y, view.top);
  return { box, text, left, top, width, high };
}

/* Light on a dark ground, so that it reads on any picture; colour only repeats what the word says. */
function drawName(ctx, { box, text, left, top, width, high }, strong) {
  ctx.globalAlpha = 1;
  ctx.fillStyle = strong ? '#fff' : 'rgb(0 0 0 / 82%)';
  ctx.fillRect(left, top, width, high);
  ctx.fillStyle = colourOf(box.index);
  ctx.fillRect(left, top, 6, high);
  ctx.fillStyle = strong ? '#000' : '#fff';
  ctx.fillText(text, left + 13, top + high / 2 + 1);
}

/* Names that a surer one would cover for the most part are left out: pointing at the box shows them. */
function readable(places) {
  const shared = (a, b) => Math.max(0, Math.min(a.left + a.width, b.left + b.width) - Math.max(a.left, b.left))
    * Math.max(0, Math.min(a.top + a.high, b.top + b.high) - Math.max(a.top, b.top));
  return places.reduce((kept, place) => (place.box !== hovered && kept.some((other) => shared(place, other) > 0.6 * place.width * place.high)
    ? kept : [...kept, place]), []);
}

function drawAll(ctx, view, result, special, extra = []) {
  const size = Math.max(16, Math.min(26, ctx.canvas.clientHeight / 26));
  ctx.font = `600 ${size}px system-ui, sans-serif`;
  ctx.textBaseline = 'middle';
  const alone = Boolean(special) && state.source === 'still' && Boolean(state.target);
  for (const box of [...extra, ...result.boxes].reverse()) {
    if (box !== special) drawBox(ctx, view, box, { faint: alone && box !== hovered, dashed: extra.includes(box), strong: false });
  }
  const named = [...result.boxes.slice(0, NAMED), ...extra].filter((box) => box !== special && (!alone || box === hovered));
  const places = [...(special ? [special] : []), ...named].map((box) => namePlace(ctx, view, box, size));
  for (const place of readable(places).reverse()) if (place.box !== special) drawName(ctx, place, false);
  if (!special) return;
  drawBox(ctx, view, special, { strong: true, dashed: extra.includes(special) });
  drawName(ctx, places[0], true);
}

stage.addLayer({
  order: 20,
  draw(ctx, view) {
    if (state.task !== 'detect' || !shown?.boxes) return;
    const special = state.target || state.explanation ? chosen() : null;
    const extra = below ? shown.candidates ?? [] : [];
    drawAll(ctx, view, shown, special, special && !shown.boxes.includes(special) && !extra.includes(special) ? [special, ...extra] : extra);
  },
  pointer(kind, point) {
    if (state.tab !== 'detect' || !shown?.boxes) return false;
    const box = point.inside ? under(point) : null;
    if ((kind === 'move' || kind === 'leave') && box !== hovered) {
      hovered = kind === 'leave' ? null : box;
      stage.redraw();
    }
    if (kind !== 'click' || !point.inside) return false;
    if (box) choose(box);
    else beside(point);
    return true;
  },
  cursor: (point) => (state.tab === 'detect' && point.inside && under(point) ? 'pointer' : ''),
});

/* The smallest box under the pointer: what lies inside another can be reached. */
function under({ x, y }) {
  const size = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
  return visible().filter(({ box }) => x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3])
    .reduce((best, box) => (best && size(best) <= size(box) ? best : box), null);
}

/* A click freezes the frame and explains that box alone. */
function choose(box) {
  follow = place(box.box, shown.size);
  wanted = state.source === 'camera' ? box : null;
  explainTarget(targetOf(box), { freeze: true });
}

/* A click beside every box, live: the nearest to it is explained from now on. In a still: back to the surest. */
function beside({ x, y }) {
  if (state.source === 'camera') {
    follow = `near:${(x / shown.size[0]).toFixed(3)},${(y / shown.size[1]).toFixed(3)}`;
    explainTarget(follow);
  } else if (state.target) explainTarget(null);
}

/* The list and the questions ---------------------------------------------------------------------------------- */
function row() {
  const swatch = el('span', { class: 'box-swatch', 'aria-hidden': 'true' });
  const label = el('span', { class: 'bar-label' });
  const value = el('span', { class: 'bar-value numbers' });
  const fill = el('span', { class: 'bar-fill' });
  const button = el('button', { type: 'button', class: 'bar-row', hidden: true }, fill, swatch, label, value);
  const entry = { button, label, value, fill, swatch, box: null };
  button.addEventListener('click', () => { if (entry.box && shown && visible().includes(entry.box)) choose(entry.box); });
  return entry;
}

function mount(root) {
  parts.top = el('p', { class: 'top-answer', id: 'boxes-summary' }, '…');
  parts.list = el('div', { class: 'box-rows', role: 'group', 'aria-label': 'Boxes, the surest first; press one to see why' });
  for (let i = 0; i < ROWS; i += 1) {
    parts.rows.push(row());
    parts.list.append(parts.rows[i].button);
  }
  parts.more = el('span', { class: 'box-more', id: 'box-more' });
  parts.below = el('button', { type: 'button', id: 'below', 'aria-pressed': 'false', onclick: toggleBelow }, 'Not reported');
  parts.ask = el('select', { id: 'box-question', 'aria-label': 'What to ask about this box', onchange: () => ask(parts.ask.value) });
  parts.trust = el('button', { type: 'button', id: 'trust', onclick: trust }, 'Trust card');
  const options = () => Object.entries(labels()).map(([index, name]) => [Number(index), name]);
  parts.questions = el('div', { class: 'box-ask', hidden: true }, parts.ask,
    chooser({ label: 'and why not this class', placeholder: '…and not which?', options, choose: against }), parts.trust, parts.below);
  root.append(parts.top, parts.list, parts.more, parts.questions);
}

function ask(part) {
  const box = chosen();
  if (!box) return;
  wanted = state.source === 'camera' ? box : null;
  explainTarget(`${targetOf(box)}${part}`, { freeze: true });
}

function against(index) {
  const own = rest(state.target).match(/\/class:[^/]+/)?.[0] ?? '';
  ask(`${own}/versus:${index}`);
}

function trust() {
  const box = chosen();
  if (!box) return;
  const part = rest(state.target).replace(/\/(side:\w+|objectness)/, '');
  wanted = state.source === 'camera' ? box : null;
  const target = `${targetOf(box)}${part}`;
  if (state.source === 'camera') {
    chooseMethod('trust_card');
    explainTarget(target, { freeze: true });
  } else {
    set({ target });
    chooseMethod('trust_card');
  }
}

function toggleBelow() {
  below = !below;
  parts.below.setAttribute('aria-pressed', String(below));
  if (!below && state.target?.startsWith('candidate')) explainTarget(null);
  list();
  stage.redraw();
}

/* While live a box keeps its row for as long as one of its class stays about where it was. */
function placed(boxes, live) {
  if (!live) return boxes.slice(0, ROWS);
  const left = boxes.slice(0, ROWS);
  const kept = slots.map((old) => {
    const at = old ? left.findIndex((box) => box.index === old.index && overlap(box.box, old.box) > 0.3) : -1;
    return at < 0 ? null : left.splice(at, 1)[0];
  });
  while (kept.length < ROWS) kept.push(null);
  return kept.map((box) => box ?? left.shift() ?? null).filter(Boolean);
}

export function summary(boxes) {
  const counts = new Map();
  for (const { label } of boxes) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, n]) => (n > 1 ? `${n} × ${label}` : label)).join(', ');
}

function list() {
  if (!shown?.boxes) return;
  const all = below && shown.candidates?.length ? shown.candidates : shown.boxes;
  slots = placed(all, !shown.kept);
  parts.rows.forEach((entry, i) => {
    const box = slots[i] ?? null;
    entry.box = box;
    if (entry.button.hidden === Boolean(box)) entry.button.hidden = !box;
    if (!box) return;
    if (entry.label.textContent !== box.label) entry.label.textContent = box.label;
    entry.swatch.style.background = colourOf(box.index);
    entry.value.textContent = percent(box.confidence);
    entry.fill.style.transform = `scaleX(${box.confidence})`;
    entry.button.classList.toggle('below', !shown.boxes.includes(box));
  });
  const text = shown.boxes.length ? summary(shown.boxes) : 'Nothing it is sure of';
  if (parts.top.textContent !== text) Object.assign(parts.top, { textContent: text, title: text });
  const hidden = all.length - Math.min(all.length, ROWS);
  const count = shown.candidates?.length ?? 0;
  const words = !shown.boxes.length && !below ? 'Show it people, pets, cars or cups, or lower the threshold (⚙).'
    : hidden > 0 ? `and ${hidden} more on the picture` : '';
  if (parts.more.textContent !== words) parts.more.textContent = words;
  parts.below.textContent = `Not reported (${count})`;
  parts.below.disabled = !count && !below;
  parts.questions.hidden = !shown.boxes.length && !count;
  parts.trust.disabled = !chosen();
  if (document.activeElement !== parts.ask) questions();
  mark();
}

/* The menu is rebuilt only when another box is chosen, or its classes changed. */
function questions() {
  const box = chosen();
  const choices = box ? box.choices ?? [{ index: box.index, label: box.label, probability: box.confidence }] : [];
  const key = JSON.stringify([targetOfOrNone(box), state.configured?.model, choices.map(({ index }) => index), shown.kept && choices.map(({ probability }) => probability)]);
  if (parts.ask.dataset.key !== key) {
    parts.ask.dataset.key = key;
    const option = (value, text) => el('option', { value }, text);
    parts.ask.replaceChildren(
      el('optgroup', { label: 'Class' }, ...choices.map((c, i) => option(i ? `/class:${c.index}` : '', shown.kept ? `${c.label} ${percent(c.probability)}` : c.label))),
      el('optgroup', { label: 'Where it ends' }, ...['left', 'top', 'right', 'bottom'].map((side) => option(`/side:${side}`, `its ${side} side`))),
      ...(state.configured?.model === 'yolov3-tiny' ? [el('optgroup', { label: 'Is there anything' }, option('/objectness', 'an object at all'))] : []));
  }
  parts.ask.disabled = !box;
  const now = rest(state.target);
  parts.ask.value = [...parts.ask.options].some(({ value }) => value === now) ? now : '';
}

const targetOfOrNone = (box) => (box && shown.kept ? targetOf(box) : box?.index ?? null);

function mark() {
  const box = state.target || state.explanation ? chosen() : null;
  for (const entry of parts.rows) entry.button.setAttribute('aria-pressed', String(Boolean(box) && entry.box === box));
}

function speak() {
  const text = shown.boxes.length ? summary(shown.boxes) : 'nothing it is sure of';
  if (stable.text !== text) stable = { text, since: performance.now() };
  if (text === spoken || (!shown.kept && performance.now() - stable.since < 1500)) return;
  spoken = text;
  emit('speak', text);
}

/* News -------------------------------------------------------------------------------------------------------- */
function arrived(result) {
  shown = result;
  if (hovered && !visible().includes(hovered)) hovered = null;
  list();
  speak();
  stage.redraw();
}

function render(result) {
  if (!result.picture?.bitmap) return;
  results.set(result.picture.bitmap, result);
  if (result.picture.bitmap === stage.bitmap) arrived(result);
}

/* Called with a still's result before its map is asked for: the clicked box keeps its meaning. */
function still(result) {
  const old = wanted;
  wanted = null;
  if (!old) return;
  const same = [...result.boxes, ...(result.candidates ?? [])].map((box) => [overlap(box.box, old.box) + (box.index === old.index ? 1 : 0), box])
    .reduce((best, next) => (best && best[0] >= next[0] ? best : next), null);
  set({ target: same && same[0] > 0.2 ? `${targetOf(same[1], result)}${rest(state.target)}` : null });
}

function clear() {
  shown = null;
  wanted = null;
  follow = null;
  slots = [];
  parts.top.textContent = '…';
  parts.more.textContent = '';
  parts.questions.hidden = true;
  for (const entry of parts.rows) Object.assign(entry, { box: null }).button.hidden = true;
  stage.redraw();
}

/* What any target of the task is called: bus; zebra on the bus's box; left side of bus; bus and not giraffe. */
function name(text) {
  const box = chosen(shown, text);
  if (!box) return null;
  const call = (i) => labels()[i] ?? i;
  const [, side] = text.match(/\/side:(\w+)/) ?? [];
  const [, index] = text.match(/\/class:([^/]+)/) ?? [];
  const [, versus] = text.match(/\/versus:([^/]+)/) ?? [];
  if (side) return `${side} side of ${box.label}`;
  if (text.includes('/objectness')) return `that there is an object (${box.label})`;
  const asked = index && call(index) !== box.label ? `${call(index)}, on the box of ${box.label}` : box.label;
  return `${asked}${versus ? ` and not ${call(versus)}` : ''}${text.startsWith('candidate') ? ' (not reported)' : ''}`;
}

const targets = (result) => {
  const call = (boxes, kind) => boxes.map((box, i) => ({ target: `${kind}:${i}`, label: `${box.label} ${Math.round(box.confidence * 100)} %` }));
  return [...call(result.boxes ?? [], 'box'), ...(below ? call(result.candidates ?? [], 'candidate') : [])];
};

register('detect', { mount, render, clear, name, targets, still });
on('frame', ({ bitmap }) => { if (state.task === 'detect' && results.has(bitmap)) arrived(results.get(bitmap)); });
on('state:target', () => { if (shown) list(); stage.redraw(); });
on('explained', () => { mark(); stage.redraw(); });
on('state:task', () => { follow = null; });
on('state:picture', (picture) => { if (picture && state.task === 'detect' && !wanted && !results.has(picture.bitmap)) set({ target: null }); });
on('state:source', (source) => {
  if (source === 'camera' && state.task === 'detect' && !state.watching) explainTarget(follow);
});

export const boxLayer = (box) => ({
  order: 20,
  draw: (ctx, view) => drawAll(ctx, view, { boxes: [] }, box),
});
export const chosenBox = () => chosen();
