/* Caption: the sentence under the picture, each word a button shaded by its probability; while live, the heat walks
   along it; runners-up of a word on hover or focus; a typed caption with its own words; the film strip of all
   words' maps on one scale. */
import { emit, on } from './bus.js';
import { $, el, percent, short } from './dom.js';
import { ask, explainTarget, liveMethod } from './explaining.js';
import { freeze } from './camera.js';
import { onMap } from './live.js';
import { register } from './panel.js';
import { warn } from './status.js';
import { set, state } from './state.js';
import { showRow } from './strip.js';
import './attack.js';

const STEP = 700;                   // ms that the heat stays with a word
const STILL = matchMedia('(prefers-reduced-motion: reduce)');
const CALM = 1000;                  // ms: a sentence that changes faster than this cannot be read
const RIVALS = 4;
const HABIT = 'said from language habit, not from this picture';
const NO_HELP = 'just as likely without this picture';     // the same of a word that somebody typed
let said = [];                      // the words under the picture
let since = 0;
let typed = null;                   // {text, words}: a caption that somebody typed
let wanted = null;                  // a word that was chosen on the moving picture
let spoken = '';
const walk = { text: '', from: 0, at: -1 };
const strip = { job: null };
const parts = {};

document.head.append(el('link', { rel: 'stylesheet', href: '/static/caption.css' }));

/* A row of words --------------------------------------------------------------------------------------------- */
function sentence({ label, id, target }) {
  const root = el('p', { class: 'sentence', id, role: 'group', 'aria-label': label });
  const buttons = [];
  let words = [];

  function add(at) {
    const button = el('button', { type: 'button', class: 'word', 'aria-describedby': 'word-detail',
      onclick: () => choose(target(at), words[at], at), onpointerenter: () => detail(words[at], target(at)),
      onfocus: () => detail(words[at], target(at)) });
    buttons.push(button);
    root.append(button, ' ');
  }

  function update(list) {
    words = list;
    while (buttons.length < words.length) add(buttons.length);
    buttons.forEach((button, i) => {
      const word = words[i];
      button.hidden = !word;
      if (!word) return;
      if (button.textContent !== word.word) button.textContent = word.word;
      button.style.setProperty('--sure', `${Math.round(100 * Math.sqrt(word.probability))}%`);
      button.classList.toggle('habit', word.habit);
      button.title = `${word.word}, ${percent(word.probability)}${word.habit ? `, ${target(i).includes('/text:') ? NO_HELP : HABIT}` : ''}`;
    });
    mark();
  }

  function mark() {
    buttons.forEach((button, i) => button.setAttribute('aria-pressed', String(state.target === target(i))));
  }

  const walkedTo = (at) => buttons.forEach((button, i) => button.classList.toggle('walked', i === at));

  return { root, update, mark, walkedTo };
}

/* What is chosen on the moving picture is looked for again in the caption of the frame that is frozen. */
function choose(target, word, at) {
  wanted = state.source === 'camera' && !liveMethod() && !target.includes('/text:') ? { word: word.word, at, text: text() } : null;
  explainTarget(target);
}

/* Which word's map is drawn: each in turn, on one scale; all of them together while the sentence that stands there
   is not what was said of this picture, or where nothing is to move. */
function walked(result, e) {
  const maps = Object.values(e.maps ?? {});
  const walks = maps.length === said.length && state.target === null && result.caption === text() && !STILL.matches;
  if (walk.text !== text()) Object.assign(walk, { text: text(), from: performance.now() });
  const at = walks ? Math.floor((performance.now() - walk.from) / STEP) % maps.length : -1;
  if (at !== walk.at) parts.said.walkedTo(walk.at = at);
  if (at < 0) return e;
  const scale = Math.max(...maps.map((map) => map.scale), 1e-12);
  return { ...e, ...maps[at], maps: e.maps, scale, empty: false, title: `why “${said[at].word}”` };
}

const text = (words = said) => words.map(({ word }) => word).join(' ');
const suffix = () => (typed ? `/text:${typed.text}` : '');

function detail(word, target) {
  if (!word) return;
  parts.detail.replaceChildren(
    el('span', { class: 'detail-word' }, el('strong', {}, word.word), ` ${percent(word.probability)}`),
    el('span', { class: 'unless' }, word.others.length ? 'or' : ''),
    ...word.others.slice(0, RIVALS).map((other) => el('button', { type: 'button', class: 'rival', title: `why “${word.word}” and not “${other.label}”`,
      onclick: () => explainTarget(target.replace(/^(word:\d+)/, `$1/versus:${other.label}`)) }, other.label, el('span', { class: 'numbers' }, ` ${percent(other.probability)}`))),
    el('span', { class: 'habit-words' }, word.habit ? `≈ ${target.includes('/text:') ? NO_HELP : HABIT}` : ''));
}

/* The panel -------------------------------------------------------------------------------------------------- */
function mount(root) {
  parts.said = sentence({ label: 'What it says, word by word; press a word to see why', id: 'caption-words', target: (i) => `word:${i}` });
  parts.under = el('div', { id: 'caption', hidden: state.tab !== 'caption' }, parts.said.root);
  $('#stage-extra').append(parts.under);
  parts.detail = el('p', { id: 'word-detail', class: 'word-detail' }, el('span', { class: 'soft' }, 'Point at a word to see what nearly stood there; press it to see why.'));
  parts.whole = el('button', { type: 'button', id: 'whole-caption', onclick: () => explainTarget(`caption${suffix()}`) }, 'Whole caption');
  parts.speak = el('button', { type: 'button', id: 'speak', 'aria-pressed': 'false', onclick: speaking }, 'Speak');
  parts.input = el('input', { type: 'text', id: 'typed-caption', 'aria-label': 'Another caption', placeholder: 'Type another caption…', autocomplete: 'off', spellcheck: 'false' });
  parts.form = el('form', { class: 'typed-form', onsubmit: (event) => { event.preventDefault(); weigh(); } }, parts.input, el('button', {}, 'How likely?'));
  parts.typed = sentence({ label: 'The typed caption; press a word to see its evidence', id: 'typed-words', target: (i) => `word:${i}${suffix()}` });
  parts.verdict = el('p', { id: 'typed-verdict', role: 'status' });
  parts.other = el('div', { class: 'typed', hidden: true }, parts.typed.root, parts.verdict,
    el('button', { type: 'button', class: 'quiet', onclick: () => { forgetTyped(); explainTarget(null); } }, 'Back to its own words'));
  parts.habit = el('p', { class: 'habit-key', hidden: true }, el('span', { class: 'habit' }, 'dashed'), `: ${HABIT}`);
  root.append(parts.detail, el('div', { class: 'caption-actions' }, parts.whole, parts.speak), parts.form, parts.other, parts.habit);
}

function render(result) {
  if (!result.kept && beyond(result)) explainTarget(null);
  const now = performance.now();
  const fresh = text(result.words) !== text();
  if (fresh && !result.kept && now - since < CALM && said.length) return;
  if (fresh) since = now;
  said = result.words;
  parts.said.update(said);
  parts.habit.hidden = !said.some(({ habit }) => habit);
  if (fresh && document.activeElement !== parts.input && !typed) parts.input.value = text();
  announce(result);
}

/* The chosen word is further on than the new caption is long. */
const beyond = ({ words }) => !state.target?.includes('/text:') && Number(state.target?.match(/^word:(\d+)/)?.[1]) >= words.length;

/* Called with a still's result before its map is asked for: the chosen word keeps its meaning. */
function still(result) {
  forgetTyped();
  if (wanted) {
    const same = result.words[wanted.at]?.word === wanted.word ? wanted.at : result.words.findIndex(({ word }) => word === wanted.word);
    set({ target: same >= 0 ? `word:${same}` : `word:${wanted.at}/text:${wanted.text}` });
    wanted = null;
  } else if (beyond(result)) set({ target: null });
}

function clear() {
  said = [];
  parts.said?.update([]);
  forgetTyped();
  showRow('words', []);
}

/* Another caption -------------------------------------------------------------------------------------------- */
async function weigh() {
  const wish = parts.input.value.trim().toLowerCase().replace(/[^a-z0-9' -]/g, ' ').replace(/\s+/g, ' ').trim();
  if (state.source === 'camera') await freeze();
  if (!state.picture) {
    warn('There is no picture to weigh a caption on. Switch the camera on or choose a picture below.');
    return;
  }
  try {
    const e = await maps(wish);
    if (!e?.after) return;
    typed = { text: wish, words: e.after.words };
    parts.typed.update(typed.words);
    parts.other.hidden = false;
    const [mine, its] = [typed.words, said].map((words) => {
      const sum = words.reduce((total, { probability }) => total + Math.log(Math.max(probability, 1e-30)), 0);
      return `${short(sum)}, ${short(sum / words.length)} a word`;
    });
    const weakest = typed.words.reduce((low, word) => (word.probability < low.probability ? word : low));
    parts.verdict.textContent = `Log-probability ${mine}; its own caption has ${its}. Least likely: “${weakest.word}”, ${percent(weakest.probability)}.`;
    parts.input.blur();
    explainTarget(`caption${suffix()}`);
  } catch (failure) {
    forgetTyped();
    parts.verdict.textContent = failure.message;
    parts.other.hidden = false;
    parts.typed.update([]);
  }
}

function forgetTyped() {
  typed = null;
  if (parts.other) parts.other.hidden = true;
}

/* Every word's map, one scale for all: the film strip. */
async function maps(wish) {
  const { picture } = state;
  strip.job?.stop();
  const mine = ask({ picture, method: 'word_maps', params: {}, target: wish === null ? 'caption' : `caption/text:${wish}` });
  strip.job = mine;
  const e = await mine.done.catch((failure) => { if (wish !== null) throw failure; return null; });
  if (strip.job !== mine || state.picture !== picture || !e?.maps) return null;
  const scale = Math.max(...Object.values(e.maps).map((map) => map.scale), 1e-12);
  showRow('words', Object.entries(e.maps).map(([name, map], i) => ({ title: name.replace(/^\d+ /, ''), draw: picture.bitmap,
    heat: map, scale, open: () => explainTarget(`word:${i}${wish === null ? '' : `/text:${wish}`}`) })));
  return e;
}

/* Speaking --------------------------------------------------------------------------------------------------- */
function speaking() {
  const turnedOn = parts.speak.getAttribute('aria-pressed') !== 'true';
  parts.speak.setAttribute('aria-pressed', String(turnedOn));
  window.speechSynthesis?.cancel();
  spoken = '';
  if (turnedOn && said.length) say();
}

function say() {
  spoken = text();
  window.speechSynthesis?.cancel();
  window.speechSynthesis?.speak(Object.assign(new SpeechSynthesisUtterance(spoken), { lang: 'en' }));
}

/* A caption that has stayed, or a still's, is read out by the screen reader, and aloud if Speak is on. */
let announced = '';
let stayed = { text: '', since: 0 };
function announce(result) {
  const now = text();
  if (stayed.text !== now) stayed = { text: now, since: performance.now() };
  if (!result.kept && performance.now() - stayed.since < CALM) return;
  if (now !== announced) emit('speak', now);
  announced = now;
  if (parts.speak.getAttribute('aria-pressed') === 'true' && now !== spoken && !window.speechSynthesis?.speaking) say();
}

/* What targets are called ------------------------------------------------------------------------------------ */
function name(target) {
  const [, at, versus] = target?.match(/^word:(\d+)(?:\/versus:([^/]+))?/) ?? [];
  const given = target?.match(/\/text:(.*)$/)?.[1]?.split(' ');
  if (at === undefined) return given ? 'the typed caption' : target === 'caption' ? 'the whole caption' : null;
  const word = given ? given[at] : said[at]?.word;
  return versus ? `“${word}” and not “${versus}”` : `“${word}”`;
}

const targets = () => (typed ? typed.words : said).map(({ word }, i) => ({ target: `word:${i}${suffix()}`, label: word }));

onMap((result, e) => (result.task === 'caption' ? walked(result, e) : e));
register('caption', { mount, render, still, clear, name, targets });
on('still', () => { if (state.task === 'caption' && !state.watching) maps(null); });
on('state:target', () => { parts.said?.mark(); parts.typed?.mark(); });
on('state:tab', (tab) => { parts.under.hidden = tab !== 'caption'; if (tab !== 'caption') { window.speechSynthesis?.cancel(); showRow('words', []); } });
on('state:source', (source) => { parts.said.walkedTo(walk.at = -1); if (source === 'camera') { forgetTyped(); showRow('words', []); } });
