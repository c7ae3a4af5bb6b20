/* Side by side: up to four methods on one target, or one method on two classes, on one shared absolute scale. */
import { on } from './bus.js';
import { chooser } from './chooser.js';
import { $, el, short, words } from './dom.js';
import { ask } from './explaining.js';
import { freeze } from './camera.js';
import { current, targetLabel, targets } from './panel.js';
import { busy, warn } from './status.js';
import { showTiles } from './stage.js';
import { labels, methodInfo, state } from './state.js';
import { addFrame } from './strip.js';
import { methodsFor } from './why.js';

const MOST = 4;
const dialog = el('dialog', { id: 'compare-dialog', 'aria-labelledby': 'compare-title' });
document.body.append(dialog);
let jobs = [];

const nameOf = (target) => (target ? current()?.name?.(target) ?? targetLabel(target) : $('#why-target').textContent);

function methodChecks() {
  const chosen = new Set([state.method]);
  const boxes = [];
  const limit = () => boxes.forEach((box) => { box.disabled = chosen.size >= MOST && !box.checked; });
  const groups = Map.groupBy ? Map.groupBy(methodsFor(state.task), (m) => m.group) : by(methodsFor(state.task));
  const body = [...groups].map(([group, methods]) => el('fieldset', {}, el('legend', {}, words(group)),
    ...methods.map((m) => {
      const box = el('input', { type: 'checkbox', value: m.name, checked: chosen.has(m.name),
        onchange: () => { if (box.checked) chosen.add(m.name); else chosen.delete(m.name); limit(); } });
      boxes.push(box);
      return el('label', { class: 'check' }, box, m.title);
    })));
  return { element: el('div', { class: 'method-checks' }, ...body), chosen };
}

function by(methods) {
  const groups = new Map();
  for (const m of methods) groups.set(m.group, [...(groups.get(m.group) ?? []), m]);
  return groups;
}

/* Two targets: from what is on the panel, and for a classifier any class by name. */
function targetMenus() {
  const offered = targets();
  const first = state.target && offered.some(({ target }) => target === state.target) ? state.target : offered[0]?.target;
  const pick = (label, value) => {
    const select = el('select', { 'aria-label': label }, ...offered.map((t) => el('option', { value: t.target, selected: t.target === value }, t.label)));
    const add = (index, name) => {
      select.prepend(el('option', { value: `class:${index}` }, name));
      select.value = `class:${index}`;
    };
    const search = state.task === 'classify' ? chooser({ label: `${label}: any class`, placeholder: 'or any class…', choose: add,
      options: () => Object.entries(labels()).map(([i, n]) => [Number(i), n]) }) : null;
    return { select, element: el('div', { class: 'compare-pick' }, el('span', {}, label), select, search) };
  };
  const a = pick('First', first);
  const b = pick('Second', offered.find(({ target }) => target !== first)?.target);
  return { element: el('div', { class: 'compare-targets' }, a.element, b.element), chosen: () => [a.select.value, b.select.value] };
}

async function open() {
  if (state.source === 'camera') await freeze();
  if (!state.picture) {
    warn('There is no picture to compare on yet. Switch the camera on or choose a picture below.');
    return;
  }
  const methods = methodChecks();
  const pair = targetMenus();
  const go = (tiles, title) => { dialog.close(); compare(tiles, title); };
  dialog.replaceChildren(
    el('h2', { id: 'compare-title' }, 'Compare on one shared scale'), el('div', { class: 'compare-parts' },
    el('section', {}, el('h3', {}, `Methods, up to ${MOST}`), methods.element,
      el('button', { type: 'button', class: 'primary', id: 'compare-methods', onclick: () => go([...methods.chosen].slice(0, MOST).map((name) => ({
        method: name, target: state.target, params: name === state.method ? state.params : {}, title: methodInfo(name).title })),
      `Methods on ${nameOf(state.target)}`) }, 'Compare methods')),
    el('section', {}, el('h3', {}, `Two answers, by ${methodInfo()?.title ?? 'this method'}`), pair.element,
      el('button', { type: 'button', id: 'compare-targets', disabled: targets().length < 2 && state.task !== 'classify', onclick: () => go(pair.chosen().map((target) => ({
        method: state.method, target, params: state.params, title: nameOf(target) })), methodInfo().title) }, 'Compare answers'))),
    el('form', { method: 'dialog' }, el('button', { class: 'quiet' }, 'Cancel')),
  );
  dialog.showModal();
}

/* requests: [{method, target, params, title}] about the current still. */
export async function compare(requests, title) {
  stopAll();
  const { picture } = state;
  const tiles = requests.map((r) => ({ title: r.title, text: 'waiting…', bitmap: picture.bitmap, mirrored: picture.mirrored }));
  const view = showTiles(tiles, { title, onClose: stopAll });
  scaleSwitch(view);
  let finished = 0;
  jobs = requests.map(({ method, target, params }, i) => {
    const job = ask({ method, params, ...(target ? { target } : {}) }, (e) => {
      view.update(i, { explanation: e, text: e.done ? caption(e) : `${Math.round(100 * e.progress)} %` });
      busy('compare', { words: title, progress: (finished + (e.done ? 0 : e.progress)) / requests.length, stop: stopAll });
    });
    job.done.catch((failure) => view.update(i, { text: failure.message })).finally(() => {
      finished += 1;
      busy('compare', finished < requests.length ? { words: title, progress: finished / requests.length, stop: stopAll } : null);
    });
    return job;
  });
  const mine = jobs;
  await Promise.allSettled(jobs.map((job) => job.done));
  if (mine !== jobs || !tiles[0].explanation) return;
  addFrame({ title: `Compared: ${title}`, draw: picture.bitmap, heat: tiles[0].explanation, scale: view.scale,
    open: () => scaleSwitch(showTiles(tiles, { title })) });
}

const caption = (e) => (e.empty ? 'no evidence' : `raw maximum ${short(e.raw_max)}`);

function scaleSwitch(view) {
  const box = el('input', { type: 'checkbox', id: 'one-scale', checked: true, onchange: () => { view.shared = box.checked; view.redraw(); } });
  $('#tiles .tiles-scale').before(box);
}

function stopAll() {
  const running = jobs;
  jobs = [];
  running.forEach((job) => job.stop());
  busy('compare', null);
}

$('#compare').addEventListener('click', open);
on('state:configuring', stopAll);
