"""The report page's style sheet: system fonts, one column that becomes two or three, light and
dark.
"""

CSS = """
:root { color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1c1f23; --soft: #626a73; --line: #e3e4e0; --back: #ecede9;
  --prefix: #0b7a75; --base: #b9bec4; --third: #c8553d; --fourth: #4a5fc1; --good: #1f7a3f; --bad: #b3261e; --code: #f1f1ee; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171a; --card: #1c2024; --ink: #e9ebed; --soft: #9aa3ac; --line: #2e343a; --back: #2a3036;
  --prefix: #4fc1b6; --base: #69727b; --third: #ef8f78; --fourth: #97a6f5; --good: #6fce8f; --bad: #ff8a80; --code: #23282d; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 48px 20px 72px; }
h1 { font-size: clamp(28px, 5vw, 42px); line-height: 1.12; letter-spacing: -0.025em; margin: 0 0 12px; max-width: 20em; }
h2 { font-size: 22px; letter-spacing: -0.015em; margin: 56px 0 6px; }
h3 { font-size: 17px; margin: 0; letter-spacing: -0.01em; }
p { margin: 0 0 12px; }
.lead { font-size: 18px; color: var(--soft); max-width: 44em; margin-bottom: 28px; }
.note { color: var(--soft); font-size: 15px; max-width: 48em; }
.eyebrow { font-size: 13px; letter-spacing: 0.02em; color: var(--prefix); font-weight: 650; margin: 0 0 14px; }
.small { color: var(--soft); font-size: 13px; }
.grid { display: grid; gap: 16px; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.cards { grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); }
.pair { grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 0 24px; }
.pair svg { max-width: 430px; } .pair section { min-width: 0; display: flex; flex-direction: column; } .pair .card { flex: 1; }
.card, .tile { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 20px; min-width: 0; }
.tile { padding: 16px 18px; }
.tile b { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 6px; font-size: 26px;
  line-height: 1.15; letter-spacing: -0.025em; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; line-height: 1.35; display: block; margin-top: 4px; }
.tile.good b { color: var(--good); } .tile.bad b { color: var(--bad); }
.unit { font-style: normal; font-size: 15px; font-weight: 500; color: var(--soft); letter-spacing: 0; }
.gain { font-size: 32px; font-weight: 650; letter-spacing: -0.03em; margin: 10px 0 12px; font-variant-numeric: tabular-nums; }
.gain s { color: var(--soft); text-decoration: none; font-weight: 450; }
.gain small { font-size: 14px; font-weight: 450; color: var(--soft); letter-spacing: 0; margin-left: 6px; }
.legend { display: flex; gap: 16px; font-size: 13px; color: var(--soft); margin: 16px 0 4px; flex-wrap: wrap; }
.legend i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
i.prefix { background: var(--prefix); } i.base { background: var(--base); } i.third { background: var(--third); }
i.fourth { background: var(--fourth); } i.soft { background: var(--soft); }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: inherit; fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .bar-label { font-size: 12.5px; } svg .bar-value { font-size: 13px; fill: var(--ink); font-weight: 600; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
.grid-line, line.grid { stroke: var(--line); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.line.prefix { stroke: var(--prefix); } .line.base { stroke: var(--base); } .line.third { stroke: var(--third); }
.dot.prefix { fill: var(--prefix); } .dot.third { fill: var(--third); }
.dot.base { fill: var(--base); } .dot.soft { fill: var(--soft); } .line.soft { stroke: var(--soft); stroke-dasharray: 4 4; }
.line.fourth { stroke: var(--fourth); } .dot.fourth, .bar.fourth { fill: var(--fourth); }
.whisker.fourth { stroke: var(--fourth); }
.whisker { stroke-width: 5; opacity: 0.22; stroke-linecap: butt; } .whisker.prefix { stroke: var(--prefix); }
.whisker.third { stroke: var(--third); } .whisker.base { stroke: var(--base); }
.error { stroke: var(--ink); stroke-width: 1.6; opacity: 0.75; }
.one { stroke: var(--soft); stroke-width: 1.5; }
.reach { stroke-width: 4; opacity: 0.45; stroke-linecap: round; } .reach.prefix { stroke: var(--prefix); }
.reach.third { stroke: var(--third); } .reach.base { stroke: var(--base); }
.bar-back { fill: var(--back); } .bar.prefix { fill: var(--prefix); } .bar.base { fill: var(--base); }
.bar.third { fill: var(--third); }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; padding: 8px 12px 8px 0; vertical-align: bottom; }
td { padding: 10px 12px 10px 0; border-top: 1px solid var(--line); vertical-align: top; font-variant-numeric: tabular-nums; }
td.text { overflow-wrap: anywhere; min-width: 150px; }
td.number, th.number { text-align: right; white-space: nowrap; }
.sample { display: grid; grid-template-columns: 1fr 1fr 1fr; gap: 4px 20px; padding: 16px 0; border-top: 1px solid var(--line); }
.sample:first-of-type { border-top: 0; }
.sample > div { min-width: 0; overflow-wrap: anywhere; }
.sample .input { grid-column: 1 / -1; font-weight: 550; white-space: pre-wrap; margin-bottom: 4px; }
.sample em { display: block; font-style: normal; font-size: 12.5px; color: var(--soft); }
.sample .base { color: var(--soft); }
.tag { display: inline-block; font-size: 12.5px;
  border-radius: 999px; padding: 1px 10px; background: var(--back); color: var(--soft); }
.ok { color: var(--good); font-weight: 650; } .wrong { color: var(--bad); font-weight: 650; }
.warn { border-left: 4px solid var(--third); background: var(--card); border-radius: 10px; padding: 12px 16px; margin: 0 0 12px;
  font-size: 15px; }
.scroll { overflow-x: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 20px; margin: 0; font-size: 14.5px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--code); border-radius: 10px; padding: 14px 16px; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: 13.5px; line-height: 1.6;
  margin: 8px 0 18px; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
footer { margin-top: 64px; color: var(--soft); font-size: 13px; border-top: 1px solid var(--line); padding-top: 16px; }
@media (max-width: 720px) {
  main { padding: 28px 16px 48px; } h2 { margin-top: 44px; } .card { padding: 16px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 10px; } .tile { padding: 14px; } .tile b { font-size: 22px; }
  .sample { grid-template-columns: 1fr; gap: 8px; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; } }
"""
