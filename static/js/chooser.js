/* A text box that finds one of many classes: type a part of the name or the number, arrows and Enter choose.
   chooser({label, placeholder, options: () => [[index, name]], choose(index, name)}) -> an element */
import { el } from './dom.js';

const MOST = 8;
let serial = 0;

export function chooser({ label, placeholder = label, options, choose }) {
  const id = `chooser-${serial += 1}`;
  let found = [];
  let at = 0;
  const list = el('ul', { id: `${id}-list`, role: 'listbox', 'aria-label': label, hidden: true });
  const input = el('input', { type: 'text', role: 'combobox', 'aria-label': label, placeholder, autocomplete: 'off', spellcheck: 'false',
    'aria-expanded': 'false', 'aria-controls': `${id}-list`, 'aria-autocomplete': 'list',
    oninput: search, onfocus: search, onblur: () => setTimeout(close, 120), onkeydown: key });

  function search() {
    const text = input.value.trim().toLowerCase();
    const rank = ([index, name]) => (String(index) === text ? 0 : name.toLowerCase().startsWith(text) ? 1 : 2);
    found = !text ? [] : options().filter(([index, name]) => String(index) === text || name.toLowerCase().includes(text))
      .sort((a, b) => rank(a) - rank(b)).slice(0, MOST);
    at = 0;
    draw(text);
  }

  function draw(text) {
    list.replaceChildren(...found.map(([index, name], i) => el('li', { role: 'option', id: `${id}-${i}`, 'aria-selected': String(i === at),
      onpointerdown: (event) => { event.preventDefault(); pick(i); } }, name, el('span', { class: 'numbers' }, ` ${index}`))));
    if (text && !found.length) list.replaceChildren(el('li', { class: 'none' }, 'No class has that name'));
    list.hidden = !text;
    input.setAttribute('aria-expanded', String(Boolean(text)));
    if (found.length) input.setAttribute('aria-activedescendant', `${id}-${at}`);
  }

  function key(event) {
    event.stopPropagation();
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      at = (at + (event.key === 'ArrowDown' ? 1 : -1) + found.length) % Math.max(1, found.length);
      draw(input.value);
    } else if (event.key === 'Enter') pick(at);
    else if (event.key === 'Escape') { close(); input.blur(); }
  }

  function pick(i) {
    if (!found[i]) return;
    const [index, name] = found[i];
    close();
    input.value = '';
    input.blur();                   // the page's own keys work again
    choose(index, name);
  }

  function close() {
    list.hidden = true;
    input.setAttribute('aria-expanded', 'false');
    input.removeAttribute('aria-activedescendant');
  }

  return el('div', { class: 'chooser' }, input, list);
}
