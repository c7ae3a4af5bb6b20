/* Keyboard. Modules that need a key of their own: onKey('b', fn); fn returns true when it took the key. */
import { emit } from './bus.js';
import { $ } from './dom.js';
import { stopNewest } from './status.js';
import { tilesShown } from './stage.js';

const keys = new Map();

export function onKey(key, fn) {
  keys.set(key, [...(keys.get(key) ?? []), fn]);
}

const typing = (target) => target.matches?.('input:not([type=range]):not([type=checkbox]), textarea, [contenteditable]');
const owns = (target, key) => (target.matches?.('select, input[type=range]') && key.startsWith('Arrow'))
  || (key === ' ' && target.matches?.('button, summary, input, select, a'))
  || (target.matches?.('[role=tab]') && key.startsWith('Arrow'))
  || (target.matches?.('select') && key.length === 1);      // letters find an option there

document.addEventListener('keydown', (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if ($('#keys').open) return;
  if (key === 'Escape') {
    const handlers = keys.get('Escape') ?? [];
    if (handlers.some((fn) => fn(event))) return;
    if (typing(target)) target.blur();
    else if (!stopNewest() || tilesShown()) emit('leave');
    return;
  }
  if (typing(target) || owns(target, key)) return;
  const name = key.length === 1 ? key.toLowerCase() : key;
  if ((keys.get(name) ?? []).some((fn) => fn(event))) event.preventDefault();
});

/* A button that was clicked lets go of the keyboard, so that Space freezes instead of pressing it again. Whoever
   came to it with the Tab key keeps it. */
document.addEventListener('click', (event) => {
  if (event.detail > 0 && document.activeElement?.matches('button, summary, input[type=checkbox]')) document.activeElement.blur();
});
