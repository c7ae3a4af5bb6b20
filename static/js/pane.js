/* A pane is one canvas with a picture, heat over it, and layers on top. The stage is one; comparisons and
   side-by-side views are several. createPane(canvas) ->
     show(bitmap, {mirrored, size})   the picture (ImageBitmap, canvas or video); null empties it; size: frame pixels
                                where they are not the picture's own
     heat(explanation, scale)   draws its map over explanation.area; null takes it away; scale: a shared one
     addLayer(layer)            -> a function that removes it. layer = {order, draw(ctx, view), pointer(kind, point, event)}
                                draw: CSS pixels, above the heat, higher order later. pointer: kind is down, move, up,
                                cancel, leave, or click; point {x, y, inside} in frame pixels; return true to keep the
                                event from lower layers (after a kept `down` the pointer is captured: moves and the up
                                come even from outside the canvas). layer.cursor: a CSS cursor or (point) => cursor
     redraw()                   after a layer's own data changed
     view                       {width, height} of the frame; x(fx), y(fy), box([x0,y0,x1,y1]) -> {x,y,w,h} in CSS
                                pixels of the canvas (mirroring included); frame(px, py) the way back; scale; mirrored */
import { heatCanvas } from './heat.js';
import { on } from './bus.js';
import { state } from './state.js';

function makeView(canvas, size, mirrored) {
  const [width, height] = size;
  const across = canvas.clientWidth;
  const down = canvas.clientHeight;
  const scale = Math.min(across / width, down / height) || 1;
  const left = (across - width * scale) / 2;
  const top = (down - height * scale) / 2;
  const x = (fx) => left + (mirrored ? width - fx : fx) * scale;
  const y = (fy) => top + fy * scale;
  return {
    width, height, scale, left, top, mirrored, x, y,
    box: ([x0, y0, x1, y1]) => ({ x: Math.min(x(x0), x(x1)), y: y(y0), w: (x1 - x0) * scale, h: (y1 - y0) * scale }),
    frame: (px, py) => ({ x: mirrored ? width - (px - left) / scale : (px - left) / scale, y: (py - top) / scale }),
  };
}

export function createPane(canvas) {
  const layers = [];
  const pane = { canvas, bitmap: null, explanation: null, view: makeView(canvas, [1, 1], false), show, heat, addLayer, redraw };
  let mirrored = false;
  let coloured = null;
  const sheet = document.createElement('canvas');               // what maps are coloured on, one after the other
  let scale;
  let due = false;
  let captured = null;

  function show(bitmap, options = {}) {
    pane.bitmap = bitmap;
    mirrored = Boolean(options.mirrored);
    pane.size = options.size;
    redraw();
  }

  function heat(explanation, shared) {
    pane.explanation = explanation;
    scale = shared;
    recolour();
  }

  function recolour() {
    const e = pane.explanation;
    coloured = e?.shape && !e.empty ? heatCanvas(e, { scale: scale ?? e.scale, canvas: sheet }) : null;
    redraw();
  }

  function addLayer(layer) {
    layers.push(layer);
    layers.sort((a, b) => (a.order ?? 0) - (b.order ?? 0));
    redraw();
    return () => { layers.splice(layers.indexOf(layer), 1); redraw(); };
  }

  function redraw() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; draw(); });
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!w || !h || (pane.bitmap && !(pane.bitmap.videoWidth || pane.bitmap.width))) return;      // closed: what is drawn stays
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    const ctx = canvas.getContext('2d');
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, w, h);
    const { bitmap } = pane;
    if (!bitmap) return;
    const size = pane.size ?? [bitmap.videoWidth || bitmap.width, bitmap.videoHeight || bitmap.height];
    const view = makeView(canvas, size, mirrored);
    pane.view = view;
    const whole = view.box([0, 0, view.width, view.height]);
    paint(ctx, bitmap, whole);
    if (coloured && state.overlay) {
      ctx.save();
      ctx.beginPath();
      ctx.rect(whole.x, whole.y, whole.w, whole.h);
      ctx.clip();
      ctx.globalAlpha = state.opacity;
      ctx.imageSmoothingQuality = pane.explanation.live ? 'low' : 'high';      // a third of the time, and it moves
      paint(ctx, coloured, view.box(pane.explanation.area));
      ctx.restore();
      frameSeen(ctx, view.box(pane.explanation.area), whole);
    }
    for (const layer of layers) {
      ctx.save();
      layer.draw?.(ctx, view);
      ctx.restore();
    }
  }

  function paint(ctx, source, { x, y, w, h }) {
    ctx.save();
    ctx.translate(mirrored ? x + w : x, y);
    ctx.scale(mirrored ? -1 : 1, 1);
    ctx.drawImage(source, 0, 0, w, h);
    ctx.restore();
  }

  /* A model that saw only the middle of the picture: a thin line says which part. */
  function frameSeen(ctx, seen, whole) {
    if (whole.w - seen.w < 4 && whole.h - seen.h < 4) return;
    ctx.setLineDash([6, 5]);
    ctx.lineWidth = 1;
    ctx.strokeStyle = 'rgb(255 255 255 / 65%)';
    ctx.strokeRect(seen.x + 0.5, seen.y + 0.5, seen.w - 1, seen.h - 1);
    ctx.setLineDash([]);
  }

  function pointer(kind, event) {
    const bounds = canvas.getBoundingClientRect();
    const point = pane.view.frame(event.clientX - bounds.left, event.clientY - bounds.top);
    point.inside = Boolean(pane.bitmap) && point.x >= 0 && point.y >= 0 && point.x <= pane.view.width && point.y <= pane.view.height;
    const ordered = captured ? [captured] : [...layers].reverse();
    const taker = ordered.find((layer) => layer.pointer?.(kind, point, event));
    if (kind === 'down' && taker) {
      captured = taker;
      try { canvas.setPointerCapture(event.pointerId); } catch { /* the pointer is already gone */ }
    }
    if (kind === 'up' || kind === 'cancel') captured = null;
    if (kind === 'move') {
      const cursors = [...layers].reverse().map(({ cursor }) => (typeof cursor === 'function' ? cursor(point) : cursor));
      canvas.style.cursor = cursors.find(Boolean) ?? '';
    }
  }

  for (const [type, kind] of Object.entries({ pointerdown: 'down', pointermove: 'move', pointerup: 'up',
    pointercancel: 'cancel', pointerleave: 'leave', click: 'click' })) {
    canvas.addEventListener(type, (event) => pointer(kind, event));
  }
  new ResizeObserver(redraw).observe(canvas);
  for (const key of ['overlay', 'opacity']) on(`state:${key}`, redraw);
  for (const key of ['palette', 'diverging']) on(`state:${key}`, recolour);
  return pane;
}
