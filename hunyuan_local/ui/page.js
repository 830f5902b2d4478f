// What the page does by itself: copy code, come back when the server does, and offer phones the right keyboard.
(() => {
  "use strict";

  const PAUSE_MS = 2000;
  let started = null;
  let notice = null;

  function say(text) {
    if (notice === null) {
      notice = document.createElement("div");
      notice.className = "hl-lost";
      notice.setAttribute("role", "alert");
      document.body.append(notice);
    }
    notice.textContent = text;
    notice.hidden = text === "";
  }

  async function look() {
    let answer;
    try {
      answer = await fetch("alive", { cache: "no-store" });
    } catch {
      say("The server does not answer. Your jobs are safe on its disk, and this page comes back when it does.");
      return;
    }
    if (answer.status === 401) {
      location.reload(); // to the form for the key
      return;
    }
    if (!answer.ok) return;
    const now = (await answer.json()).started;
    if (started !== null && now !== started) {
      location.reload(); // what this page knows of the server is of the one before
      return;
    }
    started = now;
    if (notice !== null) say("");
  }

  async function copy(button) {
    const text = button.parentElement.querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Browsers give the clipboard to pages of https and of this machine alone: then the text is marked.
      getSelection().selectAllChildren(button.parentElement.querySelector("code"));
      button.textContent = "Press Ctrl+C";
      return;
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  document.addEventListener("focusin", (event) => {
    if (event.target.closest(".hl-whole")) event.target.inputMode = "numeric";
    if (event.target.closest(".hl-real")) event.target.inputMode = "decimal";
  });

  // Gradio's template names one at the root of the server, where there is none.
  document.querySelector("link[rel=manifest]")?.remove();

  setInterval(look, PAUSE_MS);
  look();
})();
