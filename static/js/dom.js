/* Small DOM words. el('button', {class: 'x', onclick: fn, 'aria-label': 'y'}, 'text', child) builds an element;
   functions become listeners, other properties attributes (true: present, false and null: absent). */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === 'function') node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, '');
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export const $ = (selector, root = document) => root.querySelector(selector);

export const percent = (share) => (share > 0 && share < 0.0005 ? '<0.1 %' : `${(share * 100).toFixed(1)} %`);

/* A number as people read it: 0.0123, 12.3, 1.2e-7. */
export function short(value) {
  if (typeof value !== 'number') return String(value);
  if (!Number.isFinite(value)) return 'not a number';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}

export const words = (name) => {
  const text = name.replaceAll('_', ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
};
