// Editing of the outline: corners are dragged, added and removed by pointer or keyboard, and go into the form as JSON.
"use strict";
(() => {
  const drawing = document.getElementById("edit");
  const toggle = document.getElementById("edit-outline");
  if (!drawing || !toggle) return;
  const viewer = drawing.closest(".viewer");
  const stage = drawing.closest(".stage");
  const rows = Number(viewer.dataset.rows), columns = Number(viewer.dataset.columns);
  const field = document.getElementById("outline");
  const state = document.getElementById("edit-state");
  const [undo, reset] = ["edit-undo", "edit-reset"].map((id) => document.getElementById(id));
  const first = drawing.dataset.points.trim()
    ? drawing.dataset.points.trim().split(/\s+/).map((pair) => pair.split(",").map(Number))
    : circle();
  let points = copy(first);
  const past = [];

  // Where the algorithm outlined nothing: a circle in the middle to begin with.
  function circle() {
    const radius = Math.min(rows, columns) / 4;
    return Array.from({ length: 12 }, (_, n) => [
      columns / 2 + radius * Math.cos((n * Math.PI) / 6), rows / 2 + radius * Math.sin((n * Math.PI) / 6)]);
  }

  function copy(corners) { return corners.map((corner) => [...corner]); }

  function element(name, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    drawing.append(made);
    return made;
  }

  const text = () => points.map(([x, y]) => `${x},${y}`).join(" ");
  const pixel = () => columns / Math.max(1, drawing.getBoundingClientRect().width); // of the screen, in image pixels

  function rebuild(focus = -1) {
    drawing.replaceChildren();
    element("polygon", { class: "under", points: text() });
    element("polygon", { class: "edited", points: text() });
    points.forEach((_, n) => listenLine(element("line", { class: "side", "data-n": n })));
    points.forEach((_, n) => listenCorner(element("circle", { class: "corner", tabindex: 0, role: "button", "data-n": n })));
    redraw();
    if (focus >= 0) drawing.querySelector(`circle[data-n="${focus}"]`)?.focus();
  }

  function redraw() {
    const radius = 6 * pixel();
    for (const polygon of drawing.querySelectorAll("polygon")) polygon.setAttribute("points", text());
    for (const side of drawing.querySelectorAll("line")) {
      const n = Number(side.dataset.n), [a, b] = [points[n], points[(n + 1) % points.length]];
      Object.entries({ x1: a[0], y1: a[1], x2: b[0], y2: b[1] }).forEach(([k, v]) => side.setAttribute(k, v));
    }
    for (const corner of drawing.querySelectorAll("circle")) {
      const n = Number(corner.dataset.n), [x, y] = points[n];
      Object.entries({ cx: x, cy: y, r: radius }).forEach(([k, v]) => corner.setAttribute(k, v));
      corner.setAttribute("aria-label", `Corner ${n + 1} of ${points.length}, column ${Math.round(x)}, row ${Math.round(y)}`);
    }
  }

  function remember() { past.push(copy(points)); if (past.length > 100) past.shift(); }

  function tell(what) {
    field.value = JSON.stringify(points.map(([x, y]) => [Math.round(x * 100) / 100, Math.round(y * 100) / 100]));
    correct();
    undo.disabled = past.length === 0;
    reset.disabled = false;
    state.textContent = what;
  }

  function correct() { document.getElementById("verdict-corrected").checked = true; }

  function place(event) {
    const box = drawing.getBoundingClientRect();
    return inside((event.clientX - box.left) / box.width * columns, (event.clientY - box.top) / box.height * rows);
  }

  function inside(x, y) { return [Math.min(columns, Math.max(0, x)), Math.min(rows, Math.max(0, y))]; }

  function listenCorner(corner) {
    const n = Number(corner.dataset.n);
    let held = false;
    corner.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.stopPropagation();
      corner.setPointerCapture(event.pointerId);
      remember();
      held = true;
    });
    corner.addEventListener("pointermove", (event) => {
      if (!held) return;
      event.stopPropagation();
      points[n] = place(event);
      redraw();
    });
    for (const name of ["pointerup", "pointercancel"]) corner.addEventListener(name, (event) => {
      if (!held) return;
      event.stopPropagation();
      held = false;
      const before = past[past.length - 1][n];
      if (before[0] === points[n][0] && before[1] === points[n][1]) past.pop();
      else tell(`Corner ${n + 1} moved.`);
    });
    corner.addEventListener("dblclick", (event) => { event.stopPropagation(); remove(n); });
    corner.addEventListener("keydown", (event) => {
      const far = (event.shiftKey ? 5 : 1) * Math.max(1, columns / 400);
      const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
      if (moves[event.key]) {
        remember();
        points[n] = inside(points[n][0] + moves[event.key][0], points[n][1] + moves[event.key][1]);
        redraw();
        tell(`Corner ${n + 1}: column ${Math.round(points[n][0])}, row ${Math.round(points[n][1])}.`);
      } else if (event.key === "Delete" || event.key === "Backspace") remove(n);
      else if (event.key === "Enter" || event.key === " ") add(n);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  function listenLine(side) {
    side.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.stopPropagation();
      add(Number(side.dataset.n), place(event));
    });
  }

  function add(n, where) {
    const [a, b] = [points[n], points[(n + 1) % points.length]];
    remember();
    points.splice(n + 1, 0, where ?? [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]);
    rebuild(n + 1);
    tell(`A corner added: ${points.length} corners.`);
  }

  function remove(n) {
    if (points.length <= 3) { state.textContent = "An outline has three corners at least."; return; }
    remember();
    points.splice(n, 1);
    rebuild(n % points.length);
    tell(`A corner removed: ${points.length} corners.`);
  }

  toggle.addEventListener("click", () => {
    const on = toggle.getAttribute("aria-pressed") !== "true";
    toggle.setAttribute("aria-pressed", on);
    drawing.toggleAttribute("hidden", !on);
    stage.classList.toggle("editing", on);
    document.getElementById("edit-help").hidden = !on;
    if (on) rebuild(0);
  });
  undo.addEventListener("click", () => {
    points = past.pop() ?? points;
    rebuild();
    tell("One step taken back.");
  });
  reset.addEventListener("click", () => {
    points = copy(first);
    past.length = 0;
    rebuild();
    field.value = "";
    undo.disabled = reset.disabled = true;
    state.textContent = "The outline is as it was.";
  });
  stage.addEventListener("zoomed", () => { if (!drawing.hasAttribute("hidden")) redraw(); });
  for (const choice of document.querySelectorAll("[data-corrects]")) {
    choice.addEventListener("change", () => { if (choice.value) correct(); });
  }
})();
