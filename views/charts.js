// The three charts: rates of what is counted, from one document to a later one.

const SPANS_SECONDS = [30, 60, 120, 180]; // the shortest that holds all samples, or the last
const WIDTH = 300;
const HEIGHT = 72;
const CLASSES = ["a", "b", "c", "d", "e"];
const BACK_SECONDS = 5; // what is older than this is by another host's clock

const samples = []; // the totals of the last minutes, oldest first, of one gateway
let counting; // its name

function sample(totals, gateway) {
  const last = samples.at(-1);
  if (last) {
    const elsewhere = gateway !== counting || totals.at < last.at - BACK_SECONDS;
    if (!elsewhere && totals.at <= last.at) return false; // the same again, or from before
    if (elsewhere || fewer(totals.requests, last.requests)) samples.length = 0;
  }
  counting = gateway;
  samples.push(totals);
  while (samples[0].at < totals.at - SPANS_SECONDS.at(-1) - 40) samples.shift();
  return true;
}

function fewer(now, before) {
  return Object.entries(before).some(([name, count]) => (now[name] || 0) < count);
}

// The sample that is at least so many seconds older than the one at `index`, or the oldest.
function earlier(index, least) {
  let found = index;
  while (found > 0 && samples[index].at - samples[found].at < least) found -= 1;
  return samples[found];
}

function rate(index, count) {
  const now = samples[index];
  const then = earlier(index, 2.5);
  return now.at > then.at ? (count(now) - count(then)) / (now.at - then.at) : null;
}

function recentQuantile(index, part) {
  const now = samples[index].first_byte_seconds;
  const then = new Map(earlier(index, 30).first_byte_seconds.map(([bound, count]) => [bound, count]));
  return quantile(now.map(([bound, count]) => [bound, count - (then.get(bound) || 0)]), part);
}

function requestsOf(totals, digit) {
  const found = Object.entries(totals.requests).filter(([status]) => status[0] === digit);
  return found.reduce((sum, [, count]) => sum + count, 0);
}

function perSecond(value) {
  if (value === null) return NONE;
  return value < 0.005 || value >= 99.5 ? whole.format(value) : value.toFixed(value < 9.95 ? 2 : 1);
}

// Draws lines of [{name, values}], one value for each sample, null where there is none.
function draw(card, title, lines, drawn, say, unit) {
  const last = samples.at(-1).at;
  const span = SPANS_SECONDS.find((seconds) => last - samples[0].at <= seconds) || SPANS_SECONDS.at(-1);
  const known = drawn.flatMap((line) => line.values).filter((value) => value !== null);
  const most = Math.max(...known, 0);
  const scale = most || 1;
  const svg = card.querySelector(".chart svg");
  const shapes = [["grid", `M0 ${HEIGHT / 2}H${WIDTH}`]];
  drawn.forEach((line, index) => {
    shapes.push([CLASSES[index], pathOf(line.values, last, span, scale)]);
  });
  while (svg.childElementCount > shapes.length) svg.lastElementChild.remove();
  shapes.forEach(([name, d], index) => {
    const path = svg.children[index] || svg.appendChild(document.createElementNS(svg.namespaceURI, "path"));
    path.setAttribute("class", name);
    path.setAttribute("d", d);
  });
  write(card.querySelector(".most"), most ? `${say(most)}${unit}` : "");
  write(card.querySelector(".since"), `${span < 120 ? `${span} s` : `${span / 60} min`} ago`);
  const told = lines.map((line) => `${line.name} ${say(line.values.at(-1) ?? null)}`);
  svg.setAttribute("aria-label", `${title}, lately; now ${told.join(", ") || "nothing"}`);
}

function pathOf(values, last, span, scale) {
  let path = "";
  let pen = "M";
  values.forEach((value, index) => {
    const x = WIDTH * (1 - (last - samples[index].at) / span);
    if (value === null || x < 0) {
      pen = "M";
      return;
    }
    path += `${pen}${x.toFixed(1)} ${(HEIGHT - 3 - (value / scale) * (HEIGHT - 8)).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

function indexes() {
  return samples.map((_, index) => index);
}

function drawRequests(totals) {
  const digits = [...new Set(Object.keys(totals.requests).map((status) => status[0]))].sort();
  const lines = digits.map((digit) => ({
    name: `${digit}xx`,
    weight: 0,
    total: number(requestsOf(totals, digit)),
    values: indexes().map((index) => rate(index, (one) => requestsOf(one, digit))),
  }));
  show("requests", "Requests per second", lines, perSecond, " /s");
}

function drawErrors(totals) {
  const lines = Object.entries(totals.errors).map(([code, count]) => ({
    name: code,
    weight: count,
    total: number(count),
    values: indexes().map((index) => rate(index, (one) => one.errors[code] || 0)),
  }));
  show("errors", "Errors per second", lines, perSecond, " /s");
}

function drawFirstByte(totals) {
  const lines = [50, 95, 99].map((share) => ({
    name: `p${share}`,
    weight: 0,
    total: seconds(quantile(totals.first_byte_seconds, share / 100)),
    values: indexes().map((index) => recentQuantile(index, share / 100)),
  }));
  show("first-byte", "Time to first byte", lines, seconds, "");
}

function show(id, title, lines, say, unit) {
  const card = document.getElementById(id);
  const most = [...lines].sort((one, other) => other.weight - one.weight).slice(0, CLASSES.length);
  const drawn = lines.filter((line) => most.includes(line));
  draw(card, title, lines, drawn, say, unit);
  const rows = lines.map((line) => ({
    key: line.name,
    name: line.name,
    total: line.total,
    now: say(line.values.at(-1) ?? null),
    line: CLASSES[drawn.indexOf(line)] || "hidden",
  }));
  sync(card.querySelector("tbody"), rows, "legend-row", (element, row) => {
    fill(element, row);
    element.querySelector(".swatch path").setAttribute("class", row.line);
  });
  card.querySelector(".none").hidden = rows.length > 0;
}
