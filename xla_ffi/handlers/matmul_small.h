// The product of a small batch: values and indices are read once, and indices are checked where they are used.
#ifndef SPARSEJAX_HANDLERS_MATMUL_SMALL_H_
#define SPARSEJAX_HANDLERS_MATMUL_SMALL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

#include "../plan/small_batch.h"
#include "matmul_jobs.h"

namespace sparsejax {

// The input in the type of the sums, `lanes` examples per feature: in place, or packed by the first task on a thread.
template <typename S>
const Sum<S>* SmallBatchInput(const MatmulWork& work, const Activations<const S>& x) {
  const int64_t lanes = work.blocks.lanes;
  if constexpr (kNative<S>) {
    if (IsInPlace(x, work.blocks)) return x.data;
  }
  Scratch& scratch = Scratch::Local(Scratch::kPackedX);
  Sum<S>* packed = scratch.GetFor<Sum<S>>(work.call, x.features * lanes);
  if (scratch.Holds(work.call, 0)) return packed;
  const auto& storage = Element<S>::Storage();
  if (x.row_major) {
    if (x.n < lanes) std::fill_n(packed, x.features * lanes, Sum<S>(0));
    storage.load_transposed(x.data, x.n, x.features, x.features, packed, lanes);
  } else {
    storage.load_rows(x.data, x.features, x.n, x.n, packed, lanes);
  }
  scratch.Hold(work.call, 0);
  return packed;
}

// A task computes some rows, a few at a time in scratch where they are stored in another layout or width.
template <typename S>
struct SmallBatchJob {
  MatmulWork work;
  int kernel;
  const S* data;
  Activations<const S> x;
  Activations<S> y;
  std::atomic<bool>* in_range;  // of the handler's frame, which no task outlives

  void Run(int64_t chunk) const {
    const Range part = work.RowsOf(chunk);
    const Sum<S>* source = SmallBatchInput<S>(work, x);
    if (IsDirect(y, work.blocks, 0)) return RunRows(part, source, y.At(part.begin, 0));
    const int64_t staged = StagedRows<S>(work.blocks);
    S* rows = Scratch::Local(Scratch::kOutput).template Get<S>(staged * work.blocks.width);
    ForEachPart(part, staged, [&](Range some) {
      PrefetchRows(y, some, work.blocks, 0);
      RunRows(some, source, rows);
      StoreRows<S>(rows, y, some, work.blocks, 0, false);
    });
  }

 private:
  void RunRows(Range rows, const Sum<S>* source, S* to) const {
    const Rows& p = work.pattern;
    const auto& k = Element<S>::Products();
    const auto product = kernel < 2 && HasSlowGathers() ? k.small_batch_loads[kernel] : k.small_batch[kernel];
    const bool ok = product({.row_ptr = p.row_ptr,
                             .indices = p.indices,
                             .features = p.features,
                             .row_begin = rows.begin,
                             .row_end = rows.end,
                             .data = data,
                             .x = source,
                             .y = to});
    if (!ok) in_range->store(false, std::memory_order_relaxed);
  }
};

// y = pattern x, where the order of the pattern is that of the values. Sets `in_range` to whether all indices are.
template <typename S>
ffi::Error RunSmallBatch(ffi::ThreadPool& pool, const SmallBatch& batch, const Rows& p, const S* data,
                         const Activations<const S>& x, const Activations<S>& y, bool& in_range) {
  const int64_t parts = RowParts(1, p.rows, p.rows, pool.num_threads());
  std::atomic<bool> all_in_range{true};
  SmallBatchJob<S> job{.work = {p, batch.Blocks(), parts, 1},
                       .kernel = batch.kernel,
                       .data = data,
                       .x = x,
                       .y = y,
                       .in_range = &all_in_range};
  ffi::Error error = RunJob(pool, std::move(job), p.rows == 0 ? 0 : parts, (p.entries() + p.rows) * x.n);
  in_range = all_in_range.load();
  return error;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_MATMUL_SMALL_H_
