// What the report does after it has been laid out: tables that sort, tips, and canvases that are drawn when seen.
"use strict";

const page = {
  data: JSON.parse(document.getElementById("drawn").textContent),
  drawings: new Map(), // canvas -> function that draws it

  /** Value of a CSS variable, so that both themes have one palette, in the style sheet. */
  color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  },

  seconds(s) {
    if (s === 0) return "0 s";
    if (s >= 100) return s.toFixed(0) + " s";
    if (s >= 1) return s.toPrecision(3) + " s";
    if (s >= 1e-3) return (s * 1e3).toPrecision(3) + " ms";
    return (s * 1e6).toFixed(s < 1e-5 ? 1 : 0) + " \u00b5s";
  },

  /** The drawing surface of a canvas, as sharp as the screen, in CSS pixels. */
  surface(canvas, height) {
    const width = Math.max(canvas.parentElement.clientWidth, 200);
    const scale = Math.min(window.devicePixelRatio || 1, 16000 / Math.max(height, 1));
    canvas.style.height = height + "px";
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const ink = canvas.getContext("2d");
    ink.scale(scale, scale);
    ink.font = "11px system-ui, sans-serif";
    ink.clearRect(0, 0, width, height);
    return { ink, width };
  },

  tip(event, text) {
    const box = document.getElementById("tip");
    box.hidden = !text;
    if (!text) return;
    box.textContent = text;
    const { offsetWidth: width, offsetHeight: height } = box;
    box.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8)) + "px";
    box.style.top = (event.clientY + 18 + height < innerHeight ? event.clientY + 18 : event.clientY - height - 10) + "px";
  },

  /** Draw now if visible, else when scrolled to; again when the width or the theme changes. */
  add(canvas, draw) {
    this.drawings.set(canvas, draw);
    this.watcher.observe(canvas);
  },

  redraw() {
    for (const [canvas, draw] of page.drawings) if (canvas.dataset.seen) draw();
  },

  watcher: new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting || target.dataset.seen) continue;
        target.dataset.seen = "1";
        page.drawings.get(target)();
      }
    },
    { rootMargin: "400px" },
  ),
};

function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));
      const rows = [...body.rows].sort((a, b) => order(key(a), key(b)) * (down ? -1 : 1));
      body.append(...rows);
    });
  });
}

document.querySelectorAll("table.sortable").forEach(sortable);

// A link to a folded array opens it.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let outer = target; outer; outer = outer.parentElement) if (outer.tagName === "DETAILS") outer.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", unfold);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", page.redraw);
let waiting = 0;
addEventListener("resize", () => {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(page.redraw);
});
document.addEventListener("toggle", (event) => {
  if (event.target.open) event.target.querySelectorAll("canvas").forEach((c) => c.dataset.seen && page.drawings.get(c)?.());
}, true);
