// The job of both gradients of a matrix product at once. The cotangent is packed and read by the kernels once for both.
#ifndef SPARSEJAX_HANDLERS_MATMUL_BACKWARD_H_
#define SPARSEJAX_HANDLERS_MATMUL_BACKWARD_H_

#include <cstdint>
#include <utility>

#include "../runtime/checked_positions.h"
#include "matmul_jobs.h"

namespace sparsejax {

// Works on the transposed pattern: rows are features of x, and the source is the cotangent `ct` of the product.
template <typename S>
struct MatmulBackwardJob {
  MatmulWork work;
  SlotTasks tasks;
  Values<S> data;
  Activations<const S> ct;
  Activations<const S> x;
  Activations<S> dx;
  Slots<S> out;

  void Run(int64_t chunk) const {
    ForEachRowsOfTask(work, tasks, out, chunk, ct, [&](Range rows, int64_t block, const Block<S>& source, Sum<S>* dw) {
      RunRows(rows, block, source, dw);
    });
  }

  void Before(int64_t chunk) const { data.Gather(chunk); }
  void After(int64_t chunk) const { out.Finish(chunk); }

 private:
  void RunRows(Range rows, int64_t block, const Block<S>& source, Sum<S>* dw) const {
    const BatchBlocks& blocks = work.blocks;
    const PassPrograms programs(work, rows, source.stride);
    const Block<S> tile = RowsBlock(x, rows, blocks, block);
    BackwardArgs<S> args{{.row_end = programs.count(), .data = data.get(), .x = source.data}};
    args.tile = tile.data;
    args.tile_row_stride = tile.stride;
    args.tile_vec_stride = blocks.lanes;
    args.last_lanes = blocks.lanes;
    args.dw = dw;
    RunAndStore(BackwardKernel<S>(work.shared).run, args, work, block, rows, programs, dx, [&](Range some) {
      // The same rows of the next group.
      const int64_t group = rows.end - rows.begin, end = std::min(some.end + group, x.features);
      PrefetchRows(x, {some.begin + group, end}, blocks, block);
    });
  }
};

// The two gradients as two independent products in one job.
template <typename S>
struct SeparateGradients {
  SddmmJob<S> of_data;  // has the first chunks, which are whole units
  int64_t chunks_of_data;
  SpmmJob<S> of_x;

  void Before(int64_t chunk) const { of_x.Before(chunk); }
  void Run(int64_t chunk) const { chunk < chunks_of_data ? of_data.Run(chunk) : of_x.Run(chunk - chunks_of_data); }
  void After(int64_t chunk) const { of_data.After(chunk); }
};

// Batch elements from which both gradients are computed in one pass over the cotangent. For smaller batches, gathering
// the values in the transposed order and scattering their gradients costs more than the pass saves.
constexpr int64_t kLeastFusedBatch = 64;

// Whether both gradients are computed in one pass over a batch of n. The pass scatters the gradient of the values to
// the positions in `transposed`, so these have to be a permutation. The two single gradients have a meaning for any
// positions.
inline bool IsFused(const Rows& transposed, int64_t n) {
  return n >= kLeastFusedBatch && transposed.rows > 0 && ArePermutation(transposed.id, transposed.entries());
}

// Both gradients of y = p x, where `transposed` is the same pattern ordered by features of x.
template <typename S>
ffi::Error RunMatmulBackward(ffi::ThreadPool& pool, bool is_fused, const Rows& p, const Rows& transposed,
                             Values<S> data, const Activations<const S>& ct, const Activations<const S>& x,
                             const Activations<S>& dx, S* dw, int64_t nse) {
  if (!is_fused) {
    PlannedJob<SpmmJob<S>> of_x = PlanSpmm(pool, transposed, std::move(data), ct, dx);
    PlannedJob<SddmmJob<S>> of_data = PlanSddmm(pool, p, x, ct, dw, nse);
    Chunks chunks = of_data.chunks;
    chunks.before = of_x.chunks.before;
    chunks.run += of_x.chunks.run;
    SeparateGradients<S> both{
        .of_data = std::move(of_data.job), .chunks_of_data = of_data.chunks.run, .of_x = std::move(of_x.job)};
    return RunJob(pool, std::move(both), chunks, of_x.work + of_data.work);
  }
  const int64_t shared = SharedRows(transposed.row_ptr, transposed.indices, transposed.rows);
  const BatchBlocks blocks =
      BlocksFor<S>(transposed, ct.n, std::min<int64_t>(BatchBlocks::kGoodTile, BackwardKernel<S>(shared).most_vecs));
  const int64_t entries = transposed.entries();
  const SlotTasks tasks = TasksFor<S>(pool, transposed, ct, blocks, nse);
  Slots<S> sums(dw, nse, entries, tasks.slots, transposed.id, entries);
  data = data.At(transposed.id, entries);
  const Chunks chunks = GradientChunks(data.chunks(), tasks, sums);
  MatmulBackwardJob<S> job{.work = {transposed, blocks, tasks.row_parts(), shared},
                           .tasks = tasks,
                           .data = std::move(data),
                           .ct = ct,
                           .x = x,
                           .dx = dx,
                           .out = std::move(sums)};
  return RunJob(pool, std::move(job), chunks, 2 * (entries + transposed.rows) * ct.n);
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_MATMUL_BACKWARD_H_
