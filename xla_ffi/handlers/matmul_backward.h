// The job behind both gradients of a matrix product at once: the cotangent is read, packed and gone through once.
#ifndef SPARSEJAX_HANDLERS_MATMUL_BACKWARD_H_
#define SPARSEJAX_HANDLERS_MATMUL_BACKWARD_H_

#include <cstdint>
#include <utility>

#include "matmul_jobs.h"

namespace sparsejax {

// On the transposed pattern: rows are features of x, the source is the cotangent `ct` of the product.
template <typename S>
struct MatmulBackwardJob {
  MatmulWork work;
  SlotTasks tasks;
  Values<S> data;
  const S* ct;
  const S* x;
  S* dx;
  Slots<S> out;

  void Run(int64_t chunk) const {
    ForEachRowsOfTask(work, tasks, out, chunk, ct, [&](Range rows, int64_t block, const Block<Sum<S>>& source, Sum<S>* dw) {
      RunRows(rows, block, source, dw);
    });
  }

  void Before(int64_t chunk) const { data.Gather(chunk); }
  void After(int64_t chunk) const { out.Finish(chunk); }

 private:
  void RunRows(Range rows, int64_t block, const Block<Sum<S>>& source, Sum<S>* dw) const {
    const BatchBlocks& blocks = work.blocks;
    const auto& k = Element<S>::Kernels();
    const PassPrograms programs(work, rows, source.stride);
    const Block<Sum<S>> tile = RowsBlock(x, rows, blocks, block);
    const BackwardArgs<Sum<S>> args{{{}, 0, programs.count(), data.get(), source.data, nullptr, 0, 0, 0, nullptr, false},
                                    tile.data, tile.stride, blocks.lanes, blocks.lanes, dw};
    RunAndStore(k.backward, args, work, block, programs, dx + rows.begin * blocks.n + blocks.begin(block));
  }
};

// The two gradients side by side.
template <typename S>
struct SeparateGradients {
  SddmmJob<S> of_data;  // its chunks come first: whole units
  int64_t chunks_of_data;
  SpmmJob<S> of_x;

  void Before(int64_t chunk) const { of_x.Before(chunk); }
  void Run(int64_t chunk) const { chunk < chunks_of_data ? of_data.Run(chunk) : of_x.Run(chunk - chunks_of_data); }
  void After(int64_t chunk) const { of_data.After(chunk); }
};

// Entries meet so many elements of the batch at least where one pass is faster than one for each gradient: below, putting
// values in the transposed order and their gradients back costs more than it saves.
constexpr int64_t kLeastFusedBatch = 64;

// dx[n, features] and dw[nse], for y = `p` x: of rows of x's features in `transposed`, and of y's rows in `p`.
template <typename S>
ffi::Error RunMatmulBackward(ffi::ThreadPool& pool, const Rows& p, const Rows& transposed, int64_t n,
                             Values<S> data, const S* ct, const S* x, S* dx, S* dw, int64_t nse) {
  if (n < kLeastFusedBatch) {
    PlannedJob<SpmmJob<S>> of_x = PlanSpmm(pool, transposed, n, std::move(data), ct, dx);
    PlannedJob<SddmmJob<S>> of_data = PlanSddmm(pool, p, n, x, ct, dw, nse);
    Chunks chunks = of_data.chunks;
    chunks.before = of_x.chunks.before;
    chunks.run += of_x.chunks.run;
    SeparateGradients<S> both{std::move(of_data.job), of_data.chunks.run, std::move(of_x.job)};
    return RunJob(pool, std::move(both), chunks, of_x.work + of_data.work);
  }
  const BatchBlocks blocks = BlocksFor<S>(transposed, n, BatchBlocks::kGoodTile);
  const int64_t entries = transposed.entries();
  const SlotTasks tasks = TasksFor<S>(pool, transposed, blocks, nse);
  Slots<S> sums(dw, nse, entries, tasks.slots, transposed.id, entries);
  data = data.At(transposed.id, entries);
  const Chunks chunks = GradientChunks(data.chunks(), tasks, sums);
  MatmulBackwardJob<S> job{{transposed, blocks, tasks.row_parts()}, tasks, std::move(data), ct, x, dx, std::move(sums)};
  return RunJob(pool, std::move(job), chunks, 2 * (entries + transposed.rows) * n);
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_MATMUL_BACKWARD_H_
