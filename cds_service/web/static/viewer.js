// Zoom and pan of the pictures by mouse, touch and keyboard, and the opacity of their layers.
"use strict";
(() => {
  const MOST = 16; // times
  const STEP = 1.25;

  class Viewer {
    constructor(element) {
      this.element = element;
      this.stage = element.querySelector(".stage");
      this.sheet = element.querySelector(".sheet");
      this.zoomed = element.querySelector("[data-zoomed]");
      this.pointers = new Map();
      this.scale = 1;
      this.x = 0; // of the sheet's left edge, in widths of the stage
      this.y = 0; // of its upper edge, in heights
      this.listen();
      this.draw();
    }

    get box() { return this.stage.getBoundingClientRect(); }

    // Zoom so that the place (fx, fy), in widths and heights of the stage, stays where it is.
    zoom(factor, fx = 0.5, fy = 0.5) {
      const scale = Math.min(MOST, Math.max(1, this.scale * factor));
      this.x = fx - ((fx - this.x) * scale) / this.scale;
      this.y = fy - ((fy - this.y) * scale) / this.scale;
      this.scale = scale;
      this.changed();
    }

    move(dx, dy) { this.x += dx; this.y += dy; this.changed(); }

    fit() { this.scale = 1; this.changed(); }

    changed() {
      this.draw();
      for (const other of viewers) {
        if (other !== this && together?.checked) {
          [other.scale, other.x, other.y] = [this.scale, this.x, this.y];
          other.draw();
        }
      }
    }

    draw() {
      this.x = Math.min(0, Math.max(1 - this.scale, this.x));
      this.y = Math.min(0, Math.max(1 - this.scale, this.y));
      const { clientWidth: width, clientHeight: height } = this.stage;
      this.sheet.style.transform = `translate(${this.x * width}px, ${this.y * height}px) scale(${this.scale})`;
      this.stage.classList.toggle("zoomed", this.scale > 1);
      const told = `${Math.round(this.scale * 100)} %`;
      if (this.zoomed && this.zoomed.textContent !== told) this.zoomed.textContent = told;
      this.stage.dispatchEvent(new CustomEvent("zoomed"));
    }

    listen() {
      const stage = this.stage;
      stage.addEventListener("wheel", (event) => {
        // the page scrolls past a picture that nobody has chosen
        if (!event.ctrlKey && !stage.contains(document.activeElement)) return;
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY / 400), ...this.place(event));
      }, { passive: false });
      stage.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        stage.setPointerCapture(event.pointerId);
        this.pointers.set(event.pointerId, event);
      });
      stage.addEventListener("pointermove", (event) => this.drag(event));
      for (const name of ["pointerup", "pointercancel"]) {
        stage.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
      }
      stage.addEventListener("dblclick", (event) => this.zoom(2, ...this.place(event)));
      stage.addEventListener("keydown", (event) => this.key(event));
      for (const button of this.element.querySelectorAll("[data-zoom]")) {
        button.addEventListener("click", () => this.press(button.dataset.zoom));
      }
      for (const slider of this.element.querySelectorAll("[data-opacity]")) {
        const set = () => {
          for (const layer of this.element.querySelectorAll(`[data-layer="${slider.dataset.opacity}"]`)) {
            layer.style.opacity = slider.value / 100;
          }
        };
        slider.addEventListener("input", set);
        set();
      }
      new ResizeObserver(() => this.draw()).observe(stage);
    }

    place(event) {
      const box = this.box;
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    }

    drag(event) {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const box = this.box;
      if (this.pointers.size === 1) {
        this.move((event.clientX - before.clientX) / box.width, (event.clientY - before.clientY) / box.height);
      } else if (this.pointers.size === 2) {
        const other = [...this.pointers.values()].find((one) => one.pointerId !== event.pointerId);
        const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
        const [x, y] = this.place(event), [ox, oy] = this.place(other), [bx, by] = this.place(before);
        this.x += (x - bx) / 2;
        this.y += (y - by) / 2;
        this.zoom(apart(event) / Math.max(1, apart(before)), (x + ox) / 2, (y + oy) / 2);
      }
      this.pointers.set(event.pointerId, event);
    }

    key(event) {
      const moves = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
      const presses = { "+": "in", "=": "in", "-": "out", "0": "fit" };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (presses[event.key]) this.press(presses[event.key]);
      else if (moves[event.key] && this.scale > 1) this.move(...moves[event.key]);
      else return;
      event.preventDefault();
    }

    press(what) {
      if (what === "fit") this.fit();
      else this.zoom(what === "in" ? STEP : 1 / STEP);
    }
  }

  const together = document.getElementById("together");
  const viewers = [];
  for (const element of document.querySelectorAll(".viewer")) viewers.push(new Viewer(element));
})();
