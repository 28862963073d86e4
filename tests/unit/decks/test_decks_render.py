"""What becomes of values in a deck."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from quarterdeck.decks import Code, Deck, Markdown, renderer, renderers
from quarterdeck.decks.registry import Registry
from quarterdeck.decks.render import numbers

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def only_built_in() -> Iterator[None]:
    """What a test registers is gone after it."""
    kept = [dict(held) for held in (renderers._by_type, renderers._by_name)]
    yield
    renderers._by_type, renderers._by_name = kept  # type: ignore[assignment]


def shown(value: Any) -> str:
    return renderers.render(value)


def text(value: Any) -> str:
    """What a reader reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown(value)))


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


# ---- text


def test_text_is_html_as_it_is() -> None:
    assert shown("<b>bold</b>") == "<b>bold</b>"


@pytest.mark.parametrize(
    "value",
    [
        Markdown(HOSTILE),
        Code(HOSTILE),
        {HOSTILE: [HOSTILE]},
        ValueError(HOSTILE),
        pd.DataFrame({HOSTILE: [HOSTILE]}, index=[HOSTILE]),
        pa.table({HOSTILE: [HOSTILE]}),
        np.array([HOSTILE], dtype=object),
        SimpleNamespace(step=1, path=HOSTILE, metrics={HOSTILE: HOSTILE}),
        SimpleNamespace(text=HOSTILE),
        type(f"Odd{HOSTILE}", (), {"_repr_html_": lambda self: 1 / 0})(),
        torch.nn.ModuleDict({HOSTILE.replace(".", ""): torch.nn.Linear(1, 1)}),
    ],
    ids=lambda value: type(value).__name__[:12],
)
def test_text_that_is_no_html_is_escaped(value: Any) -> None:
    html = shown(value)

    assert "<script" not in html
    assert "<img" not in html
    assert "alert(1)" in html or "alert" in text(value)


def test_markdown_has_tables_and_no_javascript_links() -> None:
    html = shown(Markdown("# Title\n\n|a|b|\n|-|-|\n|1|2|\n\n[go](javascript:alert(1))"))

    assert "<h1>Title</h1>" in html
    assert "<td>2</td>" in html
    assert "href" not in html


def test_ipython_s_markdown_and_html_are_what_they_are() -> None:
    from IPython.display import HTML
    from IPython.display import Markdown as Theirs

    assert "<em>so</em>" in shown(Theirs("*so*"))
    assert shown(HTML("<i>x</i>")) == "<i>x</i>"


def test_code_is_coloured_by_classes() -> None:
    html = shown(Code("def f(): return 1"))

    assert '<span class="k">def</span>' in html
    assert "style=" not in html


def test_an_exception_has_its_traceback() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        html = shown(error)

    assert "KeyError: &#x27;missing&#x27;" in html
    assert "Traceback (most recent call last)" in html


@pytest.mark.parametrize("value", [3, 2.5, True, None, np.float32(2.5), np.int64(7)])
def test_a_number_is_itself(value: Any) -> None:
    assert text(value).strip() == str(value)


def test_any_other_object_is_its_repr() -> None:
    assert "namespace(x=1)" in text(SimpleNamespace(x=1))


# ---- nested


def test_a_dict_unfolds_and_names_what_is_large() -> None:
    html = shown({"lr": 0.1, "layers": [1, 2], "weights": torch.zeros(3, 4)})

    assert html.count("<details") == 2
    assert "Tensor float32 3 × 4" in html


def test_what_is_endless_is_shown_to_a_bound() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]

    assert len(shown(loop)) < 2_000
    assert len(shown(deep)) < 2_000
    assert "first 100 of 1,000,000 items" in text(list(range(1_000_000)))
    assert len(shown({i: {j: list(range(50)) for j in range(50)} for i in range(50)})) < 400_000


# ---- tables


def test_a_long_table_shows_its_first_rows_and_says_so() -> None:
    words = text(pd.DataFrame({"n": range(1_000), "x": np.linspace(0, 1, 1_000)}))

    assert "first 10 of 1,000 rows" in words
    assert " 9 " in words
    assert " 10 11 " not in words


def test_a_short_table_is_whole_and_a_wide_one_cut() -> None:
    assert text(pd.DataFrame({"n": range(40)})).count(" 39") == 2
    assert "first 100 of 300 columns" in text(pd.DataFrame(np.zeros((2, 300))))


def test_a_series_is_a_table() -> None:
    assert "loss" in text(pd.Series([1.0, 2.0], name="loss"))


def test_an_arrow_table_names_its_types() -> None:
    words = text(pa.table({"n": list(range(200)), "name": ["x"] * 200}))

    assert "int64" in words
    assert "first 10 of 200 rows" in words
    assert "Table" in text(pa.record_batch({"n": [1]}))


class OtherFrame:
    """A frame of a package that speaks the interchange protocol only."""

    def __init__(self) -> None:
        self._table = pa.table({"city": ["Oslo", "Rome"]})

    def __dataframe__(self, *args: Any, **kwargs: Any) -> Any:
        return self._table.__dataframe__(*args, **kwargs)


class OtherArrow:
    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return pa.table({"city": ["Oslo", "Rome"]}).__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("value", [OtherFrame(), OtherArrow()])
def test_any_data_frame_is_a_table(value: Any) -> None:
    assert "Oslo Rome" in re.sub(r"\s+", " ", text(value))


# ---- figures and images


def test_a_figure_is_drawn_at_twice_its_size() -> None:
    figure = Figure(figsize=(4, 2), dpi=100)
    figure.subplots().set_title("Loss <b>")
    html = shown(figure)

    [picture] = pictures(html)
    assert picture.width > 700
    width = re.search(r'width="(\d+)"', html)
    assert width is not None
    assert abs(int(width[1]) - picture.width / 2) <= 1
    assert "Figure: Loss &lt;b&gt;" in html


def test_axes_are_their_figure() -> None:
    assert pictures(shown(Figure().subplots()))


def test_a_plotly_figure_is_only_its_data() -> None:
    import plotly.graph_objects as go

    html = shown(go.Figure(go.Scatter(y=[1, 2], name=HOSTILE)))

    assert "<script" not in html
    assert len(html) < 20_000


def test_a_picture_is_no_larger_than_the_page_needs() -> None:
    html = shown(Image.new("RGB", (4000, 1000), "red"))

    [picture] = pictures(html)
    assert picture.size == (1024, 256)
    assert "4000 × 1000" in html


@pytest.mark.parametrize("mode", ["1", "L", "RGBA", "CMYK", "F", "I"])
def test_a_picture_of_any_mode_is_shown(mode: str) -> None:
    assert pictures(shown(Image.new(mode, (20, 20))))


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (torch.rand(3, 32, 40), 1),
        (torch.rand(32, 40, 3), 1),
        (torch.rand(1, 32, 40), 1),
        (torch.randint(0, 256, (7, 3, 32, 40), dtype=torch.uint8), 7),
        (torch.rand(5, 32, 40, 1), 5),
        (torch.rand(2, 3, 32, 40, dtype=torch.bfloat16), 2),
        (np.random.default_rng(0).random((4, 32, 40, 3)), 4),
        (torch.rand(100, 3, 32, 40), 64),
    ],
    ids=str,
)
def test_image_tensors_are_images(value: Any, count: int) -> None:
    found = pictures(shown(value))

    assert len(found) == count
    assert {picture.size for picture in found} == {(40, 32)}


def test_an_image_has_the_colours_of_its_tensor() -> None:
    value = torch.zeros(3, 16, 16)
    value[0] = 1.0
    [picture] = pictures(shown(value))

    assert picture.getpixel((3, 3)) == (255, 0, 0)


def test_normalised_images_are_stretched_and_it_is_said() -> None:
    html = shown(torch.linspace(-2, 2, 3 * 32 * 32).reshape(3, 32, 32))

    assert "-2 to 2, stretched" in html


def test_weights_are_no_images() -> None:
    assert not pictures(shown(torch.randn(64, 3, 7, 7)))
    assert not pictures(shown(torch.randn(3, 128, 4096)))


# ---- tensors


@pytest.mark.parametrize("make", [torch.tensor, np.array], ids=["tensor", "array"])
def test_statistics_are_those_of_the_finite_values(make: Any) -> None:
    words = text(make([[1.0, 2.0, float("nan")], [3.0, float("inf"), 6.0]]))

    assert "2 × 3" in words
    for said in ("min 1 ", "mean 3 ", "max 6 ", "std 2.16", "NaN 1 ", "inf 1 "):
        assert said in words, words


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([True, False]),
        torch.tensor([1, 2], dtype=torch.uint8),
        torch.tensor([1 + 2j, 3j]),
        torch.zeros(0, 3),
        torch.full((10,), float("nan")),
        torch.full((10,), 3.0),
        torch.ones(4, 4).to_sparse(),
        torch.empty(3, 3, device="meta"),
        torch.nn.Parameter(torch.ones(3)),
        torch.ones(5, dtype=torch.bfloat16),
        torch.arange(100.0).reshape(10, 10).t(),
        np.zeros((0, 3)),
        np.array(3.5),
        np.array([np.nan, np.inf]),
        np.array(["a", "b"]),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
        np.zeros(3, dtype=[("a", "i4")]),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.dtype}",
)
def test_no_tensor_is_too_odd_to_be_shown(value: Any) -> None:
    html = shown(value)

    assert "is not shown" not in html
    assert "qd-card" in html


def test_a_tensor_keeps_its_gradient_and_its_graph() -> None:
    value = torch.ones(3, requires_grad=True)
    shown(value)
    value.sum().backward()

    assert value.grad is not None
    assert "requires grad" in shown(value)


def test_a_small_matrix_is_shown_itself() -> None:
    words = text(torch.tensor([[50, 3], [4, 43]]))

    assert "50 3 4 43" in re.sub(r"\s+", " ", words)


def test_of_a_huge_tensor_every_n_th_value_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "QUICK_ELEMENTS", 1000)
    with numbers.quick():
        assert "every 10th value" in text(torch.rand(10_000))
    assert "every" not in text(torch.rand(10_000))


def test_an_expanded_tensor_is_never_made_whole() -> None:
    huge = torch.arange(1000.0)[:, None].expand(1000, 10**9)
    words = text(huge)

    assert "1000 × 1000000000" in words
    assert "max 999 " in words
    assert "every" in words
    assert "every" in text(np.broadcast_to(np.arange(1000.0)[:, None], (1000, 10**7)))


def test_of_a_sharded_tensor_only_the_local_part_is_touched() -> None:
    class Sharded(torch.Tensor):
        def to_local(self) -> torch.Tensor:
            return torch.arange(4.0)

    words = text(torch.zeros(8).as_subclass(Sharded))

    assert "of which this rank holds 4" in words
    assert "max 3 " in words


# ---- modules, optimizers, checkpoints


def test_a_module_is_a_tree_with_sizes() -> None:
    net = torch.nn.Sequential(
        torch.nn.Linear(10, 20), torch.nn.ReLU(), torch.nn.Sequential(torch.nn.Linear(20, 2))
    )
    net[0].weight.requires_grad_(False)
    words = text(net)

    assert "262 parameters, 62 of them trainable" in words
    assert "20 × 10 float32 frozen 200 800 B" in words
    assert "ReLU" in words


def test_a_module_without_shapes_yet_is_shown() -> None:
    assert "no shape yet" in text(torch.nn.Sequential(torch.nn.LazyLinear(3)))


def test_a_huge_module_is_shown_to_a_bound() -> None:
    html = shown(torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(5_000)))

    assert len(html) < 1_000_000
    assert "only the first 500 modules" in html


def test_an_optimizer_tells_its_groups_and_its_state() -> None:
    net = torch.nn.Linear(10, 10)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    words = text(optimizer)

    assert "SGD 1 group state 440 B" in words
    assert "0.9" in words
    assert "110" in words


def test_a_checkpoint_is_a_small_table() -> None:
    words = text(SimpleNamespace(step=1200, metrics={"loss": 0.25}, path=Path("/runs/step-1200")))

    assert "step 1200 loss 0.25 path /runs/step-1200" in re.sub(r"\s+", " ", words)


# ---- the registry


class Confusion:
    pass


class Special(Confusion):
    pass


def test_a_renderer_is_for_its_type_and_those_that_derive_from_it() -> None:
    @renderer(Confusion)
    def show(value: Confusion) -> str:
        return "<table>confusion</table>"

    assert shown(Confusion()) == shown(Special()) == "<table>confusion</table>"
    assert show(Confusion()) == "<table>confusion</table>"
    renderers.register(Special, lambda value: "special")
    assert shown(Special()) == "special"
    assert shown(Confusion()) == "<table>confusion</table>"


def test_a_renderer_of_the_user_s_goes_before_ours() -> None:
    renderers.register("pandas.DataFrame", lambda value: "mine")

    assert shown(pd.DataFrame()) == "mine"


def test_a_class_s_own_form_goes_before_that_of_its_base() -> None:
    class Fancy(dict[str, int]):
        def _repr_html_(self) -> str:
            return "<b>fancy</b>"

    assert shown(Fancy(a=1)) == "<b>fancy</b>"


def test_a_dotted_name_does_not_import_its_package() -> None:
    registry = Registry()
    registry.register("no_such_package.frames.Frame", lambda value: "x")

    assert registry.render("text") == "text"


def test_an_object_with_to_html_is_a_renderer() -> None:
    class Top:
        def to_html(self, value: Any) -> str:
            return f"top of {value}"

    renderers.register(Confusion, Top())
    assert shown(Confusion()).startswith("top of ")
    assert renderers.render(3, Top()) == "top of 3"
    assert renderers.render(3, Top) == "top of 3"


@pytest.mark.parametrize(
    "own", ["_repr_html_", "_repr_svg_", "_repr_png_", "_repr_jpeg_", "_repr_mimebundle_"]
)
def test_what_a_class_says_of_itself_is_shown(own: str) -> None:
    png = io.BytesIO()
    Image.new("L", (2, 2)).save(png, format="PNG")
    jpeg = io.BytesIO()
    Image.new("L", (2, 2)).save(jpeg, format="JPEG")
    says: Any = {
        "_repr_png_": png.getvalue(),
        "_repr_jpeg_": (jpeg.getvalue(), {}),
        "_repr_mimebundle_": {"text/html": "<svg>own</svg>"},
    }
    odd = type("Odd", (), {own: lambda self, **_: says.get(own, "<svg>own</svg>")})()
    none = type("None_", (), {own: lambda self, **_: None})()

    assert "<svg>own</svg>" in shown(odd) or pictures(shown(odd))
    assert "None_ object" in text(none)


def test_a_renderer_that_fails_is_told_in_the_deck_and_nowhere_else() -> None:
    renderers.register(Confusion, lambda value: 1 / 0)  # type: ignore[arg-type, return-value]
    deck = Deck("x", auto_add_to_deck=False).append(Confusion()).append("after")

    assert "its renderer raised ZeroDivisionError: division by zero" in deck.html
    assert deck.html.endswith("after")


def test_a_renderer_that_gives_no_text_is_told() -> None:
    renderers.register(Confusion, lambda value: None)  # type: ignore[arg-type, return-value]

    assert "it gave NoneType, not a str" in shown(Confusion())


@pytest.mark.parametrize("wrong", [3, None, "text"])
def test_what_is_no_renderer_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="renderer"):
        renderers.register(Confusion, wrong)
    with pytest.raises(TypeError, match="renderer"):
        renderers.register(wrong, shown)
