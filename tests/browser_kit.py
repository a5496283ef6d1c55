"""What the tests in a browser share: what a page may not do, and whether what it shows can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.reporting import (
    Answer,
    Case,
    CasesSection,
    Chart,
    Column,
    CurvesSection,
    Number,
    Page,
    Row,
    Series,
    Table,
    TableSection,
    TextSection,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator
    from playwright.sync_api import Page as Tab

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
# Kept for a person to look at; git ignores the folder.
SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
HOSTILE = "</script><img src=x onerror=\"document.title='stolen'\"><script>document.title='stolen'</script>"
# A busy machine is no finding.
PATIENCE = 60_000

# Text that is seen, and how far its colour is from what is behind it (WCAG 2: 4.5 to 1).
_PALE = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (color) => {
    const [r, g, b] = color.map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      layers.push(parse(getComputedStyle(each).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reduceRight((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const pale = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest("title, desc, option, .unseen, .skip")) continue;
    const style = getComputedStyle(element);
    const under = behind(element);
    const ink = over(parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color), under);
    const [one, other] = [light(ink), light(under)].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) pale.push(`${ratio.toFixed(2)}: ${node.data.trim().slice(0, 40)} in ${element.className}`);
  }
  return pale;
}"""
_TOO_WIDE = """() => {
  const wide = document.documentElement.scrollWidth - innerWidth;
  const out = [...document.querySelectorAll("body *")].filter(
    (each) => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest(".scroll, pre, .skip"));
  return wide > 0 ? [`${wide} px`, ...out.slice(-3).map((each) => each.outerHTML.slice(0, 120))] : [];
}"""


@dataclass
class Watched:
    """A tab, what it complained of, and what it asked the network for beside the page itself."""

    tab: Tab
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def read(self, path: Path) -> Tab:
        """Opens the page of a file."""
        address = path.resolve().as_uri()
        self.tab.on("request", lambda request: request.url.startswith(address) or self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("console", self._hear)
        self.tab.goto(address)
        return self.tab

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@contextmanager
def watched(browser: Browser, **settings: Any) -> Iterator[Watched]:
    """A tab of its own; at the end it must have complained of nothing and asked for nothing."""
    context = browser.new_context(**settings)
    context.set_default_timeout(PATIENCE)
    try:
        seen = Watched(tab=context.new_page())
        yield seen
        assert seen.complaints == []
        assert seen.requests == []
    finally:
        context.close()


def wait_for(tab: Tab, condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the test fails where it does not for a minute."""
    for _ in range(PATIENCE // 50):
        if condition():
            return
        tab.wait_for_timeout(50)
    assert condition()


def unreadable(tab: Tab) -> list[str]:
    """What cannot be read well: text with too little contrast, and a page that is wider than its window."""
    return [*tab.evaluate(_PALE), *tab.evaluate(_TOO_WIDE)]


def texts(locator: Locator) -> list[str]:
    """What each of the elements says."""
    return [text.strip() for text in locator.all_inner_texts()]


def words(locator: Locator) -> list[str]:
    """What each of the elements holds, seen or folded in."""
    return [" ".join(text.split()) for text in locator.all_text_contents()]


def made_page() -> Page:
    """A page with every kind of control: a table, a long table, a chart, cases of two runs, one of them hostile."""
    scores = (("sft", 23.4, 1200), ("gkd", 1_023.44, 900), ("kd", 23.44, 11), ("teacher", 9.5, 7))
    rows = tuple(Row(cells=(name, Number(value=score), Number(value=time, digits=0))) for name, score, time in scores)
    missing = Row(cells=("untouched", None, Number(value=float("nan"))))
    columns = (Column(title="run"), Column(title="ROUGE-L", better="higher"), Column(title="seconds"))
    names = tuple(Row(cells=(f"row {n}", "even" if n % 2 == 0 else "odd")) for n in range(12))
    cases = tuple(
        Case(
            title=f"row/{n}",
            instruction=f"Say {n} & more.",
            references=("said",),
            category="closed qa",
            answers=(
                Answer(arm="sft", text="the red cat sat", scores=(("ROUGE-L", "0.5"),)),
                Answer(arm="gkd", text=HOSTILE if n == 1 else "the cat sat down" if n == 0 else "", scores=()),
            ),
            compare=(("sft", "gkd"),) if n == 0 else (),
        )
        for n in range(5)
    )
    curve = Series(name="sft", points=((1, 2.0), (2, 1.5), (3, 1.25)))
    return Page(
        title="Made by hand",
        summary=("What to know first.",),
        facts=(("rows", "5"),),
        sections=(
            TableSection(title="Scores", table=Table(columns=columns, rows=(*rows, missing)), intro="A sentence."),
            TableSection(title="Names", table=Table(columns=(Column(title="row"), Column(title="kind")), rows=names)),
            CurvesSection(title="Training", charts=(Chart(title="loss", series=(curve,)),)),
            CasesSection(title="Answers", cases=cases, open_first=1),
            TextSection(title="Repeat it", paragraphs=("Again.",), code="limbeck train recipe.yaml " + "x" * 200),
        ),
        footer="The end.",
    )
