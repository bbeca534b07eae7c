"use strict";
// Sorting of the table by a heading's column: numbers as numbers, the first column as text.
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
      return column === 0 ? text : text === "inf" || text === "" ? Infinity : Number(text);
    };
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    [...body.rows].sort((a, b) => (up ? 1 : -1) * order(value(a), value(b))).forEach((line) => body.append(line));
  });
}

// Plotly travels compressed; unpacked once, it replaces the static pictures. Without it they stay.
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
  const themed = (layout) => {
    const colors = style();
    const result = { ...layout, paper_bgcolor: colors.paper, plot_bgcolor: colors.paper,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colors.ink },
      hoverlabel: { bgcolor: colors.paper, bordercolor: colors.line, font: { color: colors.ink } } };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) {
        result[key] = { ...layout[key], gridcolor: colors.line, linecolor: colors.line, zeroline: false,
          tickfont: { color: colors.soft } };
      }
    }
    return result;
  };
  const draw = () => {
    for (const plot of document.querySelectorAll("[data-figure]")) {
      const figure = figures[plot.dataset.figure];
      if (!plot.classList.contains("js-plotly-plot")) plot.replaceChildren();
      Plotly.react(plot, figure.data, themed(figure.layout), { responsive: true, displaylogo: false, displayModeBar: "hover",
        modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] });
    }
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})().catch((error) => console.error("interactive figures:", error));
