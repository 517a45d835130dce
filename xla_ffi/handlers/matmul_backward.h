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
  int64_t slots;
  Values<S> data;
  const S* ct;
  const S* x;
  S* dx;
  Slots<S> out;

  void Run(int64_t chunk) const {
    ForEachRowsOfSlot(work, slots, out, chunk, ct, [&](Span rows, int64_t block, const Block<Sum<S>>& source, Sum<S>* dw) {
      RunRows(rows, block, source, dw);
    });
  }

  void Before(int64_t chunk) const { data.Gather(chunk); }
  void After(int64_t chunk) const { out.Finish(chunk); }

 private:
  void RunRows(Span rows, int64_t block, const Block<Sum<S>>& source, Sum<S>* dw) const {
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
struct GradientsApart {
  SpmmJob<S> of_x;
  int64_t chunks_of_x;
  SddmmJob<S> of_data;

  void Before(int64_t chunk) const { of_x.Before(chunk); }
  void Run(int64_t chunk) const { chunk < chunks_of_x ? of_x.Run(chunk) : of_data.Run(chunk - chunks_of_x); }
  void After(int64_t chunk) const { of_data.After(chunk); }
};

// Entries meet so many elements of the batch at least where one pass is faster than one for each gradient: below, putting
// values in the transposed order and their gradients back costs more than it saves.
constexpr int64_t kLeastBatch = 64;

// dx[n, features] and dw[nse], for y = `p` x: of rows of x's features in `transposed`, and of y's rows in `p`.
template <typename S>
ffi::Error RunMatmulBackward(ffi::ThreadPool& pool, const Rows& p, const Rows& transposed, int64_t n,
                             Values<S> data, const S* ct, const S* x, S* dx, S* dw, int64_t nse) {
  if (n < kLeastBatch) {
    Cut<SpmmJob<S>> of_x = CutSpmm(pool, transposed, n, std::move(data), ct, dx);
    Cut<SddmmJob<S>> of_data = CutSddmm(pool, p, n, x, ct, dw, nse);
    const Chunks chunks{of_x.chunks.before, of_x.chunks.run + of_data.chunks.run, of_data.chunks.after};
    GradientsApart<S> both{std::move(of_x.job), of_x.chunks.run, std::move(of_data.job)};
    return RunJob(pool, std::move(both), chunks, of_x.work + of_data.work);
  }
  const BatchBlocks blocks = BlocksFor<S>(transposed, n, BatchBlocks::kGoodTile);
  const int64_t entries = transposed.entries();
  const int64_t slots = GradientSlots(blocks.count, CeilDiv(n, blocks.lanes), nse, sizeof(Sum<S>));
  const int64_t parts = RowParts(transposed, slots, kNative<S> && blocks.in_place(), pool.num_threads());
  Slots<S> sums(dw, nse, entries, slots, transposed.id, entries);
  data = data.At(transposed.id, entries);
  const Chunks chunks{data.chunks(), slots * parts, sums.chunks()};
  MatmulBackwardJob<S> job{{transposed, blocks, parts}, slots, std::move(data), ct, x, dx, std::move(sums)};
  return RunJob(pool, std::move(job), chunks, 2 * (entries + transposed.rows) * n);
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_MATMUL_BACKWARD_H_
