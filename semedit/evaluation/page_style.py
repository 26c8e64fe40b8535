"""How the page looks: its style sheet."""

from semedit.evaluation.plots import DARK

_LIGHT_PLOTS = " ".join(f"--{colour[1:]}: {colour};" for colour in DARK)
_DARK_PLOTS = " ".join(f"--{colour[1:]}: {dark};" for colour, dark in DARK.items())

STYLE = f"""\
:root {{ --ink: #37352f; --soft: #6b6963; --line: #dddbd6; --page: #ffffff; --box: #f7f6f3; --shade: #00000030; }}
:root {{ {_LIGHT_PLOTS} }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e4df; --soft: #a6a39b; --line: #3d3b37; --page: #1b1a18; --box: #252421; --shade: #000000a0; }}
  :root {{ {_DARK_PLOTS} }}
}}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }}
main {{ max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }}
nav a {{ display: inline-block; color: inherit; margin-right: 1.25rem; text-underline-offset: 0.2em; }}
h1 {{ font-size: 1.8rem; line-height: 1.2; margin: 0.5rem 0 1rem; }}
h2 {{ font-size: 1.35rem; margin: 2.75rem 0 0.5rem; border-bottom: 1px solid var(--line); }}
h3 {{ font-size: 1.05rem; margin: 1.5rem 0 0.4rem; }}
p {{ max-width: 46rem; margin: 0.5rem 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.4rem 0.75rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }}
th {{ font-weight: 600; }}
.scroll {{ overflow-x: auto; max-width: 100%; border: 1px solid var(--line); border-radius: 6px; width: fit-content; }}
/* a shade at the right edge, which the end of the table covers once it is reached */
.scroll {{ background: linear-gradient(to left, var(--page) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / 1rem 100% no-repeat scroll; }}
.scroll td, .scroll th {{ white-space: nowrap; overflow-wrap: normal; }}
.scroll thead th {{ white-space: normal; min-width: 8.5rem; vertical-align: bottom; background: var(--box); }}
.scroll tr:last-child > * {{ border-bottom: 0; }}
.scroll thead tr > * {{ border-bottom: 1px solid var(--line); }}
.scroll th:first-child {{ position: sticky; left: 0; background: var(--box); text-align: left; }}
small {{ display: block; color: var(--soft); font-size: 0.82rem; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 2.5rem; }}
figure {{ margin: 0; min-width: 0; max-width: 31rem; }}
figure svg {{ display: block; width: 100%; height: auto; }}
figure svg text {{ font-family: system-ui, sans-serif !important; }}
figcaption {{ color: var(--soft); font-size: 0.92rem; margin-top: 0.5rem; }}
details {{ border: 1px solid var(--line); border-radius: 6px; margin: 0.4rem 0; }}
summary {{ cursor: pointer; padding: 0.5rem 0.75rem; }}
summary:hover {{ background: var(--box); }}
.none {{ padding: 0.5rem 0.75rem; margin: 0.4rem 0; color: var(--soft); }}
.cases {{ width: 100%; table-layout: fixed; font-size: 0.92rem; border-top: 1px solid var(--line); }}
.cases th, .cases td {{ text-align: left; white-space: pre-wrap; }}
.cases th:last-child, .cases td:last-child {{ width: 5rem; }}
.cases tr:last-child td {{ border-bottom: 0; }}
@media (max-width: 44rem) {{
  .scroll th, .scroll td {{ padding: 0.35rem 0.5rem; font-size: 0.92rem; }}
  .scroll thead th {{ min-width: 6rem; }}
  .scroll th:first-child {{ white-space: normal; max-width: 8.75rem; }}
  .cases, .cases tbody, .cases tr {{ display: block; }}
  .cases thead {{ display: none; }}
  .cases tr {{ padding: 0.5rem 0; border-bottom: 1px solid var(--line); }}
  .cases tr:last-child {{ border-bottom: 0; }}
  .cases td, .cases td:last-child {{ display: grid; grid-template-columns: 5.5rem 1fr; width: auto; border: 0; }}
  .cases td {{ padding: 0.1rem 0.75rem; }}
  .cases td::before {{ content: attr(data-name); color: var(--soft); }}
}}"""
