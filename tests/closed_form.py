"""What a variant costs by arithmetic alone: written from the papers, not from the package."""

import math

STEMS = {
    "conv7": [(1, 7)],
    "conv3": [(1, 3)],
    "deep": [(1 / 2, 3), (1 / 2, 3), (1, 3)],
    "deep_wide": [(1, 3), (1, 3), (2, 3)],
    "tiered": [(3 / 8, 3), (3 / 4, 3), (1, 3)],
    "tiered_narrow": [(3 / 8, 3), (1 / 2, 3), (1, 3)],
}
WIDTHS = {"imagenet": (64, 128, 256, 512), "cifar": (16, 32, 64)}
# Whether the convolution of a projection shortcut has a norm.
NORMED_PROJECTIONS = {
    "post": True,
    "bn_after_add": False,
    "relu_before_add": True,
    "relu_preact": True,
    "preact": False,
}


class Bill:
    """Adds up parameters, multiply-adds and activations of convolutions."""

    def __init__(self):
        self.params = self.macs = self.acts = 0

    def conv(self, w_in, w_out, kernel, side, *, groups=1, bias=0):
        weights = w_in // groups * kernel**2
        self.params += w_out * (weights + bias)
        self.macs += w_out * weights * side**2
        self.acts += w_out * side**2

    def norm(self, width):
        self.params += 2 * width

    def blur(self, width, side):
        self.macs += 9 * width * side**2
        self.acts += width * side**2


def half(side, stride):
    return math.ceil(side / stride)


def known(name, table, choice):
    assert choice in table, f"{choice!r} is new: extend {name} in tests/closed_form.py"
    return table[choice]


def closed_form(v, side, in_chans, num_classes):
    stem = known("STEMS", STEMS, v.stem)
    bill, widths = Bill(), WIDTHS[v.family]
    side = half(side, 1 if v.stem_stride == 1 else 2)
    width = in_chans
    for i, (share, kernel) in enumerate(stem):
        w_out = int(share * widths[0])
        bill.conv(width, w_out, kernel, side)
        if i < len(stem) - 1 or v.order != "preact":
            bill.norm(w_out)
        width = w_out
    if v.stem_stride == 4:
        side = half(side, 2)
        if v.antialias == "blur":
            bill.blur(width, side)
    for stage, units in enumerate(v.units):
        for unit in range(units):
            stride = 2 if stage and not unit else 1
            w_out = widths[stage] * (4 if v.block == "bottleneck" else 1)
            inner = widths[stage] * v.base_width // widths[0] * v.cardinality
            _unit(bill, v, (width, inner, w_out), side, stride)
            width, side = w_out, half(side, stride)
    if v.order == "preact":
        bill.norm(width)
    bill.conv(width, num_classes, 1, 1, bias=1)
    return bill.params, bill.macs, bill.acts


def _unit(bill, v, widths, side, stride):
    w_in, inner, w_out = widths
    out = half(side, stride)
    strided = side if v.antialias != "none" else out  # where the strided convolution computes
    if v.block == "basic":
        convs = [(w_in, w_out, 3, strided), (w_out, w_out, 3, out)]
    elif v.stride == "1x1":
        convs = [(w_in, inner, 1, strided), (inner, inner, 3, out), (inner, w_out, 1, out)]
    else:
        convs = [(w_in, inner, 1, side), (inner, inner, 3, strided), (inner, w_out, 1, out)]
    for a, b, kernel, at in convs:
        bill.conv(a, b, kernel, at, groups=v.cardinality if kernel == 3 else 1)
        bill.norm(a if v.order == "preact" else b)
    if v.antialias == "blur" and stride == 2:
        bill.blur(inner, out)
    changes = stride == 2 or w_in != w_out
    if v.shortcut == "conv_all" or (changes and v.shortcut in ("conv", "avgpool")):
        bill.conv(w_in, w_out, 1, out)
        if known("NORMED_PROJECTIONS", NORMED_PROJECTIONS, v.order):
            bill.norm(w_out)
    if v.skip in ("exclusive_gate", "shortcut_gate"):
        bill.conv(w_out, w_out, 1, out, bias=1)
    _attention(bill, v.attention, w_out)


def _attention(bill, kind, width):
    if kind == "se":
        reduced = max(8, int(width / 16 + 4) // 8 * 8)
        bill.conv(width, reduced, 1, 1, bias=1)
        bill.conv(reduced, width, 1, 1, bias=1)
    elif kind == "eca":
        kernel = int((math.log2(width) + 1) / 2)
        kernel = max(3, kernel if kernel % 2 else kernel + 1)
        bill.params += kernel
        bill.macs += kernel * width
        bill.acts += width
