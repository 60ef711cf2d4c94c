// The strips of an array: its index range across, ranks down, one panel each for written, read and fetched.
"use strict";

/** Rows of "count" or "countxbins" words, as the report writes them, to one number for each bin. */
function unpack(text) {
  const row = [];
  for (const word of text.split(" ")) {
    const [value, times] = word.split("x").map(Number);
    for (let i = times || 1; i > 0; i--) row.push(value);
  }
  return row;
}

function drawStrips(canvas, strip) {
  const LEFT = 66, HEAD = 17, AXIS = 20, GAP = 7, SHARED = 9;
  const rows = strip.ranks.length;
  const high = rows <= 4 ? 12 : rows <= 8 ? 9 : rows <= 16 ? 6 : 4;
  const shared = strip.shared.length > 0;
  const top = shared ? HEAD + SHARED + GAP : 0;
  const panel = HEAD + rows * high + GAP;
  const { ink, width } = page.surface(canvas, top + strip.panels.length * panel + AXIS);
  const wide = width - LEFT - 2;
  const x = (bin) => LEFT + (bin / strip.bins) * wide;
  const soft = page.color("soft"), text = page.color("ink"), wash = page.color("wash");
  ink.textBaseline = "middle";

  if (shared) {
    ink.fillStyle = text;
    ink.fillText(strip.sharedTitle, LEFT, HEAD / 2);
    ink.fillStyle = wash;
    ink.fillRect(LEFT, HEAD, wide, SHARED);
    for (const [first, last, kind] of strip.shared) {
      ink.fillStyle = page.color(kind);
      ink.fillRect(x(first), HEAD, Math.max(x(last) - x(first), 1.5), SHARED);
    }
  }
  strip.panels.forEach((one, number) => {
    const y = top + number * panel;
    const most = Math.max(1, ...one.rows.flat());
    ink.globalAlpha = 1;
    ink.fillStyle = text;
    ink.textAlign = "left";
    ink.fillText(one.title, LEFT, y + HEAD / 2);
    ink.fillStyle = wash;
    ink.fillRect(LEFT, y + HEAD, wide, rows * high);
    one.rows.forEach((row, rank) => {
      const at = y + HEAD + rank * high;
      if (rows <= 16 || rank % 8 === 0) {
        ink.globalAlpha = 1;
        ink.fillStyle = soft;
        ink.textAlign = "right";
        if (high >= 9 || rank % 4 === 0) ink.fillText(strip.ranks[rank], LEFT - 8, at + Math.max(high, 4) / 2);
      }
      ink.fillStyle = page.color(one.kind);
      let first = 0;
      for (let bin = 1; bin <= row.length; bin++) {
        if (bin < row.length && row[bin] === row[first]) continue;
        if (row[first]) {
          ink.globalAlpha = 0.3 + 0.7 * (Math.log1p(row[first]) / Math.log1p(most));
          ink.fillRect(x(first), at, Math.max(x(bin) - x(first), 0.6), high - (high > 5 ? 1 : 0.5));
        }
        first = bin;
      }
    });
  });
  ink.globalAlpha = 1;
  const bottom = top + strip.panels.length * panel;
  ink.strokeStyle = page.color("line");
  ink.fillStyle = soft;
  ink.beginPath();
  ink.moveTo(LEFT, bottom - 2.5);
  ink.lineTo(LEFT + wide, bottom - 2.5);
  ink.stroke();
  const room = Math.max(2, Math.min(9, Math.floor(wide / 90)));
  for (let tick = 0; tick < room; tick++) {
    const share = tick / (room - 1);
    ink.textAlign = tick === 0 ? "left" : tick === room - 1 ? "right" : "center";
    ink.fillText(strip.first + Math.round(share * strip.length) + (tick ? "" : strip.axis), LEFT + share * wide, bottom + 8);
  }
  ink.textAlign = "left";

  canvas.onmousemove = (event) => {
    const box = canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left - LEFT, event.clientY - box.top - top];
    const bin = Math.floor((px / wide) * strip.bins);
    const number = Math.floor(py / panel);
    const rank = Math.floor((py - number * panel - HEAD) / high);
    const one = strip.panels[number];
    if (!one || bin < 0 || bin >= strip.bins || rank < 0 || rank >= rows || py < 0) return page.tip(event, "");
    const per = strip.length / strip.bins;
    const [first, last] = [Math.floor(bin * per), Math.max(Math.ceil((bin + 1) * per), Math.floor(bin * per) + 1)];
    const where = (strip.name || "rows ") + "[" + strip.before + (strip.first + first) + ":" + (strip.first + last) + "]";
    page.tip(event, where + ", " + strip.ranks[rank] + "\n" + one.kind + ": " + one.rows[rank][bin] + " " + one.unit);
  };
  canvas.onmouseleave = (event) => page.tip(event, "");
}

for (const canvas of document.querySelectorAll("canvas[data-strip]")) {
  page.add(canvas, () => {
    const strip = page.data.strips[canvas.dataset.strip];
    strip.panels.forEach((one) => {
      if (typeof one.rows[0] === "string") one.rows = one.rows.map(unpack);
    });
    drawStrips(canvas, strip);
  });
}
