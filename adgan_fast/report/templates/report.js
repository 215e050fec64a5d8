"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element("data").textContent);
  const labels = JSON.parse(element("labels").textContent);
  const rows = data.rows.map(([row, id, label, status, score, std, least, initial, p, anomalous, error, place, used]) =>
    ({ row, id, label, status, score, std, least, initial, p, anomalous, error, place, used }));
  const AT_ONCE = 60; // cells made at once
  const MANY = 600; // cells from which those out of sight give their pictures back

  const make = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const number = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toString());
  const count = (value) => value.toLocaleString("en");
  const share = (part, whole) => (whole ? `${(100 * part / whole).toFixed(1)} %` : "–");

  // -- threshold ------------------------------------------------------------------------------------------------

  const scores = data.scores.map(([name, text]) => {
    const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    return [name, data.kind === "float64" ? new Float64Array(bytes.buffer) : new Float32Array(bytes.buffer)];
  });
  const above = (sorted, value) => {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] > value) high = middle; else low = middle + 1;
    }
    return sorted.length - low;
  };

  const slider = element("slider"), typed = element("threshold"), side = element("flagged-side");
  const [low, high, steps] = [data.low, data.high, Number(slider.max)];
  let threshold = data.threshold;
  const flagged = (row) => row.score !== null && row.score > threshold;

  const countAgain = () => {
    const found = scores.map(([name, sorted]) => [name, above(sorted, threshold), sorted.length]);
    const part = found.reduce((sum, each) => sum + each[1], 0), whole = found.reduce((sum, each) => sum + each[2], 0);
    const text = `${count(part)} of ${count(whole)} scored images flagged (${share(part, whole)})`;
    element("counts").textContent = text;
    slider.setAttribute("aria-valuetext", `${number(threshold)}: ${text}`);
    const table = element("table");
    if (found.length > 1) {
      table.hidden = false;
      table.tBodies[0].replaceChildren(...found.map(([name, some, all]) => {
        const line = make("tr");
        line.append(make("td", name), make("td", count(some)), make("td", count(all - some)), make("td", share(some, all)));
        return line;
      }));
    }
    const at = Math.min(100, Math.max(0, 100 * (threshold - low) / (high - low)));
    side.setAttribute("x", at);
    side.setAttribute("width", 100 - at);
  };

  let waiting = false;
  // Six digits are shown, and hold, or as many more as it takes for those that are left out to decide on no image.
  const rounded = (value) => {
    for (let digits = 6; digits < 17; digits++) {
      const short = Number(value.toPrecision(digits));
      if (scores.every(([, sorted]) => above(sorted, short) === above(sorted, value))) return short;
    }
    return value;
  };
  const set = (value, from) => {
    threshold = from === typed ? value : rounded(value);
    if (from !== slider) slider.value = Math.round(steps * (value - low) / (high - low));
    if (from !== typed) typed.value = threshold;
    countAgain();
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        if (element("decision").value || element("order").value === "near") choose();
        else made.forEach(mark);
      });
    }
  };
  slider.addEventListener("input", () => set(low + (high - low) * slider.value / steps, slider));
  typed.addEventListener("input", () => {
    if (Number.isFinite(typed.valueAsNumber)) set(typed.valueAsNumber, typed);
  });

  // -- pictures -------------------------------------------------------------------------------------------------

  const [width, height] = data.cell;
  const step = width + Math.max(1, Math.round(width / 16)); // from panel to panel
  const wide = step * (data.panels.length - 1) + width;
  const sheets = new Map();
  const sheet = (panel, which) => {
    const id = `sheet-${panel}-${which}`;
    if (!sheets.has(id)) {
      const picture = new Image();
      picture.src = element(id).textContent;
      sheets.set(id, picture.decode().then(() => picture));
    }
    return sheets.get(id);
  };
  // One panel of a row into a canvas, `left` pixels from its edge.
  const draw = async (canvas, row, panel, left) => {
    const picture = await sheet(panel, Math.floor(row.place / data.cells));
    const at = row.place % data.cells;
    const x = width * (at % data.columns), y = height * Math.floor(at / data.columns);
    canvas.getContext("2d").drawImage(picture, x, y, width, height, left, 0, width, height);
  };

  // -- gallery --------------------------------------------------------------------------------------------------

  const list = element("cells"), more = element("more"), all = element("all");
  let chosen = [], made = [];

  const mark = (cell) => {
    const yes = flagged(cell.row);
    cell.button.classList.toggle("is-flagged", yes);
    cell.decision.textContent = cell.row.score === null ? "" : yes ? "▲ flagged" : "passed";
  };
  const fill = (cell) => {
    if (!cell.canvas || cell.full) return;
    cell.full = true;
    cell.canvas.width = wide;
    cell.canvas.height = height;
    data.panels.forEach((panel, i) => draw(cell.canvas, cell.row, panel, i * step));
  };
  const empty = (cell) => {
    if (!cell.canvas || !cell.full || made.length <= MANY) return;
    cell.full = false;
    cell.canvas.width = cell.canvas.height = 0;
  };
  const cells = new WeakMap();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) (entry.isIntersecting ? fill : empty)(cells.get(entry.target));
  }, { rootMargin: "600px" });

  const append = () => {
    const next = chosen.slice(made.length, made.length + AT_ONCE);
    for (const row of next) {
      const item = make("li"), button = make("button");
      const cell = { row, button, decision: make("span"), full: false };
      button.type = "button";
      if (row.place !== null) {
        cell.canvas = make("canvas");
        cell.canvas.setAttribute("aria-hidden", "true");
        cell.canvas.style.aspectRatio = `${wide} / ${height}`;
        button.append(cell.canvas);
      } else {
        button.append(make("span", row.error || "no picture", "none"));
      }
      const first = make("span", undefined, "line"), second = make("span", undefined, "line");
      first.append(make("span", row.score === null ? row.status : number(row.score), "score"), cell.decision);
      second.append(make("span", row.id, "id"), make("span", row.label === null ? "" : row.label));
      button.append(first, second);
      button.addEventListener("click", () => open(chosen.indexOf(row)));
      item.append(button);
      list.append(item);
      made.push(cell);
      cells.set(item, cell);
      watcher.observe(item);
      mark(cell);
    }
    more.hidden = all.hidden = made.length >= chosen.length;
    element("printed").textContent = more.hidden ? ""
      : `${count(made.length)} of these ${count(chosen.length)} images are printed: "Show all" before prints the others.`;
  };
  more.addEventListener("click", () => {
    const first = made.length;
    append();
    made[first]?.button.focus();
  });
  // Its pictures are decoded first: what is printed cannot wait for them.
  all.addEventListener("click", async () => {
    const places = chosen.filter((row) => row.place !== null).map((row) => Math.floor(row.place / data.cells));
    await Promise.all([...new Set(places)].flatMap((which) => data.panels.map((panel) => sheet(panel, which))));
    while (made.length < chosen.length) append();
  });
  // The button asks for more by itself when it comes into sight.
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && !more.hidden) append();
  }, { rootMargin: "800px" }).observe(more);

  const wanted = (id) => (element(id) ? element(id).value : "");
  const orders = {
    high: (a, b) => (b.score ?? -Infinity) - (a.score ?? -Infinity),
    low: (a, b) => (a.score ?? Infinity) - (b.score ?? Infinity),
    near: (a, b) => Math.abs((a.score ?? Infinity) - threshold) - Math.abs((b.score ?? Infinity) - threshold),
    row: () => 0,
  };
  const choose = () => {
    const label = wanted("label") === "" ? null : labels[Number(wanted("label"))];
    const status = wanted("status"), decision = wanted("decision"), name = wanted("name").toLowerCase();
    const order = orders[wanted("order")];
    chosen = rows.filter((row) => (label === null || row.label === label) && (!status || row.status === status)
      && (!decision || (row.score !== null && flagged(row) === (decision === "flagged")))
      && (!name || row.id.toLowerCase().includes(name)));
    chosen.sort((a, b) => order(a, b) || a.row - b.row);
    made.forEach((cell) => watcher.unobserve(cell.button.parentElement));
    made = [];
    list.replaceChildren();
    element("found").textContent = `${count(chosen.length)} of ${count(rows.length)} images`;
    append();
  };
  for (const id of ["label", "status", "decision", "order"]) element(id)?.addEventListener("change", choose);
  element("name").addEventListener("input", choose);
  addEventListener("beforeprint", () => made.forEach(fill));

  // -- one image ------------------------------------------------------------------------------------------------

  const detail = element("detail");
  let shown = 0;
  const open = (index) => {
    if (index < 0 || index >= chosen.length) return;
    shown = index;
    const row = chosen[index];
    element("detail-title").textContent = row.id;
    element("detail-panels").replaceChildren(...(row.place === null ? [] : data.panels.map((panel) => {
      const figure = make("figure"), canvas = make("canvas");
      [canvas.width, canvas.height] = [width, height];
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${panel} of ${row.id}`);
      draw(canvas, row, panel, 0);
      figure.append(canvas, make("figcaption", panel));
      return figure;
    })));
    const about = [
      ["score", number(row.score)], ["decision", row.score === null ? "–" : flagged(row) ? "flagged" : "passed"],
      ["label", row.label ?? "–"], ["status", row.status], ["error", row.error],
      [`spread over ${data.of}`, number(row.std)], [`least of the ${data.of}`, number(row.least)],
      [data.used, row.used === null ? "" : count(row.used)], ["before the search", number(row.initial)], ["p-value", row.p === null ? "" : number(row.p)],
      ["the job's decision", row.anomalous === null ? "" : row.anomalous ? "anomalous" : "normal"],
      ["number in the job", count(row.row)],
    ];
    element("detail-numbers").replaceChildren(...about.filter(([, value]) => value).map(([name, value]) => {
      const line = make("div");
      line.append(make("dt", name), make("dd", value));
      return line;
    }));
    element("previous").disabled = index === 0;
    element("next").disabled = index === chosen.length - 1;
    if (!detail.open) detail.showModal();
  };
  element("previous").addEventListener("click", () => open(shown - 1));
  element("next").addEventListener("click", () => open(shown + 1));
  element("close").addEventListener("click", () => detail.close());
  detail.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") open(shown - 1);
    if (event.key === "ArrowRight") open(shown + 1);
  });
  detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
  detail.addEventListener("close", () => {
    while (made.length <= shown && made.length < chosen.length) append();
    made[shown]?.button.focus();
  });

  set(threshold);
  choose();
})();
