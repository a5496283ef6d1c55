// Tables that sort, rows that are filtered, answers that are compared.
const MOST_WORDS = 1500, FEWEST_ROWS = 10, WAIT = 150, ROW_HEIGHT = 3.9;

// Tables: a heading is a button; first click, second click, as written.
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const INFINITE = { "∞": Infinity, "-∞": -Infinity };

function cellValue(cell) {
  const text = cell.textContent.trim();
  if (["", "–", "nan"].includes(text)) return { isMissing: true };
  if (cell.dataset.value !== undefined) return { text, number: Number(cell.dataset.value) };
  if (text in INFINITE) return { text, number: INFINITE[text] };
  const end = cell.classList.contains("number") ? "(?=\\s|$)" : "\\s*%?$";
  const found = text.match(new RegExp(`^[+-]?(?:\\d[\\d,]*)(?:\\.\\d+)?(?:e[+-]?\\d+)?${end}`));
  return { text, number: found ? parseFloat(found[0].replaceAll(",", "")) : NaN };
}

function inOrder(rows, column, sign) {
  const read = rows.map((row) => ({ row, ...cellValue(row.cells[column]) }));
  const present = read.filter((one) => !one.isMissing);
  const byNumber = present.every((one) => !Number.isNaN(one.number));
  // Not a difference: infinity less infinity is no number.
  const compare = byNumber
    ? (one, other) => (one.number > other.number) - (one.number < other.number)
    : (one, other) => collator.compare(one.text, other.text);
  present.sort((one, other) => sign * compare(one, other));
  return [...present, ...read.filter((one) => one.isMissing)].map((one) => one.row);
}

function makeSortable(table) {
  const body = table.tBodies[0], head = table.tHead;
  if (!head || !body || body.rows.length < 2) return;
  const written = [...body.rows], headings = [...head.rows[0].cells];
  headings.forEach((heading, column) => {
    const first = heading.textContent.includes("↑") ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const label = button("", () => {
      const now = heading.getAttribute("aria-sort");
      const next = now === first ? second : now === second ? "none" : first;
      for (const each of headings) each.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const rows = next === "none" ? written : inOrder(written, column, sign);
      const sorted = document.createDocumentFragment();
      for (const row of rows) sorted.append(row);
      body.append(sorted);
    });
    label.append(...heading.childNodes);
    heading.append(label);
    heading.setAttribute("aria-sort", "none");
  });
}

// A list is made of groups. Those of a long list are text, escaped as the page is, until they come near the window.
const lists = [];

class List {
  constructor(box) {
    this.box = box;
    this.isOpen = false;
    this.hits = null;
    this.show = () => {};
    const boxes = [...box.querySelectorAll(":scope > .group")];
    let first = 0;
    this.groups = (boxes.length ? boxes : [box]).map((each) => {
      const text = each.querySelector(":scope > noscript");
      const size = text ? Number(each.dataset.rows) : each.querySelectorAll(":scope > .case").length;
      const group = { box: each, text, first, size };
      first += size;
      return group;
    });
    this.size = first;
    this.near = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) this.fill(this.groups.find((group) => group.box === target));
    }, { rootMargin: "150% 0px" });
    // Open rows of a long list are compared when they come into view: all at once would stop the page.
    this.seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting && target.open) this.show(target);
    });
    // The event of an unfolding does not rise: it is caught on its way down.
    box.addEventListener("toggle", ({ target }) => {
      if (target.matches(".case")) this.opened(target);
    }, true);
    for (const group of this.groups) {
      this.reserve(group);
      if (group.text) this.near.observe(group.box);
    }
    lists.push(this);
  }

  opened(item) {
    if (this.groups.length < 2) { if (item.open) this.show(item); }
    else this.seen[item.open ? "observe" : "unobserve"](item);
  }

  // The scroll bar knows of rows that are not made yet.
  reserve(group) {
    const shown = this.hits ? this.hits.slice(group.first, group.first + group.size).filter(Boolean).length : group.size;
    if (group.box !== this.box) group.box.hidden = !shown;
    group.box.style.minHeight = group.text ? `${shown * ROW_HEIGHT}rem` : "";
  }

  fill(group) {
    if (!group.text) return;
    this.near.unobserve(group.box);
    group.box.innerHTML = group.text.textContent;
    group.text = null;
    for (const item of this.made(group)) item.open = this.isOpen;
    this.settle(group);
  }

  made(group) {
    return group.text ? [] : [...group.box.querySelectorAll(":scope > .case")];
  }

  settle(group) {
    this.made(group).forEach((item, place) => { item.hidden = this.hits ? !this.hits[group.first + place] : false; });
    this.reserve(group);
  }

  openAll(isOpen) {
    this.isOpen = isOpen;
    for (const group of this.groups) for (const item of this.made(group)) if (!item.hidden) item.open = isOpen;
  }

  // What a filter looks through, lower case. The page's own tags are no text of its rows.
  texts() {
    return this.groups.flatMap((group) => group.text
      ? group.text.textContent.split(/(?=<details class="case")/).slice(1).map(plain)
      : this.made(group).map((item) => item.textContent.toLowerCase()));
  }

  filter(hits) {
    this.hits = hits;
    for (const group of this.groups) this.settle(group);
  }

  find(name) {
    const group = this.groups.find((each) => each.text?.textContent.includes(`id="${name}"`));
    if (group) this.fill(group);
    return group;
  }

  compare() {
    for (const block of this.box.querySelectorAll(".chosen")) block.remove();
    this.seen.disconnect();
    for (const group of this.groups) for (const item of this.made(group)) this.opened(item);
  }

  fillAll() {
    for (const group of this.groups) this.fill(group);
  }
}

const SIGNS = { amp: "&", lt: "<", gt: ">", "#34": '"', "#39": "'" };
function plain(html) {
  return html.replace(/<[^>]*>/g, " ").replace(/&(amp|lt|gt|#34|#39);/g, (_, name) => SIGNS[name]).toLowerCase();
}

// Filters: every word has to occur, upper or lower case, in any order.
const told = (number) => number.toLocaleString("en-US");

function addFilter(tools, about, { size, texts, filter }) {
  const input = make("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter rows of ${about}` });
  const count = make("span", { role: "status", "aria-live": "polite", class: "count" }, `${told(size)} rows`);
  let held = null, waiting = 0;
  const apply = () => {
    held ??= texts();
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = held.map((text) => words.every((word) => text.includes(word)));
    filter(words.length ? hits : null);
    const shown = hits.filter(Boolean).length;
    count.textContent = words.length ? `${told(shown)} of ${told(size)} rows` : `${told(size)} rows`;
  };
  input.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, WAIT); });
  input.clear = () => { clearTimeout(waiting); input.value = ""; apply(); };
  tools.append(input, count);
}

function toolsOf(element) {
  const about = element.closest("section")?.querySelector("h2")?.textContent ?? document.title;
  return [make("div", { class: "tools", role: "group", "aria-label": `Tools of ${about}` }), about];
}

// Two runs' answers, word by word: the longest common sequence of words, white space with the word before it.
function wordDifference(before, after) {
  const old = before.match(/\s*\S+\s*/g) ?? [], fresh = after.match(/\s*\S+\s*/g) ?? [];
  if (Math.max(old.length, fresh.length) > MOST_WORDS) return [["del", `${before} `], ["ins", after]];
  const one = old.map((word) => word.trim()), other = fresh.map((word) => word.trim());
  const width = other.length + 1, common = new Uint16Array((one.length + 1) * width);
  for (let i = one.length - 1; i >= 0; i--)
    for (let j = other.length - 1; j >= 0; j--)
      common[i * width + j] = one[i] === other[j]
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
  const pieces = [];
  const put = (kind, text) => {
    const last = pieces.at(-1), spaced = /\s$/.test(text) ? text : `${text} `;
    if (last?.[0] === kind) last[1] += spaced;
    else pieces.push([kind, spaced]);
  };
  let i = 0, j = 0;
  while (i < one.length || j < other.length) {
    if (i < one.length && j < other.length && one[i] === other[j]) { put("same", fresh[j]); i++; j++; }
    else if (j >= other.length || (i < one.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) put("del", old[i++]);
    else put("ins", fresh[j++]);
  }
  return pieces;
}

function answerOf(item, arm) {
  for (const answer of item.querySelectorAll(".answer")) {
    if (answer.querySelector("h4").textContent !== arm) continue;
    const said = answer.querySelector(".said");
    return said.classList.contains("empty") ? "" : said.textContent;
  }
  return null;
}

function differenceOf(item, before, after) {
  const [old, fresh] = [answerOf(item, before), answerOf(item, after)];
  const block = make("div", { class: "difference chosen" }, make("h4", {}, `Word by word: ${before} to ${after}`));
  const missing = [[old, before], [fresh, after]].filter(([text]) => text === null).map(([, arm]) => arm);
  if (missing.length) {
    block.append(make("p", { class: "hint" }, `No answer here of ${missing.join(" and ")}.`));
  } else if (old === fresh) {
    block.append(make("p", { class: "hint" }, "The same answer, word for word."));
  } else {
    const said = make("p", { class: "said", dir: "auto" });
    for (const [kind, text] of wordDifference(old, fresh)) said.append(kind === "same" ? text : make(kind, {}, text));
    block.append(said);
  }
  return block;
}

function addComparison(tools, list) {
  const arms = JSON.parse(list.box.dataset.arms ?? "[]");
  if (arms.length < 2) return;
  const choice = (label) => {
    const select = make("select", {}, make("option", { value: "" }, "–"));
    for (const arm of arms) select.append(make("option", { value: arm }, arm));
    tools.append(make("label", { class: "choice" }, `${label} `, select));
    return select;
  };
  const before = choice("Compare"), after = choice("with");
  const isOn = () => Boolean(before.value && after.value && before.value !== after.value);
  list.show = (item) => {
    if (!isOn() || item.querySelector(".chosen")) return;
    item.querySelector(".answers").after(differenceOf(item, before.value, after.value));
  };
  const choose = () => {
    list.box.classList.toggle("comparing", isOn());
    list.compare();
  };
  for (const select of [before, after]) select.addEventListener("change", choose);
  if (list.box.dataset.compare) {
    [before.value, after.value] = JSON.parse(list.box.dataset.compare);
    choose();
  }
}

function equipCases(box) {
  const list = new List(box);
  if (list.size < 2) return;
  const [tools, about] = toolsOf(box);
  addFilter(tools, about, { size: list.size, texts: () => list.texts(), filter: (hits) => list.filter(hits) });
  // Of details that share a name one is open at a time.
  if (!box.querySelector(":scope > .case[name]")) {
    tools.append(button("Open all", () => list.openAll(true)), button("Close all", () => list.openAll(false)));
  }
  addComparison(tools, list);
  const key = (name) => make("kbd", {}, name);
  const hint = [key("j"), " ", key("k"), " next, previous row · ", key("Enter"), " opens · ", key("/"), " filters · ", key("?"), " all keys"];
  tools.append(make("p", { class: "hint keyboard" }, ...hint));
  box.before(tools);
}

function equipTable(table) {
  makeSortable(table);
  const rows = [...(table.tBodies[0]?.rows ?? [])], box = table.closest(".scroll");
  if (rows.length < FEWEST_ROWS || box.closest(".case, .chart")) return;
  const [tools, about] = toolsOf(box);
  addFilter(tools, about, {
    size: rows.length,
    texts: () => rows.map((row) => row.textContent.toLowerCase()),
    filter: (hits) => rows.forEach((row, place) => { row.hidden = hits ? !hits[place] : false; }),
  });
  box.before(tools);
}

// A long table that is folded away is text until it is unfolded.
function unfold(details) {
  const text = details.querySelector(":scope > noscript");
  if (!text) return;
  text.insertAdjacentHTML("beforebegin", text.textContent);
  text.remove();
  details.querySelectorAll("table").forEach(equipTable);
}
