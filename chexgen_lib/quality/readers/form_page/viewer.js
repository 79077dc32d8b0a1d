"use strict";
// A film on a canvas: window and level by drag, zoom by wheel or pinch, moved with Shift, the right button or two
// fingers. Grey values are 0 to 255; the window [level - width / 2, level + width / 2] is spread over the screen's.

// Against tracking, some browsers add noise to what a page reads from a canvas, and so to every film.
function readsTruly() {
  const context = Object.assign(document.createElement("canvas"), { width: 16, height: 16 }).getContext("2d");
  const pixels = context.createImageData(16, 16);
  for (let i = 0; i < 1024; i++) pixels.data[i] = i % 4 === 3 ? 255 : i >> 2;
  context.putImageData(pixels, 0, 0);
  return context.getImageData(0, 0, 16, 16).data.every((value, i) => value === pixels.data[i]);
}

class Film {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.shown = document.createElement("canvas"); // the film through its window, pixel for pixel
    this.grey = null;
    this.pointers = new Map();
    this.reset();
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const ended of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(ended, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    this.sizes = new ResizeObserver(() => this.paint());
    this.sizes.observe(canvas);
  }

  async show(source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    this.shown.width = image.naturalWidth;
    this.shown.height = image.naturalHeight;
    const context = this.shown.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, this.shown.width, this.shown.height);
    this.grey = new Uint8Array(data.length / 4);
    for (let i = 0; i < this.grey.length; i++) this.grey[i] = data[4 * i];
    this.reset();
  }

  remove() {
    this.sizes.disconnect();
  }

  reset() {
    Object.assign(this, { width: 255, level: 127.5, scale: 1, x: 0, y: 0, inverted: false });
    this.look();
  }

  invert() {
    this.inverted = !this.inverted;
    this.look();
  }

  window(wider, brighter) {
    this.width = Math.min(512, Math.max(2, this.width + wider));
    this.level = Math.min(300, Math.max(-45, this.level - brighter));
    this.look();
  }

  // Zoom by a factor and keep what lies under (x, y), in CSS pixels from the middle of the canvas, where it is.
  zoom(factor, x = 0, y = 0) {
    const scale = Math.min(16, Math.max(1, this.scale * factor));
    const ratio = scale / this.scale;
    this.x = x - (x - this.x) * ratio;
    this.y = y - (y - this.y) * ratio;
    this.scale = scale;
    this.pan(0, 0);
  }

  pan(dx, dy) {
    const room = ((this.scale - 1) * Math.min(this.canvas.clientWidth, this.canvas.clientHeight)) / 2;
    this.x = Math.min(room, Math.max(-room, this.x + dx));
    this.y = Math.min(room, Math.max(-room, this.y + dy));
    this.paint();
    this.changed(this);
  }

  // Give every pixel its grey under the present window, then paint.
  look() {
    if (this.grey) {
      const table = new Uint32Array(256); // grey -> opaque pixel, as a canvas stores it on little-endian machines
      const low = this.level - this.width / 2;
      for (let v = 0; v < 256; v++) {
        const share = Math.min(1, Math.max(0, (v - low) / this.width));
        table[v] = 0xff000000 | (Math.round(255 * (this.inverted ? 1 - share : share)) * 0x010101);
      }
      const context = this.shown.getContext("2d");
      const pixels = context.createImageData(this.shown.width, this.shown.height);
      const words = new Uint32Array(pixels.data.buffer);
      for (let i = 0; i < words.length; i++) words[i] = table[this.grey[i]];
      context.putImageData(pixels, 0, 0);
    }
    this.paint();
    this.changed(this);
  }

  paint() {
    const dense = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth * dense, this.canvas.clientHeight * dense].map(Math.round);
    if (!this.grey || !width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height });
    }
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    const fit = Math.min(width / this.shown.width, height / this.shown.height) * this.scale;
    const [w, h] = [this.shown.width * fit, this.shown.height * fit];
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.shown, (width - w) / 2 + this.x * dense, (height - h) / 2 + this.y * dense, w, h);
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    const moves = event.shiftKey || event.button === 1 || event.button === 2;
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, moves });
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before.x, event.clientY - before.y];
    if (this.pointers.size === 2) this.pinch(event, dx, dy);
    else if (before.moves) this.pan(dx, dy);
    else this.window(dx, -dy / 2);
    Object.assign(before, { x: event.clientX, y: event.clientY });
  }

  pinch(event, dx, dy) {
    const [, other] = [...this.pointers].find(([id]) => id !== event.pointerId);
    const before = this.pointers.get(event.pointerId);
    const apart = Math.hypot(before.x - other.x, before.y - other.y);
    const now = Math.hypot(event.clientX - other.x, event.clientY - other.y);
    const box = this.canvas.getBoundingClientRect();
    const middle = [(event.clientX + other.x) / 2 - box.x - box.width / 2, (event.clientY + other.y) / 2 - box.y - box.height / 2];
    if (apart > 10) this.zoom(now / apart, ...middle);
    this.pan(dx / 2, dy / 2);
  }

  wheel(event) {
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2];
    this.zoom(Math.exp(-event.deltaY / 400), x, y);
  }
}
