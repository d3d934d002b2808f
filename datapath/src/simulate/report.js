"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const span = data.times[0] || 1;
  const short = value => value >= 1e4 ? (value / 1e3).toFixed(1) + " k" : String(Math.round(value * 1000) / 1000);
  // What a plot shows at one of its times: rows of name, value and the class or style of its colour.
  const rows = (plot, at) => {
    const kind = plot.dataset.kind;
    if (plot.dataset.s !== undefined) {
      const series = data.schedulers[plot.dataset.s].series[kind];
      const divisor = kind === "begun" ? span : 1;
      const all = series.map((values, n) => ({ name: data.servers[n], value: values[at] / divisor, n, server: true }));
      return all.sort((a, b) => b.value - a.value);
    }
    return data.schedulers.map((one, n) => {
      const { ratio, returned, elsewhere, refused } = one.series;
      const value = kind === "ratio" ? ratio[at]
        : kind === "refused" ? refused[at] / span
        : returned[at] ? elsewhere[at] * 100 / returned[at] : null;
      return { name: one.label, value, n };
    }).filter(row => row.value !== null);
  };
  const line = row => {
    const div = document.createElement("div"), name = document.createElement("span"), value = document.createElement("span");
    const dot = document.createElement("i");
    if (row.server) {
      dot.style.setProperty("--h", Math.floor(row.n * 360 / data.servers.length));
      dot.style.setProperty("--d", row.n % 3 * 11 - 11 + "%");
    } else name.className = "s" + row.n;
    name.append(dot, row.name);
    value.textContent = short(row.value);
    div.append(name, value);
    return div;
  };
  for (const plot of document.querySelectorAll(".plot")) {
    const cursor = plot.querySelector(".cursor");
    const hide = () => { tip.hidden = true; cursor.style.visibility = "hidden"; };
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("pointermove", event => {
      const box = plot.querySelector("svg").getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      if (share < 0 || share > 1) return hide();
      const at = Math.min(data.times.length - 1, Math.floor(share * data.times.length));
      const all = rows(plot, at), shown = all.slice(0, 16);
      const head = document.createElement("strong");
      head.textContent = short(data.times[at]) + " s";
      tip.replaceChildren(head, ...shown.map(line));
      if (all.length > shown.length) {
        const more = document.createElement("small");
        more.textContent = "and " + (all.length - shown.length) + " more";
        tip.append(more);
      }
      const x = data.times[at] / data.times[data.times.length - 1] * 1000;
      cursor.setAttribute("d", "M" + x + " 0V1000");
      cursor.style.visibility = "visible";
      tip.hidden = false;
      const left = event.clientX + 18 + tip.offsetWidth > innerWidth ? event.clientX - 18 - tip.offsetWidth : event.clientX + 18;
      tip.style.left = Math.max(4, left) + "px";
      tip.style.top = Math.max(4, Math.min(innerHeight - tip.offsetHeight - 4, event.clientY - 20)) + "px";
    });
  }
  // A legend's button shows one curve when it is pointed at, and hides it when it is pressed.
  for (const legend of document.querySelectorAll(".legend")) {
    const section = legend.closest("section");
    legend.querySelectorAll("button").forEach(button => {
      const own = ".line.n" + button.dataset.n;
      const point = on => section.querySelectorAll(".line").forEach(path => path.classList.toggle("faint", on && !path.matches(own)));
      button.addEventListener("pointerenter", () => point(true));
      button.addEventListener("pointerleave", () => point(false));
      button.addEventListener("click", () => {
        const off = button.classList.toggle("off");
        section.querySelectorAll(own).forEach(path => path.classList.toggle("gone", off));
      });
    });
  }
})();
