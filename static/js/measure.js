/* Shift and drag draws a box of one's own: how much of the map's positive evidence lies in it, and whether the
   hottest point does (the pointing game). Computed here from the map as it travelled, live maps included. */
import { on } from './bus.js';
import { el, percent } from './dom.js';
import { stage } from './stage.js';
import { state } from './state.js';
import { addCard } from './why.js';

let box = null;                     // [x0, y0, x1, y1] in frame pixels
let corner = null;                  // where the drag began
let root;

/* The cells of one axis whose middles lie between two places: [first, end). */
function cells(count, start, end, low, high) {
  const at = (place) => ((place - start) / (end - start)) * count - 0.5;
  const within = (cell) => Math.min(count, Math.max(0, cell));
  return [within(Math.ceil(at(low))), within(Math.floor(at(high)) + 1)];
}

/* {energy: share of the positive map inside the box, pointing: is the maximum inside} */
export function measure(e, [x0, y0, x1, y1]) {
  const { heat, shape: [height, width], area: [left, top, right, bottom] } = e;
  const zero = e.signed ? 128 : 0;
  const [first, last] = cells(width, left, right, x0, x1);
  const [upper, lower] = cells(height, top, bottom, y0, y1);
  let [inside, whole, most, hottest] = [0, 0, 0, 0];         // most: anywhere; hottest: in the box
  for (let row = 0, i = 0; row < height; row += 1) {
    const across = row >= upper && row < lower;
    for (let column = 0; column < width; column += 1, i += 1) {
      const value = heat[i] - zero;
      if (value <= 0) continue;
      whole += value;
      if (value > most) most = value;
      if (!across || column < first || column >= last) continue;
      inside += value;
      if (value > hottest) hottest = value;
    }
  }
  return { energy: whole ? inside / whole : 0, pointing: most > 0 && hottest === most };
}

function tell() {
  const e = state.explanation;
  const before = root.hidden;
  root.hidden = !box || !e?.shape;
  if (root.hidden) return;
  const { energy, pointing } = measure(e, box);
  const [x0, y0, x1, y1] = e.area;
  const share = Math.max(0, Math.min(box[2], x1) - Math.max(box[0], x0)) * Math.max(0, Math.min(box[3], y1) - Math.max(box[1], y0)) / ((x1 - x0) * (y1 - y0));
  root.querySelector('p').textContent = e.empty ? 'No evidence anywhere, so none in your box.'
    : `${percent(energy)} of the evidence lies in your box, which is ${percent(share)} of what the model saw. The hottest point is ${pointing ? 'inside' : 'outside'}.`;
  if (before) root.scrollIntoView({ block: 'nearest' });
}

function clear() {
  if (!box) return false;
  box = null;
  tell();
  stage.redraw();
  return true;
}

stage.addLayer({
  order: 90,
  draw(ctx, view) {
    if (!box) return;
    const { x, y, w, h } = view.box(box);
    ctx.lineWidth = 4;
    ctx.strokeStyle = '#000';
    ctx.strokeRect(x, y, w, h);
    ctx.lineWidth = 2;
    ctx.setLineDash([8, 6]);
    ctx.strokeStyle = '#fff';
    ctx.strokeRect(x, y, w, h);
  },
  pointer(kind, point, event) {
    if (kind === 'down' && event.shiftKey && point.inside) corner = point;
    else if (kind === 'click') return event.shiftKey;
    else if (!corner) return false;
    const { width, height } = stage.view;
    const [x, y] = [Math.min(width, Math.max(0, point.x)), Math.min(height, Math.max(0, point.y))];
    box = [Math.min(x, corner.x), Math.min(y, corner.y), Math.max(x, corner.x), Math.max(y, corner.y)];
    if (kind === 'up' || kind === 'cancel') {
      corner = null;
      if (box[2] - box[0] < 3 || box[3] - box[1] < 3) clear();
    }
    tell();
    stage.redraw();
    return true;
  },
});

addCard({ name: 'measure', mount: (card) => { root = card; card.append(el('h3', {}, 'Your box'), el('p', {})); }, show: tell, hide: () => { root.hidden = true; } });
on('state:picture', clear);
on('leave', clear);
