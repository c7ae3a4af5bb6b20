/* An edit as a small JSON file (the picture's fingerprint, the mask, the fill), and before/after as one PNG.
   createFiles(root, {current(), load(bitmap, fill)}) -> {enable(on)} */
import { el } from './dom.js';
import { warn } from './status.js';

const KIND = 'seewhy edit';
const GAP = 12;

const base64 = (buffer) => btoa(new Uint8Array(buffer).reduce((text, byte) => text + String.fromCharCode(byte), ''));

function download(blob, name) {
  const link = el('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function createFiles(root, { current, load }) {
  const file = el('input', { type: 'file', accept: '.json,application/json', class: 'unseen', tabindex: -1, 'aria-label': 'Load an edit', id: 'whatif-file',
    onchange: async () => { const [chosen] = file.files; file.value = ''; if (chosen) await read(chosen); } });
  const save = el('button', { type: 'button', id: 'whatif-save', onclick: write }, 'Save edit');
  const pick = el('button', { type: 'button', id: 'whatif-load', onclick: () => file.click() }, 'Load edit…');
  const png = el('button', { type: 'button', id: 'whatif-export', onclick: exportPng }, 'Export PNG');
  root.append(save, pick, png, file);

  async function write() {
    const { picture, mask, fill } = current();
    const edit = { kind: KIND, picture: picture.result.fingerprint, title: picture.title, size: picture.size, fill: fill.name, params: fill.params,
      mask: base64(await mask.png()) };
    download(new Blob([JSON.stringify(edit, null, 1)], { type: 'application/json' }), 'edit.json');
  }

  async function read(chosen) {
    const { picture } = current();
    let edit;
    try {
      edit = JSON.parse(await chosen.text());
    } catch {
      edit = null;
    }
    if (edit?.kind !== KIND || typeof edit.mask !== 'string') {
      warn(`${chosen.name} is no edit saved by this page. Choose the JSON file that “Save edit” made.`);
      return;
    }
    if (edit.picture !== picture.result?.fingerprint) {
      warn(`This edit belongs to another picture (“${edit.title}”, ${edit.picture}); the one shown is ${picture.result?.fingerprint}. Open the picture it was drawn on, then load it again.`);
      return;
    }
    try {
      const bytes = Uint8Array.from(atob(edit.mask), (letter) => letter.charCodeAt(0));
      load(await transparent(await createImageBitmap(new Blob([bytes], { type: 'image/png' }))), { name: edit.fill, params: edit.params ?? {} });
    } catch {
      warn(`The mask in ${chosen.name} is damaged and cannot be read. Nothing was changed.`);
    }
  }

  /* White on black, as it is saved, to white on nothing, as masks are kept. */
  async function transparent(bitmap) {
    const canvas = el('canvas', { width: bitmap.width, height: bitmap.height });
    const ctx = canvas.getContext('2d');
    ctx.drawImage(bitmap, 0, 0);
    const image = ctx.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < image.data.length; i += 4) image.data[i + 3] = image.data[i] > 127 ? 255 : 0;
    ctx.putImageData(image, 0, 0);
    return canvas;
  }

  async function exportPng() {
    const { picture, bitmap } = current();
    const [width, height] = picture.size;
    const canvas = el('canvas', { width: 2 * width + GAP, height });
    const ctx = canvas.getContext('2d');
    ctx.fillStyle = '#fff';
    ctx.fillRect(0, 0, canvas.width, height);
    ctx.drawImage(picture.bitmap, 0, 0);
    ctx.drawImage(bitmap ?? picture.bitmap, width + GAP, 0, width, height);
    download(await new Promise((resolve) => { canvas.toBlob(resolve, 'image/png'); }), 'before-after.png');
  }

  return { enable(on) { save.disabled = !on; png.disabled = !on; } };
}
