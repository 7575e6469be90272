// The theme's toggles in the side bar have no words: a screen reader is told what they open.
document.addEventListener("DOMContentLoaded", () => {
  for (const toggle of document.querySelectorAll(".bd-sidebar-primary summary")) {
    const page = toggle.closest("li").querySelector("a");
    toggle.setAttribute("aria-label", `Pages of ${page.textContent.trim()}`);
  }
});
