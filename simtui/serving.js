// Gives the terminal the keys once the app is there; before, textual-serve cannot pass on that it has the focus.
addEventListener("load", () => {
  const terminal = document.querySelector(".xterm-helper-textarea");
  const observer = new MutationObserver(() => {
    if (document.body.classList.contains("-first-byte")) {
      observer.disconnect();
      terminal.focus();
    }
  });
  observer.observe(document.body, { attributeFilter: ["class"] });
});
