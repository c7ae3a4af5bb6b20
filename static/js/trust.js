/* The trust card: a label and its rival on one box, two maps on one scale, and what they are worth. */
import { el, percent, short } from './dom.js';
import { boxLayer, chosenBox } from './boxes.js';
import { showTiles, tilesShown } from './stage.js';
import { state } from './state.js';
import { addCard } from './why.js';

const MARKS = { supported: '✓', 'weakly supported': '~', 'not supported': '✗' };
const parts = {};
let tiles = null;

function mount(root) {
  parts.root = root;
  parts.verdict = el('p', { class: 'trust-verdict', id: 'trust-verdict', role: 'status' });
  parts.note = el('p', { id: 'trust-note' });
  parts.head = el('tr');
  parts.body = el('tbody');
  parts.rest = el('p', { class: 'soft numbers' });
  root.append(parts.verdict, el('table', {}, el('thead', {}, parts.head), parts.body), parts.rest, parts.note);
}

function show(e) {
  const mine = e.method === 'trust_card';
  const n = e.numbers ?? {};
  parts.root.hidden = !mine || !n.verdict;     // the random classes come first
  if (!mine) close();
  if (parts.root.hidden) return;
  const level = Object.entries(e.numbers).find(([key]) => key.startsWith('level of'))?.[1] ?? 0;
  const times = (value) => (level > 0 ? (value / level > 99 ? '> 99' : (value / level).toFixed(1)) : value > 0 ? '> 99' : '0');
  parts.verdict.textContent = `${MARKS[n.verdict]} ${n.class}: ${n.verdict} by the picture`;
  parts.verdict.dataset.verdict = n.verdict;
  parts.note.textContent = e.note;
  parts.head.replaceChildren(el('th'), el('th', {}, n.class), el('th', {}, `rival ${n['rival class']}`));
  const rows = [['Verdict', ...['verdict', 'rival verdict'].map((k) => `${MARKS[n[k]]} ${n[k]}`)],
    ['Confidence', percent(n.confidence), percent(n['rival confidence'])],
    ['Evidence in the box', short(n['evidence in box']), short(n['rival evidence in box'])],
    ['… over random classes', times(n['evidence in box']), times(n['rival evidence in box'])],
    ['In the box, of all', percent(n['energy in box']), percent(n['rival energy in box'])]];
  parts.body.replaceChildren(...rows.map(([head, ...cells]) => el('tr', {}, el('th', { scope: 'row' }, head), ...cells.map((c) => el('td', {}, c)))));
  const later = (value) => (value == null ? '…' : short(value));
  parts.rest.textContent = `Completeness error ${n['completeness error'] == null ? '…' : percent(n['completeness error'])} · deletion score ${later(n['deletion score'])}`;
  draw(e, n);
}

function draw(e, n) {
  const rival = Object.values(e.maps)[0];
  const own = { ...e, maps: {} };
  const box = chosenBox();
  const text = (whose) => `${n[`${whose}verdict`]}, ${percent(n[`${whose}confidence`])}`;
  if (tiles && tilesShown() === tiles) {
    tiles.update(0, { explanation: own });
    tiles.update(1, { explanation: rival });
    return;
  }
  if (e.progress > 0.15 || !state.picture || !rival) return;      // closed by hand: it stays closed
  const tile = (title, whose, explanation) => ({ title, text: text(whose), bitmap: state.picture.bitmap, mirrored: state.picture.mirrored, explanation,
    layers: box ? [boxLayer({ ...box, label: n[`${whose}class`], confidence: n[`${whose}confidence`] })] : [] });
  tiles = showTiles([tile(n.class, '', own), tile(`rival ${n['rival class']}`, 'rival ', rival)],
    { title: 'Trust card: one box, two labels', onClose: () => { tiles = null; } });
}

function close() {
  if (tiles && tilesShown() === tiles) tiles.close();
  tiles = null;
}

addCard({ name: 'trust', mount, show, hide: () => { parts.root.hidden = true; close(); } });
