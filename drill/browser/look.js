// Runs at the end of a copy of the page; what it found goes into a <meta name="look">, which `look` reads.
(() => {
  const wrong = [];
  const check = (holds, what) => { if (!holds) wrong.push(what); };
  const box = (element) => element.getBoundingClientRect();
  const sections = [...document.querySelectorAll("section")];
  const rows = [...document.querySelectorAll("#verdicts tbody tr")];
  check(sections.length > 0, "no scenario");
  check(rows.length === sections.length, `${rows.length} verdicts of ${sections.length} scenarios`);
  check(box(document.querySelector("#verdict")).height > 0, "the verdict is not visible");
  check(document.documentElement.scrollWidth <= window.innerWidth + 1,
    `the page is ${document.documentElement.scrollWidth} wide in ${window.innerWidth}`);
  let marks = 0, roles = 0;
  for (const section of sections) {
    const name = section.id;
    const svg = section.querySelector("svg");
    check(svg && box(svg).width > 200 && box(svg).height > 60, `${name}: the plot has no size`);
    if (!svg) continue;
    const inside = box(svg);
    for (const kind of ["write", "read", "slow"]) {
      const curve = svg.querySelector(`path.curve.${kind}`);
      check(curve && curve.getTotalLength() > 50, `${name}: the curve of ${kind} is not drawn`);
    }
    const style = getComputedStyle(svg.querySelector("path.curve.write"));
    check(style.stroke !== "none" && style.strokeWidth !== "0px", `${name}: the curve has no colour`);
    for (const line of svg.querySelectorAll("line.mark")) {
      marks += 1;
      const at = box(line);
      check(at.left >= inside.left - 1 && at.right <= inside.right + 1, `${name}: a mark lies outside of the plot`);
    }
    check(svg.querySelectorAll("line.mark.fault").length > 0, `${name}: no fault is marked`);
    const strips = [...svg.querySelectorAll("rect.leader")];
    roles += strips.length;
    check(strips.length > 0, `${name}: nobody leads`);
    check(strips.some((strip) => box(strip).width > 5), `${name}: who leads cannot be seen`);
    for (const text of svg.querySelectorAll("text")) {
      const at = box(text);
      check(at.width === 0 || (at.left >= inside.left - 2 && at.right <= inside.right + 2),
        `${name}: "${text.textContent}" is cut off`);
    }
    // Names of rows and their numbers must not lie on each other.
    const labels = [...svg.querySelectorAll("text:not(.tag)")].map((text) => [text.textContent, box(text)]);
    for (let i = 0; i < labels.length; i += 1) {
      for (let j = i + 1; j < labels.length; j += 1) {
        const [a, b] = [labels[i][1], labels[j][1]];
        const over = Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
          && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
        check(!over, `${name}: "${labels[i][0]}" lies on "${labels[j][0]}"`);
      }
    }
  }
  const meta = document.createElement("meta");
  meta.name = "look";
  const summary = `${sections.length} scenarios, ${marks} marks, ${roles} strips of leaders`;
  meta.content = wrong.length ? `wrong: ${[...new Set(wrong)].slice(0, 10).join("; ").replace(/["<>&]/g, "'")}` : `ok: ${summary}`;
  document.body.append(meta);
})();
