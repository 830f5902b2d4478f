// Client-side behaviour: copy code, reconnect when the server returns, and show the right keyboard on phones.
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
      say("The server does not respond. Your jobs are safe on its disk; this page reconnects automatically.");
      return;
    }
    if (answer.status === 401) {
      location.reload(); // shows the login form
      return;
    }
    if (!answer.ok) return;
    const now = (await answer.json()).started;
    if (started !== null && now !== started) {
      location.reload(); // the server has restarted, so this page's state is stale
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
      // Browsers allow the clipboard only for https and localhost; otherwise select the text.
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

  // Gradio's template links to a manifest at the server's root, where there is none.
  document.querySelector("link[rel=manifest]")?.remove();

  setInterval(look, PAUSE_MS);
  look();
})();
