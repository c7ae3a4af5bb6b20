/* When the next live picture is taken, and how large it is. Knows no socket and no camera; all times are ms.

   Two pictures may be under way, one in the model and the newest one waiting for it. The second is taken so late
   that it arrives just before the model is free: then the model never idles, and what it gets is as new as can be.
   When that is follows from the answers: `ms` says how long the model was busy with a picture and how long the
   picture waited for it, the rest of its round trip was the way. What this reckoning misses (a busy machine, an
   uneven network) is learnt: a picture that came too late makes the next ones earlier, one that waited long later.

   createPace() ->
     sent(at, alone)              a picture left; alone: no other is under way
     answered(picture, result, at, more)   picture: {at, bytes} as it was sent; more: another one is under way
     explained(ms)                a live map took so long, after its answer
     passed(at)                   a picture was dropped for a newer one: the model was not where it was thought to be
     encoded(ms)                  taking a picture took so long
     due()                        when the one after the one under way is to be taken
     form()                       {side, quality} of the next picture
     usual()                      how long after one another answers come
     reset()                      another server, another model: what was learnt of the model is not so any more */
const EARLY = 3;                    // how much earlier, at least, after one that came too late
const RARE = 0.06;                  // the share of pictures that may come too late
const IN_TIME = 1;                  // one that waited less came to a model that was idle
const SLOW = 400;                   // a way that takes longer than this has too much to carry
const QUICK = 150;                  // with this one, the next larger picture would still not be slow
const CALM = 24;                    // quick ones in a row before a larger picture is tried
const FORMS = [[640, 0.85], [480, 0.7], [320, 0.6], [224, 0.5], [160, 0.4]];

export function createPace() {
  let known = false;                // whether the model's figures have been heard
  let period = 0;                   // the model is busy with a picture and its map for so long
  let map = 0;                      // of it, the map
  let way = 0;                      // to the server and back
  let taking = 0;                   // from the camera to a JPEG
  let early = EARLY;
  let free = 0;                     // when the model is free again, as far as can be seen from here
  let last = 0;                     // the last answer
  let passes = 0;                   // pictures dropped in a row
  let form = 0;
  let formed = 0;                   // when it was changed
  let calm = 0;

  const near = (old, value) => (known ? old + 0.25 * (value - old) : value);

  function answered(picture, { ms = {}, follows }, at, more) {
    const { wait = 0, decode = 0, prepare = 0, encode = 0, predict = 0 } = ms;
    const own = decode + prepare + encode + predict;
    // It was on its way before the answer before this one came, or took the place of one that was.
    const queued = wait > IN_TIME && (picture.at < last || passes > 0);
    if (!follows) map = 0;
    // With others at the same server, the model is theirs in between; then only the clock knows.
    const busy = queued ? at - last : wait + own + map;
    period = near(period, known ? Math.min(busy, 4 * period) : busy);
    const gone = Math.max(0, at - picture.at - wait - own);
    way = near(way, gone);
    const step = Math.max(EARLY, period / 8);
    early += wait > IN_TIME ? -step * RARE : step * (1 - RARE);
    early = Math.min(period, Math.max(-period / 2, early));
    fit(picture, gone, at);
    known = true;
    last = at;
    passes = 0;
    free = more ? at + map + period : at + map;
  }

  /* A line that cannot carry the pictures gets smaller ones; only what was sent in the form of now tells. */
  function fit({ at }, gone, now) {
    if (at < formed) return;
    calm = gone < QUICK ? calm + 1 : 0;
    const step = gone > SLOW ? (gone > 4 * SLOW ? 2 : 1) : calm >= CALM ? -1 : 0;
    const next = Math.min(FORMS.length - 1, Math.max(0, form + step));
    if (step) calm = 0;
    if (next === form) return;
    form = next;
    formed = now;
  }

  return {
    answered,
    sent(at, alone) { if (alone) free = at + way + period; },
    explained(ms) { map = map ? map + 0.25 * (ms - map) : ms; },
    passed(at) { passes += 1; free = at + Math.min(1000, Math.max(20, period) * 2 ** passes); },
    encoded(ms) { taking = taking ? taking + 0.25 * (ms - taking) : ms; },
    due: () => (known ? free - way - taking - early : Infinity),
    form: () => ({ side: FORMS[form][0], quality: FORMS[form][1] }),
    usual: () => period,
    reset() { known = false; [period, map, way, early, free, last, passes] = [0, 0, 0, EARLY, 0, 0, 0]; },
  };
}
