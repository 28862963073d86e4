"""How a deck's page looks: one sheet, light and dark."""

from __future__ import annotations

from quarterdeck.present import palette

_LIGHT = (
    "--bg:#fff;--fg:rgba(0,0,0,.87);--full:#000;--k:#008000;--s:#ba2121;--n:#007a00;--cm:#3b7373;--o:#7800c2;"
    f"--f:#0000e0;{palette.variables(palette.LIGHT)}color-scheme:light"
)
_DARK = (
    "--bg:#111;--fg:rgba(255,255,255,.87);--full:#fff;--k:#66bb6a;--s:#ff8080;--n:#81c784;--cm:#7fb3b3;"
    f"--o:#d48fff;--f:#64b5f6;{palette.variables(palette.DARK)}color-scheme:dark"
)
_BASE = """
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:13px/20px -apple-system,BlinkMacSystemFont,
"Segoe UI",
Helvetica,Arial,sans-serif;font-variant-numeric:tabular-nums;-webkit-font-smoothing:antialiased}
main{padding:12px 16px;overflow-x:auto}
h1{font-size:15px;line-height:20px}h2,h3,h4{font-size:13px;line-height:20px}
h1,h2,h3,h4{font-weight:600;margin:16px 0 8px}p,ul,ol,dl,pre{margin:8px 0}
main>:first-child,.qd-md>:first-child{margin-top:0}
a{color:var(--acc)}img{max-width:100%;vertical-align:top}hr{border:0;border-top:1px solid var(--line)}
pre,code{font:11.5px/18px Menlo,Consolas,"DejaVu Sans Mono",monospace;font-variant-ligatures:none}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
table{border-collapse:collapse;font-size:12px;line-height:16px}
th{font-weight:500;font-size:11px;color:var(--fg2);text-align:left;vertical-align:bottom}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--soft)}thead th{border-bottom-color:var(--line)}
th+th,td+td,th+td{padding-left:12px}tbody tr:last-child>*{border-bottom:0}
tbody tr:hover{background:var(--hover)}
th small{display:block;font-weight:400}
:focus-visible{outline:2px solid var(--acc);outline-offset:1px}
"""
_BLOCKS = """
.qd-scroll{overflow-x:auto}.qd-r,.qd-frame td{text-align:right}.qd-frame thead th{text-align:right}
.qd-frame tbody th{color:var(--fg2)}.qd-frame td,.qd-frame th,.qd-r{white-space:nowrap}
.qd-card{margin:0 0 16px}.qd-card:last-child{margin-bottom:0}
.qd-cap{display:flex;flex-wrap:wrap;gap:2px 12px;font-size:12px;line-height:16px;margin-bottom:8px}
.qd-cap span{color:var(--fg2)}.qd-cap b{font-weight:600}
.qd-note{font-size:12px;line-height:16px;color:var(--fg2);margin:8px 0}
.qd-note.warn,.qd-note.err{padding:8px 12px;border-radius:4px;color:inherit;background:var(--warn-t)}
.qd-note.err{background:var(--err-t)}
.qd-img{border-radius:3px}.qd-num{font-size:15px}
.qd-grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(96px,1fr));gap:8px}
.qd-grid img{width:100%;display:block}
.qd-row{display:flex;flex-wrap:wrap;gap:12px 24px;align-items:center}
.qd-hist rect{fill:var(--acc)}.qd-hist path{stroke:var(--line);fill:none}
svg text{font:11px -apple-system,BlinkMacSystemFont,"Segoe UI",Helvetica,Arial,sans-serif;fill:var(--fg2)}
.qd-stats{display:grid;grid-template-columns:auto auto;gap:2px 12px;margin:0;font-size:12px;
line-height:16px}
.qd-stats dt{color:var(--fg2)}.qd-stats dd{margin:0;text-align:right}
.qd-tree{font-size:12px;line-height:24px}.qd-tree details>:not(summary){margin-left:18px}
.qd-tree summary{cursor:pointer}.qd-tree span{color:var(--fg2)}.qd-tree b{font-weight:500;margin-right:8px}
.qd-tree b,.qd-mod span{color:var(--fg)}.qd-tree code{overflow-wrap:anywhere}
.qd-mod{overflow-x:auto}.qd-mod div,.qd-mod summary{display:flex;gap:12px;white-space:nowrap}
.qd-mod summary::before{content:"";border:4px solid transparent;border-left:6px solid var(--ctl);
align-self:center;
margin-right:-8px;width:4px;flex:none}
.qd-mod details[open]>summary::before{transform:rotate(90deg) translateX(2px)}
.qd-mod div{padding-left:14px}.qd-mod span{flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis}
.qd-mod i{font-style:normal;color:var(--fg2);text-align:right;width:72px;flex:none}
.qd-mod i:nth-of-type(1){width:136px}.qd-mod i:nth-of-type(2){width:46px}
.qd-mod summary:hover,.qd-mod div:hover{background:var(--hover)}
.qd-fold{border-top:1px solid var(--line);margin-top:16px;padding-top:8px}
.qd-fold summary{cursor:pointer;font-size:12px;color:var(--fg2)}
.qd-plotly{background:#fff;border-radius:3px;color-scheme:light;min-height:40px}
.qd-code .k,.qd-code [class^=k],.qd-code .ow{color:var(--k)}.qd-code .s,.qd-code [class^=s]{color:var(--s)}
.qd-code .m,.qd-code [class^=m]{color:var(--n)}.qd-code .c,.qd-code [class^=c]{color:var(--cm)}
.qd-code .o,.qd-code .nd{color:var(--o)}.qd-code .nf,.qd-code .nc,.qd-code .fm{color:var(--f)}
.qd-md table{margin:8px 0}.qd-md blockquote{margin:8px 0;padding-left:12px;
border-left:3px solid var(--line)}
"""
_RANKS = """
.qd-rank{border-top:1px solid var(--line);margin:16px -16px 0;padding:12px 16px 0}
.qd-rank:first-child{border-top:0;margin-top:0;padding-top:0}.qd-rank>.qd-chips{margin-bottom:8px}
.qd-rank iframe{display:block;width:100%;border:0;height:40px}
.qd-chips{display:flex;flex-wrap:wrap;gap:2px}
.qd-chips b{min-width:18px;height:16px;padding:0 4px;border:1px solid var(--c);border-radius:3px;
text-align:center;
font-size:11px;line-height:14px;font-weight:600;white-space:nowrap;
color:color-mix(in srgb,var(--c) 72%,var(--full));background:color-mix(in srgb,var(--c) 10%,var(--bg))}
.qd-chips i{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:pre}
.r0{--c:var(--r0)}.r1{--c:var(--r1)}.r2{--c:var(--r2)}.r3{--c:var(--r3)}.r4{--c:var(--r4)}.r5{--c:var(--r5)}
.r6{--c:var(--r6)}.r7{--c:var(--r7)}.rall{--c:var(--fg2)}
"""
_TIMELINE = """
.qd-legend{display:flex;flex-wrap:wrap;gap:4px 16px;margin-bottom:12px;font-size:11px;line-height:16px}
.qd-legend span{display:inline-flex;align-items:center;gap:6px}
.qd-time{position:relative;display:grid;grid-template-columns:28px minmax(0,1fr);row-gap:14px;
align-items:center;
margin:0 8px 12px 0}
.qd-time svg{display:block;overflow:visible}.qd-time .gl{stroke:var(--soft)}.qd-time .at{stroke:var(--ctl);
stroke-dasharray:2 3}
.qd-time .qd-axis{position:absolute;left:28px;right:0;top:-4px;bottom:0;width:calc(100% - 28px);
height:calc(100% + 4px)}
.qd-time>*{position:relative}.qd-time .qd-foot{grid-column:2;height:16px}
.qd-time .qd-at{position:absolute;z-index:1;top:-6px;bottom:22px;width:1px;background:var(--fg);
pointer-events:none;
display:none}
.qd-time .qd-at span{position:absolute;bottom:-22px;white-space:nowrap;padding:2px 8px;font-size:11px;
line-height:16px;
border:1px solid var(--line);border-radius:4px;background:var(--bg)}
.p0{fill:var(--fg2)}.p1{fill:var(--ctl)}.p2{fill:color-mix(in srgb,var(--acc) 45%,var(--bg))}
.p3{fill:color-mix(in srgb,var(--acc) 16%,var(--bg))}.p4{fill:var(--acc)}
.p5{fill:color-mix(in srgb,var(--acc) 55%,var(--full))}.p6{fill:var(--full)}
.p7{fill:color-mix(in srgb,var(--acc) 70%,var(--bg))}.p8{fill:color-mix(in srgb,var(--fg2) 60%,var(--acc))}
.p9{fill:color-mix(in srgb,var(--acc) 30%,var(--full))}.pw{fill:url(#qd-wait)}
.qd-wait-a{fill:var(--trk)}.qd-wait-b{fill:var(--ctl);opacity:.55}.open{opacity:.75}
"""


def sheet() -> str:
    """For one `<style>`. `data-theme` on the root, "light" or "dark", overrides what the browser prefers."""
    themes = (
        f":root{{{_LIGHT}}}@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{_DARK}}}}}"
        f":root[data-theme=dark]{{{_DARK}}}"
    )
    return (themes + _BASE + _BLOCKS + _RANKS + _TIMELINE).replace("\n", "")
