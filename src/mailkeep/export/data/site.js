/* The first page of an exported mail account: folders, a list of any length, sorting, search and conversations.

   Runs from a disk, without a server. A page that was opened from a file may not read other files, but may load
   scripts: each piece of data is a script that calls mailkeep(name, data), loaded when it is wanted. All text comes
   from mail and is put into the page as text only. Words are cut here as html_words.py cuts them. */
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);

  /* ---- data, loaded when it is wanted */

  const SHARDS_MAX = 48; // scripts that one word of a search may need
  const KEEP = { r: 300, w: 120 }; // pieces of a kind that stay in memory
  const arrived = new Map();
  const pieces = new Map(); // name → promise, in the order of use

  window.mailkeep = (name, data) => {
    if (name === "account") start(data);
    else arrived.set(name, data);
  };

  function load(name, file) {
    let piece = pieces.get(name);
    if (piece !== undefined) {
      pieces.delete(name);
      pieces.set(name, piece);
      return piece;
    }
    piece = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `index/${file}.js`;
      script.onload = () => {
        script.remove();
        const data = arrived.get(name);
        arrived.delete(name);
        if (data === undefined) reject(new Error(`${script.src} is damaged`));
        else resolve(data);
      };
      script.onerror = () => {
        script.remove();
        if (pieces.delete(name) && /^[rw]\d/.test(name)) counts[name[0]]--;
        reject(new Error(`${script.src} cannot be read`));
      };
      document.head.append(script);
    });
    pieces.set(name, piece);
    const kind = name[0];
    if (/^[rw]\d/.test(name) && ++counts[kind] > KEEP[kind]) {
      for (const old of pieces.keys()) {
        if (old[0] === kind && /^.\d/.test(old)) {
          pieces.delete(old);
          loadedRows.delete(old);
          counts[kind]--;
          break;
        }
      }
    }
    return piece;
  }

  const counts = { r: 0, w: 0 };
  const loadedRows = new Map();
  const numbered = (kind, directory, number) =>
    load(`${kind}${number}`, `${directory}/${Math.floor(number / account.perFolder)}/${number}`);

  /* The row of a message if it is here; else null, and it is sent for. */
  function rowOf(id) {
    const chunk = Math.floor(id / account.chunk);
    const rows = loadedRows.get(`r${chunk}`);
    if (rows !== undefined) return rows[id % account.chunk];
    if (!pieces.has(`r${chunk}`)) {
      numbered("r", "rows", chunk).then((data) => {
        loadedRows.set(`r${chunk}`, data);
        draw();
      }, complain);
    }
    return null;
  }

  const DIGITS = new Int8Array(128);
  [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"].forEach((digit, value) => {
    DIGITS[digit.charCodeAt(0)] = value;
  });
  const digit = (text, at) => DIGITS[text.charCodeAt(at)];
  const number = (text, at) =>
    (digit(text, at) << 18) | (digit(text, at + 1) << 12) | (digit(text, at + 2) << 6) | digit(text, at + 3);

  const orders = new Map();
  async function orderBy(column) {
    if (!orders.has(column)) {
      const text = await load(`order-${column}`, `order-${column}`);
      const ids = new Int32Array(text.length / 4);
      for (let at = 0; at < ids.length; at++) ids[at] = number(text, at * 4);
      orders.set(column, ids);
      pieces.delete(`order-${column}`);
    }
    return orders.get(column);
  }

  let threads = null;
  async function allThreads() {
    if (threads === null) {
      const text = await load("threads", "threads");
      const length = text.length / 5;
      const found = {
        of: new Int32Array(account.count).fill(-1), // message → its conversation
        from: [], // conversation → its first place in ids
        ids: new Int32Array(length),
        depths: new Uint8Array(length),
      };
      for (let at = 0; at < length; at++) {
        const depth = digit(text, at * 5);
        if (depth >= 32) found.from.push(at);
        found.ids[at] = number(text, at * 5 + 1);
        found.depths[at] = depth & 31;
        found.of[found.ids[at]] = found.from.length - 1;
      }
      found.from.push(length);
      threads = found;
    }
    return threads;
  }

  /* ---- words */

  const UNSPACED =
    "\\u0e00-\\u0eff\\u0f00-\\u0fff\\u1000-\\u109f\\u1780-\\u17ff\\u3005\\u3007\\u3041-\\u30ff\\u31f0-\\u31ff" +
    "\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\u{20000}-\\u{3ffff}";
  const WORDS = new RegExp(
    `([${UNSPACED}]+)|([\\u2600-\\u27bf\\u{1f300}-\\u{1faff}])|(?:(?![${UNSPACED}])[\\p{L}\\p{N}\\p{M}])+`, "gu");
  const ACCENTS = /[\u0300-\u036f\u0591-\u05c7\u064b-\u0655\u0670\u0640]/g;
  const LENGTH_MAX = 24;

  function fold(text) {
    const lower = text.toLowerCase();
    // eslint-disable-next-line no-control-regex
    if (/^[\0-\x7f]*$/.test(lower)) return lower;
    const plain = lower.normalize("NFKD").toLowerCase().replace(/ß/g, "ss").replace(/ς/g, "σ");
    return plain.replace(ACCENTS, "").normalize("NFC");
  }

  /* What is typed as terms: {word, whole, not}. A word is looked for as a beginning; neighbours of a script without
     spaces are looked for as they are. */
  function termsOf(query) {
    const FIELDS = { from: "f:", to: "t:", subject: "s:", file: "a:" };
    const terms = [];
    for (const part of query.split(/\s+/)) {
      const not = part.startsWith("-") && part.length > 1;
      const text = not ? part.slice(1) : part;
      const state = /^(is|has):(\p{L}+)$/u.exec(text.toLowerCase());
      if (state !== null) {
        const names = { attachments: "attachment", flagged: "starred", seen: "read", unseen: "unread", replied: "answered" };
        terms.push({ word: `${state[1][0]}:${names[state[2]] ?? state[2]}`, whole: true, not });
        continue;
      }
      const match = /^([a-z]+):(.+)$/i.exec(text);
      const field = match === null ? undefined : FIELDS[match[1].toLowerCase()];
      for (const found of fold(field === undefined ? text : match[2]).matchAll(WORDS)) {
        const letters = [...found[0]];
        if (found[1] !== undefined && letters.length > 1) {
          for (let at = 0; at + 1 < letters.length; at++)
            terms.push({ word: (field ?? "") + letters[at] + letters[at + 1], whole: true, not });
        } else {
          terms.push({ word: (field ?? "") + letters.slice(0, LENGTH_MAX).join(""), whole: false, not });
        }
      }
    }
    return terms;
  }

  /* Words are sorted by code point, JavaScript compares by UTF-16 unit. */
  const unit = (code) => (code >= 0xe000 ? code - 0x800 : code >= 0xd800 ? code + 0x2000 : code);
  function isBefore(a, b) {
    const length = Math.min(a.length, b.length);
    for (let at = 0; at < length; at++) {
      const difference = unit(a.charCodeAt(at)) - unit(b.charCodeAt(at));
      if (difference !== 0) return difference < 0;
    }
    return a.length < b.length;
  }

  /* The scripts that may hold words which begin with this one: [first, end). */
  function shardsOf(word, whole) {
    const firsts = account.words;
    let low = 0;
    let high = firsts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(word, firsts[middle])) high = middle;
      else low = middle + 1;
    }
    let end = low;
    if (!whole) while (end < firsts.length && firsts[end].startsWith(word)) end++;
    return [Math.max(0, low - 1), end];
  }

  const VALUES = new Int8Array(128);
  {
    let value = 0;
    for (let code = 0x20; code < 0x7f; code++) if (!'"\\<'.includes(String.fromCharCode(code))) VALUES[code] = value++;
  }
  const BASE = 46;

  /* Calls `take` with each number of a posting list. */
  function decode(text, take) {
    let id = 0;
    for (let at = 0; at < text.length; at++) {
      let value = VALUES[text.charCodeAt(at)];
      let difference = 0;
      let scale = 1;
      while (value >= BASE) {
        difference += (value - BASE) * scale;
        scale *= BASE;
        value = VALUES[text.charCodeAt(++at)];
      }
      id += difference + value * scale;
      take(id);
    }
  }

  /* Which messages have all the words: {found: Uint8Array or null for all, note}. */
  async function search(query) {
    const terms = termsOf(query);
    if (terms.length === 0) return { found: null, note: "" };
    let note = "";
    const marks = new Uint8Array(account.count).fill(1);
    for (const term of terms) {
      let [from, end] = shardsOf(term.word, term.whole);
      let whole = term.whole;
      if (end - from > SHARDS_MAX) {
        whole = true;
        [from, end] = shardsOf(term.word, true);
        note = `“${term.word}” begins too many words: only the whole word was looked for.`;
      }
      const shards = [];
      for (let shard = from; shard < end; shard++) shards.push(numbered("w", "words", shard));
      const hit = new Uint8Array(account.count);
      for (const words of await Promise.all(shards)) {
        for (let at = 0; at < words.length; at += 2) {
          if (whole ? words[at] === term.word : words[at].startsWith(term.word))
            decode(words[at + 1], (id) => { hit[id] = 1; });
        }
      }
      const wanted = term.not ? 0 : 1;
      for (let id = 0; id < marks.length; id++) if (hit[id] !== wanted) marks[id] = 0;
    }
    return { found: marks, note };
  }

  /* ---- what is shown */

  const COLUMNS = ["from", "subject", "date", "size"];
  let account = null;
  let firstFolder = "0"; // in the order of the tree
  let state = null; // what the address says
  let view = { ids: new Int32Array(0), depths: null, mixed: false };
  let cursor = 0;
  let follow = false; // the focus is on its way to the cursor
  let asked = 0;

  const initial = () => ({ folder: firstFolder, sort: "date", up: "", threads: "", q: "", in: "", c: "" });

  function readAddress() {
    const text = location.hash.slice(1);
    const next = initial();
    const plain = /^([fc])(\d+)$/.exec(text);
    if (plain !== null) next[plain[1] === "f" ? "folder" : "c"] = plain[2];
    else for (const [name, value] of new URLSearchParams(text)) if (Object.hasOwn(next, name)) next[name] = value;
    if (!/^\d+$/.test(next.folder) || account.folders[next.folder] === undefined) next.folder = firstFolder;
    if (!COLUMNS.includes(next.sort)) next.sort = "date";
    if (!/^\d+$/.test(next.c) || Number(next.c) >= account.count) next.c = "";
    return next;
  }

  function writeAddress(replace) {
    const usual = initial();
    const entries = Object.entries(state).filter(([name, value]) => value !== usual[name]);
    const address = entries.length === 0 ? `#f${firstFolder}` : `#${new URLSearchParams(entries)}`;
    if (replace) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
  }

  function change(what, { replace = false } = {}) {
    Object.assign(state, what);
    writeAddress(replace);
    return show({ top: 0 });
  }

  const isEverywhere = () => state.q.trim() !== "" && state.in === "";
  const isIn = (folder, id) => account.folders[folder].ranges.some(([first, length]) => id >= first && id < first + length);

  function folderOf(id) {
    return account.folders.findIndex((_, folder) => isIn(folder, id));
  }

  /* Make the list that the state asks for. */
  async function compute() {
    const falling = state.sort === "date" || state.sort === "size" ? state.up === "" : state.up !== "";
    if (state.c !== "") {
      const { of, from, ids, depths } = await allThreads();
      const id = Number(state.c);
      const which = of[id];
      if (which < 0) return { ids: Int32Array.of(id), depths: null, mixed: true, note: "" };
      return {
        ids: ids.slice(from[which], from[which + 1]), depths: depths.slice(from[which], from[which + 1]), mixed: true, note: "",
      };
    }
    const [order, { found, note }] = await Promise.all([orderBy(state.sort), search(state.q)]);
    const everywhere = found !== null && state.in === "";
    const wanted = new Uint8Array(account.count);
    if (everywhere) wanted.fill(1);
    else for (const [first, length] of account.folders[state.folder].ranges) wanted.fill(1, first, first + length);
    if (found !== null) for (let id = 0; id < wanted.length; id++) wanted[id] &= found[id];
    const ids = [];
    const last = order.length - 1;
    if (state.threads === "") {
      for (let at = 0; at <= last; at++) {
        const id = order[falling ? last - at : at];
        if (wanted[id] === 1) ids.push(id);
      }
      return { ids, depths: null, mixed: everywhere, note };
    }
    const all = await allThreads();
    const depths = [];
    for (let at = 0; at <= last; at++) {
      const id = order[falling ? last - at : at];
      if (wanted[id] !== 1) continue;
      const which = all.of[id];
      if (which < 0) {
        ids.push(id);
        depths.push(0);
        continue;
      }
      for (let place = all.from[which]; place < all.from[which + 1]; place++) {
        ids.push(all.ids[place]);
        depths.push(all.depths[place]);
        wanted[all.ids[place]] = 0; // the whole conversation stands where its first hit does
      }
    }
    return { ids, depths, mixed: true, note };
  }

  async function show({ top = 0, at = 0 } = {}) {
    const ask = ++asked;
    paintControls();
    const patience = setTimeout(() => { if (ask === asked) $("status").textContent = "Looking …"; }, 150);
    let next;
    try {
      next = await compute();
    } catch (error) {
      if (ask === asked) complain(error);
      return;
    } finally {
      clearTimeout(patience);
    }
    if (ask !== asked) return;
    view = next;
    cursor = Math.min(at, Math.max(0, view.ids.length - 1));
    for (const row of drawn.values()) row.remove();
    drawn.clear();
    $("room").style.height = `${roomHeight()}px`;
    $("table").setAttribute("aria-rowcount", String(view.ids.length + 1));
    $("rows").scrollTop = top;
    draw();
    $("status").textContent = statusText();
    document.documentElement.dataset.ready = String(ask);
  }

  function statusText() {
    const length = view.ids.length;
    const messages = `${length.toLocaleString()} ${length === 1 ? "message" : "messages"}`;
    if (state.c !== "") return `Conversation of ${messages}`;
    if (length === 0) return state.q === "" ? "No messages" : "Nothing found";
    return `${messages}${state.q === "" ? "" : " found"}${view.note === "" ? "" : `. ${view.note}`}`;
  }

  function complain(error) {
    $("status").textContent = `The index is not complete: ${error.message}`;
  }

  /* ---- rows, only those that are seen */

  const HEIGHT_MAX = 15e6; // pixels; browsers lay out no more than some 17 million
  const OVER = 6;
  const drawn = new Map();
  let rowHeight = 34;

  const roomHeight = () => Math.min(view.ids.length * rowHeight, HEIGHT_MAX);

  /* How far the list is scrolled, in pixels of a list that is as long as it should be. */
  function scrolled() {
    const rows = $("rows");
    const seen = rows.clientHeight;
    const all = view.ids.length * rowHeight;
    const room = roomHeight();
    return room <= seen || all === room ? rows.scrollTop : (rows.scrollTop / (room - seen)) * (all - seen);
  }

  function draw() {
    const rows = $("rows");
    const offset = scrolled();
    const first = Math.max(0, Math.floor(offset / rowHeight) - OVER);
    const end = Math.min(view.ids.length, Math.ceil((offset + rows.clientHeight) / rowHeight) + OVER);
    for (const [at, element] of drawn) {
      if (at < first || at >= end) {
        element.remove();
        drawn.delete(at);
      }
    }
    for (let at = first; at < end; at++) {
      let element = drawn.get(at);
      if (element === undefined || element.dataset.empty === "1") {
        const fresh = rowElement(at);
        if (element === undefined) $("room").append(fresh);
        else element.replaceWith(fresh);
        drawn.set(at, (element = fresh));
      }
      element.style.top = `${Math.round(rows.scrollTop + at * rowHeight - offset)}px`;
    }
    if (follow) focusCursor();
  }

  const make = (tag, kind, text) => {
    const element = document.createElement(tag);
    if (kind !== "") element.className = kind;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const cell = (kind) => {
    const element = make("div", kind);
    element.setAttribute("role", "cell");
    return element;
  };
  const sign = (text, name) => {
    const element = make("span", "sign", text);
    element.title = name;
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", name);
    return element;
  };
  const own = (kind, text) => {
    const element = make("bdi", kind, text);
    element.dir = "auto";
    return element;
  };

  const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const when = (seconds) => WHEN.format(new Date(seconds * 1000));
  const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

  function sizeText(size) {
    let rest = size;
    for (const name of ["B", "KB", "MB"]) {
      if (rest < 1000) return `${rest.toFixed(name === "B" || rest >= 10 ? 0 : 1)} ${name}`;
      rest /= 1000;
    }
    return `${rest.toFixed(1)} GB`;
  }

  const address = (path) => path.split("/").map(encodeURIComponent).join("/");

  function rowElement(at) {
    const id = view.ids[at];
    const data = rowOf(id);
    const element = make("div", "row");
    element.setAttribute("role", "row");
    element.setAttribute("aria-rowindex", String(at + 2));
    element.dataset.at = String(at);
    if (data === null) {
      element.dataset.empty = "1";
      return element;
    }
    const [file, subject, sender, senderAddress, to, date, size, flags, attachments, preview] = data;
    const folder = folderOf(id);
    const place = account.folders[folder];
    if ((flags & 1) === 0) element.classList.add("new");

    const from = cell("from");
    const who = place.sent && to !== "" ? own("", `To: ${to}`) : own("", sender || "(nobody)");
    who.title = place.sent ? to : senderAddress;
    from.append(who);

    const middle = cell("subject");
    if (view.depths !== null) {
      const depth = Math.min(view.depths[at], 12);
      middle.style.setProperty("--depth", depth);
      if (depth > 0) element.classList.add("reply");
    }
    if (flags & 2) middle.append(sign("★", "starred"));
    if (flags & 4) middle.append(sign("↩", "answered"));
    if (flags & 16) middle.append(sign("↪", "forwarded"));
    if (flags & 8) middle.append(sign("✎", "draft"));
    const link = make("a", "open");
    link.href = `${address(`${place.directory}/${file}`)}.html`;
    link.tabIndex = at === cursor ? 0 : -1;
    link.append(own("", subject || "(no subject)"));
    middle.append(link);
    if (attachments > 0) middle.append(sign("📎", `${attachments} ${attachments === 1 ? "attachment" : "attachments"}`));
    if (view.mixed && (state.c !== "" || isEverywhere() || String(folder) !== state.folder))
      middle.append(own("place", place.name));
    middle.append(own("preview", preview));

    const time = cell("date");
    const stamp = make("time", "", when(date));
    stamp.dateTime = new Date(date * 1000).toISOString();
    stamp.title = WHOLE.format(new Date(date * 1000));
    time.append(stamp);
    const bytes = cell("size");
    bytes.append(make("span", "", sizeText(size)));
    element.append(from, middle, time, bytes);
    return element;
  }

  /* Move the cursor, and the focus with it. */
  function go(to) {
    const length = view.ids.length;
    if (length === 0) return;
    const before = drawn.get(cursor)?.querySelector("a");
    if (before) before.tabIndex = -1;
    cursor = Math.max(0, Math.min(length - 1, to));
    const rows = $("rows");
    const offset = scrolled();
    const seen = rows.clientHeight;
    const all = length * rowHeight;
    const wanted = Math.max(cursor * rowHeight + rowHeight - seen, Math.min(offset, cursor * rowHeight));
    if (wanted !== offset) {
      const room = roomHeight();
      rows.scrollTop = all === room ? wanted : (wanted / (all - seen)) * (room - seen);
    }
    follow = true;
    rows.focus({ preventScroll: true });
    draw();
  }

  /* The focus comes to the cursor's row as soon as the row is there, unless it went elsewhere meanwhile. */
  function focusCursor() {
    const link = drawn.get(cursor)?.querySelector("a");
    if (!link) return;
    follow = false;
    link.tabIndex = 0;
    if (document.activeElement === $("rows")) link.focus({ preventScroll: true });
  }

  /* ---- controls */

  function button(text, action) {
    const element = make("button", "", text);
    element.type = "button";
    element.addEventListener("click", action);
    return element;
  }

  function build() {
    const field = make("input", "");
    field.type = "search";
    field.id = "q";
    field.placeholder = "Search: words, from:ann, subject:trip, has:attachment";
    field.setAttribute("aria-label", "Search");
    field.autocomplete = "off";
    field.spellcheck = false;
    let timer = 0;
    const ask = () => { if (field.value !== state.q || state.c !== "") change({ q: field.value, c: "" }, { replace: true }); };
    field.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(ask, 120);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") ask();
      else if (event.key === "ArrowDown") go(cursor);
      else return;
      event.preventDefault();
    });
    const scope = make("select", "");
    scope.id = "in";
    scope.setAttribute("aria-label", "Where to search");
    for (const [value, text] of [["", "in all folders"], ["folder", "in this folder"]]) {
      const option = make("option", "", text);
      option.value = value;
      scope.append(option);
    }
    scope.addEventListener("change", () => change({ in: scope.value }));
    $("search").append(field, scope);
    $("search").hidden = false;

    const bar = make("div", "bar");
    const title = make("h2", "");
    title.id = "title";
    const status = make("span", "status");
    status.id = "status";
    status.setAttribute("role", "status");
    const grouped = button("Conversations", () => change({ threads: state.threads === "" ? "1" : "", c: "" }));
    grouped.id = "threads";
    const back = button("All of the folder", () => change({ c: "", folder: String(Math.max(0, folderOf(Number(state.c)))) }));
    back.id = "back";
    const folders = button("Folders", () => {
      const open = document.body.classList.toggle("folders-open");
      folders.setAttribute("aria-expanded", String(open));
    });
    folders.id = "show-folders";
    folders.setAttribute("aria-expanded", "false");
    folders.setAttribute("aria-controls", "folders");
    bar.append(folders, title, status, back, grouped);

    const rows = make("div", "");
    rows.id = "rows";
    rows.tabIndex = 0;
    const head = make("div", "row head");
    head.id = "head";
    head.setAttribute("role", "row");
    head.setAttribute("aria-rowindex", "1");
    for (const column of COLUMNS) {
      const above = make("div", column);
      above.setAttribute("role", "columnheader");
      above.append(button(column[0].toUpperCase() + column.slice(1), () =>
        change(state.sort === column ? { up: state.up === "" ? "1" : "" } : { sort: column, up: "" })));
      head.append(above);
    }
    const room = make("div", "");
    room.id = "room";
    room.setAttribute("role", "rowgroup");
    const frame = make("div", "frame");
    frame.id = "table";
    frame.setAttribute("role", "table");
    frame.setAttribute("aria-label", "Messages");
    rows.append(room);
    frame.append(head, rows);
    $("list").append(bar, frame);
    document.documentElement.classList.add("on");
    listen(rows);
  }

  function listen(rows) {
    rows.addEventListener("scroll", draw, { passive: true });
    rows.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.floor(rows.clientHeight / rowHeight) - 1);
      const moves = {
        ArrowDown: cursor + 1, ArrowUp: cursor - 1, j: cursor + 1, k: cursor - 1,
        PageDown: cursor + page, PageUp: cursor - page, Home: 0, End: view.ids.length - 1,
      };
      if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in moves)) return;
      event.preventDefault();
      // The first step from the list as a whole is onto a row, not from it.
      const enters = event.target === rows && Math.abs(moves[event.key] - cursor) === 1;
      go(enters ? cursor : moves[event.key]);
    });
    rows.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row === null) return;
      cursor = Number(row.dataset.at);
      // So that "back" comes back to this place.
      history.replaceState({ top: rows.scrollTop, at: cursor }, "");
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) {
        event.preventDefault();
        $("q").focus();
        $("q").select();
      } else if (event.key === "Escape" && document.activeElement === $("q") && $("q").value !== "") {
        $("q").value = "";
        change({ q: "" }, { replace: true });
      }
    });
    $("folders").addEventListener("click", (event) => {
      const link = event.target.closest("a[data-folder]");
      if (link === null || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      document.body.classList.remove("folders-open");
      change({ folder: link.dataset.folder, c: "", ...(state.in === "" ? { q: "" } : {}) });
    });
    window.addEventListener("resize", () => {
      measure();
      $("room").style.height = `${roomHeight()}px`;
      draw();
    });
    window.addEventListener("popstate", (event) => {
      state = readAddress();
      show(event.state ?? {});
    });
  }

  function measure() {
    rowHeight = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 34;
  }

  function paintControls() {
    const folder = account.folders[state.folder];
    const everywhere = isEverywhere();
    $("title").textContent = state.c !== "" ? "Conversation" : everywhere ? "All folders" : folder.name;
    document.title = `${$("title").textContent} · ${account.title}`;
    if (document.activeElement !== $("q")) $("q").value = state.q;
    $("in").value = state.in;
    $("threads").setAttribute("aria-pressed", String(state.threads !== ""));
    $("threads").hidden = state.c !== "";
    $("back").hidden = state.c === "";
    const names = { up: "ascending", down: "descending" };
    for (const above of $("head").children) {
      const column = above.className;
      const falls = (column === "date" || column === "size") === (state.up === "");
      if (column === state.sort && state.c === "") above.setAttribute("aria-sort", falls ? names.down : names.up);
      else above.removeAttribute("aria-sort");
    }
    for (const link of $("folders").querySelectorAll("a[data-folder]")) {
      const present = link.dataset.folder === state.folder && state.c === "" && !everywhere;
      if (present) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  function start(data) {
    account = data;
    firstFolder = $("folders").querySelector("a[data-folder]")?.dataset.folder ?? "0";
    build();
    measure();
    state = readAddress();
    if (account.folders.length === 0) {
      $("status").textContent = "There is no mail in this export.";
      document.documentElement.dataset.ready = "1";
      return;
    }
    show(history.state ?? {});
  }
})();
