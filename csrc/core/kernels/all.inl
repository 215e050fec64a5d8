// All kernels, and what this instruction set offers. Included once for each, inside its namespace and target region.

// clang-format off: each needs what the ones before it define.
#include "core/kernels/simd.inl"
#include "core/kernels/adam.inl"
#include "core/kernels/maps.inl"
#include "core/kernels/dense_maps.inl"
#include "core/kernels/rank1.inl"
#include "core/kernels/elementwise.inl"
#include "core/kernels/activations.inl"
#include "core/kernels/reductions.inl"
#include "core/kernels/arithmetic.inl"
#include "core/kernels/products.inl"
// clang-format on

const KernelTable kTable = {
    .list_rows = list_rows,
    .list_columns = list_columns,
    .map_forward = map_forward,
    .map_backward = map_backward,
    .dense_forward = dense_forward,
    .dense_backward = dense_backward,
    .rank1_forward = rank1_forward,
    .rank1_backward = rank1_backward,
    .rank1_backward_compact = rank1_backward_compact,
    .rank1_update = rank1_update,
    .adam = adam,
    .stacked_adam_float = stacked_adam<float>,
    .stacked_adam_double = stacked_adam<double>,
    .fill_rows = fill_rows,
    .sum_rows = sum_rows,
    .add = add_to,
    .affine_rows = affine_rows,
    .norm_backward = norm_backward,
    .activate = activate,
    .activate_backward = activate_backward,
    .arithmetic = arithmetic,
    .arithmetic_backward = arithmetic_backward,
    .prelu = prelu,
    .prelu_backward = prelu_backward,
    .row_sums = row_sums,
    .standardize_rows = standardize_rows,
    .standardize_rows_backward = standardize_rows_backward,
    .standardize_columns = standardize_columns,
    .standardize_columns_backward = standardize_columns_backward,
    .softmax_rows = softmax_rows,
    .softmax_rows_backward = softmax_rows_backward,
    .softmax_columns = softmax_columns,
    .softmax_columns_backward = softmax_columns_backward,
    .matmul = matmul,
    .transpose = transpose,
    .banded = banded,
    .banded_transposed = banded_transposed,
    .l2 = l2,
    .l1 = l1,
};
