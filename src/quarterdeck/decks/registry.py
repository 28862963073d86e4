"""What becomes of a value in a deck: renderers by type, those of users before ours. In any process; what a
renderer needs is imported when it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from quarterdeck.decks.render.html import escaped, trouble
from quarterdeck.public import public

F = TypeVar("F", bound=Callable[[Any], str])

_PLACES = {
    "builtins.str": "plain:html",
    "builtins.int": "plain:number",
    "builtins.float": "plain:number",
    "builtins.complex": "plain:number",
    "builtins.NoneType": "plain:number",
    "builtins.dict": "nested:nested",
    "builtins.list": "nested:nested",
    "builtins.tuple": "nested:nested",
    "builtins.set": "nested:nested",
    "builtins.frozenset": "nested:nested",
    "builtins.BaseException": "plain:exception",
    "quarterdeck.decks.text.Markdown": "plain:markdown",
    "quarterdeck.decks.text.Code": "plain:code",
    "IPython.core.display.Markdown": "plain:ipython_markdown",
    "IPython.core.display.HTML": "plain:ipython_html",
    "numpy.generic": "plain:number",
    "numpy.ndarray": "numbers:array",
    "torch.Tensor": "numbers:tensor",
    "torch.nn.Module": "modules:module",
    "torch.optim.Optimizer": "modules:optimizer",
    "pandas.DataFrame": "tables:frame",
    "pandas.Series": "tables:series",
    "pyarrow.Table": "tables:arrow",
    "pyarrow.RecordBatch": "tables:arrow",
    "matplotlib.figure.Figure": "figures:matplotlib",
    "matplotlib.axes.Axes": "figures:axes",
    "plotly.basedatatypes.BaseFigure": "figures:plotly",
    "PIL.Image.Image": "images:picture",
}
"""Public name of a type -> module below `render`, and function."""

_PROTOCOLS = {
    "__arrow_c_stream__": "tables:interchange",
    "__dataframe__": "tables:interchange",
    "_repr_html_": "plain:own_html",
    "_repr_svg_": "images:own_svg",
    "_repr_png_": "images:own_png",
    "_repr_jpeg_": "images:own_jpeg",
    "_repr_mimebundle_": "plain:own_bundle",
}
"""What a class defines -> the same."""


@public
@runtime_checkable
class Renderable(Protocol):
    """An object that makes HTML of a value, as flytekit's `Renderable`. The HTML is shown as it is: `to_html`
    has to escape what is not meant as HTML.
    """

    def to_html(self, value: Any, /) -> str:
        """The HTML of the value."""


class Registry:
    """`register` adds; the class of a value decides, then each class that it derives from, in order."""

    def __init__(self) -> None:
        self._by_type: dict[type, Callable[[Any], str]] = {}
        self._by_name: dict[str, Callable[[Any], str]] = {}
        self._functions: set[int] = set()

    def register(self, type_: type | str, function: Callable[[Any], str] | Renderable) -> None:
        """`function(value)` gives the HTML of values of this type, also in the place of what is built in.

        `type_` may be a dotted name, "polars.DataFrame", so that the package need not be imported. TypeError
        for anything else.
        """
        call = _callable(function)
        if call is None:
            raise TypeError(f"a renderer is a function, or has to_html(value): {function!r:.80} is neither")
        if isinstance(type_, type):
            self._by_type[type_] = call
        elif isinstance(type_, str) and "." in type_:
            self._by_name[type_] = call
        else:
            raise TypeError(f"a renderer is for a type, or a dotted name of one, not {type_!r:.80}")
        self._functions.add(id(function))

    def render(self, value: Any, renderer: Any = None) -> str:
        """Never raises but for what is no renderer (TypeError), and what is no Exception."""
        if type(value) is str and renderer is None and str not in self._by_type:
            return value  # by far the most common, a hundred times faster
        call = self.find(type(value)) if renderer is None else _callable(renderer)
        if call is None:
            raise TypeError(f"a renderer is a function, or has to_html(value): {renderer!r:.80} is neither")
        try:
            html = call(value)
        except Exception as error:
            return trouble(type(value).__name__, error)
        if not isinstance(html, str):
            return trouble(type(value).__name__, TypeError(f"it gave {type(html).__name__}, not a str"))
        return html

    def find(self, cls: type) -> Callable[[Any], str]:
        """The most specific; at last the one that shows the repr."""
        named = dict(self._named())
        for base in cls.__mro__:
            call = self._by_type.get(base) or named.get(base) or _by_protocol(base)
            if call is not None:
                return call
        return _other

    def knows(self, cls: type) -> bool:
        """Whether it would not be shown as its repr, or by code of its own class."""
        named = {found for found, _ in self._named()}
        return any(base in self._by_type or base in named for base in cls.__mro__)

    def annotated(self, metadata: tuple[Any, ...]) -> Callable[[Any], str] | None:
        """The renderer among what `Annotated[T, ...]` holds: one with `to_html`, or a registered function."""
        fit = (one for one in metadata if isinstance(one, Renderable) or id(one) in self._functions)
        return next((_callable(one) for one in fit), None)

    def _named(self) -> Iterator[tuple[type, Callable[[Any], str]]]:
        """Names whose packages are loaded: no value can be of another type. Later ones count."""
        for name, place in _PLACES.items():
            if (found := _type_of(name)) is not None:
                yield found, _lazy(place)
        for name, call in self._by_name.items():
            if (found := _type_of(name)) is not None:
                yield found, call


renderers = Registry()


@public
def renderer(type_: type | str) -> Callable[[F], F]:
    """Decorates a function that gives the HTML of values of this type: `@qd.renderer(Confusion)`.

    Args:
        type_: a class, for it and the classes that derive from it; or a dotted name, "polars.DataFrame", so
            that the package need not be imported.

    Returns:
        A decorator, which gives the function back as it is.

    Raises:
        TypeError: `type_` is neither, or what is decorated cannot be called.
    """

    def decorate(function: F) -> F:
        renderers.register(type_, function)
        return function

    return decorate


def _callable(renderer: Any) -> Callable[[Any], str] | None:
    if isinstance(renderer, type) and isinstance(renderer, Renderable):
        renderer = renderer()
    if isinstance(renderer, Renderable):
        return renderer.to_html
    return cast("Callable[[Any], str]", renderer) if callable(renderer) else None


def _type_of(name: str) -> type | None:
    module, _, attribute = name.rpartition(".")
    if name == "builtins.NoneType":
        return type(None)
    found = getattr(sys.modules.get(module), attribute, None)
    return found if isinstance(found, type) else None


def _by_protocol(base: type) -> Callable[[Any], str] | None:
    calls = [_lazy(place) for name, place in _PROTOCOLS.items() if vars(base).get(name) is not None]
    if not calls:
        return None

    def call(value: Any) -> str:
        """One may say that it has nothing this time."""
        return next(filter(None, (each(value) for each in calls)), "") or _other(value)

    return call


def _lazy(place: str) -> Callable[[Any], str]:
    module, _, function = place.partition(":")

    def call(value: Any) -> str:
        found = getattr(import_module(f"quarterdeck.decks.render.{module}"), function)
        return str(found(value))

    return call


def _other(value: Any) -> str:
    """A checkpoint, which any object with a step, metrics and a path is; else the repr."""
    if all(hasattr(value, name) for name in ("step", "metrics", "path")) and not isinstance(value, type):
        return _lazy("modules:checkpoint")(value)
    return f"<pre>{escaped(repr(value))}</pre>"
