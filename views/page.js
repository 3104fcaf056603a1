// Keeps the page as status.json says, once a second while anybody looks. Text is only ever text.

const EVERY_MILLISECONDS = 1000;
const PATIENCE_MILLISECONDS = 10000;
const LONGEST_PAUSE_MILLISECONDS = 5000;
const OLD_MILLISECONDS = 3000; // without an answer: until then one that fails may be a restart

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Puts a row's texts into the elements that ask for them.
function fill(element, row) {
  for (const node of element.querySelectorAll("[data-f]")) write(node, row[node.dataset.f]);
  const badge = element.querySelector("[data-state]");
  if (badge) mark(badge, row.state, row.state_word);
}

function mark(badge, state, word) {
  write(badge, word);
  const name = `badge s-${state}`;
  if (badge.className !== name) badge.className = name;
}

// Makes the children of `parent` those of `rows`, in their order, and keeps the elements there are.
function sync(parent, rows, template, update) {
  const keys = new Set(rows.map((row) => row.key));
  for (const child of [...parent.children]) if (!keys.has(child.dataset.key)) child.remove();
  const present = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const row of rows) {
    let element = present.get(row.key);
    if (!element) {
      element = document.getElementById(template).content.firstElementChild.cloneNode(true);
      element.dataset.key = row.key;
    }
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
    update(element, row);
  }
}

function worstFirst(items, most, rank) {
  return items.length <= most ? items : [...items].sort((a, b) => rank(a) - rank(b)).slice(0, most);
}

function modelRank({ states: counts }) {
  if (!counts.ready) return 0;
  return Object.values(counts).reduce((sum, count) => sum + count, 0) > counts.ready ? 1 : 2;
}

function endpointRank(endpoint) {
  if (endpoint.state !== "ready") return 0;
  return endpoint.last_error ? 1 : 2;
}

function endpointRow(endpoint, at) {
  const load = endpoint.load || {};
  const error = endpoint.last_error;
  return {
    key: `${endpoint.address} ${endpoint.pod || ""}`,
    state: endpoint.state,
    state_word: STATES[endpoint.state],
    pod: endpoint.pod || NONE,
    address: endpoint.address,
    zone: endpoint.zone || NONE,
    in_flight: number(endpoint.in_flight),
    running: number(load.running),
    waiting: number(load.waiting),
    kv: percent(load.kv_cache_usage),
    error: error ? kind(error.kind) : NONE,
    error_at: error ? clockTime(error.at, at) : "",
  };
}

function eventRow(event, state) {
  const after = event.after || "gone";
  return {
    at: clockTime(event.at, state.at, true),
    name: event.name,
    model: event.model || NONE,
    before: STATES[event.before || "new"],
    state: after,
    state_word: STATES[after],
    delay: delay(event, state.workers.length),
  };
}

function showModels(state) {
  const most = Number(document.body.dataset.mostEndpoints);
  const models = worstFirst(state.models, Number(document.body.dataset.mostModels), modelRank);
  const rows = models.map((model) => ({ ...model, key: model.model }));
  sync(document.getElementById("models"), rows, "model-section", (section, model) => {
    const shown = worstFirst(model.endpoints, most, endpointRank);
    const hidden = left("endpoint", model.endpoints.length - shown.length);
    const texts = { model: model.model, states: states(model.states) };
    fill(section.querySelector(".name"), texts);
    fill(section.querySelector("caption"), texts);
    write(section.querySelector(".left"), hidden);
    const endpoints = shown.map((endpoint) => endpointRow(endpoint, state.at));
    sync(section.querySelector("tbody"), endpoints, "endpoint-row", fill);
  });
  document.getElementById("no-models").hidden = models.length > 0;
  write(document.getElementById("models-left"), left("model", state.models.length - models.length));
}

function showEvents(state) {
  const body = document.getElementById("events");
  const template = document.getElementById("event-row").content.firstElementChild;
  while (body.childElementCount > state.events.length) body.lastElementChild.remove();
  while (body.childElementCount < state.events.length) body.append(template.cloneNode(true));
  state.events.forEach((event, index) => fill(body.children[index], eventRow(event, state)));
  document.getElementById("no-events").hidden = state.events.length > 0;
}

function atTop(name) {
  return document.querySelector(`#top [data-f=${name}]`);
}

function entitle(word) {
  document.title = `${atTop("gateway").textContent}: ${word}`;
}

// What is shown is as it was: nobody may take it for how it is.
function showOld(why) {
  mark(document.querySelector("#overall .badge"), "no_answer", "no answer");
  entitle("no answer");
  write(atTop("reason"), `All of this is as it was at ${atTop("at").textContent} UTC (${why}).`);
  write(atTop("age"), NONE);
  document.body.classList.add("old");
}

function showAll(state) {
  const texts = summary(state);
  if (inTurn(state.gateway)) texts.reason += " Several gateways answer in turn: open one of them alone.";
  fill(document.getElementById("top"), texts);
  entitle(texts.state_word);
  document.body.classList.remove("old");
  showModels(state);
  showEvents(state);
  if (!sample(state.totals, state.gateway)) return;
  drawRequests(state.totals);
  drawErrors(state.totals);
  drawFirstByte(state.totals);
}

const gateways = []; // in the order in which they first answered

// Whether one answers again after another did: a rollout puts each in the place of one before.
function inTurn(gateway) {
  const known = gateways.indexOf(gateway);
  if (known < 0) gateways.push(gateway);
  else if (known < gateways.length - 1) alternate = true;
  return alternate;
}

let alternate = false;
let answered = performance.now();
let timer;
let asking = false;

function say(text) {
  write(document.getElementById("live"), text);
}

async function poll() {
  const began = performance.now();
  let pause;
  asking = true;
  try {
    const signal = AbortSignal.timeout(PATIENCE_MILLISECONDS);
    const answer = await fetch("status.json", { cache: "no-store", signal });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    showAll(await answer.json());
    answered = performance.now();
    say("live,");
    const took = performance.now() - began;
    // A page shall be no load to speak of.
    pause = Math.min(Math.max(EVERY_MILLISECONDS - took, 4 * took), LONGEST_PAUSE_MILLISECONDS);
  } catch (error) {
    say("no answer, as of");
    if (performance.now() - answered > OLD_MILLISECONDS) showOld(error.message);
    pause = EVERY_MILLISECONDS * (1 + Math.random()); // not all pages at once
  }
  asking = false;
  plan(pause);
}

function plan(milliseconds) {
  clearTimeout(timer);
  if (!document.hidden) {
    timer = setTimeout(poll, milliseconds);
    return;
  }
  say("paused, as of");
  entitle("paused"); // which can be seen all the same
}

document.addEventListener("visibilitychange", () => {
  if (!asking) plan(0);
});

document.body.classList.add("scripted");
poll();
