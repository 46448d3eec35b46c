"use strict";
// Nothing is fetched: data are in this page, the long ones compressed, and are unpacked when they are first needed.
(() => {
  const root = document.documentElement;
  const all = (selector, at = document) => [...at.querySelectorAll(selector)];
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // ---- Packed data
  const texts = new WeakMap();
  async function unpack(script) {
    if (texts.has(script)) return texts.get(script);
    let text = script.textContent;
    if (script.type === "application/gzip") {
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      text = await new Response(stream).text();
    }
    texts.set(script, text);
    return text;
  }

  // ---- Filters. One entry a facet: its values, and of each record the place of its value.
  const facets = JSON.parse(document.getElementById("cells").textContent);
  const count = facets.length ? facets[0].cells.length : 0;
  const visible = new Uint8Array(count).fill(1);
  const form = document.getElementById("filters");
  const shown = form.querySelector("output");
  const grouped = new Intl.NumberFormat("en").format;
  const seen = (ids) => !ids.length || ids.some((id) => !(id < count) || visible[id]);
  const numbersOf = (text) => (text ? text.split(" ").map(Number) : []);
  const marked = all("[data-cells]").map((element) => ({ element, ids: numbersOf(element.dataset.cells) }));
  const chosen = () =>
    all(".facet", form)
      .map((facet) => [facet.dataset.key, all("input:checked", facet).map((box) => Number(box.value))])
      .filter(([, places]) => places.length);

  function choose() {
    const active = chosen().map(([key, places]) => [facets.find((facet) => facet.key === key), new Set(places)]);
    for (let i = 0; i < count; i++) visible[i] = active.every(([facet, places]) => places.has(facet.cells[i])) ? 1 : 0;
    for (const { element, ids } of marked) {
      if (element.tagName === "TD") element.classList.toggle("out", !seen(ids));
      else element.hidden = !seen(ids);
    }
    for (const table of all("table.heat")) trim(table);
    for (const draw of drawnTables.values()) draw();
    for (const figure of drawnFigures) draw(figure);
    const n = visible.reduce((sum, one) => sum + one, 0);
    shown.textContent = n === count ? `${grouped(n)} cells` : `${grouped(n)} of ${grouped(count)} cells`;
    form.querySelector("[type=reset]").disabled = !active.length;
    for (const facet of all(".facet", form)) {
      const n = all("input:checked", facet).length;
      facet.querySelector(".chosen").textContent = n ? n : "";
    }
  }

  // Lines and columns of a heat map of which no tile is chosen go away; its remaining tiles stay where they are.
  function trim(table) {
    const kept = new Set();
    const lines = all("tbody tr", table).filter((line) => line.querySelector("td"));
    for (const line of lines) {
      const tiles = all("td", line);
      const known = tiles.filter((tile) => tile.dataset.cells);
      line.hidden = known.length > 0 && known.every((tile) => tile.classList.contains("out"));
      tiles.forEach((tile, i) => known.includes(tile) && !tile.classList.contains("out") && kept.add(i));
    }
    for (const body of all("tbody", table)) body.hidden = all("tr", body).slice(1).every((line) => line.hidden);
    table.hidden = all("tbody", table).every((body) => body.hidden);
    const whole = visible.every((one) => one);
    all("thead th", table).forEach((head, i) => (head.hidden = !whole && !kept.has(i)));
    for (const line of lines) all("td", line).forEach((tile, i) => (tile.hidden = !whole && !kept.has(i)));
  }

  // The address holds what is chosen, as #anchor?model=a&model=b, so that a view can be sent to somebody.
  function remember() {
    const words = new URLSearchParams();
    for (const [key, places] of chosen())
      for (const place of places) words.append(key, facets.find((facet) => facet.key === key).values[place]);
    const anchor = location.hash.slice(1).split("?")[0];
    history.replaceState(null, "", `#${anchor}${words.size ? `?${words}` : ""}`);
  }
  function recall() {
    const [anchor, query] = location.hash.slice(1).split("?");
    if (query === undefined) return;
    const words = new URLSearchParams(query);
    for (const facet of all(".facet", form)) {
      const known = facets.find((one) => one.key === facet.dataset.key);
      const wanted = new Set(words.getAll(facet.dataset.key));
      for (const box of all("input", facet)) box.checked = wanted.has(known.values[box.value]);
    }
    choose();
    document.getElementById(anchor)?.scrollIntoView();
  }
  form.addEventListener("change", () => (choose(), remember()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => (choose(), remember())));
  addEventListener("hashchange", recall);
  addEventListener("click", (event) => {
    for (const facet of all(".facet[open]", form)) if (!facet.contains(event.target)) facet.open = false;
  });
  form.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && event.target.closest(".facet[open]");
    if (open) (open.open = false), open.querySelector("summary").focus();
  });

  // ---- Long tables, drawn when they are opened
  const STEP = 200;
  const drawnTables = new Map();
  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function cell(value, kind, first) {
    const [told, small] = Array.isArray(value) ? value : [value, ""];
    const made = element(first ? "th" : "td", kind);
    if (first) made.scope = "row";
    if (told !== "n/a" && (kind === "code" || kind === "command")) made.append(element("code", "", told));
    else if (kind === "mark")
      made.append(element("span", `x line ${{ "ID†": "id", OOD: "ood" }[told] || "unknown"}`, told));
    else made.append(told === "n/a" ? element("span", "na", told) : told);
    if (small) made.append(element("span", small.length > 30 ? "i why" : "i", small));
    return made;
  }
  async function fill(box) {
    const text = await unpack(box.querySelector("script.rows"));
    if (!drawnTables.has(box)) rowsOf(box, text);
  }
  function rowsOf(box, text) {
    const rows = JSON.parse(text);
    for (const row of rows) row[0] = numbersOf(row[0]);
    const body = box.querySelector("tbody");
    const kinds = all("thead th", box).map((head) => head.className);
    const more = box.parentElement.querySelector(".more");
    let limit = STEP;
    const draw = () => {
      const kept = rows.filter((row) => seen(row[0]));
      body.replaceChildren(
        ...kept.slice(0, limit).map(([, ...cells]) => {
          const line = element("tr");
          line.append(...cells.map((value, i) => cell(value, kinds[i], i === 0)));
          return line;
        }),
      );
      copies(body);
      const left = Math.max(kept.length - limit, 0);
      const where = `; all are in ${box.dataset.elsewhere}. `;
      more.textContent = left ? `${grouped(limit)} of ${grouped(kept.length)} rows${where}` : `${grouped(kept.length)} rows.`;
      if (left) {
        const button = element("button", "", `Show ${grouped(Math.min(left, 5 * STEP))} more`);
        button.type = "button";
        button.addEventListener("click", () => ((limit += 5 * STEP), draw()));
        more.append(button);
      }
    };
    drawnTables.set(box, draw);
    draw();
  }
  const lazy = all(".scroll.lazy");
  for (const box of lazy) {
    const details = box.closest("details");
    if (details && !details.open) details.addEventListener("toggle", () => fill(box), { once: true });
    else fill(box);
  }

  // ---- Commands are there to be copied
  function copies(at) {
    for (const code of all(".command code", at)) {
      const button = element("button", "copy", "Copy");
      button.type = "button";
      button.setAttribute("aria-label", "Copy this command");
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(code.textContent);
          button.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(code);
          button.textContent = "Selected";
        }
      });
      code.after(button);
    }
  }
  copies(document);

  // ---- Figures, drawn when they come near the view
  const drawnFigures = new Set();
  const figures = all("figure.plot");
  const library = document.getElementById("plotly");
  let loading;
  function plotly() {
    loading ??= unpack(library).then((text) => {
      const script = element("script", "", text);
      document.head.append(script);
      return globalThis.Plotly;
    });
    return loading;
  }
  function ink(name) {
    const probe = element("i");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const told = getComputedStyle(probe).color;
    probe.remove();
    return told;
  }
  function themed(layout) {
    const [page, text, soft, line] = ["page", "ink", "soft", "line"].map(ink);
    const out = structuredClone(layout);
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: soft, tickcolor: line, automargin: true };
    for (const key of new Set(["xaxis", "yaxis", ...Object.keys(out).filter((key) => /^[xy]axis\d*$/.test(key))]))
      out[key] = { ...axis, ...out[key] };
    for (const note of out.annotations ?? []) note.font = { color: text, ...note.font };
    return {
      ...out,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, ...out.font, color: text },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: text },
      hoverlabel: { bgcolor: page, bordercolor: line, font: { color: text }, ...out.hoverlabel },
    };
  }
  // Without its ids: plotly would take points of one id, such as two differences with one side in common, for one.
  function kept({ ids, ...trace }) {
    if (!ids) return trace;
    const places = ids.map((id, i) => (seen(numbersOf(id)) ? i : -1)).filter((i) => i >= 0);
    if (places.length === ids.length) return trace;
    const pick = (value) => {
      if (Array.isArray(value)) return value.length === ids.length ? places.map((i) => value[i]) : value;
      if (value && typeof value === "object")
        return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, pick(inner)]));
      return value;
    };
    return pick(trace);
  }
  const specs = new WeakMap();
  const OPTIONS = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d"],
    // Plotly offers to upload what is drawn to its own servers; what a reader has may not leave the machine.
    showSendToCloud: false,
    plotlyServerURL: "",
  };
  function draw(figure) {
    const { data, layout } = specs.get(figure);
    return Plotly.react(figure.querySelector(".canvas"), structuredClone(data.map(kept)), themed(layout), OPTIONS);
  }
  async function show(figure) {
    if (drawnFigures.has(figure)) return;
    try {
      const text = await unpack(figure.querySelector("script"));
      await plotly();
      specs.set(figure, JSON.parse(text));
      drawnFigures.add(figure);
      await draw(figure);
    } catch (error) {
      drawnFigures.delete(figure);
      figure.querySelector(".canvas").replaceChildren(element("p", "failed", `This figure could not be drawn: ${error}`));
    }
  }
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries)
        if (isIntersecting) watch.unobserve(target), show(target);
    },
    { rootMargin: "400px" },
  );
  for (const figure of figures) watch.observe(figure);

  // ---- Light, dark, paper
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    for (const figure of drawnFigures) draw(figure);
  });
  dark.addEventListener("change", () => drawnFigures.forEach(draw));
  // What is printed has to be drawn at once: a page that is printed does not wait for anything.
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    for (const box of lazy) {
      const script = box.querySelector("script.rows");
      if (texts.has(script) && !drawnTables.has(box)) rowsOf(box, texts.get(script));
    }
    for (const figure of figures) {
      const script = figure.querySelector("script");
      if (globalThis.Plotly && texts.has(script)) {
        if (!specs.has(figure)) specs.set(figure, JSON.parse(texts.get(script)));
        drawnFigures.add(figure);
        figure.querySelector(".canvas").style.width = figure.closest(".multiples") ? "320px" : "980px";
        draw(figure);
      }
    }
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    for (const figure of drawnFigures) figure.querySelector(".canvas").style.width = "";
    drawnFigures.forEach(draw);
  });

  form.hidden = false;
  recall();
  requestAnimationFrame(() =>
    setTimeout(() => {
      performance.mark("vlmbench:interactive");
      root.dataset.interactive = Math.round(performance.now());
      const idle = globalThis.requestIdleCallback ?? setTimeout;
      idle(async () => {
        if (library) await plotly();
        for (const script of all(".plot > script, script.rows")) await unpack(script);
      });
    }),
  );
})();
