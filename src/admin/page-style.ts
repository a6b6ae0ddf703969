/** Served as /page.css. */
export const pageStyle = `
:root { color-scheme: light dark;
  --paper: light-dark(#f4f5f7, #14171c); --card: light-dark(#fff, #1c2027); --line: light-dark(#dde1e7, #323945);
  --ink: light-dark(#1a1f27, #e6e9ee); --dim: light-dark(#59626f, #9ba5b3); --link: light-dark(#0b57d0, #8ab4f8);
  --good: light-dark(#0f6b33, #62d493); --good-soft: light-dark(#dff3e6, #163524);
  --busy: light-dark(#855300, #f3bd57); --busy-soft: light-dark(#fdf0d5, #3a2d12);
  --bad: light-dark(#b3261e, #ff9489); --bad-soft: light-dark(#fbe4e2, #43201d);
  --kept: light-dark(#3a50b0, #a9b9ff); --kept-soft: light-dark(#e5e9fb, #242c4d); }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 84rem; margin: 0 auto; padding: 1.25rem clamp(.75rem, 3vw, 2rem); }
code { font: .92em ui-monospace, "SFMono-Regular", "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
a { color: var(--link); text-underline-offset: .15em; } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 4px; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .4rem .8rem; z-index: 1; }
header { display: flex; gap: .25rem .9rem; align-items: baseline; flex-wrap: wrap; }
h1 { font-size: 1.5rem; letter-spacing: -.01em; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; } h3 { font-size: 1.05rem; margin: 0; }
p { margin: 0; } .dim, footer, .empty, dt, th { color: var(--dim); }
#link { margin-left: auto; color: var(--dim); font-size: .85rem; } #link.live::before { content: "● "; color: var(--good); } #link.old { color: var(--bad); font-weight: 600; }
#summary { display: flex; gap: .8rem 2rem; flex-wrap: wrap; align-items: center; margin-top: .9rem; }
.pill { font-weight: 650; padding: .3rem .95rem; border-radius: 99px; } .pill::before { content: "● "; } .pill.bad::before { content: "▲ "; }
.pill.good { color: var(--good); background: var(--good-soft); } .pill.bad { color: var(--bad); background: var(--bad-soft); }
dl { display: flex; gap: .3rem 2rem; flex-wrap: wrap; margin: 0; } dt { font-size: .78rem; } dd { margin: 0; }
.plain, .legend, .tiles { list-style: none; margin: 0; padding: 0; }
.note { display: flex; gap: .8rem; background: var(--card); border: 1px solid var(--line); border-left: 4px solid; border-radius: 8px; padding: .6rem .9rem; margin-bottom: .5rem; overflow-wrap: anywhere; }
.note.bad { border-left-color: var(--bad); } .note.busy { border-left-color: var(--busy); } .note p { white-space: pre-wrap; }
.note .fields { font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; color: var(--dim); }
.tag { flex: none; width: 4.6rem; font-size: .78rem; font-weight: 650; padding-top: .15rem; } .bad > .tag { color: var(--bad); } .busy > .tag { color: var(--busy); }
.legend { display: flex; gap: .3rem 1.4rem; flex-wrap: wrap; margin-bottom: .7rem; } .legend span { display: inline-block; width: 1.1em; text-align: center; }
.good { color: var(--good); } .busy { color: var(--busy); } .bad { color: var(--bad); } .kept { color: var(--kept); } .idle { color: var(--dim); }
.legend b { color: var(--ink); }
.pf { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .9rem 1rem 1rem; margin-bottom: 1rem; }
.pf.unwell { border-color: var(--bad); } .pf .problem { color: var(--bad); margin-top: .5rem; }
.head { display: flex; gap: .9rem; align-items: center; flex-wrap: wrap; }
.port { width: 2.4rem; flex: none; fill: none; stroke: var(--dim); stroke-width: 1.8; stroke-linejoin: round; }
.carrier { margin-left: auto; font-size: .88rem; } .carrier::before { content: "○ "; } .carrier.up { color: var(--good); } .carrier.up::before { content: "● "; }
.carrier.down { color: var(--bad); } .carrier.down::before { content: "✕ "; } .carrier.unknown { color: var(--dim); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.2rem, 1fr)); gap: .5rem; margin: .85rem 0 .3rem; }
.tiles a { display: grid; grid-template-columns: 1fr auto; gap: 0 .4rem; text-decoration: none; border: 1px solid var(--line); border-radius: 8px; padding: .4rem .6rem; min-height: 3.4rem; transition: border-color .15s, background .3s; }
.tiles a:hover { border-color: currentColor; } .tiles .index { font-weight: 650; } .tiles .index::before { content: "VF "; font-weight: 400; }
.tiles .holder { grid-column: 1 / 3; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: .88rem; }
.tiles .good { background: var(--good-soft); border-color: var(--good); } .tiles .busy { background: var(--busy-soft); border-color: var(--busy); }
.tiles .bad { background: var(--bad-soft); border-color: var(--bad); } .tiles .kept { background: var(--kept-soft); border-color: var(--kept); }
.tiles.small { grid-template-columns: repeat(auto-fill, minmax(3.1rem, 1fr)); gap: .3rem; } .tiles.small a { min-height: 0; padding: .15rem .4rem; font-size: .82rem; }
.tiles.small .holder, .tiles.small .index::before { display: none; }
.scroll { overflow-x: auto; } section > .scroll, section > .empty { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .25rem .9rem; } section > .empty { padding: .7rem .9rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; font-weight: 400; padding: .35rem 1.1rem .35rem 0; white-space: nowrap; border-top: 1px solid var(--line); } thead th { font-size: .8rem; border-top: 0; }
tbody th { color: var(--ink); font-weight: 600; } tr[class], .note div { color: var(--ink); } td.wrap { white-space: normal; min-width: 12rem; } .num { text-align: right; }
tr.good .state { color: var(--good); } tr.busy .state { color: var(--busy); } tr.bad .state, tr.bad .wrap { color: var(--bad); } tr.kept .state { color: var(--kept); } tr.idle .state { color: var(--dim); }
tr:target { background: var(--kept-soft); box-shadow: -.6rem 0 var(--kept-soft), .4rem 0 var(--kept-soft); scroll-margin-top: 4rem; }
.pf .scroll { margin-top: .6rem; font-size: .9rem; } .pf .scroll td, .pf .scroll th { padding-block: .25rem; }
details { margin-top: .5rem; } summary { cursor: pointer; color: var(--dim); width: fit-content; }
meter { width: 9rem; } .count { color: var(--dim); font-weight: 400; } footer { margin-top: 2.2rem; font-size: .85rem; }
@media (prefers-reduced-motion: reduce) { .tiles a { transition: none; } }
@media (forced-colors: active) { .pill, .tiles a, .note { border: 1px solid; } }
`;
