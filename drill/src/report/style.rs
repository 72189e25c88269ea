//! The look of the page, light and dark.

pub(super) const CSS: &str = r#"
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --line: #d9dee6; --paper: #fff; --panel: #f6f8fa;
  --write: #1769c4; --read: #2f9e62; --failed: #d1352b; --slow: #b06000; --fault: #d1352b; --repair: #2f9e62;
  --whole: #7a4fc9; --good: #2f9e62; --bad: #d1352b;
  --leader: #1769c4; --follower: #b9cfe8; --candidate: #e8b04a; --learner: #cfd6df; --outside: #eceff3; --silent: #f3c6c2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ef; --soft: #97a3b4; --line: #323b48; --paper: #12161c;
  --panel: #1a2029; --write: #5aa5f2; --read: #54c98a; --failed: #f0706a; --slow: #e2a04a; --fault: #f0706a;
  --repair: #54c98a; --whole: #b294f0; --good: #54c98a; --bad: #f0706a;
  --leader: #4a95e4; --follower: #2c4564; --candidate: #b98220; --learner: #3a4452; --outside: #262d37; --silent: #5a2b2b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 .75rem; } .soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.verdict { font-weight: 600; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
a { color: inherit; } section { border-top: 1px solid var(--line); }
figure { margin: .5rem 0; } svg { width: 100%; height: auto; background: var(--panel); border-radius: 6px; display: block; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg text.name { fill: var(--ink); }
.axis { stroke: var(--line); stroke-width: 1; } .write { stroke: var(--write); } .read { stroke: var(--read); }
.curve { fill: none; stroke-width: 1.4; } .failed { fill: var(--failed); } .slow { stroke: var(--slow); } .half { stroke: var(--write); }
.mark { stroke-width: 1.2; } .mark.fault { stroke: var(--fault); } .mark.repair { stroke: var(--repair); stroke-dasharray: 4 3; }
.mark.whole { stroke: var(--whole); stroke-dasharray: 1 3; } .mark.note { stroke: var(--soft); stroke-dasharray: 1 3; }
.tag.fault { fill: var(--fault); } .tag.repair { fill: var(--repair); } .tag.whole { fill: var(--whole); } .tag.note { fill: var(--soft); }
.leader { fill: var(--leader); } .follower { fill: var(--follower); } .candidate { fill: var(--candidate); }
.learner { fill: var(--learner); } .outside { fill: var(--outside); } .silent { fill: var(--silent); }
ol.marks { columns: 26rem; margin: .5rem 0; padding-left: 2.2rem; font-size: .85rem; } ol.marks li { break-inside: avoid; }
.legend { font-size: .82rem; color: var(--soft); display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
.legend span::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px;
  vertical-align: -.05em; background: var(--c); }
pre { white-space: pre-wrap; background: var(--panel); border-left: 3px solid var(--bad); padding: .6rem .8rem; overflow-x: auto; }
"#;
