const darkPreferred = matchMedia("(prefers-color-scheme: dark)");

function showTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("#theme").textContent = dark ? "Light mode" : "Dark mode";
}

function setUpTheme() {
  let chosen = null;
  const follow = () => showTheme(chosen ?? darkPreferred.matches);
  $("#theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme !== "dark";
    follow();
  });
  darkPreferred.addEventListener("change", follow);
  follow();
}
