"""Give EfficientNetV2-B0 the weights of EfficientNet-Lite0, block by block, in closed form.

The two nets line up from stride 8 on. Each of the student's blocks takes a teacher's expansion and depthwise
kernel (5x5 ones as the 3x3 that fits best on real activations), then a projection found by ridge regression
from its own hidden channels to the teacher's next map: every block also mends what those before it lost.
ReLU6 becomes SiLU(b x) / b: the b sits in the batch norms, 1 / b in the next convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from models.captioner.encoder import Block, Same
from training.captioner.encoders import Student, Teacher

# Student's block, the teacher's block it learns from, whether it is an addition that mends the one before.
PLAN = (
    ("block4a", 5, False), ("block4b", 6, False), ("block4c", 7, False),
    ("block5a", 8, False), ("block5b", 9, False), ("block5c", 9, True), ("block5d", 10, False),
    ("block5e", 10, True), ("block6a", 11, False), ("block6b", 12, False), ("block6c", 12, True),
    ("block6d", 13, False), ("block6e", 13, True), ("block6f", 14, False), ("block6g", 15, False),
    ("block6h", 15, True),
)  # fmt: skip
SHARP, HEAD_SHARP = 3.0, 4.0
CHUNK = 100
Maps = Callable[[slice], Tensor]


def bias_of(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise ValueError(f"expected a convolution with a bias, got {conv}")
    return conv.bias


def flat(x: Tensor) -> Tensor:
    """(pictures, channels, h, w) to (places, channels)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def chunks(count: int, some: bool = False) -> Iterator[slice]:
    """Slices of CHUNK pictures; `some`: about six of them, enough for means and small systems."""
    starts = range(0, count, CHUNK)
    for i in starts[:: max(1, len(starts) // 6)] if some else starts:
        yield slice(i, i + CHUNK)


def mean_and_variance(values: Maps, count: int) -> tuple[Tensor, Tensor]:
    """Per channel, over some of the pictures."""
    total, squares, places = torch.zeros(()), torch.zeros(()), 0
    for part in chunks(count, some=True):
        x = flat(values(part)).double()
        total, squares, places = total + x.sum(0), squares + (x * x).sum(0), places + len(x)
    mean = total / places
    return mean.float(), (squares / places - mean**2).clamp_min(1e-8).float()


def set_norm(bn: nn.BatchNorm2d, mean: Tensor, variance: Tensor, scale: float, shift: Tensor) -> None:
    """Make bn give scale * (x + shift), with statistics that training will find again."""
    bn.running_mean.copy_(mean)  # type: ignore[union-attr]
    bn.running_var.copy_(variance)  # type: ignore[union-attr]
    bn.weight.copy_(scale * (variance + bn.eps).sqrt())
    bn.bias.copy_(scale * (mean + shift))


def regress(
    inputs: Maps, wanted: Maps, count: int, ridge: float = 1e-3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and bias that best give `wanted` from `inputs`, and the inputs' mean and covariance."""
    square, cross, sum_in, sum_out, places = (torch.zeros((), dtype=torch.double) for _ in range(5))
    for part in chunks(count):
        x, y = flat(inputs(part)), flat(wanted(part))
        square, cross = square + (x.T @ x).double(), cross + (x.T @ y).double()
        sum_in, sum_out, places = sum_in + x.double().sum(0), sum_out + y.double().sum(0), places + len(x)
    mean_in, mean_out = sum_in / places, sum_out / places
    square = square / places - mean_in[:, None] * mean_in
    cross = cross / places - mean_in[:, None] * mean_out
    size = square.diagonal()
    damped = square + ridge * torch.diag(size.mean() + 0.01 * size)
    weights = torch.linalg.solve(damped, cross).T
    return weights.float(), (mean_out - weights @ mean_in).float(), mean_in.float(), square.float()


def best_small_kernels(
    hidden: Maps, wanted: Maps, stride: int, start: Tensor, bias: Tensor, count: int
) -> Tensor:
    """Per channel the 3x3 kernel and bias nearest to `wanted`, above all where that is positive."""
    channels = len(start)
    square = torch.zeros(channels, 10, 10, dtype=torch.double)
    cross = torch.zeros(channels, 10, dtype=torch.double)
    for part in list(chunks(count, some=True))[:2]:
        x, y = hidden(part), wanted(part)
        matters = (y > 0).float() + 0.1
        padded = nn.functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        height, width = y.shape[-2:]
        taps = [
            padded[:, :, i : i + stride * height : stride, j : j + stride * width : stride][
                :, :, :height, :width
            ]
            for i in range(3)
            for j in range(3)
        ] + [torch.ones_like(y)]
        for i, tap in enumerate(taps):
            weighted = tap * matters
            cross[:, i] += (weighted * y).sum((0, 2, 3))
            for j in range(i, 10):
                square[:, i, j] += (weighted * taps[j]).sum((0, 2, 3))
    square = square + square.triu(1).transpose(1, 2)
    size = square.diagonal(dim1=1, dim2=2)
    damping = torch.full((10,), 1e-3, dtype=torch.double)
    damping[9] = 1e-6
    damping = damping * size.mean(1, keepdim=True) + 1e-9
    known = torch.cat([start.flatten(1), bias[:, None]], 1).double()
    solved = torch.linalg.solve(square + torch.diag_embed(damping), (cross + damping * known)[..., None])[
        ..., 0
    ]
    return torch.where(solved.isfinite().all(1, keepdim=True), solved, known).float()


def choose_channels(teacher: Teacher, i: int, before: Tensor, room: int) -> tuple[Tensor, int]:
    """Which of the teacher's hidden channels to take: the most telling, repeated if there is room."""
    project, depthwise = teacher.projects[i].weight.flatten(1), teacher.depthwise[i]
    have = project.shape[1]
    if room == have:
        return torch.arange(have), have
    _, variance = mean_and_variance(
        lambda p: depthwise(teacher.expanded(i, before[p])).clamp(0, 6), len(before)
    )
    order = (project.norm(dim=0) * variance.sqrt()).argsort(descending=True)
    return torch.cat([order, order])[:room], min(room, have)


def copy_block(
    block: Block,
    teacher: Teacher,
    i: int,
    stream: Tensor,
    before: Tensor,
    after: Tensor,
    back: Same | None,
    extra: bool,
) -> Tensor:
    """Set one student's block from teacher's block i; returns the student's stream behind it.

    stream and before are the student's and the teacher's maps in front, after what the stream should become.
    """
    count, room, channels = len(stream), block.expand_conv.out_channels, after.shape[1]
    expand, depthwise = teacher.expands[i], teacher.depthwise[i]
    chosen, fitted = choose_channels(teacher, i, before, room)
    fitted = 0 if extra else fitted
    weight, bias = expand.weight[chosen].flatten(1), bias_of(expand)[chosen].clone()
    if back is not None:
        bias += weight @ bias_of(back)
        weight = weight @ back.weight.flatten(1)
    if extra:
        weight = weight * (1 + 0.3 * torch.randn_like(weight))
    free = block.expand_conv.in_channels - weight.shape[1]
    weight = torch.cat([weight, 0.05 * weight.abs().mean() * torch.randn(room, free)], 1)
    block.expand_conv.weight.copy_(weight[:, :, None, None])
    statistics = mean_and_variance(lambda p: block.expand_conv(stream[p]), count)
    set_norm(block.expand_bn, *statistics, SHARP, bias)

    def wide(part: slice) -> Tensor:
        return nn.functional.silu(block.expand_bn(block.expand_conv(stream[part])))

    kernel, bias = depthwise.weight[chosen][:, 0] / SHARP, bias_of(depthwise)[chosen].clone()
    edge = (kernel.shape[-1] - 3) // 2
    small = kernel[:, edge : edge + 3, edge : edge + 3].clone()
    # Copies look at another part of a 5x5 kernel, or differ by chance: the regression picks what helps.
    for c in range(fitted, room):
        y, x = torch.randint(0, 2 * edge + 1, (2,)).tolist()
        small[c] = kernel[c, y : y + 3, x : x + 3] if edge else small[c] * (1 + 0.7 * torch.randn(3, 3))
    if fitted:
        some = chosen[:fitted]
        solved = best_small_kernels(
            lambda p: wide(p)[:, :fitted],
            lambda p: depthwise(teacher.expanded(i, before[p]))[:, some],
            block.dwconv2.stride[0], small[:fitted], bias[:fitted], count,
        )  # fmt: skip
        small[:fitted], bias[:fitted] = solved[:, :9].view(-1, 3, 3), solved[:, 9]
    block.dwconv2.weight.copy_(small[:, None])
    set_norm(block.bn, *mean_and_variance(lambda p: block.dwconv2(wide(p)), count), SHARP, bias)
    nn.init.normal_(block.se_reduce.weight, 0, 0.5 / math.sqrt(room))
    nn.init.zeros_(block.se_expand.weight)
    nn.init.constant_(bias_of(block.se_expand), 2.5)

    def wanted(part: slice) -> Tensor:
        return after[part] - stream[part, :channels] if block.skip else after[part]

    solved, shift, mean, covariance = regress(lambda p: block.hidden(stream[p]), wanted, count)
    outputs = block.project_conv.out_channels
    project = torch.cat([solved, torch.randn(outputs - channels, room) * solved.abs().mean() * 0.3])
    block.project_conv.weight.copy_(project[:, :, None, None])
    shift = torch.cat([shift, -(project[channels:] @ mean)])
    set_norm(block.project_bn, project @ mean, ((project @ covariance) * project).sum(1), 1.0, shift)
    return torch.cat([block(stream[p]) for p in chunks(count)])


def narrow(head: Same, last: Tensor, stream: Tensor) -> Tensor:
    """The teacher's 320 channels as the 192 directions its head reads most, turned to the present stream.

    They are scaled up so that what the skip connection leaves of the old stream hardly counts.
    """
    y, x = flat(last), flat(stream)
    y, x = y - y.mean(0), x - x.mean(0)
    reads = head.weight.flatten(1)
    _, directions = torch.linalg.eigh(reads @ (y.T @ y / len(y)) @ reads.T)
    z = y @ (reads.T @ directions[:, -x.shape[1] :])
    left, _, right = torch.linalg.svd((z / z.std(0)).T @ x)
    z = (z / z.std(0).sqrt()) @ (left @ right)
    z = 3 * x.std() / z.std() * z
    return z.view(len(last), *last.shape[-2:], -1).permute(0, 3, 1, 2)


@torch.no_grad()
def inherit(student: Student, back: Same, teacher: Teacher, pictures: Tensor) -> Tensor:
    """Set everything behind block3b; back maps block3b's output to the teacher's 40 channels.

    Returns the scale per channel after which the student's map is the teacher's.
    """
    student.eval()
    count = len(pictures)
    seen: dict[int, list[Tensor]] = {i: [] for i in range(4, 16)}
    streams = []
    for part in chunks(count):
        for i, x in teacher.streams(pictures[part]).items():
            if i in seen:
                seen[i].append(x)
        streams.append(student.streams(student.stem(pictures[part]), last="block3b")["block3b"])
    maps, stream = {i: torch.cat(x) for i, x in seen.items()}, torch.cat(streams)
    del seen, streams
    for name, i, extra in PLAN:
        if i == 15 and not extra:
            after = narrow(teacher.head, maps[15], stream)
        elif i < 15:
            after = maps[i]
        stream = copy_block(
            student.block(name),
            teacher,
            i,
            stream,
            maps[i - 1],
            after,
            back if name == "block4a" else None,
            extra,
        )
        missing = (after - stream[:, : after.shape[1]]).pow(2).mean() / flat(after).var(0).mean()
        print(f"{name} from the teacher's block {i}: {missing:.3f} of the variance missing", flush=True)
    weight, shift, mean, covariance = regress(
        lambda p: stream[p], lambda p: teacher.head(maps[15][p]), count, 1e-5
    )
    student.top_conv.weight.copy_(weight[:, :, None, None])
    variance = ((weight @ covariance) * weight).sum(1)
    set_norm(student.top_bn, weight @ mean, variance, HEAD_SHARP, shift)
    return torch.full((len(weight),), 1 / HEAD_SHARP)
