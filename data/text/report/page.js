// The page of plural report. Owns: drawing its figures, the theme, the table of responses. The data are those of
// the element #data, whose form page.py and responses_table.py give. Every text is set as text, never as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const byId = (name) => document.getElementById(name);

  // --- Figures: drawn when they come near the screen. ---
  const drawn = new Set();
  const isNarrow = () => window.innerWidth < 600;

  function colours() {
    const style = getComputedStyle(root);
    const get = (name) => style.getPropertyValue(name).trim();
    return { text: get("--text"), grid: get("--grid"), line: get("--line"), back: get("--back") };
  }

  function layoutOf(figure) {
    const { text, grid, line, back } = colours();
    const axis = { gridcolor: grid, linecolor: line, zerolinecolor: line };
    const own = figure.layout;
    return {
      ...own,
      xaxis: { ...axis, ...own.xaxis },
      yaxis: { ...axis, ...own.yaxis },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: text, size: 12 },
      hoverlabel: { bgcolor: back, bordercolor: line, font: { color: text } },
      legend: { traceorder: "normal", orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
      margin: { l: 50, r: 10, t: 10, b: 40 },
      // A finger scrolls the page.
      dragmode: window.matchMedia("(pointer: coarse)").matches || isNarrow() ? false : "zoom",
    };
  }

  function draw(canvas) {
    const figure = data.figures[canvas.dataset.figure];
    drawn.add(canvas);
    return Plotly.react(canvas, figure.data, layoutOf(figure), { responsive: true, displayModeBar: false });
  }

  const canvases = [...document.querySelectorAll(".canvas")];
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
      }
    },
    { rootMargin: "300px" },
  );

  // The library takes seconds on a slow machine: the page is shown first.
  function loadLibrary() {
    const script = document.createElement("script");
    script.textContent = byId("library").textContent;
    document.head.append(script);
    canvases.forEach((canvas) => watcher.observe(canvas));
  }
  if (canvases.length) requestAnimationFrame(() => setTimeout(loadLibrary));

  // --- Theme: the system's, until the button is pressed. Paper is light. ---
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;

  function show(theme) {
    root.dataset.theme = theme;
    byId("theme").setAttribute("aria-pressed", String(theme === "dark"));
    drawn.forEach(draw);
  }
  const wanted = () => chosen ?? (system.matches ? "dark" : "light");
  byId("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    show(chosen);
  });
  system.addEventListener("change", () => show(wanted()));
  window.addEventListener("beforeprint", () => {
    if (window.Plotly) canvases.forEach(draw);
    show("light");
  });
  window.addEventListener("afterprint", () => show(wanted()));
  show(wanted());

  // --- A figure's values as a file. ---
  function csvOf(figure) {
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const plain = (text) => String(text).replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
    const shown = figure.data.filter((trace) => trace.mode !== "text" && trace.showlegend !== false);
    const columnsOf = (trace) => trace.meta?.columns ?? {}; // beside x and y, never shown as HTML
    const names = [...new Set(shown.flatMap((trace) => Object.keys(columnsOf(trace))))];
    const rows = [["series", "x", "y", ...names]];
    for (const trace of shown) {
      (trace.x ?? []).forEach((x, i) => rows.push([
        ...[trace.name ?? "", x, trace.y[i]].map((value) => (typeof value === "string" ? plain(value) : value)),
        ...names.map((name) => columnsOf(trace)[name]?.[i]),
      ]));
    }
    return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
  }
  document.querySelectorAll("button.values").forEach((button) =>
    button.addEventListener("click", () => {
      const figure = data.figures[button.dataset.figure];
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([csvOf(figure)], { type: "text/csv" }));
      link.download = `${figure.name}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }),
  );

  // --- Responses. ---
  const all = data.responses;
  if (!all) return;
  const ROWS = 50; // of one page
  const PROMPTS = 10; // of one page, side by side
  const searched = all.text.map((text) => text.toLowerCase());
  const table = byId("responses-table");
  let page = 0;
  let pages = 1;

  function element(name, text, kind) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function chip(number) {
    // Eight colours; the number itself tells all apart, from nine on a dashed ring does, too.
    const kind = number === 0 ? "n0" : `n${((number - 1) % 8) + 1}${number > 8 ? " again" : ""}`;
    const made = element("span", number === 0 ? "–" : String(number), `chip ${kind}`);
    made.title = number === 0 ? "no possibility number" : `possibility number ${number}`;
    return made;
  }

  const rounded = (value) => (value === null ? "–" : value.toPrecision(4));

  function matches() {
    const text = byId("filter-text").value.toLowerCase();
    const picked = ["source", "method", "possibility"]
      .map((name) => [all[name], byId(`filter-${name}`).value])
      .filter(([, value]) => value !== "")
      .map(([column, value]) => [column, Number(value)]);
    const found = [];
    for (let i = 0; i < all.text.length; ++i) {
      if (picked.every(([column, value]) => column[i] === value) && (!text || searched[i].includes(text))) {
        found.push(i);
      }
    }
    return found;
  }

  function head(names) {
    const row = element("tr");
    names.forEach((name) => {
      const cell = element("th", name, ["prompt", "response"].includes(name) ? "long" : "");
      cell.scope = "col";
      row.append(cell);
    });
    const made = element("thead");
    made.append(row);
    return made;
  }

  function listRows(found) {
    const latents = all.latent.some((latent) => latent > 0);
    const body = element("tbody");
    for (const i of found.slice(page * ROWS, (page + 1) * ROWS)) {
      const row = element("tr");
      const number = element("td", undefined, "number");
      number.append(chip(all.possibility[i]));
      const logprob = element("td", rounded(all.logprob_nats[i]), "number");
      if (all.logprob_nats[i] !== null) logprob.title = String(all.logprob_nats[i]);
      row.append(
        element("td", all.labels[all.source[i]]),
        number,
        element("td", all.text[i], all.finished[i] ? "long" : "long cut"),
        element("td", all.prompts[all.prompt[i]][1], "long"),
        ...(latents ? [element("td", String(all.latent[i] || "–"), "number")] : []),
        logprob,
        element("td", all.methods[all.method[i]]),
      );
      body.append(row);
    }
    // A narrow screen shows the first three.
    const names = ["answers", "number", "response", "prompt", "log p (nats)", "method"];
    if (latents) names.splice(4, 0, "latent");
    table.replaceChildren(head(names), body);
    return [found.length, ROWS, "responses"];
  }

  function besideRows(found) {
    const sources = [...new Set(found.map((i) => all.source[i]))].sort((a, b) => a - b);
    const prompts = new Map(); // id -> responses, in the files' order
    for (const i of found) {
      const id = all.prompts[all.prompt[i]][0];
      if (!prompts.has(id)) prompts.set(id, []);
      prompts.get(id).push(i);
    }
    const body = element("tbody");
    for (const own of [...prompts.values()].slice(page * PROMPTS, (page + 1) * PROMPTS)) {
      const row = element("tr");
      row.append(element("td", all.prompts[all.prompt[own[0]]][1], "long"));
      for (const source of sources) {
        const list = element("ul");
        for (const i of own.filter((place) => all.source[place] === source)) {
          const item = element("li");
          if (all.possibility[i]) item.append(chip(all.possibility[i]));
          if (all.latent[i]) item.append(element("span", `latent ${all.latent[i]}`, "chip n0"));
          item.append(element("span", all.text[i], all.finished[i] ? "" : "cut"));
          list.append(item);
        }
        const cell = element("td", undefined, "long");
        cell.append(list);
        row.append(cell);
      }
      body.append(row);
    }
    table.replaceChildren(head(["prompt", ...sources.map((source) => all.labels[source])]), body);
    return [prompts.size, PROMPTS, "prompts"];
  }

  function refresh() {
    const found = matches();
    const beside = document.querySelector("input[name=view]:checked").value === "beside";
    const [count, per, what] = (beside ? besideRows : listRows)(found);
    pages = Math.max(1, Math.ceil(count / per));
    const first = count ? page * per + 1 : 0;
    const last = Math.min(count, (page + 1) * per);
    byId("page-where").textContent =
      `${what} ${first.toLocaleString("en")} to ${last.toLocaleString("en")} of ${count.toLocaleString("en")}`;
    byId("page-first").disabled = byId("page-previous").disabled = page === 0;
    byId("page-next").disabled = byId("page-last").disabled = page >= pages - 1;
  }

  function turn(to) {
    page = Math.min(Math.max(to, 0), pages - 1);
    refresh();
  }
  const anew = () => {
    page = 0;
    refresh();
  };
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", anew);
  byId("filters").addEventListener("change", anew); // a browser that is driven sends no more for a list
  byId("page-first").addEventListener("click", () => turn(0));
  byId("page-previous").addEventListener("click", () => turn(page - 1));
  byId("page-next").addEventListener("click", () => turn(page + 1));
  byId("page-last").addEventListener("click", () => turn(pages - 1));
  refresh();
})();
