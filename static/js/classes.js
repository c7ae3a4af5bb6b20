/* Classify: five bars that keep their places while live, each one a button that asks why; any other class by
   name; and "why this and not that". */
import { emit, on } from './bus.js';
import { chooser } from './chooser.js';
import { el, percent } from './dom.js';
import { explainTarget } from './explaining.js';
import { register } from './panel.js';
import { labels, set, state } from './state.js';

const SLOTS = 5;
const rows = [];
let slots = [];                     // class index in each place
let top;
let spoken = '';
let stable = { index: null, since: 0 };
const HELD = 350;                   // ms: a headline that changes faster cannot be read

function row() {
  const label = el('span', { class: 'bar-label' });
  const value = el('span', { class: 'bar-value numbers' });
  const fill = el('span', { class: 'bar-fill' });
  const button = el('button', { type: 'button', class: 'bar-row', disabled: true }, fill, label, value);
  const entry = { button, label, value, fill, index: null };
  button.addEventListener('click', () => { if (entry.index !== null) choose(entry.index); });
  return entry;
}

export function choose(index) {
  const versus = state.target?.match(/\/versus:(\d+)/)?.[1];
  explainTarget(`class:${index}${versus && Number(versus) !== index ? `/versus:${versus}` : ''}`);
}

function against(index) {
  const mine = state.target?.match(/^class:(\d+)/)?.[1] ?? state.result?.classes?.[0]?.index;
  if (mine != null && Number(mine) !== Number(index)) explainTarget(`class:${mine}/versus:${index}`);
}

function mount(root) {
  top = el('p', { class: 'top-answer' }, el('span', {}, '…'));
  const list = el('div', { class: 'bars', role: 'group', 'aria-label': 'The five likeliest classes; press one to see why' });
  for (let i = 0; i < SLOTS; i += 1) {
    rows.push(row());
    list.append(rows[i].button);
  }
  const options = () => Object.entries(labels()).map(([index, name]) => [Number(index), name]);
  root.append(top, list, el('div', { class: 'choosers' },
    chooser({ label: 'Explain any class', placeholder: 'Explain any class…', options, choose }),
    chooser({ label: 'and why not this class', placeholder: '…and not which?', options, choose: against })));
}

/* While live a class keeps its place for as long as it stays among the five; a still is sorted. */
function placed(classes, live) {
  if (!live) return classes.map((c) => c.index);
  const here = classes.map((c) => c.index);
  const fresh = here.filter((index) => !slots.includes(index));
  const kept = slots.map((index) => (here.includes(index) ? index : null));
  while (kept.length < here.length) kept.push(null);
  return kept.slice(0, here.length).map((index) => index ?? fresh.shift());
}

function render(result) {
  const classes = result.classes ?? [];
  slots = placed(classes, !result.kept);
  const best = classes[0];
  if (stable.index !== best?.index) stable = { index: best?.index, since: performance.now() };
  const fresh = result.kept || top.firstChild.textContent === '…' || performance.now() - stable.since > HELD;
  if (fresh) top.firstChild.textContent = best?.label ?? 'Nothing';
  slots.forEach((index, i) => {
    const entry = classes.find((c) => c.index === index);
    const { button, label, value, fill } = rows[i];
    if (rows[i].index !== index) {
      rows[i].index = index;
      label.textContent = entry.label;
      button.dataset.index = index;
      button.disabled = false;
    }
    value.textContent = percent(entry.probability);
    fill.style.transform = `scaleX(${entry.probability})`;
    button.classList.toggle('best', entry === best);
  });
  mark();
  speak(best, result.kept);
}

function mark() {
  const chosen = Number(state.target?.match(/^class:(\d+)/)?.[1] ?? -1);
  for (const { button, index } of rows) button.setAttribute('aria-pressed', String(index === chosen));
}

/* The top answer is read out when it has stayed the same for a while, never at frame rate. */
function speak(best, now) {
  if (!best) return;
  if (best.label === spoken || (!now && performance.now() - stable.since < 1500)) return;
  spoken = best.label;
  emit('speak', `${best.label}, ${percent(best.probability)}`);
}

function clear() {
  slots = [];
  top.firstChild.textContent = '…';
  for (const entry of rows) {
    entry.index = null;
    entry.label.textContent = '';
    entry.value.textContent = '';
    entry.fill.style.transform = 'scaleX(0)';
    entry.button.disabled = true;
    entry.button.classList.remove('best');
  }
}

/* The name of any class target, versus included; also of classes that are not among the five. */
function name(text) {
  const [, index, versus] = text?.match(/^class:(\d+)(?:\/versus:(\d+))?$/) ?? [];
  if (!index) return null;
  const call = (i) => labels()[i] ?? `class ${i}`;
  return versus ? `${call(index)} and not ${call(versus)}` : call(index);
}

register('classify', {
  mount, render, clear, name,
  targets: (result) => (result.classes ?? []).map((c) => ({ target: `class:${c.index}`, label: c.label })),
});
on('state:target', mark);
on('state:task', () => set({ target: null }));
