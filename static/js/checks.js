/* Is it true? Deletion and insertion curves beside the map, the randomised-weights check, and the pictures that
   attacks make, shown with what the model said before and after. */
import { on } from './bus.js';
import { $, el, percent, short, words } from './dom.js';
import { ask } from './explaining.js';
import { busy, warn } from './status.js';
import { showTiles } from './stage.js';
import { state } from './state.js';
import { addFrame } from './strip.js';
import { addCard } from './why.js';

const CURVES = {
  deletion_black: ['Deletion to black', 'line-a', 'low is good'],
  deletion_blur: ['Deletion to blur', 'line-b', 'low is good'],
  insertion_blur: ['Insertion from blur', 'line-c', 'high is good'],
};
const STEPS = 32;                   // of a whole curve; they grow point by point
let curvesOn = false;
let curvesRoot;
let sanityRoot;
let job = null;

const request = (check) => ({ method: state.method, params: state.params, check, ...(state.target ? { target: state.target } : {}) });
const still = () => state.source === 'still' && state.picture?.result;

/* Curves --------------------------------------------------------------------------------------------------- */
const svg = (tag, properties) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(properties)) node.setAttribute(key, value);
  return node;
};

function plot(curves, numbers) {
  const names = Object.keys(curves);
  const highest = Math.max(...names.flatMap((name) => curves[name]), 1e-9);
  const most = highest > 0.2 && highest <= 1 ? 1 : highest;
  const chart = svg('svg', { viewBox: '0 0 200 84', preserveAspectRatio: 'none', class: 'chart', role: 'img', 'aria-label': 'Score while pixels are taken away or put back, hottest first' });
  chart.append(svg('path', { d: 'M0 2V80H200', class: 'axis' }));
  names.forEach((name, i) => {
    const points = curves[name].map((v, k) => `${((k / Math.max(STEPS, curves[name].length - 1)) * 200).toFixed(1)},${(80 - (Math.max(0, v) / most) * 76).toFixed(1)}`);
    chart.append(svg('polyline', { points: points.join(' '), class: CURVES[name]?.[1] ?? `line-${'abc'[i % 3]}` }));
  });
  const legend = names.map((name) => {
    const [title, line, better] = CURVES[name] ?? [words(name), 'line-a', ''];
    const area = numbers[`area ${name}`];
    const key = svg('svg', { viewBox: '0 0 24 8', class: 'key' });
    key.append(svg('polyline', { points: '0,4 24,4', class: line }));
    return el('li', {}, key, ` ${title}`, area == null ? null : el('span', { class: 'numbers' }, `: area ${short(area)}`), better ? el('small', {}, `, ${better}`) : null);
  });
  return [chart, el('p', { class: 'axis-words' }, `Answer from 0 to ${most === 1 ? '100 %' : percent(most)}; hottest pixels first →`),
    el('ul', { class: 'curve-key' }, ...legend)];
}

function draw(e) {
  const known = state.explanation?.numbers ?? {};
  const more = Object.entries(e.numbers ?? {}).filter(([name]) => !(name in known) && !name.startsWith('area '));
  curvesRoot.replaceChildren(el('h3', {}, 'Deletion and insertion'), ...plot(e.curves, e.numbers ?? {}),
    el('dl', { class: 'pairs' }, ...more.map(([name, value]) => el('div', {}, el('dt', {}, words(name)), el('dd', { class: 'numbers' }, short(value))))),
    ...(e.note ? [el('p', {}, e.note)] : []));
}

async function drawCurves() {
  job?.stop();
  if (!curvesOn || !still() || !state.explanation?.shape || state.explanation.empty) return;
  curvesRoot.hidden = false;
  curvesRoot.replaceChildren(el('h3', {}, 'Deletion and insertion'), el('p', {}, 'Measuring…'));
  const mine = ask(request('curves'), (e) => {
    const first = !curvesRoot.querySelector('svg');
    if (Object.keys(e.curves ?? {}).length) draw(e);
    if (first) curvesRoot.scrollIntoView({ block: 'nearest' });
    busy('curves', { words: 'Deletion and insertion', progress: e.progress, stop: mine.stop });
  });
  job = mine;
  busy('curves', { words: 'Deletion and insertion', progress: null, stop: mine.stop });
  try {
    const last = await mine.done;
    if (last.stopped && mine === job) curvesRoot.append(el('p', {}, 'Stopped.'));
    else if (mine === job) curvesRoot.scrollIntoView({ block: 'nearest' });
  } catch (failure) {
    if (mine === job) curvesRoot.replaceChildren(el('p', {}, failure.message));
  } finally {
    if (mine === job) busy('curves', null);
  }
}

addCard({ name: 'curves', mount: (root) => { curvesRoot = root; }, hide: () => { curvesRoot.hidden = true; } });

$('#curves').addEventListener('click', () => {
  curvesOn = !curvesOn;
  $('#curves').setAttribute('aria-pressed', String(curvesOn));
  if (!curvesOn) {
    job?.stop();
    curvesRoot.hidden = true;
  } else if (!still()) warn('Curves are measured on a still picture. Freeze the camera or choose a picture; they are drawn with each explanation from then on.');
  else drawCurves();
});
on('explaining', ({ running }) => { if (!running) drawCurves(); });

/* Randomised weights --------------------------------------------------------------------------------------- */
addCard({ name: 'sanity', mount: (root) => { sanityRoot = root; }, hide: () => { sanityRoot.hidden = true; } });

const correlation = (e, name) => {
  const value = e.numbers?.[`rank correlation, ${name} random`];
  return value == null ? '' : `rank correlation ${short(value)}`;
};

async function sanity() {
  if (!still()) {
    warn('A check needs a still picture. Freeze the camera or choose a picture, then press it again.');
    return;
  }
  const original = state.explanation;
  const { picture } = state;
  const steps = [];
  sanityRoot.hidden = false;
  sanityRoot.replaceChildren(el('h3', {}, 'Randomised weights'), el('p', {}, 'Explaining copies of the model with redrawn weights…'));
  sanityRoot.scrollIntoView({ block: 'nearest' });
  const mine = ask(request('sanity'), (e) => {
    busy('sanity', { words: 'Checking with randomised weights', progress: e.progress, stop: mine.stop });
    steps.push(e);
    verdict(e);
  });
  busy('sanity', { words: 'Checking with randomised weights', progress: null, stop: mine.stop });

  function verdict(e) {
    const rows = Object.entries(e.numbers ?? {}).map(([name, value]) => el('div', {}, el('dt', {}, words(name)), el('dd', { class: 'numbers' }, short(value))));
    sanityRoot.replaceChildren(el('h3', {}, 'Randomised weights'), el('p', {}, e.note || 'Explaining copies of the model with redrawn weights…'), el('dl', { class: 'pairs' }, ...rows));
  }
  try {
    const last = await mine.done;
    if (state.picture !== picture || !last.shape) return;
    verdict(last);
    const random = Object.keys(last.maps).length ? Object.entries(last.maps).slice(0, 5).map(([name, map]) => ({ title: words(name), explanation: map, text: correlation(last, name) }))
      : [{ title: 'Randomised weights', explanation: last }];
    const tiles = [{ title: 'The model itself', explanation: original }, ...random].map((t) => ({ ...t, bitmap: picture.bitmap, mirrored: picture.mirrored }));
    const open = () => showTiles(tiles, { title: 'Does the map depend on what the model learned?', shared: false });
    open();
    addFrame({ title: 'Weights check', draw: picture.bitmap, heat: last, open });
  } catch (failure) {
    sanityRoot.replaceChildren(el('h3', {}, 'Randomised weights'), el('p', {}, failure.message));
  } finally {
    busy('sanity', null);
  }
}
$('#sanity').addEventListener('click', sanity);

/* Pictures that attacks make ------------------------------------------------------------------------------- */
let attackRoot;
const answer = (p) => p?.classes?.[0] ? `${p.classes[0].label}, ${percent(p.classes[0].probability)}` : p?.caption ? `“${p.caption}”`
  : p?.boxes ? (p.boxes.slice(0, 3).map((b) => `${b.label} ${percent(b.confidence)}`).join(', ') || 'no box') : '';

export const decode = (bytes) => createImageBitmap(new Blob([bytes], { type: 'image/jpeg' }));

async function pictures(e) {
  const names = Object.keys(e.images ?? {});
  attackRoot.hidden = !names.length;
  if (!names.length || !e.done || e.edited) return;
  const { picture } = state;
  const bitmaps = await Promise.all(names.map((name) => decode(e.images[name])));
  if (state.explanation !== e || !picture) return;
  const [before, after] = [answer(picture.result), answer(e.after)];
  attackRoot.replaceChildren(el('h3', {}, 'Before and after'), el('p', { class: 'before-after' }, el('span', {}, before), ' → ', el('strong', {}, after)));
  const cropped = await crop(picture.bitmap, e.area);
  const tiles = [{ title: 'Before', text: before, bitmap: cropped },
    ...names.map((name, i) => ({ title: name === 'image' ? 'After' : words(name), text: name === 'image' ? after : '', bitmap: bitmaps[i] }))];
  const over = { bitmap: picture.bitmap, mirrored: picture.mirrored };
  if (e.shape && !e.empty) tiles.push({ ...over, title: 'Pixels that did it', text: `raw maximum ${short(e.raw_max)}`, explanation: e });
  for (const [name, map] of Object.entries(e.maps ?? {})) tiles.push({ ...over, title: words(name), explanation: map });
  const open = () => showTiles(tiles.slice(0, 6), { title: `${$('#why-target').textContent}: before and after` });
  open();
  addFrame({ key: `attack-${e.method}-${picture.seq}`, title: `${before.split(',')[0]} → ${after.split(',')[0]}`, draw: bitmaps[names.indexOf('image')] ?? bitmaps[0], open });
}

function crop(bitmap, [x0, y0, x1, y1]) {
  return createImageBitmap(bitmap, Math.round(x0), Math.round(y0), Math.max(1, Math.round(x1 - x0)), Math.max(1, Math.round(y1 - y0)));
}

addCard({ name: 'attack', mount: (root) => { attackRoot = root; }, show: pictures, hide: () => { attackRoot.hidden = true; } });
