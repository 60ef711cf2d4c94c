// The timeline: time across, a track for each thread; spans by kind, arrows between tracks, and an overview to zoom with.
"use strict";

const timeline = page.data.timeline && {
  ...page.data.timeline, // tracks, names, kinds, end (s), spans [track, kind, name, start, length, count], arrows
  from: 0,
  to: page.data.timeline.end,
  canvas: document.getElementById("tracks"),
  overview: document.getElementById("overview"),
  LEFT: 96,

  x(t) {
    return this.LEFT + ((t - this.from) / (this.to - this.from)) * this.wide;
  },

  /** Show a part of the time, no longer than all of it and no shorter than 20 us. */
  show(from, to) {
    const length = Math.min(Math.max(to - from, 2e-5), this.end);
    this.from = Math.min(Math.max(from, 0), this.end - length);
    this.to = this.from + length;
    this.draw();
    this.drawOverview();
    const [first, last] = [this.from, this.to].map((t) => this.label(t, length / 10));
    document.getElementById("window").textContent = first + " to " + last + " of " + page.seconds(this.end);
  },

  zoom(factor, at = (this.from + this.to) / 2) {
    this.show(at - (at - this.from) * factor, at + (this.to - at) * factor);
  },

  ticks() {
    const rough = (this.to - this.from) / Math.max(2, this.wide / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const found = [];
    for (let t = Math.ceil(this.from / step) * step; t <= this.to; t += step) found.push(t);
    return found;
  },

  /** A time with as many digits as tell neighbouring ticks apart. */
  label(t, step) {
    const [unit, name] = this.to < 1e-3 ? [1e-6, "\u00b5s"] : this.to < 1 ? [1e-3, "ms"] : [1, "s"];
    const digits = Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9)) || 0;
    return t ? (t / unit).toFixed(digits) + " " + name : "0";
  },

  /** Spans in order of start, by track, so that a window is found by halving. */
  prepare() {
    this.byTrack = this.tracks.map(() => []);
    for (const span of this.spans) this.byTrack[span[0]].push(span);
    this.reach = this.byTrack.map((spans) => {
      spans.sort((a, b) => a[3] - b[3]);
      return spans.reduce((longest, span) => Math.max(longest, span[4]), 0);
    });
  },

  visible(track) {
    const spans = this.byTrack[track];
    let [low, high] = [0, spans.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (spans[middle][3] < this.from - this.reach[track]) low = middle + 1;
      else high = middle;
    }
    const found = [];
    for (; low < spans.length && spans[low][3] < this.to; low++) if (spans[low][3] + spans[low][4] >= this.from) found.push(spans[low]);
    return found;
  },

  draw() {
    const count = this.tracks.length;
    this.high = count <= 8 ? 34 : count <= 20 ? 22 : 14;
    const HEAD = 22;
    this.head = HEAD;
    const { ink, width } = page.surface(this.canvas, HEAD + count * this.high + 4);
    this.wide = width - this.LEFT - 4;
    const [text, soft, line] = ["ink", "soft", "line"].map((name) => page.color(name));
    const colors = this.kinds.map((kind) => page.color(kind));
    ink.textBaseline = "middle";
    const ticks = this.ticks();
    for (const t of ticks) {
      ink.strokeStyle = line;
      ink.beginPath();
      ink.moveTo(this.x(t), HEAD - 4);
      ink.lineTo(this.x(t), HEAD + count * this.high);
      ink.stroke();
      ink.fillStyle = soft;
      ink.textAlign = "center";
      ink.fillText(this.label(t, ticks[1] - ticks[0]), Math.min(this.x(t), width - 28), HEAD / 2);
    }
    this.drawn = [];
    for (let track = 0; track < count; track++) {
      const top = HEAD + track * this.high;
      ink.fillStyle = soft;
      ink.textAlign = "left";
      ink.fillText(this.tracks[track], 6, top + this.high / 2, this.LEFT - 10);
      const bar = Math.round(this.high * 0.62);
      let right = -1e9; // of the last sliver; narrower ones on the same pixel are left out
      for (const span of this.visible(track)) {
        const low = span[1] >= this.layers; // faults and collections: a row of their own below
        const x = Math.max(this.x(span[3]), this.LEFT);
        const end = Math.min(this.x(span[3] + span[4]), width - 4);
        const wide = Math.max(end - x, low ? 1.5 : 0.5);
        if (wide < 0.6 && x < right + 0.5) continue;
        if (wide < 0.6) right = x;
        ink.fillStyle = colors[span[1]];
        const y = low ? top + bar + 3 : top + 2;
        const tall = low ? this.high - bar - 5 : bar;
        ink.fillRect(x, y, wide > 3 ? wide - 0.6 : wide, tall);
        this.drawn.push([x, x + wide, y, y + tall, span]);
        if (!low && wide > 46 && bar > 11) {
          ink.save();
          ink.beginPath();
          ink.rect(x, y, wide - 3, tall);
          ink.clip();
          ink.fillStyle = span[1] === 0 ? text : "#10151a";
          ink.fillText(this.names[span[2]], x + 5, y + tall / 2 + 0.5);
          ink.restore();
        }
      }
    }
    this.drawArrows(ink);
  },

  drawArrows(ink) {
    const LIMIT = 300; // more would hide the tracks
    const chosen = this.arrows.filter(([, from, , to]) => to >= this.from && from <= this.to);
    const many = chosen.length > LIMIT;
    document.getElementById("arrows-note").textContent = many ? chosen.length.toLocaleString("en") + " arrows: zoom in to see them" : "";
    if (many || !document.getElementById("arrows").checked) return;
    for (const [a, from, b, to, kind] of chosen) {
      const [x1, x2] = [this.x(from), this.x(to)];
      const [y1, y2] = [a, b].map((track) => this.head + track * this.high + this.high * 0.31);
      ink.strokeStyle = ink.fillStyle = page.color(kind === "lock" ? "ink" : kind); // locks lead from pink to pink
      ink.globalAlpha = 0.85;
      ink.beginPath();
      ink.moveTo(x1, y1);
      ink.bezierCurveTo(x1 + (x2 - x1) * 0.4, y1, x2 - (x2 - x1) * 0.4 - 6, y2, x2, y2);
      ink.stroke();
      ink.beginPath();
      ink.moveTo(x2 + 1, y2);
      ink.lineTo(x2 - 6, y2 - 3);
      ink.lineTo(x2 - 6, y2 + 3);
      ink.fill();
    }
    ink.globalAlpha = 1;
  },

  /** Share of the ranks that do each kind, over all of the time, with the shown part marked. */
  drawOverview() {
    const TALL = 56;
    const { ink, width } = page.surface(this.overview, TALL);
    const wide = width - this.LEFT - 4;
    const bins = Math.min(Math.max(60, Math.floor(wide / 2)), 600);
    if (!this.shares || this.shares.bins !== bins) this.shares = this.count(bins);
    ink.textBaseline = "middle";
    ink.fillStyle = page.color("soft");
    ink.fillText("all ranks", 6, TALL / 2);
    for (let bin = 0; bin < bins; bin++) {
      let y = TALL - 2;
      for (let kind = 0; kind < this.layers; kind++) {
        const tall = (this.shares[kind][bin] / this.tracks.length) * (TALL - 4);
        ink.fillStyle = page.color(this.kinds[kind]);
        ink.fillRect(this.LEFT + (bin / bins) * wide, y - tall, wide / bins + 0.3, tall);
        y -= tall;
      }
    }
    if (this.to - this.from < this.end) {
      ink.fillStyle = page.color("paper");
      ink.globalAlpha = 0.66;
      const [a, b] = [this.from, this.to].map((t) => this.LEFT + (t / this.end) * wide);
      ink.fillRect(this.LEFT, 0, a - this.LEFT, TALL);
      ink.fillRect(b, 0, this.LEFT + wide - b, TALL);
      ink.globalAlpha = 1;
      ink.strokeStyle = page.color("ink");
      ink.strokeRect(a, 0.5, Math.max(b - a, 2), TALL - 1);
    }
  },

  count(bins) {
    const shares = Array.from({ length: this.layers }, () => new Float64Array(bins));
    shares.bins = bins;
    const per = this.end / bins;
    const [compute, data, fault] = ["compute", "data", "fault"].map((kind) => this.kinds.indexOf(kind));
    const collection = this.kinds.indexOf("collection");
    for (const [, kind, , start, length] of this.spans) {
      if (kind === collection) continue;
      for (let bin = Math.floor(start / per); bin < bins && bin * per < start + length; bin++) {
        const part = (Math.min((bin + 1) * per, start + length) - Math.max(bin * per, start)) / per;
        shares[kind === fault ? data : kind][bin] += part;
        if (kind === fault) shares[compute][bin] -= part; // page faults lie inside of phases
      }
    }
    shares[compute] = shares[compute].map((part) => Math.max(part, 0));
    return shares;
  },

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const hit = this.drawn.findLast((d) => x >= d[0] - 1 && x <= d[1] + 1 && y >= d[2] && y <= d[3]);
    if (!hit) return page.tip(event, "");
    const [track, kind, name, start, length, count] = hit[4];
    const many = count > 1 ? "\n" + count + " of them, too short to show one by one here" : "";
    const what = this.kinds[kind] + ": " + page.seconds(length) + " from " + page.seconds(start);
    page.tip(event, this.tracks[track] + "\n" + this.names[name] + "\n" + what + many);
  },

  /** Drag over tracks or overview: show that part. */
  drag(canvas, time) {
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      from = time(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const to = time(event);
      if (Math.abs(this.x(to) - this.x(from)) > 5) this.show(Math.min(from, to), Math.max(from, to));
      from = null;
    });
    canvas.addEventListener("dblclick", () => this.show(0, this.end));
  },

  start() {
    this.prepare();
    page.add(this.canvas, () => this.show(this.from, this.to));
    page.add(this.overview, () => this.drawOverview());
    const share = (event, canvas) => {
      const box = canvas.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left - this.LEFT) / (box.width - this.LEFT - 4), 0), 1);
    };
    this.drag(this.canvas, (event) => this.from + share(event, this.canvas) * (this.to - this.from));
    this.drag(this.overview, (event) => share(event, this.overview) * this.end);
    this.canvas.addEventListener("mousemove", (event) => this.hover(event));
    this.canvas.addEventListener("mouseleave", (event) => page.tip(event, ""));
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return; // without Ctrl the page scrolls
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.3 : 0.77, this.from + share(event, this.canvas) * (this.to - this.from));
    }, { passive: false });
    const move = (part) => this.show(this.from + part * (this.to - this.from), this.to + part * (this.to - this.from));
    const keys = { "+": () => this.zoom(0.5), "-": () => this.zoom(2), ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2) };
    this.canvas.addEventListener("keydown", (event) => {
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    document.getElementById("zoom-in").onclick = () => this.zoom(0.5);
    document.getElementById("zoom-out").onclick = () => this.zoom(2);
    document.getElementById("zoom-all").onclick = () => this.show(0, this.end);
    document.getElementById("arrows").onchange = () => this.draw();
  },
};

if (timeline && timeline.spans.length) timeline.start();
unfold();
