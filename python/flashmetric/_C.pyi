# SPDX-License-Identifier: BSD-3-Clause
# Pointers are addresses as integers, 0 = absent. Strides in elements, sizes in bytes.
# dtype: 0 = float32, 1 = float64. What each argument means: csrc/flashmetric.h.

def counters() -> dict[str, int]: ...
def reset_counters() -> None: ...
def isa() -> str: ...
def isa_is_forced() -> bool: ...
def isas() -> list[tuple[str, bool]]: ...
def environment_error() -> str: ...
def build_info() -> dict[str, str | bool | list[str]]: ...
def force_isa(name: str, /) -> None: ...

# The kernels run and return 0, or return the bytes of workspace they need if it is smaller.

def mine(
    mining: str,
    distance: str,
    normalize: bool,
    dtype: int,
    dim: int,
    query: int,
    n_query: int,
    query_stride: int,
    ref: int,
    n_ref: int,
    ref_stride: int,
    relation: str,
    query_labels: int,
    ref_labels: int,
    n_classes: int,
    self_index: int,
    query_keep: int,
    ref_keep: int,
    positive: int,
    negative: int,
    workspace: int,
    workspace_size: int,
    threads: int,
    /,
) -> int: ...
def triplet(
    distance: str,
    normalize: bool,
    dtype: int,
    dim: int,
    anchor_rows: int,
    n_anchor_rows: int,
    anchor_stride: int,
    positive_rows: int,
    n_positive_rows: int,
    positive_stride: int,
    negative_rows: int,
    n_negative_rows: int,
    negative_stride: int,
    n_triplets: int,
    anchor: int,
    positive: int,
    negative: int,
    margin: float,
    margin_values: int,
    margin_stride: int,
    soft_margin: bool,
    swap: bool,
    weights: int,
    count_invalid: bool,
    reduction: str,
    cotangent: int,
    cotangent_stride: int,
    loss: int,
    grad_anchor: int,
    grad_positive: int,
    grad_negative: int,
    stats: int,
    workspace: int,
    workspace_size: int,
    threads: int,
    /,
) -> int: ...
def pairwise(
    distance: str,
    normalize: bool,
    dtype: int,
    dim: int,
    x: int,
    n_x: int,
    x_stride: int,
    y: int,
    n_y: int,
    y_stride: int,
    out: int,
    workspace: int,
    workspace_size: int,
    threads: int,
    /,
) -> int: ...
def pairwise_backward(
    distance: str,
    normalize: bool,
    dtype: int,
    dim: int,
    x: int,
    n_x: int,
    x_stride: int,
    y: int,
    n_y: int,
    y_stride: int,
    cotangent: int,
    cotangent_row_stride: int,
    cotangent_col_stride: int,
    grad_x: int,
    workspace: int,
    workspace_size: int,
    threads: int,
    /,
) -> int: ...
