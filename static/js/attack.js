/* What an attack did to a caption: the old and the new sentence word by word, and each word's log-probability
   before and after. The pictures themselves are the business of checks.js. */
import { el } from './dom.js';
import { state } from './state.js';
import { addCard } from './why.js';

const CHANGE = /^change of log p, (\d+) (.*)$/;
let root;

/* The longest common words of two sentences; the rest is struck out or new. [{kind: same|gone|new, word}] */
export function difference(before, after) {
  const best = Array.from({ length: before.length + 1 }, () => new Array(after.length + 1).fill(0));
  for (let i = before.length - 1; i >= 0; i -= 1) {
    for (let j = after.length - 1; j >= 0; j -= 1) {
      best[i][j] = before[i] === after[j] ? 1 + best[i + 1][j + 1] : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  const out = [];
  let [i, j] = [0, 0];
  while (i < before.length || j < after.length) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      out.push({ kind: 'same', word: before[i] });
      i += 1;
      j += 1;
    } else if (j >= after.length || (i < before.length && best[i + 1][j] >= best[i][j + 1])) {
      out.push({ kind: 'gone', word: before[i] });
      i += 1;
    } else {
      out.push({ kind: 'new', word: after[j] });
      j += 1;
    }
  }
  return out;
}

function show(e) {
  const before = state.picture?.result?.words;
  root.hidden = !(state.task === 'caption' && before && e.after?.words && e.images?.image);
  if (root.hidden) return;
  const tags = { same: 'span', gone: 'del', new: 'ins' };
  const words = difference(before.map(({ word }) => word), e.after.words.map(({ word }) => word))
    .flatMap(({ kind, word }) => [el(tags[kind], {}, word), ' ']);
  const changes = Object.entries(e.numbers ?? {}).map(([name, value]) => [name.match(CHANGE), value]).filter(([found]) => found);
  const most = Math.max(...changes.map(([, value]) => Math.abs(value)), 1e-9);
  const row = ([[, , word], value]) => {
    const bar = el('span', { class: `change ${value < 0 ? 'down' : 'up'}` });
    bar.style.setProperty('--size', `${(100 * Math.abs(value)) / most}%`);
    return el('li', {}, el('span', {}, word), bar, el('span', { class: 'numbers' }, `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(2)}`));
  };
  root.replaceChildren(el('h3', {}, 'What it says now'), el('p', { class: 'diff' }, ...words),
    ...(changes.length ? [el('h3', {}, 'Each word’s log-probability'), el('ul', { class: 'changes' }, ...changes.map(row))] : []));
}

addCard({ name: 'ace', mount: (card) => { root = card; }, show, hide: () => { root.hidden = true; } });
