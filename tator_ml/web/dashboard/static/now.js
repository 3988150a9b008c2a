// The budget slider says what it means while it is moved.
"use strict";

(() => {
  const slider = document.getElementById("budget");
  const means = document.getElementById("budget-means");
  const say = () => {
    const bytes = Number(slider.value) * 1e6;
    const pictures = Math.max(1, Math.floor(bytes / Number(slider.dataset.picture)));
    const size = bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
    means.textContent = `${size}, about ${pictures} ${pictures === 1 ? "picture" : "pictures"}`;
    slider.setAttribute("aria-valuetext", means.textContent);
  };
  slider.addEventListener("input", say);
})();
