// Colours are named in the figures (@mulle) and read from the page's own style, so that one theme rules text and plots.
const PRINT_WIDTH = 640;

function coloured(value, style) {
  if (typeof value === "string") return value[0] === "@" ? style.getPropertyValue("--" + value.slice(1)).trim() : value;
  if (Array.isArray(value)) return value.map((v) => coloured(v, style));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, style)]));
  return value;
}

function draw(width) {
  const style = getComputedStyle(document.documentElement);
  for (const [id, figure] of Object.entries(FIGURES)) {
    const layout = {
      ...figure.layout,
      width: width,
      autosize: !width,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "@muted" },
      hoverlabel: { bgcolor: "@card", bordercolor: "@rule", font: { color: "@ink", size: 12 } },
    };
    Plotly.react(id, coloured(figure.data, style), coloured(layout, style), { responsive: !width, displayModeBar: false });
  }
}

window.addEventListener("beforeprint", () => {
  document.documentElement.dataset.theme = "light";
  draw(PRINT_WIDTH);
});
window.addEventListener("afterprint", () => {
  delete document.documentElement.dataset.theme;
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
draw();
