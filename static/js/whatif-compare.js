/* Original against modified, in numbers: classes keyed by index, boxes that vanished or appeared, a caption word
   by word. createCompare(root, {choose(target)}) -> {show(before, edit), clear(), boxes(before, edit)} */
import { chooser } from './chooser.js';
import { el, percent } from './dom.js';
import { labels } from './state.js';

const ROWS = 5;
const SAME_PLACE = 0.5;             // overlap from which two boxes of one class are one object
export const points = (share) => `${share >= 0 ? '+' : '−'}${Math.abs(100 * share).toFixed(1)}`;

export function overlap(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const high = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (wide <= 0 || high <= 0) return 0;
  const area = (c) => (c[2] - c[0]) * (c[3] - c[1]);
  return (wide * high) / (area(a) + area(b) - wide * high);
}

/* Each box finds its like on the other side, the surest first; what finds none has vanished or appeared. */
export function matched(before, after) {
  const free = [...after];
  const kept = [];
  const vanished = before.filter((box) => {
    const like = free.filter((other) => other.index === box.index && overlap(other.box, box.box) >= SAME_PLACE)
      .sort((a, b) => overlap(b.box, box.box) - overlap(a.box, box.box))[0];
    if (!like) return true;
    free.splice(free.indexOf(like), 1);
    kept.push({ before: box, after: like });
    return false;
  });
  return { kept, vanished, appeared: free };
}

/* The longest common words stay; the others were taken out or put in: [{word, kind: same | out | in}]. */
export function wordDiff(before, after) {
  const [a, b] = [before, after].map((text) => text.split(/\s+/).filter(Boolean));
  const table = Array.from({ length: a.length + 1 }, () => new Array(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      table[i][j] = a[i] === b[j] ? 1 + table[i + 1][j + 1] : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  const out = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { out.push({ word: a[i], kind: 'same' }); i += 1; j += 1; }
    else if (i < a.length && (j >= b.length || table[i + 1][j] >= table[i][j + 1])) { out.push({ word: a[i], kind: 'out' }); i += 1; }
    else { out.push({ word: b[j], kind: 'in' }); j += 1; }
  }
  return out;
}

export function createCompare(root, { choose }) {
  let own = false;                  // rows in the modified picture's order instead of the original's
  let last = null;
  const order = el('select', { id: 'whatif-order', 'aria-label': 'Order of the rows', onchange: () => { own = order.value === 'own'; draw(); } },
    el('option', { value: 'original' }, 'Original’s best five'), el('option', { value: 'own' }, 'Modified one’s best five'));
  const head = el('div', { class: 'whatif-head' }, el('h3', {}, 'Before and after'), order);
  const body = el('div', { id: 'whatif-rows' });
  const any = chooser({ label: 'Map any class on both pictures', placeholder: 'Map any class…',
    options: () => Object.entries(labels()).map(([index, name]) => [Number(index), name]), choose: (index) => choose(`class:${index}`) });
  root.append(head, body, any);
  const rows = Array.from({ length: ROWS }, () => {
    const parts = { before: el('span', { class: 'whatif-before' }), after: el('span', { class: 'whatif-after' }), name: el('span', { class: 'whatif-name' }),
      values: el('span', { class: 'whatif-values numbers' }), change: el('strong', { class: 'whatif-change numbers' }) };
    const button = el('button', { type: 'button', class: 'whatif-row', onclick: () => choose(`class:${button.dataset.index}`) },
      parts.before, parts.after, parts.name, parts.values, parts.change);
    return { button, ...parts };
  });

  function classes({ before, edit }) {
    const all = edit?.compared ?? before.classes.map((c) => ({ ...c, before: c.probability, after: c.probability }));
    const of = new Map(all.map((c) => [c.index, c]));
    const shown = (own && edit?.classes ? edit.classes : before.classes).map(({ index }) => of.get(index)).filter(Boolean);
    if (body.firstChild !== rows[0].button) body.replaceChildren(...rows.map(({ button }) => button));
    rows.forEach((row, i) => {
      const c = shown[i];
      row.button.hidden = !c;
      if (!c) return;
      row.button.dataset.index = c.index;
      row.name.textContent = c.label;
      row.values.textContent = edit ? `${percent(c.before)} → ${percent(c.after)}` : percent(c.before);
      row.change.textContent = edit ? `${points(c.after - c.before)} pp` : '';
      row.change.dataset.sign = Math.sign(Math.round(1000 * (c.after - c.before)));
      row.before.style.transform = `scaleX(${c.before})`;
      row.after.style.transform = `scaleX(${c.after})`;
    });
  }

  function boxes({ before, edit }) {
    const { kept, vanished, appeared } = matched(before.boxes, edit?.boxes ?? before.boxes);
    const line = (kind, words, list) => (list.length ? [el('p', { class: `whatif-${kind}` }, el('strong', {}, `${words}: `), list.join(', '))] : []);
    body.replaceChildren(
      ...line('vanished', 'Vanished', vanished.map((b) => `${b.label} ${percent(b.confidence)}`)),
      ...line('appeared', 'Appeared', appeared.map((b) => `${b.label} ${percent(b.confidence)}`)),
      ...kept.slice(0, 8).map(({ before: b, after: a }) => el('p', { class: 'whatif-kept' }, el('span', {}, b.label),
        el('span', { class: 'numbers' }, edit ? `${percent(b.confidence)} → ${percent(a.confidence)}  ${points(a.confidence - b.confidence)} pp` : percent(b.confidence)))),
      ...(before.boxes.length ? [] : [el('p', { class: 'soft' }, 'No box in this picture. Lower the threshold in the model’s settings.')]));
  }

  function caption({ before, edit }) {
    const tags = { same: 'span', out: 'del', in: 'ins' };
    body.replaceChildren(el('p', { class: 'whatif-caption' }, ...wordDiff(before.caption, edit?.caption ?? before.caption)
      .flatMap(({ word, kind }) => [el(tags[kind], {}, word), ' '])),
    ...(edit && edit.caption === before.caption ? [el('p', { class: 'soft' }, 'The sentence has not changed.')] : []));
  }

  function draw() {
    if (!last) return;
    order.hidden = any.hidden = !last.before.classes;
    if (last.before.classes) classes(last);
    else if (last.before.boxes) boxes(last);
    else caption(last);
  }

  return {
    show(before, edit) { last = { before, edit }; draw(); },
    clear() { last = null; body.replaceChildren(el('p', { class: 'soft' }, 'Open a picture, then paint over a part of it.')); },
  };
}

/* Boxes on the two pictures: what vanished is dashed on the original, what appeared bold on the modified one. */
export function boxLayer(list) {
  return { order: 20, draw(ctx, view) {
    ctx.font = '600 14px system-ui, sans-serif';
    for (const { box, label, lost, fresh } of list()) {
      const { x, y, w, h } = view.box(box);
      ctx.setLineDash(lost ? [7, 5] : []);
      for (const [width, colour] of [[fresh ? 6 : 4, 'rgb(0 0 0 / 55%)'], [fresh ? 4 : 2, lost ? '#ffb169' : '#5fd0c8']]) {
        Object.assign(ctx, { lineWidth: width, strokeStyle: colour });
        ctx.strokeRect(x, y, w, h);
      }
      const text = `${label}${lost ? ', vanished' : fresh ? ', appeared' : ''}`;
      ctx.fillStyle = 'rgb(0 0 0 / 70%)';
      ctx.fillRect(x, Math.max(0, y - 20), ctx.measureText(text).width + 10, 20);
      ctx.fillStyle = '#fff';
      ctx.fillText(text, x + 5, Math.max(15, y - 5));
    }
  } };
}
