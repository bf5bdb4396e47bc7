"""How the page of a study looks, and the script that sorts its list of runs."""

STYLE = """
:root { --holds: #1c7c3c; --fails: #b3261e; --open: #9a6200; --none: #5d6778; --wash: #eef1f5; --wrong: #f7c9c5;
  --paper: #8a3ea8; }
@media (prefers-color-scheme: dark) { :root { --holds: #55c47b; --fails: #f28b82; --open: #f0b429; --none: #98a2b3;
  --wash: #232934; --wrong: #8c2f2a; --paper: #cf9be6; } }
html { scroll-padding-top: 12px; }
.layout { display: grid; grid-template: auto 1fr / 250px minmax(0, 1fr); column-gap: 36px;
  max-width: 1560px; margin: 0 auto; padding: 0 28px 80px; }
header { padding: 32px 0 4px; }
h1 { font-size: 30px; line-height: 1.25; letter-spacing: -0.01em; }
h2 { margin-top: 52px; }
.toc { grid-row: 1 / 3; position: sticky; top: 0; align-self: start; max-height: 100vh; overflow: auto;
  padding: 34px 4px 24px 0; font-size: 13px; line-height: 1.4; }
.toc a { color: inherit; text-decoration: none; display: block; padding: 2px 0 2px 2px; }
.toc a:hover { color: var(--mark); }
.toc strong { display: block; margin: 14px 0 4px; }
.toc .sub a { display: grid; grid-template-columns: 12px 76px 1fr; gap: 6px; color: var(--soft); }
.toc .sub a > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.dot { width: 8px; height: 8px; border-radius: 4px; margin-top: 5px; border: 1px solid var(--none); }
.dot.complete { background: var(--holds); border-color: var(--holds); }
.dot.partial { background: linear-gradient(90deg, var(--open) 50%, transparent 50%); border-color: var(--open); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0 8px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 24px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 16px; margin: 16px 0; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px;
  margin: 0 0 22px; }
.eyebrow { color: var(--soft); font-size: 13px; display: flex; gap: 12px; flex-wrap: wrap;
  justify-content: space-between; }
.card h3 { font-size: 18px; margin: 0 0 8px; }
.figure { margin: 14px 0; padding: 10px; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
.figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.scroll { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
th:first-child, td.word { text-align: left; } tbody th { font-weight: 600; white-space: nowrap; }
thead .group { text-align: center; color: var(--ink); }
.first { border-left: 1px solid var(--line); }
.numbers tbody th, .numbers thead th:first-child { position: sticky; left: 0; background: var(--card); }
.numbers td small { display: block; color: var(--soft); white-space: nowrap; font-size: 11px; line-height: 1.35; }
.numbers td .paper { color: var(--paper); }
.numbers td .by { opacity: .75; }
.none { color: var(--soft); }
.badge { display: inline-block; padding: 1px 10px; border-radius: 10px; font-size: 12px; font-weight: 600;
  white-space: nowrap; color: var(--tone); border: 1px solid var(--tone); --tone: var(--none); }
.badge.holds, .badge.right, .badge.complete { --tone: var(--holds); }
.badge.fails, .badge.wrong { --tone: var(--fails); } .badge.not_decided, .badge.partial { --tone: var(--open); }
.badge.holds, .badge.fails { color: var(--card); background: var(--tone); }
ul { margin: 8px 0; padding-left: 20px; } li { margin: 2px 0; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--mark); }
code { font: 12px/1.5 "DejaVu Sans Mono", monospace; background: var(--wash); padding: 1px 5px; border-radius: 4px;
  overflow-wrap: anywhere; }
.missing { column-width: 340px; font-size: 13px; }
.runs th[data-sort] { cursor: pointer; } .runs th[aria-sort]::after { content: " \\2191"; }
.runs th[aria-sort=descending]::after { content: " \\2193"; }
.runs td { white-space: nowrap; } .runs thead .word { text-align: left; }
.runs th:first-child { position: sticky; left: 0; background: var(--card); }
.runs tbody th { font-weight: 400; max-width: 160px; overflow: hidden; text-overflow: ellipsis; }
.runs .settings { white-space: normal; min-width: 240px; max-width: 420px; overflow-wrap: anywhere; }
tr:target, .runs tr:target th { background: var(--thought); }
#examples h3 { margin: 26px 0 10px; } .given h4 { margin-top: 10px; } .given h4:first-child { margin-top: 0; }
.given { display: grid; grid-template-columns: minmax(0, 260px) minmax(0, 1fr); gap: 20px; margin: 10px 0 14px; }
.given img { width: 100%; max-height: 420px; object-fit: contain; object-position: left top; background: #fff;
  border: 1px solid var(--line); image-rendering: var(--rendering, auto); }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 12px 20px; }
.answers pre, .given pre { max-height: 230px; padding: 8px 10px; }
.answers p { margin: 0 0 3px; display: flex; gap: 0 8px; flex-wrap: wrap; align-items: baseline; font-size: 13px; }
mark { background: var(--wrong); color: inherit; border-radius: 3px; padding: 1px 2px;
  outline: 1px solid var(--fails); }
.else mark { background: transparent; outline: 1px dotted var(--soft); }
.claim { display: grid; grid-template-columns: 104px minmax(0, 1fr) minmax(200px, 300px); gap: 4px 18px;
  padding: 9px 0; border-bottom: 1px solid var(--line); }
.claim:last-child { border: 0; } .claims { padding: 4px 20px; }
.by-claim { margin-right: 6px; text-decoration: none; }
.bar { display: flex; height: 12px; border-radius: 6px; overflow: hidden; margin: 0 0 10px; gap: 2px; }
.bar .holds { background: var(--holds); } .bar .fails { background: var(--fails); }
.bar .not_decided { background: var(--open); } .bar .no_runs, .bar .not_at_this_scale { background: var(--line); }
.claim p { margin: 0 0 2px; } .claim .effect { text-align: right; font-variant-numeric: tabular-nums; }
.claim .effect b { font-size: 17px; }
.claim details { margin: 2px 0; font-size: 13px; } .claims h3 { margin: 16px 0 2px; }
.claim small { color: var(--soft); font-size: 13px; }
@media (max-width: 1050px) {
  .layout { display: flex; flex-direction: column; padding: 0 16px 60px; }
  header { order: -1; }
  .toc { position: static; align-self: stretch; flex: none; max-height: 280px; margin-top: 12px; padding: 0 12px 12px;
    background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
}
@media (max-width: 640px) {
  h1 { font-size: 24px; } .card { padding: 14px; } .figure { padding: 4px; margin: 12px -6px; overflow-x: auto; }
  .figure img { max-width: none; width: max(100%, 620px); }
  .facts { grid-template-columns: minmax(0, 1fr); } .facts dd { margin-bottom: 8px; }
  .claim { grid-template-columns: minmax(0, 1fr); } .claim .effect { text-align: left; }
  .given { grid-template-columns: minmax(0, 1fr); } .given img { max-width: 260px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media print { .layout { display: block; } .toc { position: static; max-height: none; } .card { break-inside: avoid; } }
"""

SCRIPT = """
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.tabIndex = 0;
  const sort = () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0], place = head.cellIndex;
    const value = row => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const order = (a, b) => a === b ? 0 : a === "" ? 1 : b === "" ? -1 : a.localeCompare(b, "en", {numeric: true});
    const rows = [...body.rows].map(row => [value(row), row]);
    const by = head.dataset.sort === "number"
      ? (a, b) => (a === "") - (b === "") || (down ? b - a : a - b) : (a, b) => down ? order(b, a) : order(a, b);
    rows.sort((a, b) => by(a[0], b[0]));
    body.append(...rows.map(row => row[1]));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
"""
