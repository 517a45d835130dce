// The kernels of the products of one element type.

template <typename S>
constexpr ProductKernels<S> MakeProductKernels() {
  constexpr int kLanes = kVectorBytes / sizeof(S), kMost = kMaxVecs / Packed<S, kLanes>::kParts;
  constexpr int kHalf = kLanes / 2, kQuarter = kLanes >= 8 ? kLanes / 4 : 1;
  // Rows for which both gradients are computed together. With pairs, of four rows a sum would have two vectors only,
  // and adding their lanes would take longer than what is saved.
  constexpr int kGradRows = Packed<S, kLanes>::kEntries > 1 ? 2 : 4;
  return {
      .lanes = kLanes,
      .max_vecs = kMost,
      .narrow_lanes = {kHalf, kQuarter, 1},
      .spmm = SpmmDispatch<S, kLanes, kMost>,
      .spmm_narrow = {SpmmDispatch<S, kHalf, 1>, SpmmDispatch<S, kQuarter, 1>, SpmmDispatch<S, 1, 1>},
      .sddmm = SddmmDispatch<S, kLanes, kMost>,
      .sddmm_narrow = {SddmmDispatch<S, kHalf, 1>, SddmmDispatch<S, kQuarter, 1>, SddmmDispatch<S, 1, 1>},
      .backward = BackwardDispatch<S, kLanes, kMost>,
      .spmm_shared_max_vecs = {kSharedVecs<S, 2>, kSharedVecs<S, 4>},
      .spmm_shared = {SpmmSharedDispatch<S, kLanes, 2>, SpmmSharedDispatch<S, kLanes, 4>},
      .backward_shared_max_vecs = {kSharedVecs<S, 2>, kSharedVecs<S, kGradRows>},
      .backward_shared = {BackwardSharedDispatch<S, kLanes, 2>, BackwardSharedDispatch<S, kLanes, kGradRows>},
      .small_batch = {SmallBatchKernel<S, 1>(), SmallBatchKernel<S, 2>(), SmallBatchKernel<S, 4>(),
                      SmallBatchKernel<S, 8>(), SmallBatchKernel<S, 16>()},
      .small_batch_loads = {SmallBatchKernel<S, 1, true>(), SmallBatchKernel<S, 2, true>()},
  };
}
