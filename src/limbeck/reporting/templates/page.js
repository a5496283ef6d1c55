// Everything that the page tells is there without scripts. These add what needs one: order, filters, comparisons, keys.
const root = document.documentElement;
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function button(label, onClick) {
  const element = make("button", { type: "button" }, label);
  element.addEventListener("click", onClick);
  return element;
}

// A browser may refuse to remember: the choice then lasts as long as the page.
function remembered(name) {
  try { return localStorage.getItem(`limbeck-${name}`); } catch { return null; }
}
function remember(name, value) {
  try { localStorage.setItem(`limbeck-${name}`, value); } catch { /* nothing to do */ }
}

const themeButton = button("", switchTheme);
function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches;
}
function nameTheme() {
  themeButton.textContent = isDark() ? "Light theme" : "Dark theme";
}
function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  const isSystems = (theme === "dark") === systemIsDark.matches;
  root.dataset.theme = theme;
  if (isSystems) delete root.dataset.theme;
  remember("theme", isSystems ? "" : theme);
  nameTheme();
}
const kept = remembered("theme");
if (kept === "dark" || kept === "light") root.dataset.theme = kept;
systemIsDark.addEventListener("change", nameTheme);

// Keys.
const KEYS = [
  ["j, k", "to the next row, to the one before; so do ↓ and ↑ when a row has the focus"],
  ["Enter", "opens or closes the row; on a heading, sorts by it"],
  ["/", "to the filter; Escape empties it"],
  ["o, c", "opens or closes all rows of the section"],
  ["t", "light or dark"],
  ["?", "this help; Escape closes it"],
];
const isQuiet = make("input", { type: "checkbox" });
const help = make("dialog", { class: "keys", "aria-label": "Keys" });

function buildHelp() {
  const list = make("dl");
  for (const [keys, what] of KEYS) list.append(make("div", {}, make("dt", {}, ...keys.split(", ").flatMap((one) => [make("kbd", {}, one), " "])), make("dd", {}, what)));
  isQuiet.checked = remembered("quiet") === "yes";
  isQuiet.addEventListener("change", () => remember("quiet", isQuiet.checked ? "yes" : ""));
  const close = button("Close", () => help.close());
  help.append(make("h2", {}, "Keys"), list, make("label", {}, isQuiet, " no keys of one letter"), close);
  document.body.append(help);
}

function focusRow(item) {
  const summary = item.querySelector("summary");
  summary.focus({ preventScroll: true });
  summary.scrollIntoView({ block: "nearest" });
}

function goToRow(step) {
  const items = [...document.querySelectorAll("details.case:not([hidden])")];
  const here = items.indexOf(document.activeElement?.closest("details.case"));
  const inView = step > 0
    ? items.findIndex((item) => item.getBoundingClientRect().top >= 0)
    : items.findLastIndex((item) => item.getBoundingClientRect().top < 0);
  const next = items[here < 0 ? inView : here + step];
  if (next) focusRow(next);
}

function currentSection() {
  const here = document.activeElement?.closest("section");
  const sections = [...document.querySelectorAll("section")].filter((each) => each.querySelector(".tools"));
  if (sections.includes(here)) return here;
  return sections.find((each) => each.getBoundingClientRect().bottom > 80) ?? sections.at(-1);
}

const ACTIONS = {
  j: () => goToRow(1),
  k: () => goToRow(-1),
  "/": () => currentSection()?.querySelector(".tools input[type=search]").focus(),
  o: () => currentSection()?.querySelector(".tools button")?.click(),
  c: () => currentSection()?.querySelector(".tools button + button")?.click(),
  t: switchTheme,
  "?": () => help.showModal(),
};

function onKey(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (target.matches("input[type=search]") && event.key === "Escape") target.clear();
  if (target.matches("input:not([type=radio]), select, textarea")) return;
  const onRow = target.matches("details.case > summary");
  const arrow = onRow && { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (arrow) goToRow(arrow);
  else if (!isQuiet.checked && Object.hasOwn(ACTIONS, event.key)) ACTIONS[event.key]();
  else return;
  event.preventDefault();
}

function openTarget() {
  let name;
  try { name = decodeURIComponent(location.hash.slice(1)); } catch { return; }
  if (!name) return;
  for (const list of lists) list.find(name);
  const item = document.getElementById(name)?.closest("details.case");
  if (!item) return;
  if (item.hidden) item.closest("section").querySelector(".tools input[type=search]").clear();
  item.open = true;
  focusRow(item);
  item.scrollIntoView({ block: "start" });
}

function fillForPrint() {
  for (const list of lists) list.fillAll();
  document.querySelectorAll("details.rows").forEach(unfold);
  // Where a style sheet cannot show what is folded in, the printed page would lack it.
  if (!CSS.supports("selector(::details-content)")) openForPrint();
}

function openForPrint() {
  const closed = [...document.querySelectorAll("details:not([open])")].map((item) => [item, item.getAttribute("name")]);
  for (const [item] of closed) { item.removeAttribute("name"); item.open = true; }
  addEventListener("afterprint", () => {
    for (const [item, name] of closed) { item.open = false; if (name) item.setAttribute("name", name); }
  }, { once: true });
}

addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".cases").forEach(equipCases);
  document.querySelectorAll(".scroll > table").forEach(equipTable);
  for (const details of document.querySelectorAll("details.rows")) details.addEventListener("toggle", () => unfold(details));
  buildHelp();
  nameTheme();
  const bar = make("div", { class: "bar", role: "group", "aria-label": "Page" }, button("Keys", () => help.showModal()), themeButton);
  document.querySelector("header").prepend(bar);
  addEventListener("keydown", onKey);
  addEventListener("hashchange", openTarget);
  addEventListener("beforeprint", fillForPrint);
  openTarget();
});
