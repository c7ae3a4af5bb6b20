/* The worker of encoding.js: a drawable comes in, its JPEG and what it shows go out, and nothing is copied on the way. */
async function encoded({ source, size: [width, height], qualities, bytes }) {
  const desk = new OffscreenCanvas(width, height);
  const context = desk.getContext('2d', { alpha: false });
  context.fillStyle = '#fff';       // transparent pictures lie on white
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(source, 0, 0, width, height);
  source.close();
  let blob;
  for (const quality of qualities) {
    blob = await desk.convertToBlob({ type: 'image/jpeg', quality });
    if (blob.size <= bytes) break;
  }
  return { jpeg: await blob.arrayBuffer(), bitmap: desk.transferToImageBitmap() };
}

self.addEventListener('message', async ({ data: { id, ...picture } }) => {
  try {
    const { jpeg, bitmap } = await encoded(picture);
    self.postMessage({ id, jpeg, bitmap }, [jpeg, bitmap]);
  } catch (problem) {
    self.postMessage({ id, problem: String(problem) });
  }
});

try {
  const source = new OffscreenCanvas(1, 1);
  source.getContext('2d').fillRect(0, 0, 1, 1);
  await encoded({ source: source.transferToImageBitmap(), size: [1, 1], qualities: [0.5], bytes: 1e6 });
  self.postMessage({ ready: true });
} catch { /* it stays unused, and pictures are encoded by the page itself */ }
