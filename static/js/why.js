/* The right column's lower half, "Why": method menu, its sentences and sliders, legend, numbers, and cards.
   addCard({name, mount(root), show(explanation), hide()})   a plug-in's own piece below the numbers: show is called
       with every explanation that is drawn (detect: trust card; caption: diff), hide when there is none.
   nextMethod(step)   the method after or before this one in the menu */
import { emit, on } from './bus.js';
import { $, el, short, words } from './dom.js';
import { liveMethod, refresh } from './explaining.js';
import { drawLegend, valueAt } from './heat.js';
import { current, has, targetLabel, targets } from './panel.js';
import { buildParams } from './params.js';
import { stage } from './stage.js';
import { methodInfo, set, state } from './state.js';

export const GROUPS = ['maps', 'gradients', 'perturbation', 'attacks', 'what if', 'checks'];
const liveFor = { classify: true, detect: true, caption: true };
const firstFor = { caption: 'word_maps' };                          // where the page can show more than one map
const chosenFor = {};               // task -> method chosen last
const cards = [];
const remembered = new Map();       // method -> parameters, so that coming back finds them as they were

const allFor = (task) => (state.ready?.methods ?? []).filter((m) => m.tasks.includes(task))
  .sort((a, b) => place(a.group) - place(b.group));
/* Why the current model cannot be asked with a method: a sentence, or nothing. */
const lacking = (m) => state.ready?.lacking[state.configured?.model]?.[m.name];
export const methodsFor = (task) => allFor(task).filter((m) => !lacking(m));
const place = (group) => (GROUPS.indexOf(group) + 1 || GROUPS.length + 1);

export function grouped(methods, option) {
  const groups = [...new Set(methods.map((m) => m.group))];
  return groups.map((group) => el('optgroup', { label: words(group) }, ...methods.filter((m) => m.group === group).map(option)));
}

export function chooseMethod(name) {
  if (!methodInfo(name)) return;
  emit('asking');
  chosenFor[state.task] = name;
  set({ method: name, params: remembered.get(name) ?? {} });
  describe();
  refresh();
}

export function nextMethod(step) {
  const names = methodsFor(state.task).map((m) => m.name);
  if (names.length) chooseMethod(names[(names.indexOf(state.method) + step + names.length) % names.length]);
}

export function addCard(card) {
  const root = el('div', { class: `card card-${card.name}`, hidden: true });
  $('#cards').append(root);
  cards.push({ ...card, root });
  card.mount?.(root);
}

function menu() {
  $('#method').replaceChildren(...grouped(allFor(state.task), (m) => el('option', { value: m.name, title: lacking(m) ?? '' },
    lacking(m) ? `${m.title}: not for this model` : m.title)));
  const names = methodsFor(state.task).map((m) => m.name);
  const name = [state.following && state.ready?.configured.method, chosenFor[state.task], firstFor[state.task], state.ready?.preferred[state.task], names[0]].find((n) => names.includes(n));
  if (name !== state.method) set({ method: name ?? null, params: remembered.get(name) ?? {} });
  describe();
}

function describe() {
  const info = methodInfo();
  if (!info) return;
  $('#method').value = info.name;
  $('#method-shows').textContent = info.shows;
  $('#method-cannot').textContent = info.cannot;
  $('#method-settings').hidden = !info.parameters.length;
  if ($('#method-params').dataset.method !== info.name) {
    $('#method-params').dataset.method = info.name;
    buildParams($('#method-params'), info.parameters, state.params, (values) => {
      remembered.set(info.name, values);
      emit('asking');
      set({ params: values });
      refresh();
    });
  }
  $('#live').disabled = !info.live;
  $('#live-choice').title = info.live ? 'Map every camera frame' : `${info.title} takes too long for every frame; it explains a frozen one`;
}

function asked() {
  const text = state.target;
  const label = text ? current()?.name?.(text) ?? targetLabel(text) : null;
  $('#why-target').textContent = label ?? { classify: 'the likeliest class', detect: 'the surest box', caption: 'the whole caption' }[state.task];
}

function legend(e) {
  $('#legend').hidden = !e?.shape;
  if (!e?.shape) return;
  drawLegend($('#legend-bar'), e.signed);
  const ticks = $('#legend-ticks').children;
  ticks[0].textContent = e.signed ? `against −${short(e.scale)}` : '0';
  ticks[1].textContent = e.signed ? '0' : '';
  ticks[2].textContent = e.signed ? `for +${short(e.scale)}` : short(e.scale);
}

/* The raw value under the pointer, in the middle of the legend. */
function here(point) {
  const e = state.explanation;
  if (!e?.shape) return;
  const value = point?.inside ? valueAt(e, point.x, point.y) : null;
  $('#legend-ticks').children[1].textContent = value === null ? (e.signed ? '0' : '') : `here ${short(value)}`;
}

const HIDDEN_NUMBERS = /^(area|bounds)/;

/* Numbers change in place while live: rows are only rebuilt when their names change. */
function numbers(e) {
  const list = $('#numbers');
  const rows = e?.shape ? [['Raw maximum', short(e.raw_max)],
    ...Object.entries(e.numbers ?? {}).filter(([name]) => !HIDDEN_NUMBERS.test(name)).map(([name, value]) => [words(name), short(value)])] : [];
  const names = rows.map(([name]) => name).join('|');
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...rows.map(([name]) => el('div', {}, el('dt', {}, name), el('dd', { class: 'numbers' }))));
  }
  rows.forEach(([, value], i) => { list.children[i].lastChild.textContent = value; });
}

function explained(e) {
  const late = !e && state.source === 'camera' && liveMethod();     // a frame whose map came too late: nothing jumps
  if (late) return;
  legend(e);
  numbers(e);
  const note = !e ? '' : e.note || (e.empty ? 'No evidence: the map is zero everywhere.' : '');
  if ($('#why-note').textContent !== note) $('#why-note').textContent = note;
  const empty = Boolean(e?.shape && e.empty);
  $('#map-words').hidden = !empty;
  if (empty) $('#map-words').textContent = 'No evidence in this picture for that. Nothing is drawn.';
  if (e?.title && !e.live) $('#why-target').textContent = e.title.replace(/^why /, '');
  for (const card of cards) {
    if (e) card.show?.(e);
    else card.hide?.();
  }
}

export function walk(step) {
  const all = targets();
  if (!all.length) return;
  const at = all.findIndex(({ target }) => target === state.target);
  const next = at < 0 ? (step > 0 ? 0 : all.length - 1) : (at + step + all.length) % all.length;
  emit('explain-target', all[next].target);
}

stage.addLayer({ order: -1, pointer(kind, point) {
  if (kind === 'move') here(point);
  if (kind === 'leave') here(null);
  return false;
} });
$('#method').addEventListener('change', (event) => chooseMethod(event.target.value));
$('#live').addEventListener('change', (event) => {
  liveFor[state.task] = event.target.checked;
  set({ live: event.target.checked });
  refresh();
});
on('ready', menu);
on('state:task', (task) => {
  set({ live: liveFor[task] });
  $('#live').checked = state.live;
  menu();
  asked();
});
on('state:target', asked);
on('state:method', describe);
on('state:result', () => { if (!state.explanation || state.explanation.live) asked(); });
on('explained', explained);
on('unexplained', ({ message }) => { $('#why-note').textContent = message; });
on('state:palette', () => legend(state.explanation));
on('state:diverging', () => legend(state.explanation));
on('state:tab', (tab) => { $('#panel').setAttribute('aria-labelledby', `tab-${tab}`); if (!has(tab)) asked(); });
