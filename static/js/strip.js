/* The film strip: preset pictures first, then frozen frames and whatever modules add, each one click away.
   addFrame({title, draw: bitmap or canvas, heat: explanation?, scale?, open(), key?}) -> {remove(), element}
       the newest comes first after the presets; the same key replaces the earlier one; the oldest leave after 24.
   showRow(name, frames)   a row of its own that replaces itself (a caption's word maps); [] takes it away */
import { on } from './bus.js';
import { openFile, openPicture } from './camera.js';
import { $, el } from './dom.js';
import { heatCanvas } from './heat.js';
import { state } from './state.js';

const MOST = 24;
const HEIGHT = 64;
const list = $('#strip-list');
const frames = [];
const rows = new Map();

function thumbnail({ draw, heat, scale }) {
  const [width, height] = [draw.width, draw.height];
  const ratio = Math.min(2, Math.max(0.6, width / height));
  const canvas = el('canvas', { width: Math.round(HEIGHT * 2 * ratio), height: HEIGHT * 2, 'aria-hidden': 'true' });
  const context = canvas.getContext('2d');
  const zoom = Math.max(canvas.width / width, canvas.height / height);
  context.translate((canvas.width - width * zoom) / 2, (canvas.height - height * zoom) / 2);
  context.scale(zoom, zoom);
  context.drawImage(draw, 0, 0);
  if (heat?.shape && !heat.empty) {
    const [x0, y0, x1, y1] = heat.area;
    context.globalAlpha = 0.75;
    context.drawImage(heatCanvas(heat, { scale: scale ?? heat.scale }), x0, y0, x1 - x0, y1 - y0);
  }
  return canvas;
}

function item({ title, draw, heat, scale, open, kind = 'frame' }) {
  return el('li', { class: kind }, el('button', { type: 'button', onclick: open, title },
    thumbnail({ draw, heat, scale }), el('span', {}, title)));
}

export function addFrame(frame) {
  const old = frame.key && frames.find(({ key }) => key === frame.key);
  if (old) drop(old);
  const entry = { key: frame.key, element: item(frame) };
  frames.unshift(entry);
  const firstFrame = $('li.frame', list);
  if (firstFrame) firstFrame.before(entry.element);
  else list.append(entry.element);
  while (frames.length > MOST) drop(frames.at(-1));
  return { element: entry.element, remove: () => drop(entry) };
}

function drop(entry) {
  frames.splice(frames.indexOf(entry), 1);
  entry.element.remove();
}

export function showRow(name, items) {
  rows.get(name)?.forEach((node) => node.remove());
  const nodes = items.map((frame) => item({ ...frame, kind: 'row' }));
  rows.set(name, nodes);
  list.prepend(...nodes);
  list.scrollLeft = 0;
}

async function presets(ready) {
  if ($('li.preset', list) || !ready.presets?.length) return;
  const shown = ready.presets.map(({ title, url }) => {
    const image = el('img', { src: url, alt: '', height: HEIGHT });
    const open = async () => openFile(await (await fetch(url)).blob(), title);
    return el('li', { class: 'preset' }, el('button', { type: 'button', onclick: open, title }, image, el('span', {}, title)));
  });
  list.append(...shown);
}

on('ready', presets);
on('still', (picture) => {
  if (!picture.frozen && !picture.uploaded) return;
  if (picture.inStrip) return;
  picture.inStrip = true;
  addFrame({ title: picture.title, draw: picture.bitmap, open: () => openPicture({ ...picture, seq: null, result: null }) });
});
on('state:picture', () => {
  for (const node of list.children) node.classList.toggle('current', $('button', node).title === state.picture?.title);
});
