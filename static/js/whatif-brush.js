/* The layer one paints on: brush, eraser, rectangle and "this box", with a cursor as large as the brush.
   createBrush({mask(), boxes(), onStroke(), onDone()}) -> {layer, settings, preview(on)}
   settings: {tool: brush | eraser | rectangle | box, radius in pixels of the picture}. onStroke is called while a
   stroke grows, onDone when a step is finished. A stroke that leaves the canvas goes on, and is kept. */
const TINT = '#e5007d';
const SMALLEST = 3;                 // pixels that a rectangle must measure to count

export function createBrush({ mask, boxes, onStroke, onDone, redraw }) {
  const settings = { tool: 'brush', radius: 20 };
  let hover = null;
  let drawing = false;
  let corner = null;
  let preview = false;
  const tinted = document.createElement('canvas');

  const paints = () => settings.tool === 'brush' || settings.tool === 'eraser';
  const rectangle = (a, b) => [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];

  /* The smallest detected box around a point is the one that is meant. */
  function boxAt({ x, y }) {
    const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
    return boxes().map(({ box }) => box).filter(([x0, y0, x1, y1]) => x >= x0 && x <= x1 && y >= y0 && y <= y1)
      .sort((a, b) => area(a) - area(b))[0];
  }

  function pointer(kind, point, event) {
    if (!mask()) return false;
    if (kind === 'leave') {
      if (!drawing) hover = null;
      redraw();
      return false;
    }
    if (kind === 'click') return true;
    hover = point;
    if (kind === 'down') {
      if (event.button > 0) return false;
      preview = false;
      if (settings.tool === 'box') {
        const box = boxAt(point);
        if (box) { mask().add({ kind: 'box', box }); onDone(); }
      } else {
        drawing = true;
        if (paints()) mask().begin({ erase: settings.tool === 'eraser', radius: settings.radius }, point);
        else corner = point;
        if (paints()) onStroke();
      }
    } else if (kind === 'move' && drawing) {
      if (paints()) { mask().extend(point); onStroke(); }
    } else if ((kind === 'up' || kind === 'cancel') && drawing) {
      drawing = false;
      if (paints()) { mask().end(); onDone(); } else finish(rectangle(corner, point));
      corner = null;
    }
    redraw();
    return true;
  }

  function finish(box) {
    if (box[2] - box[0] < SMALLEST || box[3] - box[1] < SMALLEST) return;
    mask().add({ kind: 'box', box });
    onDone();
  }

  function draw(ctx, view) {
    if (!mask()) return;
    overlay(ctx, view);
    if (corner && hover) outline(ctx, view, rectangle(corner, hover));
    if (settings.tool === 'box') {
      boxes().forEach(({ box }) => outline(ctx, view, box));
      const box = hover && boxAt(hover);
      if (box) outline(ctx, view, box, true);
    }
    const at = preview ? { x: view.width / 2, y: view.height / 2 } : hover;
    if (at && paints()) circle(ctx, view, at);
  }

  function overlay(ctx, view) {
    const { canvas } = mask();
    Object.assign(tinted, { width: canvas.width, height: canvas.height });
    const to = tinted.getContext('2d');
    to.drawImage(canvas, 0, 0);
    to.globalCompositeOperation = 'source-in';
    to.fillStyle = TINT;
    to.fillRect(0, 0, tinted.width, tinted.height);
    const { x, y, w, h } = view.box([0, 0, view.width, view.height]);
    ctx.save();
    ctx.globalAlpha = 0.55;
    ctx.translate(view.mirrored ? x + w : x, y);
    ctx.scale(view.mirrored ? -1 : 1, 1);
    ctx.drawImage(tinted, 0, 0, w, h);
    ctx.restore();
  }

  function outline(ctx, view, box, strong = false) {
    const { x, y, w, h } = view.box(box);
    for (const [width, colour] of [[strong ? 5 : 3, 'rgb(0 0 0 / 60%)'], [strong ? 3 : 1.5, '#fff']]) {
      Object.assign(ctx, { lineWidth: width, strokeStyle: colour });
      ctx.strokeRect(x, y, w, h);
    }
  }

  function circle(ctx, view, { x, y }) {
    for (const [width, colour] of [[3, 'rgb(0 0 0 / 60%)'], [1.5, '#fff']]) {
      Object.assign(ctx, { lineWidth: width, strokeStyle: colour });
      ctx.beginPath();
      ctx.arc(view.x(x), view.y(y), Math.max(1, settings.radius * view.scale), 0, 2 * Math.PI);
      ctx.stroke();
    }
  }

  return {
    settings,
    layer: { order: 50, draw, pointer, cursor: () => (paints() ? 'none' : 'crosshair') },
    preview(on) { preview = on; redraw(); },
    get drawing() { return drawing; },
  };
}
