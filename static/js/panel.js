/* The right column's upper half, "What it sees". A module per task plugs in with
   panel.register(tab, {
     mount(root)        once, with its own empty <div>
     render(result)     each result of the task, live or still; result.picture.bitmap is the frame it belongs to,
                        result.kept true for a still. Called at up to 30 Hz: change text and widths, not the DOM
     clear()            another model or task: forget what is shown
     name(target)       optional: what any target text of the task is called
     targets(result)    [{target: 'box:0', label: 'bus'}]: what arrow keys walk through and "Explaining" names
     still(result)      optional, once when a still's result is there
   })
   The tab is classify, detect, caption or whatif. The current one is shown, the others are hidden.
   panel.explain(target) asks for that target to be explained (see why.js explainTarget). */
import { emit, on } from './bus.js';
import { $, el } from './dom.js';
import { state } from './state.js';

const plugs = new Map();
const TITLES = { classify: 'What it sees', detect: 'What it sees', caption: 'What it says', whatif: 'What if' };

export function register(tab, plug) {
  const root = el('div', { class: `sees-${tab}`, id: `sees-${tab}`, hidden: tab !== state.tab });
  $('#sees-body').append(root);
  plugs.set(tab, { ...plug, root });
  plug.mount?.(root);
}

export const explain = (target) => emit('explain-target', target);
export const current = () => plugs.get(state.tab);
export const has = (tab) => plugs.has(tab);
export const targets = () => (state.result ? current()?.targets?.(state.result) ?? plugs.get(state.task)?.targets?.(state.result) ?? [] : []);

/* What a target text is called: the plug-in's own word for it, else the text. */
export const targetLabel = (text) => targets().find(({ target }) => target === text)?.label ?? text;

on('result', (result) => {
  if (result.task !== state.task) return;
  current()?.render?.(result);
  if (result.kept) current()?.still?.(result);
});

on('state:tab', () => {
  for (const [tab, { root }] of plugs) root.hidden = tab !== state.tab;
  $('#sees-title').textContent = TITLES[state.tab];
});

on('clear', () => { for (const { clear } of plugs.values()) clear?.(); });
