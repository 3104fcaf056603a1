"""What a page must be for everybody, checked by a script in the browser; each gives complaints."""

from collections.abc import Callable
from typing import Any

_CONTRAST = """() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const colour = channels(getComputedStyle(one).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
            if (colour[3] !== 0) throw new Error("a translucent background is not understood");
        }
        throw new Error("the page has no background");
    };
    const complaints = [];
    let looked = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const text = walker.currentNode.data.trim();
        if (!text || !element.checkVisibility() || element.closest("script, template")) continue;
        const style = getComputedStyle(element);
        const pair = [luminance(channels(style.color)), luminance(ground(element))];
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        looked += 1;
        if (ratio < 4.5) complaints.push(`${ratio.toFixed(2)} for ${JSON.stringify(text)}`);
    }
    if (looked < 50) complaints.push(`only ${looked} texts`);
    return complaints;
}"""

_STRUCTURE = """() => {
    const complaints = [];
    const all = (selector) => [...document.querySelectorAll(selector)];
    const levels = all("h1, h2, h3, h4, h5, h6").map((heading) => Number(heading.tagName[1]));
    if (levels.filter((level) => level === 1).length !== 1 || levels[0] !== 1) {
        complaints.push("not one h1 at the beginning");
    }
    levels.forEach((level, index) => {
        if (index && level > levels[index - 1] + 1) complaints.push(`h${level} skips a level`);
    });
    for (const table of all("table")) {
        const labels = (table.getAttribute("aria-labelledby") || "").split(" ");
        const label = labels.map((id) => document.getElementById(id)?.textContent || "").join("");
        if (!label && !table.caption?.textContent.trim()) complaints.push("a table has no name");
        for (const heading of table.querySelectorAll("th")) {
            if (!heading.scope) complaints.push(`no scope: ${heading.textContent}`);
        }
    }
    for (const drawing of all("svg")) {
        const hidden = drawing.getAttribute("aria-hidden") === "true";
        const named = drawing.getAttribute("role") === "img" && drawing.getAttribute("aria-label");
        if (!hidden && !named) complaints.push("a drawing has no name");
    }
    for (const region of all("section[aria-labelledby], [role=region]")) {
        const title = document.getElementById(region.getAttribute("aria-labelledby"));
        if (!title?.textContent.trim()) complaints.push("a region has no name");
    }
    for (const one of all("*")) {
        const style = getComputedStyle(one);
        const scrolls = /auto|scroll/.test(style.overflowY);
        const more = one.scrollHeight > one.clientHeight + 1;
        if (scrolls && more && one.tabIndex < 0) complaints.push("no key reaches what scrolls");
        if (style.animationName !== "none") complaints.push("something moves");
    }
    if (document.documentElement.lang !== "en") complaints.push("no language");
    const ids = all("[id]").map((one) => one.id);
    if (new Set(ids).size !== ids.length) complaints.push("an id is there twice");
    for (const badge of all(".badge")) {
        if (badge.checkVisibility() && !badge.textContent.trim()) complaints.push("only a colour");
    }
    const live = all("[aria-live], [role=status], [role=alert], [role=log]");
    if (live.length !== 1) complaints.push("not one part whose changes are read aloud");
    return complaints;
}"""

_TOO_WIDE = """() => {
    const root = document.documentElement;
    return root.scrollWidth > root.clientWidth ? [`${root.scrollWidth} > ${root.clientWidth}`] : [];
}"""

_COLLISIONS = """() => {
    const complaints = [];
    const range = document.createRange();
    const boxes = (text) => {
        range.selectNodeContents(text);
        return [...range.getClientRects()].map((box) => ({ text: text.textContent, box }));
    };
    const apart = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) < 1
        || Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) < 1;
    for (const row of document.querySelectorAll(".endpoints tr, #events tr")) {
        const edge = row.getBoundingClientRect();
        const all = [...row.querySelectorAll("[data-f], [data-state]")].flatMap(boxes);
        all.forEach(({ text, box }, index) => {
            if (box.left < edge.left || box.right > edge.right) complaints.push(`${text}: cut off`);
            for (const other of all.slice(index + 1)) {
                if (!apart(box, other.box)) complaints.push(`${text}: over ${other.text}`);
            }
        });
    }
    return complaints;
}"""


_LISTEN = """() => {
    window.heard = [];
    const observer = new MutationObserver((changes) => {
        heard.push(...changes.map((change) => change.target.textContent));
    });
    const options = { childList: true, characterData: true, attributes: true, subtree: true };
    for (const live of document.querySelectorAll("[aria-live], [role=status], [role=alert]")) {
        observer.observe(live, options);
    }
}"""


def poor_contrast(page: Any) -> list[str]:
    """Texts that stand out from their background by less than 4.5:1 (WCAG 2.2, 1.4.3)."""
    found: list[str] = page.evaluate(_CONTRAST)
    return found


def poor_structure(page: Any) -> list[str]:
    """What a screen reader or a keyboard would miss."""
    found: list[str] = page.evaluate(_STRUCTURE)
    return found


def too_wide(page: Any) -> list[str]:
    """Whether the page has to be moved sideways."""
    found: list[str] = page.evaluate(_TOO_WIDE)
    return found


def collisions(page: Any) -> list[str]:
    """Texts in the rows of endpoints and events that are cut off, or lie over one another."""
    found: list[str] = page.evaluate(_COLLISIONS)
    return found


def listen(page: Any) -> Callable[[], list[str]]:
    """Note what a screen reader reads aloud from now on; gives what it was."""
    page.evaluate(_LISTEN)
    return lambda: list(page.evaluate("heard"))
