"""Finds the main content of an HTML page: what is left without navigation, banners and the like."""

from __future__ import annotations

from hyblink.indexer.readers.html_tree import Element

_ROLES = frozenset(
    (
        "navigation", "banner", "contentinfo", "search", "dialog", "alertdialog", "menu", "menubar", "toolbar",
        "complementary",
    )
)  # fmt: skip
_TAGS = frozenset(("nav", "button", "select", "dialog", "menu"))
_SURE = frozenset(
    (
        "cookie", "cookies", "cookiebanner", "cookieconsent", "gdpr", "consent", "onetrust", "breadcrumb",
        "breadcrumbs", "navbar", "navigation", "nav", "sphinxsidebar", "sidebar", "skip", "skiplink", "pagination",
        "pager", "share", "sharing", "newsletter", "advert", "advertisement", "ads", "noprint", "navbox",
        "topbar", "masthead", "copyright", "sitefooter", "siteheader", "prevnext", "editsection",
    )
)  # fmt: skip
"""Words of classes and ids for what is no content, if it is a small part of the page."""
_LINKED = frozenset(
    ("menu", "related", "footer", "header", "toc", "social", "links", "tabs", "toolbar", "tags", "contents", "bottom")
)
"""Words for what is no content if it is mostly links."""
_BLOCKS = frozenset(
    ("div", "ul", "ol", "table", "section", "header", "footer", "aside", "p", "form", "dl", "center", "td")
)
_BOXES = _BLOCKS | {"nav", "span", "dialog", "aside", "li", "a"}
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_CONTENT_IDS = frozenset(("content", "main", "maincontent", "bodycontent"))


def without_boilerplate(top: Element) -> tuple[Element, bool]:
    """(the element with the main content, True), with the boilerplate in it marked as not seen.

    (the page, False) if there would be next to nothing left: then nothing of it is marked.
    """
    # Menus may hold more letters than the text, and say nothing about how much of it is left.
    whole = top.size - top.linked
    marked = _mark(top)
    root = _main(top)
    if root is None:
        marked += _mark_link_lists(top)
    left = root if root is not None else top
    size = _seen(left)
    share, short, least = (0.05, 60, 10) if root is not None else (0.15, 200, 40)  # what is named so may be short
    if (size < share * whole and size < short) or (size < least and size < 0.5 * top.size):
        for element in marked:
            element.unseen = False
        return top, False
    return left, True


def _mark(top: Element) -> list[Element]:
    """Mark the boilerplate by its names, and return it."""
    marked: list[Element] = []
    stack: list[tuple[Element, bool]] = [(top, False)]
    while stack:
        element, inner = stack.pop()
        if element.unseen:
            continue
        if element is not top and _is_boilerplate(element, inner, top.size):
            element.unseen = True
            marked.append(element)
            continue
        inner = inner or element.tag in ("main", "article", "header") or element.role == "main"
        stack += [(child, inner) for child in element.children if not isinstance(child, str)]
    return marked


def _is_boilerplate(element: Element, inner: bool, whole: int) -> bool:
    """`inner` elements are in the main content: their own headers, footers and asides are content."""
    tag, role = element.tag, element.role
    if tag in ("html", "body", "main", "article") or role == "main":
        return False
    if element.size >= 0.5 * whole and element.linked <= 0.6 * element.size:  # whatever its name is, it is the content
        return False
    if tag in _TAGS:
        return True
    if role in _ROLES:
        return not inner or role not in ("complementary", "banner", "contentinfo")
    if tag in ("header", "footer", "aside") and not inner:
        return tag != "header" or not _has_heading_with_text(element)
    words = _words(element) if tag in _BOXES else frozenset()
    if not words:
        return False
    if not words.isdisjoint(_SURE) or any("cookie" in word for word in words):
        # `share` or `nav` may be the name of a part of the content: it then has text and few links.
        return not inner or element.linked > 0.3 * element.size or element.size < 200
    return not words.isdisjoint(_LINKED) and element.links > 0 and element.linked > 0.5 * element.size


def _words(element: Element) -> frozenset[str]:
    """The words of its class and id, but not of the id of a section: that comes from its heading."""
    words = element.words
    if "id" not in element.attributes or not words:
        return words
    of_class = Element(element.tag, {"class": element.attributes.get("class", "")}).words
    if element.tag == "section" or "section" in of_class:
        return of_class
    titled = element.size > 600 and any(inner.tag in _HEADINGS for inner in element.walk())
    return of_class if titled and words.isdisjoint(_SURE & of_class) and element.links < 5 else words


def _has_heading_with_text(header: Element) -> bool:
    """True if a header is that of an article (its title, then text), not that of the site."""
    if header.linked > 0.3 * header.size:
        return False
    tags = {element.tag for element in header.walk()}
    return bool(tags & {"h1", "h2"}) and not tags & {"nav", "form", "ul"}


def _seen(element: Element) -> int:
    """The size without what was marked meanwhile."""
    return sum(
        len("".join(child.split())) for inner in element.walk() for child in inner.children if isinstance(child, str)
    )


def _main(top: Element) -> Element | None:
    """The element that the page names as its content, if it holds most of what is left."""
    left = _seen(top)
    candidates: list[Element] = []
    articles: list[Element] = []
    for element in top.walk():
        if element.tag == "main" or element.role == "main":
            candidates.append(element)
        elif element.tag == "article" or element.role == "article":
            articles.append(element)
        elif element.attributes.get("id", "").lower().replace("-", "").replace("_", "") in _CONTENT_IDS:
            candidates.append(element)
    for element in (*candidates[:20], *articles[:20]):
        if (size := _seen(element)) and size >= (
            0.4 if element.tag == "main" or element.role == "main" else 0.6
        ) * left:
            return element
    return None


def _mark_link_lists(top: Element) -> list[Element]:
    """Mark the blocks that are nearly all links, if the page has more text than those. Return them."""
    found: list[Element] = []
    stack = [top]
    while stack:
        element = stack.pop()
        if element.unseen:
            continue
        if (
            element.tag in _BLOCKS and element.links >= 4 and element.linked >= 0.8 * element.size
            and element.linked < 30 * element.links
        ):  # fmt: skip
            found.append(element)
            continue
        stack += [child for child in element.children if not isinstance(child, str)]
    total = _seen(top)
    if 2 * sum(element.size for element in found) > total:  # an index: the links are its content
        return []
    for element in found:
        element.unseen = True
    return found
