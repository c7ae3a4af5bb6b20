/* Controls built from declared parameters, and from nothing else.
   buildParams(root, parameters, values, onChange): a slider for a range, a menu for choices, a check for yes/no.
   onChange(values) is called with every value, a moment after the last movement. */
import { el, short, words } from './dom.js';

const PAUSE = 160;
let serial = 0;

export function buildParams(root, parameters, values, onChange) {
  const current = Object.fromEntries(parameters.map((p) => [p.name, values[p.name] ?? p.default]));
  let timer = null;
  const changed = (name, value) => {
    current[name] = value;
    clearTimeout(timer);
    timer = setTimeout(() => onChange({ ...current }), PAUSE);
  };
  root.replaceChildren(...parameters.map((p) => control(p, current[p.name], (value) => changed(p.name, value))));
  return current;
}

function control(p, value, changed) {
  const id = `param-${serial += 1}`;
  if (p.choices.length) {
    return el('div', { class: 'param' }, el('label', { for: id }, words(p.name)),
      el('select', { id, 'data-param': p.name, onchange: (e) => changed(e.target.value) },
        ...p.choices.map((choice) => el('option', { value: choice, selected: choice === value }, words(choice)))));
  }
  if (typeof p.default === 'boolean') {
    return el('div', { class: 'param' }, el('label', { class: 'check', for: id },
      el('input', { type: 'checkbox', id, 'data-param': p.name, checked: Boolean(value), onchange: (e) => changed(e.target.checked) }),
      words(p.name)));
  }
  const output = el('output', { for: id, class: 'numbers' }, short(value));
  const step = p.whole ? 1 : 10 ** Math.floor(Math.log10((p.high - p.low) / 50) + 1e-9);
  const slider = el('input', { type: 'range', id, 'data-param': p.name, min: p.low, max: p.high, step,
    oninput: (e) => { output.textContent = short(Number(e.target.value)); changed(Number(e.target.value)); } });
  slider.value = value;
  return el('div', { class: 'param' }, el('label', { for: id }, words(p.name)), slider, output);
}
