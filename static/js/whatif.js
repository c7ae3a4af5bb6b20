/* The "What if" tab: paint over a part of the picture, have it filled, and see what the model says then. Both sides
   stand on the stage as tiles with their maps on one scale; tools lie under the stage, numbers in the panel.
   Server: `edit` with preview while a stroke grows (one at a time), the real fill when it ends. */
import { emit, on } from './bus.js';
import { freeze } from './camera.js';
import { $, el } from './dom.js';
import { keep } from './explaining.js';
import { onKey } from './keys.js';
import { explain, register } from './panel.js';
import { buildParams } from './params.js';
import { edit } from './socket.js';
import { showTiles } from './stage.js';
import { state } from './state.js';
import { warn } from './status.js';
import { startTour } from './tour.js';
import { createBrush } from './whatif-brush.js';
import { boxLayer, createCompare, matched } from './whatif-compare.js';
import { createFiles } from './whatif-file.js';
import { createMask } from './whatif-mask.js';
import { createWhy } from './whatif-why.js';

const PREVIEW_PAUSE = 90;
const shown = { picture: null, mask: null, edit: null, bitmap: null, ms: 0 };
let view = null;                    // the two tiles
let finals = 0;                     // counts what was asked for; an older answer is not shown
let previewing = false;
let fill = { name: 'patch_match', params: {} };
const remembered = new Map();       // fill -> its parameters

const open = () => state.tab === 'whatif';
const ready = () => open() && state.source === 'still' && Boolean(state.picture);
const redraw = () => { view?.panes[0].redraw(); tools(); };
const brush = createBrush({ mask: () => shown.mask, boxes: () => shown.picture?.result?.boxes ?? [], onStroke: preview, onDone: apply, redraw });
export const current = () => ({ ...shown, fill, brush: brush.settings });

/* Asking the server ------------------------------------------------------------------------------------------ */
async function request(fields, again = true) {
  const { picture } = shown;
  if (!picture.seq) await keep(picture);
  try {
    return await edit({ seq: picture.seq, fill: fill.name, params: fill.params, picture: picture.result?.fingerprint, ...fields });
  } catch (failure) {
    if (!again || failure.code !== 'gone') throw failure;
    picture.seq = null;
    return request(fields, false);
  }
}

async function preview() {
  if (previewing || state.configuring) return;
  previewing = true;
  const [mine, { mask, picture }] = [finals, shown];
  try {
    const result = await request({ mask: await mask.png(), preview: true });
    if (mine === finals && brush.drawing && picture === shown.picture) await put(result);
  } catch { /* an empty or a full mask: the final one says so */ }
  setTimeout(() => { previewing = false; }, PREVIEW_PAUSE);
}

export async function apply() {
  redraw();
  const { mask, picture } = shown;
  if (!mask || state.configuring || !picture.result) return;
  finals += 1;
  const mine = finals;
  if (mask.full) {
    warn('The whole picture is erased: leave something of it to fill the hole from. Undo brings it back.');
    return;
  }
  why.wait(!mask.empty);
  const start = performance.now();
  try {
    const result = await request({ mask: mask.empty ? new ArrayBuffer(0) : await mask.png() });
    if (mine !== finals || picture !== shown.picture) return;
    shown.ms = performance.now() - start;
    await put(mask.empty ? null : result);
    why.edited(Boolean(shown.edit));
    emit('edited', shown.edit);
  } catch (failure) {
    if (mine === finals && failure.code !== 'gone-server') warn(failure.message);
  }
}

/* One answer, or null for "nothing is erased": numbers and picture together. */
async function put(result) {
  const bitmap = result ? await createImageBitmap(new Blob([result.image], { type: 'image/jpeg' })) : null;
  const old = shown.bitmap;
  Object.assign(shown, { edit: result, bitmap });
  draw();
  old?.close();
}

/* The stage: two tiles ----------------------------------------------------------------------------------------- */
function marks(side) {
  const before = shown.picture?.result?.boxes;
  if (!before) return [];
  const { kept, vanished, appeared } = matched(before, shown.edit?.boxes ?? before);
  return side === 0 ? [...kept.map((k) => k.before), ...vanished.map((b) => ({ ...b, lost: true }))]
    : [...kept.map((k) => k.after), ...appeared.map((b) => ({ ...b, fresh: true }))];
}

function tile() {
  if (!ready()) return;
  const { picture } = shown;
  const common = { mirrored: picture.mirrored, bitmap: picture.bitmap };
  view = showTiles([{ ...common, title: 'Original', layers: [boxLayer(() => marks(0)), brush.layer] },
    { ...common, title: 'Modified', layers: [boxLayer(() => marks(1))] }],
  { title: picture.title, onClose: () => { view = null; $('#tiles').classList.remove('whatif'); } });
  view.panes.forEach(({ canvas }) => canvas.closest('.tile').classList.add('whatif-tile'));
  $('#tiles').classList.add('whatif');
  view.panes[0].canvas.id = 'whatif-original';
  view.panes[1].canvas.id = 'whatif-modified';
  draw();
}

const surest = (seen) => seen?.classes?.[0]?.label ?? seen?.caption
  ?? (seen?.boxes ? `${seen.boxes.length} ${seen.boxes.length === 1 ? 'box' : 'boxes'}` : '');

function draw() {
  if (!shown.picture?.result) return;
  compare.show(shown.picture.result, shown.edit);
  if (!view) return;
  const maps = why.maps();
  view.update(0, { explanation: maps[0], text: surest(shown.picture.result) });
  view.update(1, { explanation: maps[1], bitmap: shown.bitmap ?? shown.picture.bitmap,
    text: shown.edit ? surest(shown.edit) : 'the same, until something is erased' });
  tools();
}

function start() {
  if (!ready() || !state.picture.result) return;
  if (shown.picture !== state.picture) {
    shown.bitmap?.close();
    Object.assign(shown, { picture: state.picture, mask: createMask(state.picture.size), edit: null, bitmap: null });
    why.clear();
  }
  if (!view) tile();
  draw();
  if (!shown.mask.empty) apply();
}

/* Tools under the stage ---------------------------------------------------------------------------------------- */
const toolButton = (tool, label, key) => el('button', { type: 'button', 'data-tool': tool, title: `${label} (${key.toUpperCase()})`, onclick: () => choose(tool) }, label);
const act = (id, label, title, run) => el('button', { type: 'button', id, title, onclick: run }, label);
const size = el('input', { type: 'range', id: 'whatif-radius', min: 2, max: 60, step: 1, value: brush.settings.radius, 'aria-label': 'Radius of the brush, in pixels of the picture',
  oninput: () => { brush.settings.radius = Number(size.value); sizeText.textContent = `${size.value} px`; brush.preview(true); },
  onchange: () => brush.preview(false), onblur: () => brush.preview(false) });
const sizeText = el('output', { for: 'whatif-radius' }, `${brush.settings.radius} px`);
const fills = el('select', { id: 'whatif-fill', 'aria-label': 'How the hole is filled', onchange: () => chooseFill(fills.value) });
const fillParams = el('div', { id: 'whatif-fill-params' });
const fillMenu = el('details', { class: 'menu', id: 'whatif-fill-menu' }, el('summary', { title: 'Settings of the fill' }, '⚙', el('span', { class: 'unseen' }, 'Settings of the fill')),
  el('div', { class: 'menu-body' }, el('p', { id: 'whatif-fill-shows', class: 'soft' }), fillParams));
const bar = el('div', { id: 'whatif-tools', role: 'toolbar', 'aria-label': 'Erase parts of the picture', hidden: true },
  toolButton('brush', 'Brush', 'b'), toolButton('eraser', 'Eraser', 'e'), toolButton('rectangle', 'Rectangle', 'r'), toolButton('box', 'This box', 'x'),
  el('label', { class: 'inline whatif-size' }, size, sizeText), act('whatif-undo', 'Undo', 'Undo (Z)', () => step('undo')), act('whatif-redo', 'Redo', 'Redo (Y)', () => step('redo')),
  act('whatif-reset', 'Reset', 'Erase nothing', () => step('reset')), fills, fillMenu);
$('#stage-extra').append(bar);

function choose(tool) {
  brush.settings.tool = tool;
  redraw();
}

function step(kind) {
  if (!shown.mask) return;
  shown.mask[kind]();
  apply();
}

function chooseFill(name) {
  const described = state.ready.fills.find((f) => f.name === name);
  fill = { name, params: remembered.get(name) ?? {} };
  $('#whatif-fill-shows').textContent = described.shows;
  buildParams(fillParams, described.parameters, fill.params, (params) => {
    remembered.set(name, params);
    fill = { name, params };
    if (shown.mask && !shown.mask.empty) apply();
  });
  if (shown.mask && !shown.mask.empty) apply();
}

function tools() {
  bar.hidden = !ready();
  const { mask, picture } = shown;
  for (const button of bar.querySelectorAll('[data-tool]')) button.setAttribute('aria-pressed', String(button.dataset.tool === brush.settings.tool));
  const boxTool = $('[data-tool="box"]', bar);
  boxTool.hidden = state.task !== 'detect';
  if (boxTool.hidden && brush.settings.tool === 'box') choose('brush');
  boxTool.disabled = !picture?.result?.boxes?.length;
  $('#whatif-undo').disabled = !mask?.canUndo;
  $('#whatif-redo').disabled = !mask?.canRedo;
  $('#whatif-reset').disabled = !mask || mask.empty;
  files.enable(mask && !mask.empty);
}

const takes = (kind) => () => {
  if (!ready()) return false;
  if (['undo', 'redo'].includes(kind)) step(kind);
  else choose(kind);
  return true;
};
for (const [key, kind] of Object.entries({ b: 'brush', e: 'eraser', r: 'rectangle', x: 'box', z: 'undo', y: 'redo' })) onKey(key, takes(kind));
document.addEventListener('keydown', (event) => {
  if (!(event.ctrlKey || event.metaKey) || !ready() || !['z', 'y'].includes(event.key.toLowerCase())) return;
  event.preventDefault();
  step(event.key.toLowerCase() === 'y' || event.shiftKey ? 'redo' : 'undo');
});

/* Panel -------------------------------------------------------------------------------------------------------- */
let compare;
let why;
let files;
function mount(root) {
  const empty = el('div', { id: 'whatif-empty' }, el('p', { class: 'top-answer' }, 'What if it were not there?'),
    el('p', {}, 'Freeze the camera or open a picture. Then paint over a part of it: it is filled in, and you see what the model says without it.'),
    el('button', { type: 'button', class: 'primary', id: 'whatif-freeze', onclick: () => freeze() }, 'Freeze the camera'));
  const room = el('div', { id: 'whatif-room', hidden: true });
  root.append(empty, room);
  const part = (id) => room.appendChild(el('div', { id }));
  compare = createCompare(part('whatif-compare'), { choose: (target) => explain(target) });
  const rest = part('whatif-files');
  files = createFiles(rest, { current, load });
  rest.append(act('whatif-tour', 'Tour', 'Six steps round this tab', startTour));
  why = createWhy(part('whatif-why'), { current, redraw: draw });
  compare.clear();
}

function load(bitmap, loadedFill) {
  fill = loadedFill;
  remembered.set(fill.name, fill.params);
  fills.value = fill.name;
  chooseFill(fill.name);
  shown.mask.add({ kind: 'picture', bitmap });
  apply();
}

function toggle() {
  const on = ready();
  $('#whatif-empty').hidden = on;
  $('#whatif-room').hidden = !on;
  $('#whatif-freeze').hidden = state.source !== 'camera';
  bar.hidden = !on;
  document.body.classList.toggle('whatif', on);
  if (on) start();
}

register('whatif', { mount, render() {}, clear() { why.clear(); } });
on('ready', ({ fills: offered = [] }) => {
  if (fills.childElementCount || !offered.length) return;
  fills.append(...offered.map((f) => el('option', { value: f.name }, f.title)));
  fills.value = fill.name;
  chooseFill(fill.name);
});
/* Esc, a comparison or a new picture closes the tiles; on this tab they come back. */
on('tiles', (handle) => { if (!handle) setTimeout(() => { if (open() && !view) toggle(); }); });
for (const key of ['tab', 'source', 'picture', 'task']) on(`state:${key}`, () => setTimeout(toggle));
on('still', () => {
  if (shown.picture !== state.picture) return toggle();
  Object.assign(shown, { edit: null });
  return toggle();
});
