"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 50;
const LEVEL = 0.05;
const byId = (id) => document.getElementById(id);
const state = { page: 0, current: -1, all: false, open: new Set(), found: [] };

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const percent = (value) => (100 * value).toFixed(1);
const signed = (value) => (value < 0 ? "−" : value > 0 ? "+" : "") + Math.abs(100 * value).toFixed(1);
const signedDecimal = (value) => (value < 0 ? "−" : value > 0 ? "+" : "") + Math.abs(value).toFixed(2);
const limits = (cell, write) => (cell.low === null || cell.high === null ? "" : ` [${write(cell.low)}, ${write(cell.high)}]`);
const pValue = (p) => (p < 0.001 ? p.toExponential(1) : p.toFixed(3));
const words = (name) => name.replaceAll("_", " ");

/* Scorecards */

const decimal = (value) => value.toFixed(2);

function figure(cell) {
  if (cell.value === null) return "unscored";
  const chance = cell.floor === null ? "" : `, by chance ${cell.unit === "number" ? decimal(cell.floor) : `${percent(cell.floor)} %`}`;
  if (cell.unit === "number") return `${decimal(cell.value)}${limits(cell, decimal)}${chance}`;
  return `${percent(cell.value)} %${limits(cell, percent)}${chance}`;
}

const samplesOf = (cell) => `n ${cell.n}${cell.unscored ? `, ${cell.unscored} unscored` : ""}`;

function counts(test) {
  if (test.compared === "mean") return `p ${pValue(test.p)}, Holm ${pValue(test.holm)}; ${test.n} clusters`;
  const pairs = `${test.n} pairs, ${test.fixed} yes\u00a0→\u00a0no, ${test.broken} no\u00a0→\u00a0yes`;
  return test.fixed + test.broken ? `p ${pValue(test.p)}, Holm ${pValue(test.holm)}; ${pairs}` : `no change in ${test.n} pairs`;
}

function difference(test, better) {
  const low = test.holm < LEVEL;
  const good = low && better !== "neither" && test.value !== 0 && (test.value < 0) === (better === "lower");
  const bad = low && better !== "neither" && test.value !== 0 && !good;
  const word = good ? "better" : bad ? "worse" : "";
  const arrow = test.value < 0 ? "↓ " : test.value > 0 ? "↑ " : "";
  const write = test.unit === "number" ? signedDecimal : signed;
  const told = `${arrow}${write(test.value)}${test.unit === "number" ? "" : " points"}${limits(test, write)}`;
  return make(
    "div",
    { class: `difference ${word}` },
    make("b", {}, `${told}${word ? `: ${word}` : ""}`),
    make("div", {}, counts(test)),
  );
}

function scoreCell(cell, test, better) {
  if (cell === null) return make("td", { class: "soft" }, "not measured");
  const others = cell.others.map((other) =>
    make("div", { class: "small" }, `${other.judge}: ${figure(other)}, ${samplesOf(other)}`));
  const alike = cell.agreement === null ? null
    : make("div", { class: "small" }, `counted alike: ${percent(cell.agreement)} %`);
  return make(
    "td", { class: "n" },
    make("span", { class: "value" }, figure(cell)), make("span", { class: "soft" }, ` ${samplesOf(cell)}`),
    cell.judge ? make("div", { class: "small" }, `by ${cell.judge}`) : null,
    ...others, alike, test ? difference(test, better) : null,
  );
}

function drawScorecards() {
  const base = byId("base") ? Number(byId("base").value) : 0;
  const comparison = data.comparisons[base];
  const columns = data.runs.map((run, k) => {
    const compared = data.runs.length > 1 && k === base;
    const tests = comparison.tests[k] ? make("div", { class: "small" }, `${comparison.tests[k]} paired tests`) : null;
    return make("th", { scope: "col" }, run.name + (compared ? " (compared with)" : ""), tests);
  });
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "measure"), make("th", { scope: "col" }, "group"), ...columns));
  const body = make("tbody");
  let suite = null;
  data.measures.forEach((measure, place) => {
    if (measure.suite !== suite) {
      suite = measure.suite;
      body.append(make("tr", { class: "suite" }, make("th", { colspan: data.runs.length + 2, scope: "rowgroup" }, suite)));
    }
    const wish = measure.better === "neither" ? null : make("div", { class: "small" }, `${measure.better} is better`);
    const cells = measure.cells.map((cell, k) => scoreCell(cell, comparison.rows[place][k], measure.better));
    body.append(make("tr", {}, make("th", { scope: "row" }, words(measure.name), wish), make("td", {}, measure.group), ...cells));
  });
  byId("scorecards").replaceChildren(head, body);
}

/* Filters */

const options = (values) => [...new Set(values)].filter((value) => value !== "").sort();
const labelsOf = (run) => options(data.samples.map((sample) => (sample.replies[run] ? sample.replies[run].label : "")));

function field(label, control) {
  return make("div", {}, make("label", { for: control.id }, label), control);
}

function choice(id, label, values, any) {
  const select = make("select", { id }, ...(any === null ? [] : [make("option", { value: "" }, any)]),
    ...values.map(([value, shown]) => make("option", { value }, shown)));
  select.addEventListener("change", filtered);
  return field(label, select);
}

const plain = (values) => values.map((value) => [value, words(value)]);

function verdictChoice() {
  const every = options(data.runs.flatMap((_, run) => labelsOf(run)));
  const made = choice("verdict", "verdict", plain(every).map(([value, shown]) => [`any:${value}`, shown]), "any");
  if (data.runs.length < 2) return made;
  data.runs.forEach((run, place) => made.querySelector("select").append(make("optgroup", { label: run.name },
    ...labelsOf(place).map((label) => make("option", { value: `${place}:${label}` }, `${run.name}: ${words(label)}`)))));
  return made;
}

function buildFilters() {
  const of = (key) => options(data.samples.map((sample) => sample[key])).map((value) => [value, value]);
  const fields = ["suite", "condition", "group", "category"].map((key) => choice(key, key, of(key), "any"));
  fields.push(verdictChoice());
  if (data.runs.length > 1) {
    const runs = data.runs.map((run, place) => [String(place), run.name]);
    fields.push(choice("before", "change from", runs, null), choice("after", "to", runs, null), choice("change", "verdict change", [], "any"));
  }
  const search = make("input", { id: "search", type: "search", autocomplete: "off" });
  search.addEventListener("input", filtered);
  fields.push(field(data.text ? "words" : "id", search));
  const disagree = make("input", { id: "disagree", type: "checkbox" });
  disagree.addEventListener("change", filtered);
  fields.push(make("label", { class: "check" }, disagree, "judges disagree"));
  const form = byId("filters");
  form.append(...fields, make("button", { type: "reset" }, "Clear"));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { pickRuns(); filtered(); }));
  pickRuns();
}

function pickRuns() {
  if (!byId("change")) return;
  byId("before").value = "0";
  byId("after").value = "1";
  drawChanges();
}

function transition(sample) {
  const [before, after] = [sample.replies[byId("before").value], sample.replies[byId("after").value]];
  return before && after ? [before.label, after.label] : null;
}

function drawChanges() {
  const chosen = byId("change").value;
  const counts = new Map();
  for (const sample of data.samples) {
    const pair = transition(sample);
    if (pair) counts.set(pair.join(" → "), (counts.get(pair.join(" → ")) || 0) + 1);
  }
  const pairs = [...counts].sort((a, b) => b[1] - a[1]);
  const values = [["", "any"], ["changed", "changed"], ["same", "unchanged"], ...pairs.map(([pair, n]) => [pair, `${words(pair)} (${n})`])];
  byId("change").replaceChildren(...values.map(([value, shown]) => make("option", { value }, shown)));
  byId("change").value = values.some(([value]) => value === chosen) ? chosen : "";
}

function changedAs(sample, wanted) {
  const pair = transition(sample);
  if (pair === null) return false;
  if (wanted === "changed") return pair[0] !== pair[1];
  return wanted === "same" ? pair[0] === pair[1] : pair.join(" → ") === wanted;
}

function wordsOf(sample) {
  if (sample.words === undefined) {
    const parts = [sample.id, sample.prompt, ...sample.replies.map((reply) => (reply ? reply.reply : ""))];
    sample.words = parts.join("\n").toLowerCase();
  }
  return sample.words;
}

function fits(sample) {
  for (const key of ["suite", "condition", "group", "category"]) {
    if (byId(key).value && sample[key] !== byId(key).value) return false;
  }
  const [run, ...label] = byId("verdict").value.split(":");
  const replies = run === "any" || run === "" ? sample.replies : [sample.replies[run]];
  if (run && !replies.some((reply) => reply && reply.label === label.join(":"))) return false;
  if (byId("change") && byId("change").value && !changedAs(sample, byId("change").value)) return false;
  if (byId("disagree").checked && !sample.replies.some((reply) => reply && reply.disagree)) return false;
  return wordsOf(sample).includes(byId("search").value.trim().toLowerCase());
}

function filtered(event) {
  if (event && event.target && ["before", "after"].includes(event.target.id)) drawChanges();
  state.found = data.samples.filter(fits);
  state.page = 0;
  state.current = -1;
  drawSamples();
}

/* Samples */

const isOpen = (sample) => state.all || state.open.has(sample);

function veiled(tag, text) {
  return text === null ? null : make(tag, { class: "veil" }, text);
}

function verdict(one) {
  const score = typeof one.score === "number" ? ` ${one.score.toFixed(2)}` : "";
  const line = make("li", {}, make("b", {}, words(one.label)), `${score}${one.judge ? ` · ${one.judge}` : ""}`);
  if (one.reason) line.append(": ", veiled("span", one.reason));
  return line;
}

function replyColumn(run, reply) {
  const column = make("section", { role: "group", "aria-label": `reply of ${run.name}` });
  column.append(make("h4", {}, run.name, " ", make("span", { class: "verdict" }, reply ? words(reply.label) : "not asked")));
  if (reply === null) return column;
  column.append(...[veiled("p", reply.reply === "" ? "(empty reply)" : reply.reply)].filter((child) => child !== null));
  if (reply.stop && reply.stop !== "stop") column.append(make("div", { class: "small" }, `ended by: ${words(reply.stop)}`));
  if (reply.disagree) column.append(make("div", { class: "small flag" }, "≠ judges disagree"));
  column.append(make("ul", { class: "small" }, ...reply.verdicts.map(verdict)));
  return column;
}

function request(sample) {
  const column = make("section", { role: "group", "aria-label": "request" }, make("h4", {}, "request"));
  if (sample.image !== null) {
    column.append(make("img", { class: "veil", src: data.images[sample.image], alt: "the image of this request", loading: "lazy" }));
    if (sample.frames > 1) column.append(make("div", { class: "small" }, `first frame of ${sample.frames}`));
  }
  if (sample.prompt !== null) column.append(veiled("p", sample.prompt));
  return column;
}

function article(sample, place) {
  const tags = [sample.suite, sample.condition, sample.group, sample.category].filter((tag) => tag);
  const head = make("header", {}, make("h3", {}, sample.id), ...tags.map((tag) => make("span", { class: "tag" }, tag)));
  if (byId("change") && changedAs(sample, "changed")) head.append(make("span", { class: "tag flag" }, "≠ verdict changed"));
  const whole = make("article", { tabindex: "-1", "data-place": place, "aria-label": `sample ${sample.id}` }, head);
  if (data.text) {
    const button = make("button", { type: "button", class: "show" });
    button.addEventListener("click", () => { state.current = place; toggle(sample); });
    head.append(button);
  }
  whole.append(make("div", { class: "columns" }, request(sample), ...sample.replies.map((reply, k) => replyColumn(data.runs[k], reply))));
  veil(whole, sample);
  return whole;
}

function veil(whole, sample) {
  const open = isOpen(sample);
  whole.classList.toggle("open", open);
  for (const part of whole.querySelectorAll(".veil")) part.setAttribute("aria-hidden", String(!open));
  const button = whole.querySelector("button.show");
  if (button) {
    button.textContent = open ? "Blur" : "Show text";
    button.setAttribute("aria-pressed", String(open));
  }
}

const shown = () => state.found.slice(state.page * PAGE, (state.page + 1) * PAGE);

function veilPage() {
  const samples = shown();
  byId("list").querySelectorAll("article").forEach((whole, k) => veil(whole, samples[k]));
}

function toggle(sample) {
  if (state.all) return toggleAll();
  if (!state.open.delete(sample)) state.open.add(sample);
  veilPage();
}

function toggleAll() {
  state.all = !state.all;
  state.open.clear();
  byId("all").setAttribute("aria-pressed", String(state.all));
  byId("all").textContent = state.all ? "Blur all text" : "Show all text";
  veilPage();
}

function drawSamples() {
  const first = state.page * PAGE;
  const here = shown();
  byId("list").replaceChildren(...here.map((sample, k) => article(sample, first + k)));
  const total = data.samples.length;
  const place = here.length ? `, ${first + 1} to ${first + here.length} on this page` : "";
  byId("count").textContent = `${state.found.length} of ${total} samples${place}`;
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = first + PAGE >= state.found.length;
}

function turn(by) {
  state.page += by;
  state.current = -1;
  drawSamples();
  byId("samples").scrollIntoView();
}

function move(by) {
  const place = state.current === -1 ? state.page * PAGE + (by > 0 ? 0 : -1) : state.current + by;
  if (place < 0 || place >= state.found.length) return;
  state.current = place;
  if (Math.floor(place / PAGE) !== state.page) {
    state.page = Math.floor(place / PAGE);
    drawSamples();
  }
  const whole = byId("list").querySelector(`article[data-place="${place}"]`);
  whole.focus({ preventScroll: true });
  whole.scrollIntoView({ block: "start" });
}

function keyed(event) {
  const field = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
  if (field || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
  if (event.key === "B" && data.text) toggleAll();
  if (event.key === "b" && data.text && state.current !== -1) toggle(state.found[state.current]);
}

function start() {
  const base = byId("base");
  if (base) {
    base.append(...data.comparisons.map(({ base: k }) => make("option", { value: k }, data.runs[k].name)));
    base.addEventListener("change", drawScorecards);
  }
  drawScorecards();
  buildFilters();
  filtered();
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  if (byId("all")) byId("all").addEventListener("click", toggleAll);
  document.addEventListener("keydown", keyed);
  byId("list").addEventListener("focusin", (event) => { state.current = Number(event.target.closest("article").dataset.place); });
}

start();
