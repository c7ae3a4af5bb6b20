/* Six steps round the "What if" tab, the first time somebody opens it; never again by itself. The "Tour" button in
   the tab shows it once more. Arrow keys and the buttons turn its pages, Esc skips it. */
import { on } from './bus.js';
import { $, el } from './dom.js';
import { onKey } from './keys.js';
import { state } from './state.js';

const SEEN = 'seewhy-tour';
const STEPS = [
  ['#strip', 'Start with a picture', 'Freeze the camera, open a file, or take one from the film strip.'],
  ['#stage', 'Paint over something', 'Draw on the left picture with mouse, pen or finger. Outside the picture the stroke goes on and is kept.'],
  ['#whatif-tools', 'Choose how it is filled', 'Brush, eraser, rectangle; undo fifty steps. The fill decides what stands in the hole: PatchMatch copies fitting patches.'],
  ['#whatif-compare', 'Read what changed', 'Each class before and after, in percentage points. Press one to see its map on both pictures, on one scale.'],
  ['#whatif-needs', 'What does it need?', 'Erases the hottest part of a map, and as much at random. Only if the first hurts more is the map worth something.'],
  ['#whatif-undesirable', 'What stands in its way?', 'Undesirable pixels keep the model from saying a class. Find them, and see how sure it is without them.'],
];
let at = -1;
let before = null;
const count = el('span', { class: 'numbers soft' });
const title = el('h2', { id: 'tour-title' });
const text = el('p', { id: 'tour-text' });
const back = el('button', { type: 'button', id: 'tour-back', onclick: () => go(at - 1) }, 'Back');
const next = el('button', { type: 'button', id: 'tour-next', class: 'primary', onclick: () => go(at + 1) });
const skip = el('button', { type: 'button', id: 'tour-skip', class: 'quiet', onclick: close }, 'Skip');
const box = el('div', { id: 'tour', role: 'dialog', 'aria-labelledby': 'tour-title', 'aria-describedby': 'tour-text', hidden: true },
  count, title, text, el('div', { class: 'tour-buttons' }, skip, el('span', { class: 'spring' }), back, next));
document.body.append(box);

const seen = () => {
  try {
    return localStorage.getItem(SEEN) === 'yes';
  } catch {
    return true;                    // a browser that remembers nothing would show it every time
  }
};

export function startTour() {
  try { localStorage.setItem(SEEN, 'yes'); } catch { /* then it was asked for by hand */ }
  before = document.activeElement;
  box.hidden = false;
  go(0);
}

function go(step) {
  if (step < 0) return;
  if (step >= STEPS.length) { close(); return; }
  at = step;
  const [selector, heading, words] = STEPS[at];
  count.textContent = `${at + 1} of ${STEPS.length}`;
  title.textContent = heading;
  text.textContent = words;
  back.disabled = at === 0;
  next.textContent = at === STEPS.length - 1 ? 'Done' : 'Next';
  point($(selector));
  next.focus();
}

/* Outline what is meant, and stand beside it; what is not there yet (no picture) is outlined by its place. */
function point(target) {
  document.querySelectorAll('.toured').forEach((node) => node.classList.remove('toured'));
  const thing = target?.offsetParent ? target : $('#panel');
  thing.classList.add('toured');
  thing.scrollIntoView({ block: 'nearest' });
  const { left, top, right, bottom } = thing.getBoundingClientRect();
  const { width, height } = box.getBoundingClientRect();
  const fits = (value, most) => Math.max(12, Math.min(value, most - 12));
  const middle = (left + right) / 2;
  const x = middle > innerWidth / 2 ? fits(left - width - 16, innerWidth - width) : fits(middle - width / 2, innerWidth - width);
  const y = top > innerHeight / 2 ? fits(top - height - 16, innerHeight - height) : fits(Math.min(top + 40, bottom), innerHeight - height);
  Object.assign(box.style, { left: `${x}px`, top: `${y}px` });
}

function close() {
  if (box.hidden) return;
  box.hidden = true;
  at = -1;
  document.querySelectorAll('.toured').forEach((node) => node.classList.remove('toured'));
  before?.focus?.();
}

const turning = (step) => () => {
  if (box.hidden) return false;
  go(at + step);
  return true;
};
onKey('ArrowRight', turning(1));
onKey('ArrowLeft', turning(-1));
onKey('Escape', () => { const open = !box.hidden; close(); return open; });
on('state:tab', (tab) => {
  if (tab !== 'whatif') close();
  else if (!seen() && state.connection === 'open') setTimeout(startTour, 50);
});
