/* The stage: the picture as large as it can be. `stage` is a pane (see pane.js: addLayer, redraw, view, bitmap).
   showPicture(bitmap, {mirrored, title})   what is on it now
   showHeat(explanation | null)             the map over it; also remembered as state.explanation
   showTiles(tiles, {shared, title})        instead of the picture: up to six small panes side by side. A tile is
                                            {title, text, bitmap, explanation, layers: [layer]}; shared: one scale
                                            for all maps (default). Returns {close(), panes, update(i, tile)}
   hideTiles()                              back to the picture (Esc does this too: `leave`)
   notice(text, {action, label, kind})      words in the middle of the stage; notice(null) takes them away */
import { emit, on } from './bus.js';
import { $, el, short } from './dom.js';
import { drawLegend, sharedScale } from './heat.js';
import { createPane } from './pane.js';
import { set, state } from './state.js';

export const stage = createPane($('#picture'));
let current = null;

export function showPicture(bitmap, { mirrored = false, title = '' } = {}) {
  stage.show(bitmap, { mirrored });
  stage.canvas.setAttribute('aria-label', bitmap ? `Picture: ${title || 'camera'}` : 'No picture yet');
  emit('frame', { bitmap, mirrored });
}

/* What a screen reader hears of the canvas. */
function describe() {
  const { explanation: e, picture } = state;
  const map = !e?.shape ? '' : e.empty ? ' No evidence: no map is drawn.' : ` Map: ${e.title}.`;
  if (picture) stage.canvas.setAttribute('aria-label', `Picture: ${picture.title}.${map}`);
}

export function showHeat(explanation) {
  stage.heat(explanation);
  set({ explanation });
  if (!explanation?.live) describe();
  emit('explained', explanation);
}

export function showTiles(tiles, { shared = true, title = 'Side by side', onClose = () => {} } = {}) {
  current?.onClose();
  const box = $('#tiles');
  const shown = tiles.map((tile) => {
    const canvas = el('canvas', { role: 'img', 'aria-label': tile.title });
    const text = el('span', { class: 'tile-text' });
    const heading = el('strong');
    const bar = el('canvas', { 'aria-hidden': 'true' });
    const [low, high] = [el('span', { class: 'numbers' }), el('span', { class: 'numbers' })];
    const legend = el('span', { class: 'tile-legend', hidden: true }, low, bar, high);
    return { canvas, text, heading, legend, low, bar, high,
      figure: el('figure', { class: 'tile' }, canvas, el('figcaption', {}, heading, text, legend)) };
  });
  const scaleText = el('span', { class: 'tiles-scale numbers' });
  box.replaceChildren(
    el('div', { class: 'tiles-head' }, el('h2', {}, title), el('label', { class: 'check' }, scaleText),
      el('button', { type: 'button', class: 'quiet', onclick: () => hideTiles() }, 'Back to the picture')),
    el('div', { class: `tiles-grid count-${tiles.length}` }, ...shown.map(({ figure }) => figure)),
  );
  box.hidden = false;
  $('#stage').classList.add('tiled');
  const panes = shown.map(({ canvas }) => createPane(canvas));
  const removers = tiles.map((tile, i) => (tile.layers ?? []).map((layer) => panes[i].addLayer(layer)));
  const handle = { panes, tiles, shared, close: hideTiles, update, onClose, scale: 0 };

  function update(i, patch = {}) {
    if (patch.layers) {
      removers[i].forEach((remove) => remove());
      removers[i] = patch.layers.map((layer) => panes[i].addLayer(layer));
    }
    Object.assign(tiles[i], patch);
    draw();
  }

  function draw() {
    handle.scale = sharedScale(tiles.map((tile) => tile.explanation));
    tiles.forEach((tile, i) => {
      panes[i].show(tile.bitmap ?? null, { mirrored: Boolean(tile.mirrored) });
      panes[i].heat(tile.explanation ?? null, handle.shared ? handle.scale : undefined);
      shown[i].heading.textContent = tile.title;
      shown[i].text.textContent = tile.text ?? '';
      colours(shown[i], tile.explanation, handle.shared ? handle.scale : tile.explanation?.scale);
    });
    const mapped = tiles.some((tile) => tile.explanation?.shape);
    scaleText.textContent = !mapped ? ''
      : handle.shared ? `One scale: full colour is ${short(handle.scale)}` : 'Own scales: colours cannot be compared';
  }

  handle.redraw = draw;
  draw();
  current = handle;
  emit('tiles', handle);
  return handle;
}

/* What the colours of one tile mean: its palette from end to end of the scale in use. */
function colours({ legend, low, bar, high }, e, scale) {
  legend.hidden = !e?.shape || e.empty;
  if (legend.hidden) return;
  drawLegend(bar, e.signed);
  low.textContent = e.signed ? `−${short(scale)}` : '0';
  high.textContent = short(scale);
}

export function hideTiles() {
  if (!current) return;
  const closing = current;
  current = null;
  $('#tiles').hidden = true;
  $('#tiles').replaceChildren();
  $('#stage').classList.remove('tiled');
  closing.onClose();
  emit('tiles', null);
}

export const tilesShown = () => current;

export function notice(text, { label, action, kind = 'calm' } = {}) {
  const box = $('#notice');
  box.hidden = !text;
  box.className = `notice ${kind}`;
  box.replaceChildren(...(text ? [el('p', {}, text)] : []),
    ...(label ? [el('button', { type: 'button', class: 'primary', onclick: action }, label)] : []));
}

for (const key of ['palette', 'diverging']) on(`state:${key}`, () => current?.redraw());
on('leave', hideTiles);
on('state:picture', hideTiles);
on('state:source', () => { if (state.source !== 'still') hideTiles(); });
