// Runs before the page is drawn: says that there is script, and keeps to the person's choice of dark or light.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("script");
  const store = (value) => {
    try { return value === undefined ? localStorage.getItem("theme") : localStorage.setItem("theme", value); }
    catch { return null; } // a frame of another site may have no storage
  };
  const kept = store();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const say = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
    button?.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      store(root.dataset.theme);
      say();
    });
    if (button) say();
    document.getElementById("print")?.addEventListener("click", () => print());
  });
})();
