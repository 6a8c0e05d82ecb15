"use strict";
// One page of pictures: tabs, steps, zoom, search, and a panel that tells of the chosen node.
(() => {
  const NAME = 0, OP = 1, TYPE = 2, LINE = 3, ROWS = 4, DERIVED = 5, OPERANDS = 6, READERS = 7,
    CARD = 8; // what data.py writes of a node
  const data = JSON.parse(document.getElementById("data").textContent);
  const nodes = data.nodes;
  const byName = new Map(nodes.map((node, number) => [node[NAME], number]));
  const [panel, facts, search, found] =
    ["panel", "facts", "search", "found"].map((id) => document.getElementById(id));
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const sections = tabs.map((tab) => document.getElementById(tab.getAttribute("aria-controls")));
  const seen = new Set(), scales = new Map(); // tabs, and sections that somebody zoomed in
  const WHOLE = "whole", SMALLEST = 0.65; // at first no picture is too small to read

  const make = (tag, text, parent) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const isFold = (element) => element.classList.contains("fold");
  const current = () => sections.find((section) => !section.hidden);
  const portOf = (section) => section.querySelector(".port");
  const figuresOf = (section) => [...section.querySelectorAll("figure")];
  const stepOf = (section) => figuresOf(section).findIndex((figure) => !figure.hidden);
  const figureOf = (section) => figuresOf(section).find((figure) => !figure.hidden) || section;

  // Where each node is drawn: in any view, in any step.
  const drawn = new Map();
  for (const element of document.querySelectorAll("[data-node]")) {
    const name = element.dataset.node;
    if (!drawn.has(name)) drawn.set(name, []);
    drawn.get(name).push(element);
    element.setAttribute("tabindex", "0");
    if (element instanceof SVGElement) {
      element.setAttribute("role", "button");
      if (!byName.has(name)) continue;
      const node = nodes[byName.get(name)];
      const label = isFold(element) ? `${element.querySelector("title").textContent}: open`
        : `${node[NAME]}, ${node[OP]}, ${node[TYPE]}`;
      element.setAttribute("aria-label", label);
    }
  }
  for (const svg of document.querySelectorAll("figure > svg")) svg.setAttribute("role", "group");

  function elementsOf(number) {
    const own = drawn.get(nodes[number][NAME]) || [];
    const card = nodes[number][CARD];
    return card < 0 ? own : [...own, ...(drawn.get(nodes[card][NAME]) || [])];
  }
  const visible = (element) => !element.closest("section[hidden], figure[hidden]");

  // Tabs and steps.
  function showTab(index, focus) {
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === index));
      tab.tabIndex = i === index ? 0 : -1;
      sections[i].hidden = i !== index;
    });
    if (focus) tabs[index].focus();
    fit();
    mark();
    if (!seen.has(index)) reveal(sections[index]);
    seen.add(index);
  }
  function showStep(section, step) {
    const figures = figuresOf(section);
    const index = Math.max(0, Math.min(figures.length - 1, step));
    figures.forEach((figure, i) => { figure.hidden = i !== index; });
    const range = section.querySelector("input[type=range]");
    if (range) {
      const title = describe(figures[index]);
      range.value = index;
      range.setAttribute("aria-valuetext", title);
      section.querySelector(".count").textContent = `${index + 1} of ${figures.length}`;
      section.querySelector(".step").textContent = title;
    }
    fit(section);
    mark();
    reveal(section);
  }
  // The title of a step with what its picture says of it; then what is new in it, in sight.
  function describe(figure) {
    const svg = figure.querySelector("svg"), title = figure.dataset.title;
    const label = svg ? svg.getAttribute("aria-label") || "" : "";
    return label.startsWith(`${title}: `) ? label : title;
  }
  function reveal(section) {
    const first = figureOf(section).querySelector(".op.chosen") ||
      figureOf(section).querySelector(".op.removed, .op.added, .op.changed, .op.renamed") ||
      figureOf(section).querySelector("svg .op");
    if (!first || section.hidden) return;
    portOf(section).scrollTo(0, 0);
    first.scrollIntoView({ block: "nearest", inline: "center" });
  }
  tabs.forEach((tab, index) => tab.addEventListener("click", () => showTab(index, false)));
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    const at = tabs.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    showTab((to + tabs.length) % tabs.length, true);
  });
  for (const section of sections) {
    const range = section.querySelector("input[type=range]");
    if (range) range.addEventListener("input", () => showStep(section, Number(range.value)));
    for (const button of section.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => zoomBy(Number(button.dataset.zoom)));
    }
  }

  // Zoom: the picture's width; the port around it scrolls.
  function natural(svg) {
    const width = parseFloat(svg.getAttribute("width") || "0");
    return svg.getAttribute("width").endsWith("pt") ? width * 4 / 3 : width;
  }
  function fitting(section, svg) {
    const least = scales.get(section) === WHOLE ? 0.05 : SMALLEST;
    return Math.min(1, Math.max(least, (portOf(section).clientWidth - 16) / natural(svg)));
  }
  function fit(section = current()) {
    const svg = figureOf(section).querySelector("svg");
    if (!svg || section.hidden) return;
    const wanted = scales.get(section) || WHOLE;
    const scale = wanted === WHOLE ? fitting(section, svg) : wanted;
    Object.assign(svg.style, { minWidth: "0", height: "auto", width: `${natural(svg) * scale}px` });
  }
  function zoomTo(scale, x, y) {
    const section = current(), port = portOf(section);
    const svg = figureOf(section).querySelector("svg");
    if (!svg) return;
    const before = svg.getBoundingClientRect();
    const box = port.getBoundingClientRect();
    const px = x ?? box.left + box.width / 2, py = y ?? box.top + box.height / 2;
    const fx = (px - before.left) / before.width, fy = (py - before.top) / before.height;
    scales.set(section, scale === WHOLE ? WHOLE : Math.min(4, Math.max(0.05, scale)));
    fit(section);
    const after = svg.getBoundingClientRect();
    port.scrollLeft += after.left + fx * after.width - px;
    port.scrollTop += after.top + fy * after.height - py;
  }
  function scaleNow() {
    const svg = figureOf(current()).querySelector("svg");
    return svg ? svg.getBoundingClientRect().width / natural(svg) : 1;
  }
  function zoomBy(direction, x, y) {
    zoomTo(direction === 0 ? WHOLE : scaleNow() * (direction > 0 ? 1.25 : 0.8), x, y);
  }

  // Mouse: drag to move, Ctrl and wheel to zoom.  Touch: one finger scrolls, two fingers zoom.
  let dragged = false;
  for (const port of document.querySelectorAll(".port")) {
    const touches = new Map();
    let start = null;
    const spread = () => {
      const [a, b] = [...touches.values()];
      return { far: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    };
    port.addEventListener("pointerdown", (event) => {
      dragged = false;
      if (event.pointerType === "touch") {
        touches.set(event.pointerId, { x: event.clientX, y: event.clientY });
        if (touches.size === 2) start = { ...spread(), scale: scaleNow() };
      } else if (event.button === 0 && event.target.closest("svg")) {
        start = { x: event.clientX, y: event.clientY, left: port.scrollLeft, top: port.scrollTop };
      }
    });
    window.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch" && touches.has(event.pointerId)) {
        touches.set(event.pointerId, { x: event.clientX, y: event.clientY });
        if (touches.size !== 2 || !start) return;
        const now = spread();
        zoomTo(start.scale * now.far / start.far, now.x, now.y);
      } else if (start && touches.size === 0) {
        const dx = event.clientX - start.x, dy = event.clientY - start.y;
        dragged = dragged || Math.hypot(dx, dy) > 4;
        port.classList.toggle("dragging", dragged);
        if (dragged) port.scrollTo(start.left - dx, start.top - dy);
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      window.addEventListener(end, (event) => {
        touches.delete(event.pointerId);
        if (touches.size < 2) start = null;
        port.classList.remove("dragging");
      });
    }
    port.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoomTo(scaleNow() * Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
    }, { passive: false });
  }

  // The chosen node and its panel.
  let chosen = -1, opener = null, hits = [], hit = -1;
  function mark() {
    for (const element of document.querySelectorAll(".chosen, .near, .hit")) {
      element.classList.remove("chosen", "near", "hit");
    }
    const paint = (number, name) => {
      for (const element of elementsOf(number)) if (visible(element)) element.classList.add(name);
    };
    hits.forEach((number) => paint(number, "hit"));
    if (chosen < 0) return;
    for (const other of [...nodes[chosen][OPERANDS], ...nodes[chosen][READERS]]) {
      if (typeof other === "number") paint(other, "near");
    }
    paint(chosen, "chosen");
  }
  // Go to a step that draws the node, where this one does not, or only in a fold.
  function unfold(section, number) {
    const own = elementsOf(number).filter((element) => !isFold(element));
    if (own.some(visible)) return;
    const step = figuresOf(section).findIndex((figure) => own.some((e) => figure.contains(e)));
    if (step >= 0) showStep(section, step);
  }
  function choose(number, move) {
    chosen = number;
    if (move) unfold(current(), number);
    fill(nodes[number]);
    panel.hidden = false;
    fit();
    mark();
    const here = elementsOf(number).filter(visible);
    const shown = here.find((element) => !isFold(element)) || here[0];
    const place = move ? "center" : "nearest"; // the panel may have come up over it
    if (shown) shown.scrollIntoView({ block: place, inline: place });
  }
  function close() {
    panel.hidden = true;
    chosen = -1;
    fit();
    mark();
    if (opener && opener.isConnected) opener.focus({ preventScroll: true });
    opener = null;
  }
  function pairs(title, rows) {
    if (!rows.length) return;
    make("h3", title, facts);
    const terms = make("dl", undefined, facts);
    for (const [key, value] of rows) { make("dt", key, terms); make("dd", value, terms); }
  }
  function list(title, items) {
    if (!items.length) return;
    make("h3", title, facts);
    const ul = make("ul", undefined, facts);
    for (const [text, action] of items) {
      const li = make("li", undefined, ul);
      if (!action) { li.textContent = text; continue; }
      const button = make("button", text, li);
      button.type = "button";
      button.addEventListener("click", action);
    }
  }
  const follow = (number) => { choose(number, true); panel.focus(); };
  const links = (others) => others.map((other) =>
    typeof other === "string" ? [other, null] : [nodes[other][NAME], () => follow(other)]);
  function places(number) {
    const seen = new Map();
    for (const element of elementsOf(number)) {
      const section = element.closest("section");
      const step = figuresOf(section).indexOf(element.closest("figure"));
      if (!seen.has(section)) seen.set(section, new Set());
      seen.get(section).add(step);
    }
    return [...seen].map(([section, steps]) => {
      const tab = sections.indexOf(section), several = figuresOf(section).length > 1;
      const numbers = [...steps].map((step) => step + 1);
      return [tabs[tab].textContent + (several ? ` (step ${numbers.join(", ")})` : ""), () => {
        if (!steps.has(stepOf(section)) && several) showStep(section, [...steps][0]);
        showTab(tab, false);
        choose(number, true);
      }];
    });
  }
  function fill(node) {
    facts.replaceChildren();
    make("h2", node[NAME], facts).dir = "auto";
    make("p", `${node[OP]}  ${node[TYPE]}`, facts);
    if (node[LINE]) {
      make("h3", "Your line", facts);
      make("pre", node[LINE], facts);
    }
    pairs("Derivation", node[DERIVED]);
    pairs("Facts", node[ROWS]);
    list("Reads", links(node[OPERANDS]));
    list("Read by", links(node[READERS]));
    if (node[CARD] >= 0) list("Drawn on the card of", links([node[CARD]]));
    const drawnIn = places(byName.get(node[NAME]));
    list("Drawn in", drawnIn.length ? drawnIn : [["no view", null]]);
    panel.scrollTop = 0;
  }
  function chooseElement(element) {
    const number = byName.get(element.dataset.node);
    if (number === undefined) return;
    opener = element;
    choose(number, isFold(element));
    panel.focus({ preventScroll: true });
  }
  document.querySelector("main").addEventListener("click", (event) => {
    const element = event.target.closest("[data-node]");
    if (element && !dragged) chooseElement(element);
  });
  document.getElementById("close").addEventListener("click", close);

  const KEYS = [
    ["/", "search"], ["Enter, Shift+Enter", "in the search: the next hit, the one before"],
    ["Tab, Enter", "go to the next node, open it"], ["Escape", "close the panel"],
    ["+, -, 0", "zoom in, out, to the whole picture"], ["arrows", "scroll the picture"],
    ["[, ]", "the step before, the next one"], ["?", "these keys"],
  ];
  function showKeys() {
    if (panel.hidden) opener = document.activeElement;
    chosen = -1;
    facts.replaceChildren();
    pairs("Keys", KEYS);
    panel.hidden = false;
    fit();
    mark();
    panel.focus({ preventScroll: true });
  }

  // Search: every node whose name, op, type or line has the text; names that are it come first.
  const texts = nodes.map((node) => node.slice(0, 4).join("\n").toLowerCase());
  function rank(number, wanted) {
    const at = nodes[number][NAME].toLowerCase().indexOf(wanted);
    if (at === 0 && nodes[number][NAME].length === wanted.length) return 0;
    return at === 0 ? 1 : at > 0 ? 2 : 3;
  }
  function lookUp() {
    const wanted = search.value.trim().toLowerCase();
    hits = wanted ? [...texts.keys()].filter((number) => texts[number].includes(wanted)) : [];
    hits.sort((a, b) => rank(a, wanted) - rank(b, wanted) || a - b);
    hit = -1;
    const hidden = data.hidden ? `, ${data.hidden} not searched` : "";
    found.textContent = wanted ? `${hits.length} found${hidden}` : "";
    mark();
  }
  function next(by) {
    if (!hits.length) return;
    hit = hit < 0 && by < 0 ? hits.length - 1 : (hit + by + hits.length) % hits.length;
    found.textContent = `${hit + 1} of ${hits.length}`;
    choose(hits[hit], true);
  }
  search.addEventListener("input", lookUp);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); next(event.shiftKey ? -1 : 1); }
    if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      if (!search.value) search.blur();
      search.value = "";
      lookUp();
    }
  });
  search.form.addEventListener("submit", (event) => event.preventDefault());

  // Keys that work anywhere on the page.
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || target.matches("input")) return;
    const section = current(), port = portOf(section);
    const move = { ArrowUp: [0, -80], ArrowDown: [0, 80], ArrowLeft: [-80, 0], ArrowRight: [80, 0] };
    const inPicture = target === document.body || port.contains(target);
    const actions = {
      "/": () => { search.focus(); search.select(); },
      "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1), "0": () => zoomBy(0),
      "[": () => showStep(section, stepOf(section) - 1),
      "]": () => showStep(section, stepOf(section) + 1),
      "?": showKeys, Escape: close,
    };
    if (["Enter", " "].includes(event.key) && target.matches("[data-node]")) chooseElement(target);
    else if (move[event.key] && inPicture) port.scrollBy(...move[event.key]);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });
  window.addEventListener("resize", () => fit());

  sections.forEach((section) => { if (figuresOf(section).length) showStep(section, 0); });
  showTab(0, false);
})();
