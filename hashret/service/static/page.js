// The page: asks the API under /api and draws what it answers. No library, nothing from elsewhere.

const $ = (id) => document.getElementById(id);
const STAGES = [["decode", "decoding"], ["encode", "encoding"], ["hamming", "Hamming"], ["rerank", "re-rank"]];
const CANDIDATES = 1000; // shown until there is an answer
const QUIET_MS = 120; // a slider at rest
const SLOW_MS = 400; // until a search is said to go on
const MOST = 100; // photographs at once
const AT_ONCE = 4; // of these on their way

let about; // what /api/about says
let steps; // of the slider of candidates
let picked = false; // whether the visitor moved it; before that, the service takes as many as there are ties
let query = null; // { item, digest } or { words } or { file, name, picture, group }, or { together, name, group }
let answer = null;
let answered = null; // the query that it answers
let asking = null; // AbortController of the request on its way
let enlarged = null; // the list item whose photograph is shown large
const queries = []; // those of the browser's history, as far as this load of the page has made it
const LOAD = Math.random(); // by which entries of the history are known as this load's

class Refused extends Error {}
class Away extends Refused {} // which may be another time

async function api(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Away("The service does not answer. Is it still running?");
  }
  const body = parsed(await response.text().catch(() => ""));
  const kind = response.status === 503 ? Away : Refused;
  if (!response.ok) throw new kind(body.error || `The service answers ${response.status}.`);
  return body;
}

// Ids go up to 2^63, and numbers of JavaScript only to 2^53 without a gap: those beyond stay text.
const asId = (digits) => (Number.isSafeInteger(Number(digits)) ? Number(digits) : digits);

function parsed(json) {
  try {
    return JSON.parse(json.replace(/"id":(\d{16,})/g, (_, digits) => `"id":${JSON.stringify(asId(digits))}`));
  } catch {
    return {};
  }
}

// --- names ------------------------------------------------------------------------------------------------------

// Names may hold any bytes, and come as hashret/names.py has them: a byte that is not UTF-8 as a lone surrogate.

const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escaped(letter) {
  const code = letter.codePointAt(0);
  if (code >= 0xdc80 && code <= 0xdcff) return `\\x${(code - 0xdc00).toString(16)}`;
  if (code < 0x80) return SHORT[letter] ?? `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}

// As text that moves nothing: what has no picture of its own is escaped, except what emoji and words are joined with.
const shown = (name) =>
  name.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (found) => (/[\u200c\u200d]/.test(found) ? found : escaped(found)));

// As a parameter of an address, byte by byte.
const addressed = (name) =>
  name.split(/([\udc80-\udcff])/u)
    .map((part) => (/^[\udc80-\udcff]$/u.test(part) ? `%${(part.charCodeAt(0) - 0xdc00).toString(16)}` : encodeURIComponent(part)))
    .join("");

// --- addresses --------------------------------------------------------------------------------------------------

// The address of something of an indexed photograph. The digest refuses another one that has the id by then, as in an
// index that was built again; of a photograph that the page's own address names by its id, it is not known at first.
function addressOf({ item, digest }, what, wanted = "") {
  const all = [String(wanted), digest && `digest=${digest}`].filter(Boolean).join("&");
  return `/api/items/${item}/${what}${all && `?${all}`}`;
}

const pictureOf = (photo, size) => addressOf(photo, "thumbnail", `size=${size}`);

// --- asking -----------------------------------------------------------------------------------------------------

function parameters() {
  const wanted = new URLSearchParams({ k: $("k").value });
  if (picked) wanted.set("candidates", candidates());
  if (about.values) wanted.set("rerank_by", $("rerank-by").value);
  if ($("least").value) wanted.set("least", $("least").value);
  return $("label").value ? `${wanted}&label=${addressed($("label").value)}` : wanted;
}

// The slider's steps: 10, 15, 20, 30, 50, 70, 100 ... to the limit.
function candidateSteps() {
  const most = Math.min(about.max_candidates, Math.max(10, about.count));
  const steps = [];
  for (let unit = 10; unit < most; unit *= 10) {
    for (const factor of [1, 1.5, 2, 3, 5, 7]) if (factor * unit < most) steps.push(factor * unit);
  }
  return [...steps, most];
}

const candidates = () => steps[$("candidates").value];

// Set the slider to the last step up to what was re-ranked, unless the visitor chose.
function showTaken(count) {
  if (!picked) $("candidates").value = Math.max(0, steps.findLastIndex((step) => step <= count));
  $("candidates-shown").textContent = (picked ? candidates() : count).toLocaleString("en");
}

async function ask() {
  if (!query) return;
  asking?.abort();
  const mine = (asking = new AbortController()), asked = query;
  $("hits").classList.add("waiting");
  const slow = setTimeout(() => asking === mine && ($("status").textContent = "Searching…"), SLOW_MS);
  try {
    const found = await send(asked, mine.signal);
    if (asking !== mine) return;
    [answer, answered] = [found, asked];
    complain(troubles(asked));
    draw();
    if (asked.group) bringOthers(asked.group);
  } catch (error) {
    if (error.name === "AbortError" || asking !== mine) return;
    if (answered === asked) drawHits();
    else clear(); // what is drawn answers something else
    complain(asked.trouble ? troubles(asked) : error instanceof Refused ? error.message : String(error));
    $("again").hidden = !(error instanceof Away);
  } finally {
    clearTimeout(slow);
  }
  $("hits").classList.remove("waiting");
}

function clear() {
  answer = answered = null;
  $("hits").replaceChildren();
  $("status").textContent = "";
  $("show-nearest").hidden = $("details").hidden = $("looks").hidden = true;
}

async function send(what, signal) {
  const wanted = parameters();
  if (what.item !== undefined) return api(addressOf(what, "query", wanted), { signal });
  if (what.words) {
    const kind = areClasses(what.words) || !about.text ? "words" : "text";
    return api(`/api/query/${kind}?${wanted}&${kind}=${addressed(what.words)}`, { signal });
  }
  const values = what.together ? await valuesOf(what.group) : what.values;
  if (values) {
    const body = JSON.stringify({ values });
    return api(`/api/query/values?${wanted}${what.together ? `&together=${what.together}` : ""}`, {
      method: "POST", body, signal, headers: { "content-type": "application/json" },
    });
  }
  return bring(what, signal);
}

// Upload a photograph, and keep what its code is made of: by these values the service is asked again without it.
async function bring(photo, signal) {
  const form = new FormData();
  form.append("photo", photo.file, photo.name);
  try {
    if (photo.file.size > about.max_upload_bytes) {
      throw new Refused(`is larger than the ${Math.floor(about.max_upload_bytes / 2 ** 20)} MB that are taken`);
    }
    await photo.file.slice(0, 1).arrayBuffer().catch(() => {
      throw new Refused("is a folder, or a file that can no longer be read");
    });
    const found = await api(`/api/query?${parameters()}&maps=true`, { method: "POST", body: form, signal });
    Object.assign(photo, { values: found.query.values, first: found.query, trouble: null });
    return found;
  } catch (error) {
    if (error instanceof Refused && !(error instanceof Away)) {
      photo.trouble = error.message.replace(/^cannot read the photograph/, "cannot be read");
    }
    throw error;
  }
}

// Bring all photographs of a group that are not there yet; what cannot be read has its trouble.
function bringAll(group) {
  const missing = group.photos.filter((photo) => !photo.values && !photo.trouble);
  const some = async () => {
    for (let photo; (photo = missing.shift()); ) {
      try {
        if (!photo.values) await bring(photo);
      } catch (error) {
        if (!photo.trouble) throw error;
      }
      if (query?.group === group) showSeveral();
    }
  };
  group.bringing ??= Promise.all(Array.from({ length: AT_ONCE }, some)).finally(() => (group.bringing = null));
  return group.bringing;
}

// Several photographs as one query, as `hashret query --together mean` and `union` have it.
async function valuesOf(group) {
  await bringAll(group);
  const all = group.photos.filter((photo) => photo.values).map((photo) => photo.values);
  if (!all.length) throw new Refused("None of these photographs can be read.");
  return all;
}

// What is wrong with the photographs of a query, one line, or null.
function troubles(what) {
  const bad = (what.group?.photos ?? [what]).filter((photo) => photo.trouble);
  if (!bad.length) return null;
  const more = bad.length > 1 ? `; nor can ${bad.slice(1).map((photo) => shown(photo.name)).join(", ")} be searched by` : "";
  return `${shown(bad[0].name)} ${bad[0].trouble}${more}`;
}

function complain(text) {
  $("error").hidden = !text;
  $("error").textContent = text || "";
  $("again").hidden = true;
}

function start(what, push = true) {
  query = what;
  if (what.group) what.group.chosen = what;
  if (push) {
    queries.push(what);
    const words = what.words ? `?words=${addressed(what.words)}` : location.pathname;
    const address = what.item !== undefined ? `?id=${what.item}` : words;
    history.pushState({ load: LOAD, number: queries.length - 1, item: what.item, digest: what.digest }, "", address);
  }
  document.querySelector('input[name="look"][value="photo"]').checked = true;
  showQuery();
  showMap();
  return ask();
}

const takesPhotographs = () => Boolean(about.encoder) && !about.encoder.vector_width;

async function upload(files) {
  if (!files.length) return;
  if (!takesPhotographs()) {
    return complain(about.encoder ? "This index is of vectors: choose one of those below."
      : "This service was started without a model: choose one of the photographs below.");
  }
  const photos = [...files].slice(0, MOST).map((file) => (
    { file, name: file.name || "photograph", picture: URL.createObjectURL(file) }));
  if (photos.length === 1) return start(photos[0]);
  const group = { photos, left: files.length - photos.length };
  group.ways = [
    { together: "mean", name: `${photos.length} photographs together`, face: "all together", note: "as one query: what they have in common" },
    { together: "union", name: `any of ${photos.length} photographs`, face: "any of them", note: "as one query: what is like at least one of them" },
  ];
  for (const one of [...photos, ...group.ways]) one.group = group;
  for (const photo of photos) {
    await start(photo, photo === photos[0]);
    if (query !== photo) return;
    if (!photo.trouble) break; // else the next one's answer is looked at
  }
}

// While the answer to one of a group is looked at; where the service is away, the next answer goes on with it.
async function bringOthers(group) {
  try {
    await bringAll(group);
  } catch {
    return;
  }
  const line = query?.group === group && troubles(query);
  if (line) complain(line);
}

// --- drawing ----------------------------------------------------------------------------------------------------

function showQuery() {
  const chosen = query !== null && !query.words;
  document.title = query ? `${shown(query.words ?? query.name ?? `photograph ${query.item}`)} – hashret` : "hashret";
  showSeveral();
  $("words").value = query?.words ?? "";
  $("drop").classList.toggle("filled", chosen);
  $("shown").hidden = !chosen;
  $("hint").hidden = chosen || !takesPhotographs();
  $("choose").hidden = !takesPhotographs();
  $("drop").hidden = !chosen && !takesPhotographs();
  $("choose").textContent = chosen ? "Choose others" : "Choose photographs";
  if (chosen) {
    const item = query.item !== undefined;
    $("shown").classList.remove("gone");
    $("photo").parentElement.hidden = Boolean(query.together);
    $("mosaic").hidden = !query.together;
    if (query.together) drawMosaic(query.group.photos.filter((photo) => !photo.trouble));
    else $("photo").src = item ? pictureOf(query, 512) : query.picture;
    $("caption").textContent = shown(query.name ?? `photograph ${query.item}`);
  }
}

function drawMosaic(photos) {
  const columns = Math.min(3, Math.ceil(Math.sqrt(photos.length)));
  $("mosaic").style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
  $("mosaic").replaceChildren(...photos.slice(0, 9).map((photo) => Object.assign(new Image(), { src: photo.picture, alt: "" })));
}

// The photographs that were brought together, to choose from whose answer is looked at, or that to all.
function showSeveral() {
  const group = query?.group;
  $("several").hidden = !group;
  if (!group) return;
  const taken = group.left ? `The first ${group.photos.length} of ${group.photos.length + group.left} photographs` : `${group.photos.length} photographs`;
  const read = group.photos.filter((photo) => photo.values || photo.trouble).length;
  if (read < group.photos.length) $("several-note").textContent = `${taken}, ${read} read so far`;
  else $("several-note").textContent = query.together ? `${taken} ${query.note}` : `${taken}, an answer each`;
  const choices = [...group.photos, ...group.ways];
  if ($("several").of !== group) {
    $("several").of = group;
    $("several").querySelectorAll("label, hr").forEach((old) => old.remove());
    const row = document.createElement("hr"); // the photographs stand above it
    $("several").append(...group.photos.map(choiceOf), row, ...group.ways.map(choiceOf));
  }
  [...$("several").querySelectorAll("label")].forEach((label, number) => {
    const what = choices[number];
    label.classList.toggle("bad", Boolean(what.trouble));
    label.title = shown(what.trouble ? `${what.name} ${what.trouble}` : what.name);
    label.firstElementChild.checked = what === query;
  });
}

function choiceOf(what) {
  const label = $("one").content.firstElementChild.cloneNode(true);
  const [input, face] = label.children;
  input.setAttribute("aria-label", shown(what.name));
  input.addEventListener("change", () => start(what, false));
  if (what.together) face.textContent = what.face;
  else {
    const picture = face.firstElementChild;
    picture.addEventListener("error", () => (face.textContent = shown(what.name.split(".").pop()).slice(0, 6)));
    picture.src = what.picture; // of which a browser may not know the format
  }
  label.classList.toggle("all", Boolean(what.together));
  return label;
}

function draw() {
  const asked = answer.query;
  if (query.item !== undefined) {
    $("caption").textContent = shown([asked.label, asked.name].filter(Boolean).join(" · "));
    query.digest ??= asked.digest;
  }
  query.maps ??= query.first?.maps;
  showSeveral();
  $("looks").hidden = !takesPhotographs() || Boolean(query.words) || Boolean(query.together);
  $("gate-look").hidden = !about.encoder?.attention;
  $("details").hidden = false;
  drawBits();
  drawTimes({ ...query.first?.milliseconds, ...asked.milliseconds });
  const reranked = answer.candidates > 0;
  if (reranked) showTaken(answer.candidates);
  $("orders").querySelector('[value="hits"]').disabled = !reranked;
  drawHits();
}

const bitsOf = (code) =>
  [...code].map((digit) => parseInt(digit, 16).toString(2).padStart(4, "0")).join("").slice(0, about.bits);

function drawBits(other) {
  const code = answer.query.code ?? answer.query.codes[other?.nearest_to]; // of any of several, only once a hit is pointed at
  const own = code ? bitsOf(code) : "";
  const others = other && bitsOf(other.code);
  $("bits").replaceChildren(...[...own].map((bit, number) => {
    const cell = document.createElement("i");
    if (bit === "1") cell.classList.add("one");
    if (others && others[number] !== bit) cell.classList.add("differs");
    return cell;
  }));
  $("bits").setAttribute("aria-label", own ? `code of the query: ${own}` : "a code for each photograph");
  const from = other && nearestOf(other);
  $("bits-note").textContent = other
    ? `hit ${other.rank} differs in ${other.hamming === 1 ? "one bit" : `${other.hamming || "no"} bits`}${from && ` from ${from}`}`
    : own ? "point at a hit to see which bits differ" : "each has its own: point at a hit to see that of the one it is like";
}

// The name of the photograph that a hit is nearest to, where any of several was asked for.
const nearestOf = (hit) =>
  hit.nearest_to == null ? "" : shown(answered.group.photos.filter((photo) => photo.values)[hit.nearest_to].name);

function drawTimes(times) {
  const stages = STAGES.filter(([name]) => times[name] !== undefined);
  $("bar").replaceChildren(...stages.map(([name]) => {
    const part = document.createElement("span");
    part.style.flexGrow = times[name];
    part.style.background = `var(--${name})`;
    return part;
  }));
  $("times").replaceChildren(...stages.flatMap(([name, title]) => {
    const term = document.createElement("dt");
    term.textContent = title;
    term.style.setProperty("--colour", `var(--${name})`);
    const value = document.createElement("dd");
    value.textContent = `${times[name] < 1 ? times[name].toFixed(2) : times[name].toFixed(1)} ms`;
    return [term, value];
  }));
}

const order = () =>
  answer.candidates ? document.querySelector('input[name="order"]:checked').value : "hamming_hits";

function drawHits() {
  const list = $("hits");
  const before = corners(list);
  const old = new Map([...list.children].map((item) => [keyOf(item.hit), item]));
  const hits = answer[order()];
  list.replaceChildren(...hits.map((hit) => card(hit, old.get(keyOf(hit)))));
  glide(list, before);
  const among = $("label").value ? ` of class ${shown($("label").value)}` : "";
  const farthest = Math.max(...hits.map((hit) => hit.hamming));
  const own = answer.query.code ? "all with the query's code" : "all with the code of one of them";
  const within = farthest ? `all within ${bits(farthest)}` : own;
  const cut = answer.ties_cut && order() === "hits" ? "; others as near were not re-ranked: take more candidates" : "";
  const count = `${hits.length} of ${answer.count.toLocaleString("en")} photographs${among}`;
  const seconds = took() < 1 ? "less than 0.001 s" : `${(took() / 1000).toFixed(took() < 100 ? 3 : 1)} s`;
  const least = $("least").value && `at least ${$("least").selectedOptions[0].dataset.words}`;
  const few = least && hits.length < Number($("k").value); // all there are
  $("show-nearest").hidden = !answer.nearest;
  if (answer.nearest) $("status").textContent = `No photograph${among} is ${least}. The nearest is ${alike(answer.nearest)}.`;
  else if (!hits.length) $("status").textContent = `There are no photographs${among}.`;
  else if (inDetail()) $("status").textContent = `${count}, ${within}${cut}`;
  else $("status").textContent = few ? `${count} ${hits.length === 1 ? "is" : "are"} ${least}, found in ${seconds}` : `The most similar ${count}, found in ${seconds}`;
}

const keyOf = ({ id, digest }) => `${id} ${digest}`;

const took = () =>
  Object.values({ ...query.first?.milliseconds, ...answer.query.milliseconds }).reduce((sum, time) => sum + time, 0);

const inDetail = () => document.body.classList.contains("details");

function showDetail(wanted) {
  document.body.classList.toggle("details", wanted);
  $("expert").setAttribute("aria-pressed", wanted);
  if (answer) drawHits();
}

const alike = (hit) => `${hit.similarity} % similar`;

const bits = (number) => `${number} ${number === 1 ? "bit" : "bits"}`;

function card(hit, item) {
  item ??= newCard(hit);
  item.hit = hit;
  item.dataset.id = hit.id;
  const part = (name) => item.querySelector(name);
  part(".rank").textContent = hit.rank;
  part(".label").textContent = shown(hit.label || hit.path.split("/").pop());
  const from = nearestOf(hit);
  part(".hit").title = shown(hit.path) + (from && `, like ${from}`);
  const euclidean = hit.euclidean === null ? "" : ` · ${hit.euclidean.toPrecision(3)}`;
  part(".distances").textContent = bits(hit.hamming) + euclidean;
  part(".alike").textContent = alike(hit);
  const moved = hit.hamming_rank - hit.reranked_rank; // by the re-rank, upwards
  const mark = part(".moved");
  mark.textContent = moved ? `${moved > 0 ? "▲" : "▼"} ${Math.abs(moved)}` : "";
  mark.className = `moved expert ${moved > 0 ? "up" : moved < 0 ? "down" : ""}`;
  mark.title = moved ? `the re-rank moves it from rank ${hit.hamming_rank} to ${hit.reranked_rank}` : "";
  part(".hit").toggleAttribute("aria-current", query.item === hit.id);
  part(".hit").setAttribute("aria-label", `${hit.rank}. ${shown(hit.label || hit.path)}, ${alike(hit)}. Search by it`);
  return item;
}

function newCard(hit) {
  const file = hit.path.split("/").pop();
  const item = $("hit").content.firstElementChild.cloneNode(true);
  const picture = item.querySelector("img");
  picture.src = pictureOf(byItem(hit), 256);
  picture.parentElement.dataset.name = shown(file);
  picture.addEventListener("error", () => picture.parentElement.classList.add("gone"));
  item.querySelector(".enlarge").addEventListener("click", () => enlarge(item));
  const button = item.querySelector("button");
  button.addEventListener("click", () => start(byItem(item.hit)));
  for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => answer && drawBits(item.hit));
  for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => answer && drawBits());
  return item;
}

const byItem = ({ id, digest, label, path }) => (
  { item: id, digest, name: [label, path.split("/").pop()].filter(Boolean).join(" · ") });

function enlarge(item) {
  enlarged = item;
  const photo = byItem(item.hit), parts = item.hit.path.split("/");
  $("large").classList.remove("gone");
  $("large-photo").src = pictureOf(photo, 1024);
  $("large-photo").alt = $("large-name").textContent = shown(parts.at(-1));
  $("large-folder").textContent = shown(parts.slice(0, -1).join("/"));
  $("large-alike").textContent = item.hit.similarity === undefined ? "" : alike(item.hit);
  $("keep").hidden = false;
  $("keep").href = addressOf(photo, "file");
  $("copy").textContent = "Copy the path";
  $("previous").disabled = !item.previousElementSibling;
  $("next").disabled = !item.nextElementSibling;
  if (!$("large").open) $("large").showModal();
}

function turn(item) {
  if (item) enlarge(item);
}

async function copyPath() {
  try {
    await navigator.clipboard.writeText(enlarged.hit.path);
    $("copy").textContent = "Copied";
  } catch {
    $("copy").textContent = shown(enlarged.hit.path); // to be copied by hand: browsers let only safe pages do it
  }
}

// Photographs that stay move to where they are now instead of jumping.
const corners = (list) => new Map([...list.children].map((item) => [item.dataset.id, item.getBoundingClientRect()]));

function glide(list, before) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const item of list.children) {
    const from = before.get(item.dataset.id), to = item.getBoundingClientRect();
    const frames = from
      ? [{ transform: `translate(${from.left - to.left}px, ${from.top - to.top}px)` }, { transform: "none" }]
      : [{ opacity: 0 }, { opacity: 1 }];
    if (!from || from.left !== to.left || from.top !== to.top) item.animate(frames, { duration: 280, easing: "ease-out" });
  }
}

async function showSome() {
  const seed = Math.floor(Math.random() * 1e6);
  const items = await api(`/api/items?n=24&seed=${seed}`);
  if (query) return; // which was asked meanwhile
  clear();
  $("hits").replaceChildren(...items.map((found) => {
    const item = newCard(found);
    item.hit = found;
    item.querySelector(".label").textContent = shown(found.label || found.path.split("/").pop());
    item.querySelector("button").setAttribute("aria-label", `${shown(found.label || found.path)}. Search by it`);
    return item;
  }));
  if (!items.length) $("status").textContent = "There are no photographs here yet.";
  else $("status").textContent = `Some of the photographs. Choose one${takesPhotographs() ? ", or bring your own" : ""}.`;
}

const NOTES = {
  gate: (maps) => ["above its mean", "below", `gates of ${maps.gate_range.map((gate) => gate.toFixed(2)).join(" to ")}`],
  places: () => ["adds to the bits", "takes from them", ""],
};

// A map lies over the photograph as the encoder saw it: squeezed into a square, so it is stretched back; or its middle.
async function showMap() {
  const look = document.querySelector('input[name="look"]:checked').value;
  const asked = query;
  if (look !== "photo" && !asked.maps) {
    try {
      asked.maps = await api(addressOf(asked, "maps"));
    } catch (error) {
      return complain(error.message);
    }
    if (asked !== query) return;
  }
  const map = look === "photo" ? null : asked.maps[look];
  $("map").hidden = $("look-note").hidden = !map;
  $("shown").classList.toggle("under", Boolean(map));
  if (!map) return;
  const { naturalWidth: width, naturalHeight: height } = $("photo");
  $("map").style.setProperty("--shape", `${width} / ${height}`);
  $("map").style.setProperty("--width", `${Math.min(100, (100 * width) / height)}%`);
  $("map").style.objectFit = asked.maps.fit;
  $("map").src = map;
  const notes = NOTES[look](asked.maps);
  notes[2] += `${notes[2] && ", "}${asked.maps.grid.join(" × ")} cells`;
  $("look-note").querySelectorAll("span").forEach((part, number) => (part.textContent = notes[number]));
}

// --- events -----------------------------------------------------------------------------------------------------

let resting;
function soon() {
  clearTimeout(resting);
  resting = setTimeout(ask, QUIET_MS);
}

const showK = () => ($("k-shown").textContent = $("k").value);

function listen() {
  $("file").addEventListener("change", () => {
    upload($("file").files);
    $("file").value = "";
  });
  $("k").addEventListener("input", () => {
    showK();
    soon();
  });
  $("candidates").addEventListener("input", () => {
    picked = true;
    showTaken(candidates());
    soon();
  });
  $("label").addEventListener("change", ask);
  $("least").addEventListener("change", ask);
  $("again").addEventListener("click", () => (query ? ask() : location.reload()));
  $("show-nearest").addEventListener("click", () => {
    $("least").value = "";
    ask();
  });
  $("rerank-by").addEventListener("change", ask);
  $("orders").addEventListener("change", () => answer && drawHits());
  $("looks").addEventListener("change", showMap);
  $("words").addEventListener("input", complete);
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if ($("words").value.trim()) start({ words: $("words").value });
    else complain("Say in words what the photographs should show.");
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("home").addEventListener("click", (event) => {
    event.preventDefault();
    history.pushState({}, "", location.pathname);
    begin();
  });
  $("expert").addEventListener("click", () => {
    showDetail(!inDetail());
    localStorage.setItem("details", inDetail() ? "shown" : "");
  });
  $("photo").addEventListener("error", () => $("shown").classList.add("gone"));
  $("large-photo").addEventListener("error", () => {
    $("large").classList.add("gone");
    $("keep").hidden = true;
  });
  $("previous").addEventListener("click", () => turn(enlarged.previousElementSibling));
  $("next").addEventListener("click", () => turn(enlarged.nextElementSibling));
  $("close").addEventListener("click", () => $("large").close());
  $("copy").addEventListener("click", copyPath);
  $("search-by").addEventListener("click", () => {
    $("large").close();
    start(byItem(enlarged.hit));
  });
  $("large").addEventListener("click", (event) => event.target === $("large") && $("large").close());
  $("large").addEventListener("close", () => enlarged.querySelector("button").focus());
  addEventListener("keydown", (event) => { // wherever the focus is: a button that is no longer of use has lost it
    if (!$("large").open) return;
    if (event.key === "ArrowLeft") turn(enlarged.previousElementSibling);
    if (event.key === "ArrowRight") turn(enlarged.nextElementSibling);
  });
  let depth = 0;
  addEventListener("dragenter", (event) => {
    if (![...event.dataTransfer.types].includes("Files") || !about || !takesPhotographs()) return;
    depth++;
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) document.body.classList.remove("dragging");
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    document.body.classList.remove("dragging");
    upload(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    upload([...event.clipboardData.files].filter((file) => file.type.startsWith("image/")));
  });
  addEventListener("popstate", (event) => {
    const state = event.state ?? {};
    const made = state.load === LOAD ? queries[state.number] : undefined;
    const known = made ?? (state.item === undefined ? null : { item: state.item, digest: state.digest });
    if (known) start(known.group?.chosen ?? known, false);
    else begin();
  });
  $("hits").addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
    if (!(event.key in steps)) return;
    const items = [...$("hits").children];
    const next = items[items.indexOf(event.target.closest("li")) + steps[event.key]];
    if (next) {
      event.preventDefault();
      next.querySelector("button").focus();
    }
  });
}

// Whether words name classes that the encoder has learned; to an encoder that takes texts, all else is a text.
const areClasses = (words) =>
  words.split(",").every((word) => about.words.some((name) => name.toLowerCase() === word.trim().toLowerCase()));

const inWords = () => Boolean(about.words.length || about.text);

// What is typed goes on with any name: of a list of names, the last one.
function complete() {
  const before = $("words").value.slice(0, $("words").value.lastIndexOf(",") + 1);
  $("known").replaceChildren(...about.words.map((name) => new Option(shown(name), `${before}${before && " "}${name}`)));
}

const columns = () => getComputedStyle($("hits")).gridTemplateColumns.split(" ").length;

function begin() {
  asking?.abort();
  query = null;
  complain(null);
  showQuery();
  const asked = new URLSearchParams(location.search), id = asked.get("id");
  if (asked.get("words") && inWords()) return start({ words: asked.get("words") }, false);
  return id && /^\d+$/.test(id) ? start({ item: asId(id) }, false) : showSome();
}

async function main() {
  listen();
  try {
    about = await api("/api/about");
    const encoder = about.encoder;
    const taken = encoder?.vector_width ? `of vectors of ${encoder.vector_width}` : `at ${encoder?.image_size} px`;
    const network = encoder && ` · ${encoder.method} ${taken}`;
    const small = Object.assign(document.createElement("span"), { className: "expert" });
    small.textContent = ` · ${about.bits} bits${network ?? ""}`;
    $("about").replaceChildren(`${about.count.toLocaleString("en")} photographs`, small);
    showDetail(Boolean(localStorage.getItem("details")));
    $("label").append(...about.classes.map((name) => new Option(shown(name), name)));
    $("label-pick").hidden = !about.classes.length;
    $("candidates-slider").hidden = $("orders").hidden = $("rerank-pick").hidden = !about.values;
    $("ask").hidden = !inWords();
    $("words").placeholder = about.text ? "or say what they show: a red car" : `or in words: ${shown(about.words[0] ?? "")}`;
    complete();
    steps = candidateSteps();
    $("candidates").max = steps.length - 1;
    showK();
    showTaken(Math.min(CANDIDATES, about.count));
    await begin();
  } catch (error) {
    complain(error.message);
    $("again").hidden = false;
  }
}

main();
