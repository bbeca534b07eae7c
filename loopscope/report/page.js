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
  const lighter = { "#7f3c00": "#f2a56b", "#004064": "#a3c9f7", "#00543d": "#8fe0be", "#7a3560": "#eeb0d6", "#57606a": "#b4bcc5" };
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
    const result = { ...layout, paper_bgcolor: colors.paper, plot_bgcolor: colors.paper,
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
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 150); });
})().catch((error) => console.error("interactive figures:", error));
