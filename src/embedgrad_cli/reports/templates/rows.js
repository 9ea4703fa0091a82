
"use strict";
// Rows of the data element, 50 at a time. Texts reach the page by textContent alone, so none of them is markup.
(() => {
  const PAGE = 50;
  const KINDS = ["all", "fixed", "broken", "both wrong", "both right"];
  const FILTERS = { any: "any", differ: "the two differ", invalid: "nothing found", limit: "cut at the limit" };
  const ENDINGS = ["", "cut at the token limit", "ended by a stop string"];
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const defaults = { show: "all", q: "", answers: "any", base: data.baseline, cand: data.candidate, page: 1, row: "" };
  let state = { ...defaults };
  let shown = [];
  let haystacks = null;
  let last = "";  // the row that was open before

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const arm = (name) => Math.max(data.arms.indexOf(name), 0);
  const counted = (row, number) => row[3][number][1][row[3][number][0]] || ["", null, 0, 0];
  const found = (answer) => (answer[1] === 0 ? answer[0] : answer[1]);

  function kind(row) {
    const before = counted(row, arm(state.base))[2], after = counted(row, arm(state.cand))[2];
    return before === after ? (after ? "both right" : "both wrong") : after ? "fixed" : "broken";
  }

  function passes(row, number) {
    if (state.answers !== "any") {
      const before = counted(row, arm(state.base)), after = counted(row, arm(state.cand));
      if (state.answers === "differ" && found(before) === found(after)) return false;
      if (state.answers === "invalid" && found(before) !== null && found(after) !== null) return false;
      if (state.answers === "limit" && before[3] !== 1 && after[3] !== 1) return false;
    }
    return !state.q || haystack(number).includes(state.q.toLowerCase());
  }

  function haystack(number) {
    haystacks ||= data.rows.map((row) =>
      [row[0], row[1], row[2], ...row[3].flatMap((of_arm) => of_arm[1].map((answer) => answer[0]))].join("\n").toLowerCase());
    return haystacks[number];
  }

  function read() {
    const [place, words] = location.hash.slice(1).split("?");
    if (place !== "rows") return;
    const given = new URLSearchParams(words || "");
    state = { ...defaults };
    for (const key of Object.keys(defaults)) if (given.has(key)) state[key] = given.get(key);
    state.page = Math.max(parseInt(state.page, 10) || 1, 1);
    for (const key of ["base", "cand"]) if (!data.arms.includes(state[key])) state[key] = defaults[key];
    if (!KINDS.includes(state.show)) state.show = "all";
    if (!Object.hasOwn(FILTERS, state.answers)) state.answers = "any";
  }

  function write() {
    const words = new URLSearchParams();
    for (const [key, value] of Object.entries(state)) if (value !== defaults[key]) words.set(key, value);
    history.replaceState(null, "", `#rows${words.size ? `?${words}` : ""}`);
  }

  function change(part) {
    state = { ...state, page: 1, row: "", ...part };
    write();
    render();
  }

  function render() {
    const counts = Object.fromEntries(KINDS.map((name) => [name, 0]));
    shown = [];
    data.rows.forEach((row, number) => {
      if (!passes(row, number)) return;
      const of_row = kind(row);
      counts.all += 1;
      counts[of_row] += 1;
      if (state.show === "all" || state.show === of_row) shown.push(row);
    });
    const pages = Math.max(Math.ceil(shown.length / PAGE), 1);
    state.page = Math.min(state.page, pages);
    $("base").value = state.base;
    $("cand").value = state.cand;
    $("answers").value = state.answers;
    if ($("search").value !== state.q) $("search").value = state.q;
    $("chips").replaceChildren(...KINDS.map((name) => chip(name, counts[name])));
    const first = (state.page - 1) * PAGE, part = shown.slice(first, first + PAGE);
    $("count").textContent = shown.length
      ? `${first + 1} to ${first + part.length} of ${shown.length} rows (${data.rows.length} in all)`
      : `No row of ${data.rows.length} is like that.`;
    $("list").replaceChildren(...part.map(line));
    pager(pages);
  }

  function chip(name, count) {
    const button = make("button", "", `${name} ${count}`);
    button.type = "button";
    button.dataset.kind = name;
    button.setAttribute("aria-pressed", String(state.show === name));
    button.addEventListener("click", () => change({ show: name }));
    return button;
  }

  function line(row) {
    const item = make("li", "row"), head = make("button", "head");
    const is_now = row[0] === state.row;
    head.type = "button";
    head.setAttribute("aria-expanded", String(is_now));
    const of_row = kind(row);
    const label = make("span", `kind ${of_row === "fixed" || of_row === "both right" ? "right" : "wrong"}`, of_row);
    label.append(make("small", "", row[0]));
    head.append(label, make("span", "query", row[1]), field("target", row[2]));
    for (const name of new Set([state.base, state.cand])) head.append(verdict(name, counted(row, arm(name))));
    head.addEventListener("click", () => (state.row === row[0] ? leave() : go(row)));
    item.append(head);
    item.dataset.id = row[0];
    if (is_now) open(item, row);
    return item;
  }

  function field(name, text) {
    const element = make("span", "found", text);
    element.prepend(make("small", "", name));
    return element;
  }

  function verdict(name, answer) {
    const text = found(answer);
    const element = make("span", `found ${answer[2] ? "right" : "wrong"}`, `${answer[2] ? "✓" : "✗"} ${text === null ? "(nothing found)" : text}`);
    element.prepend(make("small", "", name));
    return element;
  }

  function open(item, row) {
    item.classList.add("now");
    item.firstChild.setAttribute("aria-expanded", "true");
    const more = make("div", "open"), query = make("div"), target = make("div"), answers = make("div", "answers");
    query.append(make("small", "quiet", "query"), make("pre", "", row[1]));
    target.append(make("small", "quiet", "target"), make("pre", "", row[2]));
    data.arms.forEach((name, number) => answers.append(answersOf(name, row[3][number])));
    more.append(query, target, answers);
    item.append(more);
  }

  function answersOf(name, [chosen, answers]) {
    const box = make("div");
    answers.forEach((answer, number) => {
      const title = answers.length > 1 ? `${name}, answer ${number + 1}${number === chosen ? " (counts)" : ""}` : name;
      const text = found(answer), ending = ENDINGS[answer[3]];
      box.append(make("h4", "", title));
      box.append(make("div", answer[2] ? "right" : "wrong", `${answer[2] ? "✓ right" : "✗ wrong"}: ${text === null ? "nothing found" : text}`));
      if (ending) box.append(make("small", "quiet", ending));
      box.append(make("pre", "", answer[0] || "(empty)"));
    });
    return box;
  }

  function close() {
    const item = $("list").querySelector(".now");
    if (!item) return;
    item.classList.remove("now");
    item.firstChild.setAttribute("aria-expanded", "false");
    item.querySelector(".open").remove();
  }

  function leave() {
    close();
    last = state.row;
    state.row = "";
    write();
  }

  function go(row) {
    const number = shown.indexOf(row), page = Math.floor(number / PAGE) + 1;
    close();
    state.row = row[0];
    if (page !== state.page) {
      state.page = page;
      render();
    } else {
      open(itemOf(row), row);
    }
    write();
    itemOf(row).scrollIntoView({ block: "nearest" });
    itemOf(row).firstChild.focus({ preventScroll: true });
  }

  const itemOf = (row) => [...$("list").children].find((item) => item.dataset.id === row[0]);

  function move(by) {
    if (!shown.length) return;
    const now = shown.findIndex((row) => row[0] === (state.row || last));
    const next = now < 0 ? (state.page - 1) * PAGE : Math.min(Math.max(now + by, 0), shown.length - 1);
    if (shown[next][0] !== state.row) go(shown[next]);
  }

  function pager(pages) {
    const turn = (words, page) => {
      const button = make("button", "", words);
      button.type = "button";
      button.disabled = page < 1 || page > pages;
      button.addEventListener("click", () => { change({ page }); $("tools").scrollIntoView({ block: "start" }); });
      return button;
    };
    $("pager").replaceChildren(...(pages > 1
      ? [turn("← previous", state.page - 1), make("span", "quiet", `page ${state.page} of ${pages}`), turn("next →", state.page + 1)]
      : []));
  }

  function option(value, words) {
    const element = make("option", "", words);
    element.value = value;
    return element;
  }

  for (const id of ["base", "cand"]) {
    $(id).append(...data.arms.map((name) => option(name, name)));
    $(id).addEventListener("change", () => change({ [id]: $(id).value }));
  }
  $("answers").append(...Object.entries(FILTERS).map(([value, words]) => option(value, words)));
  $("answers").addEventListener("change", () => change({ answers: $("answers").value }));
  $("search").addEventListener("input", () => change({ q: $("search").value }));
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => { read(); render(); });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.key === "Escape" && typing) document.activeElement.blur();
    if (typing) return;
    if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "o") state.row ? leave() : move(0);
    else if (event.key === "/") { event.preventDefault(); $("search").focus(); }
  });
  read();
  render();
  if (location.hash.startsWith("#rows?")) $("rows").scrollIntoView();
})();
