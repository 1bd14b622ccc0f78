"""What only a card can say of the decoder's kernels: are they right, how long does each take, in which tiling.

    python -m tests.gpu.decoder_on_a_card [KERNEL ...]

Released sizes, 1,024 points of one crop, random weights. First each pass is held to the plain decoder's in float32,
which also gets the tokens right for the next; so are those of SAM 2's decoder. Then every kernel is timed, and so are
its other tilings (of the KERNELs named, or of all), each with its distance from the first one's masks. At the end the
whole decoder is timed, beside the plain one. Needs torch, Triton and numpy alone. Ends with an error if a pass is off.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from triton.runtime.jit import JITFunction

from model.config import CONFIGS, MODELS, ModelConfig
from model.decoder_tilings import TILINGS, Tiling, Tilings
from model.fused_decoder import FusedDecoder, FusedImage
from model.point_decoder import FUSED_BLOCK, PointDecoder
from model.prompted_image import PromptedImage
from model.sam import Sam
from model.shared_image import SharedImage
from tests.gpu.tilings_to_try import OTHERS

CONFIG = replace(CONFIGS["vit_h"], embed_dim=16, depth=1, heads=1, global_blocks=(0,))
"""The encoder has no part in it."""
POINTS, FEW = FUSED_BLOCK, 64
CELLS_HW = 43, 64
"""Of an image of 3:2."""
WITHIN = 1e-4
"""Of the largest value."""
TOGETHER = 5e-4
"""Of the scores, and of the largest logit: through all passes, with the tokens between them."""
PROCESSES = 14
launch = JITFunction.run


@dataclass(frozen=True)
class Launched:
    """One launch of a kernel, to be repeated."""

    kernel: Any
    args: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def tiling(self) -> str:
        """Its name."""
        fewer = self.options.get("SEEN", 0) > self.options.get("T", 0)
        return "last_look" if fewer else self.kernel.__name__

    def __call__(self) -> None:
        launch(self.kernel, *self.args, **self.options)


@contextmanager
def seen_launches(by: Callable[[Launched], None]) -> Iterator[None]:
    """Meanwhile launches are handed over instead."""
    JITFunction.run = lambda kernel, *args, **options: by(Launched(kernel, args, options))  # type: ignore[method-assign]
    try:
        yield
    finally:
        JITFunction.run = launch  # type: ignore[method-assign]


def random_sam(device: str, config: ModelConfig = CONFIG) -> Sam:
    """As the tests have it: weights large enough that every part shows."""
    torch.manual_seed(11)
    sam = Sam(config).eval().requires_grad_(requires_grad=False)
    for module in sam.modules():
        for parameter in module.parameters(recurse=False):
            size = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            norm = isinstance(module, torch.nn.LayerNorm) and parameter is module.weight
            parameter.copy_(norm + size * torch.randn_like(parameter))
    return sam.to(device)


def fused_of(decoder: PointDecoder) -> FusedDecoder:
    assert decoder.fused is not None
    return decoder.fused


def compile_ahead(name: str, tiling: Tiling) -> str:
    """Of a kernel, in a process of its own: the compiled code is left in Triton's cache. On `meta` nothing runs."""

    def warmed(one: Launched) -> None:
        if one.tiling == name:
            launch(one.kernel, *one.args, **(one.options | {"warmup": True}))

    try:
        torch.cuda.init()
        with torch.inference_mode(), torch.device("meta"):
            decoder = PointDecoder(Sam(CONFIG), "bf16x3")
            fused_of(decoder).tilings = replace(TILINGS, **{name: tiling})
            image = decoder.share(torch.empty(1, CONFIG.decoder_dim, CONFIG.grid_side, CONFIG.grid_side))
            with seen_launches(warmed):
                decoder.decode(image, torch.empty(POINTS, 2), pred_iou_thresh=0, cells_hw=CELLS_HW)
    except Exception as error:  # noqa: BLE001 - a tiling that cannot be compiled is a result
        return f"{name} {tiling}: {type(error).__name__} {str(error)[:200]}"
    return ""


def milliseconds(ask: Callable[[], object], times: int = 7) -> float:
    """The median."""
    ask()
    found: list[float] = []
    for _ in range(times):
        begun, over = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        ask()
        over.record()
        over.synchronize()
        found.append(begun.elapsed_time(over))
    return sorted(found)[times // 2]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def off(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def looked(decoder: PointDecoder, fused: FusedImage, index: int, placed_BTC: Tensor) -> Tensor:
    """As `PromptedImage.token_to_image` gives it."""
    weights = decoder._image_side.token_to_image[index]
    return weights.attention.out_proj(fused.look(index, placed_BTC) + weights.value_shift_D)


def passes(decoder: PointDecoder, image: SharedImage, coords_B2: Tensor) -> Iterator[tuple[str, float]]:
    """How far each pass is from the plain decoder's, which is given the same tokens."""
    transformer, g, B = decoder._decoder.transformer, CONFIG.grid_side, len(coords_B2)
    plain = PromptedImage(image, decoder._image_side, decoder._rows(B, coords_B2), chunk=g * g)
    fused = fused_of(decoder).image(image, B)
    tokens = places = decoder._prompt_tokens(coords_B2)
    for index, layer in enumerate(transformer.two_way_layers()):
        tokens = layer.attend_to_self(tokens, places)
        attended = plain.token_to_image(index, tokens + places)
        yield f"look {index}", off(looked(decoder, fused, index, tokens + places), attended)
        tokens = layer.norm2(tokens + attended)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        plain.image_to_token(index, tokens + places, tokens)
        fused.image_to_token(index, tokens + places, tokens)
        yield f"answer and measure {index}", off(fused.scale_LBN[index], plain.scale_BN)
    tokens, places = (each.index_select(1, decoder._wanted_T) for each in (tokens, places))
    attended = plain.token_to_image(len(transformer.layers), tokens + places)
    yield "last look", off(looked(decoder, fused, len(transformer.layers), tokens + places), attended)
    weights = decoder._mask_weights(transformer.norm_final_attn(tokens + attended))
    theirs = torch.zeros(B, CONFIG.multimask_outputs, 4 * g, 4 * g, device=coords_B2.device)
    ours, live = torch.full_like(theirs, torch.nan), torch.ones_like(theirs[:, :, 0, 0], dtype=torch.bool)
    decoder._upscaler.fill(theirs, plain, slice(None), weights, cells_hw=CELLS_HW)
    live[1::2] = False
    fused.fill(ours, weights, live, CELLS_HW)
    yield "masks", off(ours[::2], theirs[::2])


def passes_of_sam_2(device: str, coords_B2: Tensor) -> Iterator[tuple[str, float]]:
    """The same of a decoder with one token more, and with fine maps."""
    g, C = CONFIG.grid_side, CONFIG.decoder_dim
    decoder = PointDecoder(random_sam(device, MODELS["sam2.1_tiny"]), "bf16x3")
    fine = torch.randn(1, C // 8, 4 * g, 4 * g, device=device), torch.randn(1, C // 4, 2 * g, 2 * g, device=device)
    image = decoder.share(torch.randn(1, C, g, g, device=device), fine)
    return ((f"SAM 2, {name}", error) for name, error in passes(decoder, image, coords_B2))


def masks_of(decoder: PointDecoder, image: SharedImage, coords_B2: Tensor) -> tuple[Tensor, list[Launched]]:
    """Of a block whose masks are all live, and the launches that made them."""
    launched: list[Launched] = []

    def kept(one: Launched) -> None:
        launched.append(one)
        one()

    with seen_launches(kept):
        masks = decoder.decode(image, coords_B2, pred_iou_thresh=-torch.inf, cells_hw=CELLS_HW).logits_PMhw
    return masks, launched


def time_kernels(decoder: PointDecoder, image: SharedImage, coords_B2: Tensor, others: dict[str, list[Tiling]]) -> None:
    first_masks, launched = masks_of(decoder, image, coords_B2)
    total = 0.0
    for one in launched:
        took = milliseconds(one)
        total += took
        about = " ".join(f"{name}={one.options[name]}" for name in ("LAYER", "T") if name in one.options)
        say(f"{took:7.3f} ms for {POINTS}: {one.tiling} {about}")
    say(f"{total:7.3f} ms for all kernels, with all masks live")
    for name, tilings in others.items():
        for tiling in tilings:
            fused_of(decoder).tilings = replace(TILINGS, **{name: tiling})
            try:
                masks, launched = masks_of(decoder, image, coords_B2)
                times = [milliseconds(one) for one in launched if one.tiling == name]
            except Exception as error:  # noqa: BLE001 - what does not fit the card is a result
                say(f"  {name} {tiling}: {type(error).__name__} {str(error)[:120]}")
                continue
            each = " + ".join(f"{one:.3f}" for one in times)
            say(f"  {name} {each} ms: {tiling}, off by {off(masks, first_masks):.1e}")
    fused_of(decoder).tilings = TILINGS


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("there is no GPU that torch can use")
    begun, asked = time.perf_counter(), sys.argv[1:] or list(OTHERS)
    tasks = [(each.name, getattr(TILINGS, each.name)) for each in fields(Tilings)]
    tasks += [(name, tiling) for name in asked for tiling in OTHERS[name]]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        failed = dict(zip(tasks, pool.map(compile_ahead, *zip(*tasks, strict=True)), strict=True))
    able = {name: [each for each in OTHERS[name] if not failed[name, each]] for name in asked}
    say(
        "\n".join(
            [f"{len(tasks)} tilings compiled in {time.perf_counter() - begun:.0f} s", *filter(None, failed.values())]
        )
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode():
        sam = random_sam("cuda")
        g = CONFIG.grid_side
        embedding_1Cgg = torch.randn(1, CONFIG.decoder_dim, g, g, device="cuda")
        coords_P2 = torch.rand(POINTS, 2, dtype=torch.float64, device="cuda") * CONFIG.input_side
        decoder, plain = PointDecoder(sam, "bf16x3"), PointDecoder(sam)
        image = decoder.share(embedding_1Cgg)
        found = [*passes(decoder, image, coords_P2[:FEW]), *passes_of_sam_2("cuda", coords_P2[:FEW])]
        for name, error in found:
            say(f"{name}: off by {error:.1e}")
        if not all(error < WITHIN for _, error in found):
            sys.exit(f"a pass is off by more than {WITHIN:.0e}")
        decoder._graphs.wanted = False
        time_kernels(decoder, image, coords_P2, able)
        decoder._graphs.wanted = True
        exact = plain.decode(image, coords_P2, pred_iou_thresh=-torch.inf, cells_hw=CELLS_HW)
        half = float(exact.predicted_iou_PM.amax(dim=1).median())
        differences: dict[str, float] = {}
        for name, each in (("fused", decoder), ("plain", plain)):
            ask = partial(each.decode, image, coords_P2, cells_hw=CELLS_HW)
            masks = ask(pred_iou_thresh=-torch.inf)
            all_live = milliseconds(partial(ask, pred_iou_thresh=-torch.inf))
            half_live = milliseconds(partial(ask, pred_iou_thresh=half))
            scores = float((masks.predicted_iou_PM - exact.predicted_iou_PM).abs().max())
            differences[name] = max(scores, off(masks.logits_PMhw, exact.logits_PMhw))
            say(
                f"{name}: {POINTS} points {all_live:.2f} ms with all live, {half_live:.2f} ms with half; scores off by "
                f"{scores:.1e}, logits by {off(masks.logits_PMhw, exact.logits_PMhw):.1e}",
            )
        attend = each_block(decoder, image, coords_P2)
        say(f"fused: before masks are formed {attend:.2f} ms for {POINTS}")
        if differences["fused"] > TOGETHER:
            sys.exit(f"the decoder with its tokens is off by more than {TOGETHER:.0e}")
    say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {time.perf_counter() - begun:.0f} s in all")


def each_block(decoder: PointDecoder, image: SharedImage, coords_P2: Tensor) -> float:
    return milliseconds(partial(decoder._by_graph, (image, coords_P2)))


if __name__ == "__main__":
    main()
