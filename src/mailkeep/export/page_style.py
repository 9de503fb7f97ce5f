"""The looks of a message's page: one style sheet for the screen, one for paper, one for office programs.

What the page itself has is named `mk-…`; the mail's own styles are bound to `.mk-mail` and come after these. A mail in
HTML keeps its light background in a dark window, since its own colours were chosen for that. The sheets are constant,
so that an engine can keep what it made of them.
"""

from typing import Final

# Fonts are asked for by kind only: what has no glyph is found by the system (CJK, emoji). A font of pictures in the
# list would take the digits as well.
_COMMON: Final = """
.mk-message h1 { font-size: 1.35em; line-height: 1.3; margin: 0 0 .5em; overflow-wrap: anywhere; }
.mk-message h2 { font-size: 1em; margin: 0 0 .5em; }
.mk-head { border-collapse: collapse; font-size: .93em; }
.mk-head th { text-align: start; vertical-align: top; font-weight: normal; white-space: nowrap; padding: .1em 0;
  padding-inline-end: 1em; }
.mk-head td { vertical-align: top; padding: .1em 0; overflow-wrap: anywhere; }
.mk-text { white-space: pre-wrap; overflow-wrap: anywhere; }
.mk-mail { overflow-wrap: break-word; }
.mk-mail img { max-width: 100%; }
.mk-mail img[width] { height: auto; }
.mk-mail pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.mk-mail blockquote[type=cite] { margin-inline: .5em; padding-inline-start: .8em;
  border-inline-start: 2px solid #9aa5b1; }
.mk-picture { display: inline-block; border: 1px dashed #9aa5b1; padding: 0 .3em; font-size: .85em; }
.mk-pictures img { max-width: 100%; margin: .5em 0; display: block; }
.mk-files ul { list-style: none; margin: 0; padding: 0; }
.mk-files li { padding: .15em 0; overflow-wrap: anywhere; }
.mk-size { font-size: .9em; }
.mk-notes p { margin: .2em 0; font-size: .88em; }
.mk-flag { border: 1px solid; border-radius: 1em; padding: 0 .6em; font-size: .85em; margin-inline-end: .4em; }
"""

SCREEN: Final = (
    """
:root { color-scheme: light dark; --ink: #1f2933; --quiet: #52606d; --line: #d9dee4; --paper: #fff; --desk: #f3f5f7;
  --link: #0b5cad; --q1: #1d6f42; --q2: #8a4b08; --q3: #6b3fa0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --quiet: #a3adb8; --line: #3e4c59; --paper: #1f262d;
  --desk: #14191e; --link: #7cb8f5; --q1: #7fc99b; --q2: #e0a868; --q3: #b79be0; } }
body { margin: 0; background: var(--desk); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "Noto Sans", sans-serif; }
a { color: var(--link); }
.mk-message { max-width: 60rem; margin: 1.2rem auto; background: var(--paper); border: 1px solid var(--line);
  border-radius: 8px; }
.mk-message > header, .mk-part { padding: 1.1rem 1.4rem; }
.mk-part { border-top: 1px solid var(--line); }
.mk-head th, .mk-size, .mk-notes { color: var(--quiet); }
.mk-address { color: var(--quiet); }
.mk-text { unicode-bidi: plaintext; }
.mk-fixed { font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
.mk-q1 { color: var(--q1); } .mk-q2 { color: var(--q2); } .mk-q3 { color: var(--q3); }
.mk-mail { color-scheme: light; background: #fff; color: #1f2933; overflow-x: auto; position: relative; }
.mk-mail a { color: #0b5cad; }
.mk-html { background: #fff; border-radius: 0 0 8px 8px; }
.mk-embedded > .mk-part { margin: 0 1.4rem 1.1rem; border: 1px solid var(--line); border-radius: 6px; padding: 0; }
.mk-embedded header { padding: .8rem 1.1rem; }
.mk-embedded .mk-part .mk-part { padding: .8rem 1.1rem; }
@media (max-width: 40rem) { .mk-message { margin: 0; border: 0; border-radius: 0; }
  .mk-message > header, .mk-part { padding: .9rem; } .mk-embedded > .mk-part { margin: 0 .5rem .8rem; } }
@media print { body { background: none; } .mk-message { border: 0; max-width: none; margin: 0; }
  .mk-top { display: none; } .mk-mail { overflow-x: visible; overflow-y: clip; } }
"""
    + _COMMON
)

# Wide tables and pictures shrink to the paper: nothing on a page can be scrolled to.
PRINT: Final = (
    """
body { margin: 0; color: #1f2933; font: 10pt/1.4 sans-serif; }
a { color: #0b5cad; text-decoration: none; }
.mk-message > header { border-bottom: 1pt solid #9aa5b1; padding-bottom: 8pt; margin-bottom: 10pt; }
.mk-part + .mk-part { border-top: .5pt solid #cbd2d9; margin-top: 12pt; padding-top: 8pt; }
.mk-head th, .mk-size, .mk-notes, .mk-address { color: #52606d; }
.mk-q1 { color: #1d6f42; } .mk-q2 { color: #8a4b08; } .mk-q3 { color: #6b3fa0; }
.mk-fixed { font-family: monospace; font-size: 8.5pt; }
.mk-mail table, .mk-mail div, .mk-mail img { max-width: 100% !important; }
.mk-mail td, .mk-mail th { overflow-wrap: break-word; min-width: 0 !important; }
.mk-mail { overflow: hidden; position: relative; }
.mk-embedded > .mk-part { border: .5pt solid #cbd2d9; padding: 8pt; margin-top: 8pt; }
.mk-embedded header { margin-bottom: 6pt; }
h1, h2, .mk-head tr { break-after: avoid; break-inside: avoid; }
.mk-pictures img { max-height: 23cm; }
"""
    + _COMMON
)

# What the HTML import of office programs knows: CSS of the first days.
OFFICE: Final = """
@page { size: 21cm 29.7cm; margin: 2cm; }
body { font-family: sans-serif; font-size: 10pt; color: #1f2933; }
h1, h2 { font-family: sans-serif; }
h1 { font-size: 15pt; margin: 0 0 6pt 0; }
h2 { font-size: 11pt; margin: 12pt 0 4pt 0; }
th { text-align: left; vertical-align: top; font-weight: normal; color: #52606d; padding-right: 8pt; }
td { vertical-align: top; }
p { margin: 0 0 4pt 0; }
.mk-fixed { font-family: monospace; font-size: 8.5pt; }
.mk-q1 { color: #1d6f42; } .mk-q2 { color: #8a4b08; } .mk-q3 { color: #6b3fa0; }
.mk-size, .mk-notes, .mk-address { color: #52606d; }
"""

SHEETS: Final = {"screen": SCREEN, "print": PRINT, "office": OFFICE}
