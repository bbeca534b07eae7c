"use strict";
// Sorting of a table by a heading's column: numbers as numbers, names as text.
for (const button of document.querySelectorAll("table.headline thead button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement, row = heading.parentElement;
    const column = [...row.children].indexOf(heading);
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of row.children) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = heading.closest("table").tBodies[0];
    const value = (line) => {
      const text = line.children[column].dataset.sort;
      const number = text === "inf" || text === "" ? Infinity : Number(text);
      return column === 0 || Number.isNaN(number) ? text : number;
    };
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    [...body.rows].sort((a, b) => (up ? 1 : -1) * order(value(a), value(b))).forEach((line) => body.append(line));
  });
}

// A word's meaning, from the page's glossary, beside the word: pointed at, tapped, or reached by keyboard.
{
  const tip = document.getElementById("tip");
  let owner = null;
  for (const word of document.querySelectorAll("span.term")) if (!word.closest("button")) word.tabIndex = 0;
  const hide = () => { owner?.removeAttribute("aria-describedby"); owner = null; tip.hidden = true; };
  const show = (event) => {
    const at = event.target;
    const word = at.closest?.("[data-word]") ?? (event.type === "focusin" ? at.querySelector?.("button > [data-word]") : null);
    const meaning = word && document.querySelector(`#word-${word.dataset.word} + dd`);
    if (word === owner) return;
    hide();
    if (!meaning) return;
    owner = word;
    tip.textContent = meaning.textContent;
    tip.hidden = false;
    word.setAttribute("aria-describedby", "tip");
    const box = word.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = box.bottom + 8 + own.height < innerHeight;
    tip.style.left = `${Math.max(12, Math.min(box.left, document.documentElement.clientWidth - own.width - 12))}px`;
    tip.style.top = `${below ? box.bottom + 6 : Math.max(6, box.top - own.height - 6)}px`;
  };
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", hide, { capture: true, passive: true });
}

// The way back to the contents is offered once they are out of sight.
{
  const up = document.querySelector(".up"), contents = document.querySelector(".contents");
  const passed = () => up.classList.toggle("shown", contents.getBoundingClientRect().bottom < 0);
  document.addEventListener("scroll", passed, { passive: true });
  passed();
}

// What is wider than the screen scrolls by itself: it fades where it goes on, and a line says so.
const hinted = () => {
  for (const box of document.querySelectorAll(".holder, .scroll")) {
    const over = box.scrollWidth - box.clientWidth;
    box.classList.toggle("more", over > 4 && box.scrollLeft < over - 4);
    let hint = box.nextElementSibling?.classList.contains("hint") ? box.nextElementSibling : null;
    if (over > 4 && !hint) {
      hint = document.createElement("p");
      hint.className = "hint";
      hint.textContent = "Scroll sideways: it goes on to the right →";
      box.after(hint);
      box.addEventListener("scroll", () => box.classList.toggle("more", box.scrollLeft < box.scrollWidth - box.clientWidth - 4), { passive: true });
    }
    if (hint) hint.hidden = over <= 4;
  }
};
hinted();
document.addEventListener("toggle", hinted, { capture: true });

// Plotly travels compressed; unpacked once, it replaces the static pictures. Without it, and on paper, they stay.
(async () => {
  const packed = document.getElementById("plotly-gz").textContent;
  if (!packed || typeof DecompressionStream === "undefined") return;
  const bytes = Uint8Array.from(atob(packed), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const source = await new Response(stream).text();
  const element = document.createElement("script");
  element.textContent = source;
  document.head.append(element);
  const figures = JSON.parse(document.getElementById("figure-data").textContent);
  const style = () => {
    const read = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return { ink: read("--ink"), soft: read("--soft"), paper: read("--paper"), line: read("--line") };
  };
  // On a dark page the palette's dark shades would not be seen; each has a light one of the same hue.
  const lighter = { "#7f3c00": "#f2a56b", "#004064": "#a3c9f7", "#00543d": "#8fe0be", "#7a3560": "#eeb0d6", "#57606a": "#b4bcc5",
    "#332288": "#a99cf2", "#882255": "#e58fb5", "#117733": "#6fcf8f" };
  const lit = (data) => {
    if (!matchMedia("(prefers-color-scheme: dark)").matches) return data;
    let text = JSON.stringify(data);
    const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)).join(",");
    for (const [dark, light] of Object.entries(lighter)) {
      text = text.replaceAll(`"${dark}"`, `"${light}"`).replaceAll(`"rgba(${rgb(dark)},`, `"rgba(${rgb(light)},`);
    }
    return JSON.parse(text);
  };
  // A grid's shades, and their legend, in the colours of the theme.
  const shaded = (data, width) => {
    const colors = [0, 1, 2, 3].map((k) => getComputedStyle(document.documentElement).getPropertyValue(`--shade-${k}`).trim());
    return data.map((trace) => {
      if (trace.type === "heatmap") {
        const written = width / trace.x.length > 50; // narrower, and text would shrink to what nobody reads
        return { ...trace, texttemplate: written ? trace.texttemplate : "", colorscale: colors.flatMap((c, k) => [[k / 4, c], [(k + 1) / 4, c]]) };
      }
      if (trace.meta?.shade !== undefined) return { ...trace, marker: { ...trace.marker, color: colors[trace.meta.shade] } };
      return trace;
    });
  };
  const themed = (layout) => {
    const colors = style();
    // Plotly changes what it is given: the margin is a copy, or every redraw would add to it.
    const result = { ...layout, margin: { ...layout.margin }, paper_bgcolor: colors.paper, plot_bgcolor: colors.paper,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colors.ink },
      hoverlabel: { bgcolor: colors.paper, bordercolor: colors.line, font: { color: colors.ink } } };
    result.shapes = (layout.shapes || []).map((shape) =>
      shape.label ? { ...shape, label: { ...shape.label, font: { ...shape.label.font, color: colors.ink } } } : shape);
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) {
        result[key] = { ...layout[key], gridcolor: colors.line, linecolor: colors.line, zeroline: false,
          tickfont: { color: colors.soft } };
      }
    }
    return result;
  };
  const draw = async () => {
    for (const plot of document.querySelectorAll("[data-figure]")) {
      const figure = figures[plot.dataset.figure];
      plot.parentElement.classList.add("drawn"); // before drawing: what is hidden has no size
      plot.style.height = `${figure.layout.height}px`;
      await Plotly.react(plot, shaded(lit(figure.data), plot.clientWidth), themed(figure.layout), { responsive: true, displaylogo: false,
        displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
        modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] });
      // Room for the legend below the axes, as much as its rows turned out to take at this width.
      const legend = Number(plot.querySelector(".legend .bg")?.getAttribute("height") ?? 0);
      if (!legend) continue;
      const height = figure.layout.height + legend;
      plot.style.height = `${height}px`;
      await Plotly.relayout(plot, { height, "margin.b": figure.layout.margin.b + legend });
    }
    hinted();
    document.documentElement.dataset.drawn = "yes"; // for whoever waits: a test, a printer
  };
  await draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 150); });
})().catch((error) => console.error("interactive figures:", error));
