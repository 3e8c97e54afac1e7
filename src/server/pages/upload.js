// Shows how far an upload is. Without it the form works all the same, only silently.
(() => {
  const form = document.querySelector("form[data-progress]");
  if (!form || !window.FormData) return;
  const bar = form.querySelector("progress");
  const state = document.getElementById("state");
  const problem = document.getElementById("problem");
  const button = form.querySelector("button");
  const fail = (text) => {
    bar.hidden = true;
    button.disabled = false;
    state.textContent = "";
    problem.textContent = text;
    problem.hidden = false;
    problem.focus();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const call = new XMLHttpRequest();
    let told = -1;
    problem.hidden = true;
    button.disabled = true;
    bar.hidden = false;
    bar.value = 0;
    state.textContent = "Uploading.";
    call.upload.addEventListener("progress", (now) => {
      if (!now.lengthComputable) return;
      bar.value = now.loaded / now.total;
      // Every tenth is enough for those who hear it.
      const tenth = Math.floor((10 * now.loaded) / now.total);
      if (tenth !== told) {
        told = tenth;
        state.textContent = tenth < 10 ? `${10 * tenth} % uploaded.` : "Uploaded. The files are being checked.";
      }
    });
    call.addEventListener("load", () => {
      const page = call.response;
      const main = page && page.querySelector("main");
      if (main && call.status >= 200 && call.status < 300) {
        document.title = page.title;
        document.querySelector("main").replaceWith(document.adoptNode(main));
        const heading = document.querySelector("h1");
        heading.tabIndex = -1;
        heading.focus();
        return;
      }
      const why = main && main.querySelector("p");
      fail(why ? why.textContent : "That did not work. Please try again.");
    });
    call.addEventListener("error", () => fail("The connection broke off. Nothing was uploaded. Please try again."));
    call.addEventListener("abort", () => fail("The upload was stopped. Nothing was uploaded."));
    call.open("POST", form.action);
    call.responseType = "document";
    call.send(new FormData(form));
  });
})();
