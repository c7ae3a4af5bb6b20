/* What is erased: steps (strokes, rectangles, boxes, loaded pictures) on a canvas of the picture's size.
   createMask([width, height]) -> mask
     begin({erase, radius}, point), extend(point), end()   one stroke; its points may lie outside the picture
     add(step)        {kind: 'box', box: [x0, y0, x1, y1], erase} or {kind: 'picture', bitmap}
     undo(), redo(), reset()      reset is a step too, and can be undone
     canUndo, canRedo, empty, full
     png()            Promise<ArrayBuffer>: white is erased
     canvas           what to lay over the picture: opaque where erased
   After every step the canvas is drawn again from all steps, so that undo gives the very same mask. */
const STEPS = 50;

function paint(ctx, step) {
  if (step.kind === 'reset') {
    ctx.clearRect(0, 0, ctx.canvas.width, ctx.canvas.height);
    return;
  }
  ctx.save();
  ctx.globalCompositeOperation = step.erase ? 'destination-out' : 'source-over';
  ctx.fillStyle = '#fff';
  ctx.strokeStyle = '#fff';
  if (step.kind === 'box') {
    const [x0, y0, x1, y1] = step.box.map(Math.round);
    ctx.fillRect(x0, y0, x1 - x0, y1 - y0);
  } else if (step.kind === 'picture') ctx.drawImage(step.bitmap, 0, 0, ctx.canvas.width, ctx.canvas.height);
  else {
    Object.assign(ctx, { lineWidth: 2 * step.radius, lineCap: 'round', lineJoin: 'round' });
    ctx.beginPath();
    ctx.moveTo(step.points[0].x, step.points[0].y);
    for (const { x, y } of step.points) ctx.lineTo(x + 0.01, y);
    ctx.stroke();
  }
  ctx.restore();
}

const blank = (width, height) => Object.assign(document.createElement('canvas'), { width, height });

export function createMask([width, height]) {
  const canvas = blank(width, height);
  const base = blank(width, height);          // steps too old to be undone
  const ctx = canvas.getContext('2d', { willReadFrequently: true });
  let steps = [];
  let undone = [];
  let stroke = null;
  let share = 0;

  function redraw() {
    ctx.clearRect(0, 0, width, height);
    ctx.drawImage(base, 0, 0);
    steps.forEach((step) => paint(ctx, step));
    harden();
  }

  /* A pixel is erased or it is not: what the page shows is what the server gets. */
  function harden() {
    const image = ctx.getImageData(0, 0, width, height);
    const bytes = image.data;
    let count = 0;
    for (let i = 3; i < bytes.length; i += 4) {
      const on = bytes[i] > 127;
      bytes[i] = on ? 255 : 0;
      count += on;
    }
    ctx.putImageData(image, 0, 0);
    share = count / (width * height);
  }

  function add(step) {
    undone = [];
    steps.push(step);
    if (steps.length > STEPS) paint(base.getContext('2d'), steps.shift());
    redraw();
  }

  return {
    canvas,
    get canUndo() { return steps.length > 0; },
    get canRedo() { return undone.length > 0; },
    get empty() { return share === 0; },
    get full() { return share === 1; },
    get share() { return share; },
    add,
    begin({ erase, radius }, point) {
      stroke = { kind: 'stroke', erase, radius, points: [point] };
      paint(ctx, stroke);
    },
    extend(point) {
      if (!stroke) return;
      const last = stroke.points.at(-1);
      stroke.points.push(point);
      paint(ctx, { ...stroke, points: [last, point] });
    },
    end() {
      if (!stroke) return;
      const done = stroke;
      stroke = null;
      add(done);
    },
    undo() { if (steps.length) { undone.push(steps.pop()); redraw(); } },
    redo() { if (undone.length) { steps.push(undone.pop()); redraw(); } },
    reset() { add({ kind: 'reset' }); },
    async png() {
      const flat = blank(width, height);
      const to = flat.getContext('2d');
      to.fillStyle = '#000';
      to.fillRect(0, 0, width, height);
      to.drawImage(canvas, 0, 0);
      const blob = await new Promise((resolve) => { flat.toBlob(resolve, 'image/png'); });
      return blob.arrayBuffer();
    },
  };
}
