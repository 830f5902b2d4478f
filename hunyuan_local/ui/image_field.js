// Uploads the chosen or dropped file, and writes its SHA-256 into the form's hidden field; an empty one is no image.
let latest = 0;

function say(text, problem) {
  const place = document.querySelector("#hl-image-said");
  place.querySelector("[role=status]").textContent = text;
  place.querySelector("[role=alert]").textContent = problem;
}

function put(sha256) {
  const field = document.querySelector("#hl-image-value textarea, #hl-image-value input");
  field.value = sha256;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

async function problemOf(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `Image: the server did not accept it (status ${answer.status}); try again.`;
  }
}

async function send(file) {
  const limit = Number(element.querySelector(".hl-drop").dataset.limit);
  const number = ++latest;
  put(""); // not the image before it, if Generate is pressed during the upload
  if (file.size > limit) {
    say("", `Image: the file has ${file.size.toLocaleString("en")} bytes; the limit is 32 MiB.`);
    return;
  }
  say("Uploading the image.", "");
  let found = "", problem = "";
  try {
    const answer = await fetch("image", { method: "POST", body: file });
    if (answer.ok) found = (await answer.json()).sha256;
    else problem = await problemOf(answer);
  } catch {
    problem = "Image: the upload failed; check the file and the connection, and try again.";
  }
  if (number !== latest) return; // another file was chosen meanwhile
  say("", problem);
  put(found);
}

const zoneOf = (event) => event.target.closest(".hl-drop");

element.addEventListener("change", (event) => {
  const [file] = event.target.files || [];
  if (!file) return;
  send(file);
  event.target.value = ""; // the same file can be chosen again
});
element.addEventListener("dragover", (event) => {
  if (!zoneOf(event)) return;
  event.preventDefault();
  zoneOf(event).classList.add("hl-over");
});
element.addEventListener("dragleave", (event) => zoneOf(event)?.classList.remove("hl-over"));
element.addEventListener("drop", (event) => {
  if (!zoneOf(event)) return;
  event.preventDefault();
  zoneOf(event).classList.remove("hl-over");
  const files = [...event.dataTransfer.files];
  if (files.length === 1) send(files[0]);
  else say("", files.length ? "Image: drop one file, not several." : "Image: drop a file from this device.");
});
element.addEventListener("click", (event) => {
  if (!event.target.closest("[data-remove]")) return;
  latest += 1;
  say("", "");
  put("");
});
