"""What tells that files are the dataset they are said to be: counts, classes, hash, colours.

MNIST, CIFAR-10 and CIFAR-100 are lossless, so one content hash says it all. Tiny-ImageNet is of
JPEG files, whose pixels depend on the decoder in their last bits: it is known by its counts and by
its class colours, the mean of each channel over each class's images, training and test. They tell
other images and permuted labels; a few exchanged images they do not.
"""

from __future__ import annotations

import base64

import numpy as np
import numpy.typing as npt

from ht_bench.errors import UsageError
from ht_bench.streams.dataset import Dataset, DatasetSource, Part

TOLERANCE = 2.0
"""Levels of 255 by which a class's colour may differ: decoders differ by well under one."""


def check_content(source: DatasetSource, dataset: Dataset) -> None:
    """Raise UsageError unless `dataset` has the counts, the hash and the colours of `source`."""
    found = (len(dataset.train_labels), len(dataset.test_labels))
    expected = (source.train or found[0], source.tests or found[1])
    if found != expected:
        raise UsageError(
            f"These files are not the whole {source.name}: {found[0]:,} + {found[1]:,} images "
            f"(training + test), expected {expected[0]:,} + {expected[1]:,}; import all of the "
            "original files."
        )
    _check_balance(source, dataset)
    if source.sha256 and dataset.sha256 != source.sha256:
        raise UsageError(
            f"These files are not the whole, lossless {dataset.name}: {found[0]} + {found[1]} "
            f"images with content hash {dataset.sha256[:12]}…, expected {source.sha256[:12]}…; "
            "import the original files."
        )
    if source.colours:
        _check_colours(source, dataset)


def is_pinned(source: DatasetSource) -> bool:
    """Whether the dataset's content is known: by hash, or by counts and class colours."""
    return bool(source.sha256 or (source.train and source.tests and source.colours))


def _check_balance(source: DatasetSource, dataset: Dataset) -> None:
    if not source.balanced:
        return
    for part, labels in (("training", dataset.train_labels), ("test", dataset.test_labels)):
        counts = np.bincount(labels, minlength=source.classes)
        if counts.min() != counts.max():
            odd = int(np.flatnonzero(counts != len(labels) // source.classes)[0])
            raise UsageError(
                f"These files are not the whole {source.name}: class {odd} has {counts[odd]} "
                f"{part} images, expected {len(labels) // source.classes} of each class; import "
                "the original files."
            )


def class_colours(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> bytes:
    """Return each class's mean of each channel, rounded to a byte, class by class."""
    means = images.reshape(*images.shape[:2], -1).mean(2, dtype=np.float64)
    sums = np.stack([np.bincount(labels, channel) for channel in means.T], axis=1)
    return np.rint(sums / np.bincount(labels)[:, None]).astype(np.uint8).tobytes()


def _check_colours(source: DatasetSource, dataset: Dataset) -> None:
    expected = np.frombuffer(base64.b85decode(source.colours), dtype=np.uint8)
    parts: tuple[Part, ...] = (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    )
    found = np.frombuffer(b"".join(class_colours(*part) for part in parts), dtype=np.uint8)
    away = np.abs(found.astype(float) - expected)
    if away.max() > TOLERANCE:
        part, place = divmod(int(away.argmax()), len(expected) // 2)
        raise UsageError(
            f"These files are not {source.name}: the mean colour of class "
            f"{place // source.shape[0]} differs by {away.max():.0f} levels among the "
            f"{('training', 'test')[part]} images, so images or labels are others; import the "
            "original files."
        )


TINY_IMAGENET_COLOURS = (
    "d1p~^Xi#fvPkC=tY;Rt6XjO%GW`}iVh<<T-Y+i_bYI}ZfacyKhRfA@FXnAv6dURcJWloJ~SY~8cb$V!cdUJAof=hjZ"
    "fpTPobYzBjV|sLEetBqocWQZWVuE&Ucy45QaAAFKRdsP+eSTDefK-EYPIh@ybaGvhf^v3sU3Pm^bZ}C7azS%?YkO~H"
    "cyC~Ob!2^dXnlBVg?(X%eQt4UT4-ute0XPlc4Tg8R()$;aAje0UrmX7a(Z!VcWz~KYh-$MY<h5Hb!AtMgLiXoX?1*t"
    "fqi^+XIGDddw6qjcy(xYX<>bNaf^a@fOv3fYG-|3Q+QoXczAGpZ)t67Xl`g^d2nZeYFdeFV}o&FX=7f2W>ax&X?cBv"
    "czb$!Z)1mZWN%|xfOl_pgqCV&VQXVueQa5KaA$dOX?JvNZg6aNX<vJBYI1C7d~9TTV@`8)UV?sqX=i4Yl#X+CYH@2~"
    "eQ#xZdwGk4d3tVVc7KR^Ze?&<NON#)ZD?b4b!?4#Y<q2EcYT0rY-xdQYI|;Ag?Mdxet>gkUVwmlg?ey%b8UurY;SB@"
    "l7n}8ab9O;Wq4~~V}pi(aA|mET84XbU0_dfWL|N2e1m;=du?TFZ)=8xet>puesE%ib7p&XX>?*<cXDTVcXWDudvb4S"
    "d~s@kYF%}AZ-I1PfqHUxgpYJ(QiX0>gK=V%d}4-oQH*zFfp27uaaoXgSA>CMiEu@2WJjQGJC1!sk9katT}zH^Qj}^*"
    "ntD-yZCrMOiFtc>S8;B3fPR37jB#>Oc4SU*YEg1>Tz+y?a&=^HV^Du{WQcojkcW1Dabk&rY<+%oa&2ZpU6N~jXLD~="
    "bZ%R8W>1c3U29`iba-cQbZ&Wph)aBed~arha$JRYV}N^UdvaTSd~ASnVt{#cfp~3ua%6dHQFCuye0E8Lf?9=hMtp!-"
    "acxqSi*$i}Uu$zka&Az4bU$%>ZGLZIesg1bcWi)rWqEdOi-Bc`er<MbTWDxsf`D#(b!KK^QG{+=ac5(1TS<|7bbD}X"
    "dvj=ZYGrqEXL4?6a9>oCh<kExZF+=|kAi`AY+jItetB|jZEs?8Wn6xGa*~I6i-C7%W@Ud~Qf*K_cz0}kZfbIFZEt2`"
    "dU0rmYg?3WXnSc|XJS`>Wl?Z$Y=VS^fQ5vEd2fSpWNceegLZClgrQ|%RbyaXeP>g7ZDwd*Sa@@5adB;YYh8SBXmM?6"
    "eQIThZBlV?T!nytXk}%Nl96_IX>x65h<bB+cy^GCg?n&lbbW?(Yg=wvNOW^=Zf$CKd2fw(Wp`^}e|vauaBY5TX@75C"
    "f^}?qe}I8+XMucjdvj`fc5{PvY-?#*l7e=4Z(M6;W_D;?YKDq^a%^~HR*{8!WoKA!VO({2dxL&?d2D27YiNRec6n@K"
    "fp%$vZeD$OXmMm<cyw)hd2xGvdU|_zgnV;@YhG`0XoY%bfqZp?i;r|=OoeS)d}vvYd}fP)SBrLIig;~?aa)jfS9*C}"
    "h;c}8W>1xBIgWlrjB-MbTS$^_Qjlmzn0HNlWKej6j(>l9Q*di;etm$7k8yKR"
)
