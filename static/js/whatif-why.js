/* Explanations on the "What if" tab: the chosen method on both sides, recomputed after every edit, on one scale;
   "what does it need"; undesirable pixels. createWhy(root, {current(), redraw()}) ->
     maps()        [original's, modified's] explanation for the tiles
     wait(edited)  an edit is on its way: its old map is no longer true
     edited(on)    an edit is there (or gone): explain that side
     clear()       another picture or model */
import { on } from './bus.js';
import { el, percent, short, words } from './dom.js';
import { ask } from './explaining.js';
import { busy, warn } from './status.js';
import { methodInfo, state } from './state.js';
import { matched } from './whatif-compare.js';

const NEEDS = 'needs';
const UNDESIRABLE = 'undesirable';
const RUNS = { [UNDESIRABLE]: 'with gradients', undesirable_black_box: 'black box, no gradients' };

export function createWhy(root, { current, redraw }) {
  let modified = null;              // the map of the modified side
  let special = null;               // undesirable pixels, shown on the original until the next edit
  let job = null;
  let helper = null;

  const info = (name) => state.ready?.methods.find((m) => m.name === name);
  const busyWords = 'Explaining the modified picture';

  /* The same question for both sides: a class by its index; a box where it is found again; a word in the sentence
     as it was. Null: the box is gone, and there is nothing to ask about. */
  function target(modifiedSide) {
    const { picture: { result }, edit } = current();
    const asked = state.target;
    if (result.classes) return asked ?? `class:${result.classes[0].index}`;
    if (!result.boxes) return `${asked?.split('/text:')[0] ?? 'caption'}/text:${result.caption}`;
    const [, number = '0', rest = ''] = asked?.match(/^box:(\d+)(.*)$/) ?? [];
    if (!modifiedSide) return asked ?? `box:${number}${rest}`;
    const same = matched(result.boxes, edit?.boxes ?? []).kept.find(({ before }) => before === result.boxes[Number(number)]);
    return same ? `box:${edit.boxes.indexOf(same.after)}${rest}` : null;
  }

  async function edited(on) {
    job?.stop();
    job = null;
    modified = null;
    note.textContent = '';
    if (!on || !state.method) return redraw();
    const { picture } = current();
    const about = target(true);
    if (!about) {
      note.textContent = 'That box is not in the modified picture any more: there is nothing to map.';
      return redraw();
    }
    const mine = ask({ picture, method: state.method, params: state.params, target: about, edited: true, aside: false }, (e) => {
      if (job !== mine) return;
      modified = e;
      busy('whatif', e.done ? null : { words: busyWords, progress: e.progress, stop: mine.stop });
      redraw();
    });
    job = mine;
    busy('whatif', { words: busyWords, progress: null, stop: mine.stop });
    try {
      await mine.done;
    } catch (failure) {
      if (job === mine && failure.code !== 'gone-server') note.textContent = `The modified side: ${failure.message}`;
    } finally {
      if (job === mine || !job) busy('whatif', null);
    }
    return undefined;
  }

  /* What does it need ------------------------------------------------------------------------------------------ */
  const share = el('input', { type: 'range', id: 'needs-share', min: 1, max: 50, value: 10, oninput: () => { shareText.textContent = `${share.value} %`; } });
  const shareText = el('output', { for: 'needs-share' }, '10 %');
  const needsOut = el('div', { id: 'needs-out', role: 'status' });
  const needsButton = el('button', { type: 'button', id: 'needs-run', onclick: runNeeds }, 'Erase and compare');
  const needsPart = el('details', { id: 'whatif-needs' }, el('summary', {}, 'What does it need?'),
    el('p', { class: 'soft' }, 'Erases the hottest part of the chosen method’s map, and as much at random, with the chosen fill.'),
    el('div', { class: 'param' }, el('label', { for: 'needs-share' }, 'Hottest share'), share, shareText), needsButton, needsOut);

  async function runNeeds() {
    const declared = info(NEEDS).parameters.find((p) => p.name === 'map');
    const map = declared.choices.includes(state.method) ? state.method : 'grad_cam';
    const { fill, picture } = current();
    needsOut.replaceChildren(el('p', {}, 'Erasing…'));
    needsButton.disabled = true;
    try {
      const e = await ask({ picture, method: NEEDS, params: { map, share: Number(share.value), fill: fill.name }, target: target() },
        ({ progress }) => { needsOut.firstChild.textContent = `Erasing… ${Math.round(100 * progress)} %`; }).done;
      if (picture === current().picture) needsShown(e, map);
    } catch (failure) {
      needsOut.replaceChildren(el('p', {}, failure.message));
    } finally {
      needsButton.disabled = false;
    }
  }

  function needsShown(e, map) {
    const n = e.numbers;
    const row = (name, value, id) => el('div', { class: 'needs-row' }, el('span', {}, name), el('strong', { class: 'numbers', id }, percent(value)));
    needsOut.replaceChildren(el('p', {}, `By ${methodInfo(map)?.title ?? words(map)}, for ${e.title?.replace(/^why /, '') ?? 'it'}.`),
      row('The whole picture', n.confidence, 'needs-before'),
      ...('without the hottest' in n ? [row(`Without the hottest ${Math.round(n['erased %'])} %`, n['without the hottest'], 'needs-hot'),
        row('Without as much at random', n['without a random part'], 'needs-random')] : []),
      el('p', {}, e.note), thumbnails({ 'the hottest erased': e.images.image, 'a random part erased': e.images['random part'] }));
  }

  const thumbnails = (images) => el('div', { class: 'thumbs' }, ...Object.entries(images).filter(([, jpeg]) => jpeg).map(([title, jpeg]) =>
    el('figure', {}, el('img', { src: URL.createObjectURL(new Blob([jpeg], { type: 'image/jpeg' })), alt: title,
      onload: (event) => URL.revokeObjectURL(event.target.src) }), el('figcaption', {}, title))));

  /* Undesirable pixels ----------------------------------------------------------------------------------------- */
  const option = (value, text = words(value)) => el('option', { value }, text);
  const menu = (id, label, ...options) => el('div', { class: 'param' }, el('label', { for: id }, label), el('select', { id }, ...options), el('span'));
  const form = menu('undesirable-method', 'How', ...Object.entries(RUNS).map(([name, text]) => option(name, text)));
  const kind = menu('undesirable-kind', 'What', option('F-TC', 'holds the class down (F-TC)'), option('F-NTC', 'holds its rivals up (F-NTC)'));
  const replace = menu('undesirable-replace', 'Put there', option('blur'), option('mean', 'Mean colour'), option('noise'));
  const rounds = menu('undesirable-rounds', 'Rounds', option('60', 'quick'), option('300', 'thorough'));
  const run = el('button', { type: 'button', id: 'undesirable-run', onclick: runUndesirable }, 'Find them');
  const stop = el('button', { type: 'button', id: 'undesirable-stop', hidden: true, onclick: () => helper?.stop() }, 'Stop');
  const progress = el('progress', { id: 'undesirable-progress', max: 1, hidden: true, 'aria-label': 'Progress' });
  const out = el('div', { id: 'undesirable-out', role: 'status' });
  const undesirablePart = el('details', { id: 'whatif-undesirable' }, el('summary', {}, 'Undesirable pixels'),
    el('p', { class: 'soft' }, 'The pixels that keep the model from saying the chosen class: press its row above, or type any other.'),
    form, kind, replace, rounds, el('div', { class: 'needs-row' }, run, stop, progress), out);
  const value = (part) => part.querySelector('select').value;
  form.addEventListener('change', () => { kind.hidden = value(form) !== UNDESIRABLE; });

  async function runUndesirable() {
    helper?.stop();
    const { picture } = current();
    const name = value(form);
    const params = name === UNDESIRABLE ? { kind: value(kind), replace: value(replace), iterations: Number(value(rounds)) }
      : { replace: value(replace), masks: value(rounds) === '60' ? 400 : 2000 };
    const mine = ask({ picture, method: name, params, target: target() }, (e) => {
      if (helper !== mine) return;
      special = e;
      progress.value = e.progress;
      shown(e, e.done ? '' : `${Math.round(100 * e.progress)} %`);
      redraw();
    });
    helper = mine;
    stop.hidden = progress.hidden = false;
    run.disabled = true;
    progress.value = 0;
    out.replaceChildren(el('p', {}, 'Looking for them…'));
    try {
      const last = await mine.done;
      if (helper === mine && last.stopped) shown(last.shape ? last : null, last.shape ? `stopped at ${Math.round(100 * last.progress)} %` : 'stopped before the first step');
    } catch (failure) {
      if (helper === mine) out.replaceChildren(el('p', {}, failure.message));
    } finally {
      if (helper === mine) {
        helper = null;
        stop.hidden = progress.hidden = true;
        run.disabled = false;
      }
    }
  }

  function shown(e, state) {
    const n = e?.numbers ?? {};
    const rows = Object.entries(n).map(([name, v]) => el('div', {}, el('dt', {}, words(name)), el('dd', { class: 'numbers' }, name.startsWith('confidence') ? percent(v) : short(v))));
    out.replaceChildren(...(state ? [el('p', { id: 'undesirable-state' }, state)] : []), ...(e?.note ? [el('p', {}, e.note)] : []), el('dl', { class: 'pairs' }, ...rows),
      thumbnails({ 'without them': e?.images?.image }),
      ...(e ? [el('button', { type: 'button', class: 'quiet', onclick: () => { special = null; redraw(); } }, 'Back to the chosen method’s map')] : []));
  }

  const note = el('p', { id: 'whatif-note', role: 'status' });
  root.append(note, needsPart, undesirablePart);

  function forget() {
    special = null;
    helper?.stop();
  }

  const mine = () => state.tab === 'whatif' && Boolean(current().picture);
  const again = () => { if (mine()) { forget(); edited(Boolean(current().edit)); } };
  on('explained', () => { if (mine()) redraw(); });
  on('state:method', again);
  on('state:params', again);
  on('state:target', again);
  on('failure', ({ id, message }) => { if (id) warn(message); });

  return {
    maps: () => (special ? [special, null] : [state.explanation, modified]),
    wait() { modified = null; note.textContent = ''; forget(); },
    edited,
    clear() {
      job?.stop();
      job = modified = null;
      forget();
      note.textContent = '';
      needsOut.replaceChildren();
      out.replaceChildren();
    },
  };
}
