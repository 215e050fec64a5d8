// What this instruction set offers.

const Kernels kTable = {
    list_rows,      list_columns, map_forward, map_backward,  rank1_forward, rank1_backward, rank1_backward_packed, rank1_update,
    adam,           fill_rows,    sum_rows,    add_to,        affine_rows,   norm_backward,  activate,
    activate_backward, l2,        l1,
};
