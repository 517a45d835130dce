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
    const int64_t slot = chunk / work.row_parts;
    const Span span = work.RowsOf(chunk % work.row_parts);
    const Span mine = Part(work.blocks.count, slots, slot);
    for (int64_t block = mine.begin; block < mine.end; ++block) {
      const Block<Sum<S>> source = SourceBlock(work, ct, block);
      ForEachRowGroup<Sum<S>>(span, work.blocks, [&](Span rows) { RunRows(rows, block, source, out.slot(slot)); });
    }
  }

  void Finish() const { out.Finish(); }

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

// Entries meet so many elements of the batch at least where one pass is faster than one for each gradient: below, putting
// values in the transposed order and their gradients back costs more than it saves.
constexpr int64_t kLeastBatch = 64;

// dx[n, features] and dw[nse], for y = `p` x: of rows of x's features in `transposed`, and of y's rows in `p`.
template <typename S>
ffi::Future RunMatmulBackward(ffi::ThreadPool& pool, const Rows& p, const Rows& transposed, int64_t n,
                              Values<S> data, const S* ct, const S* x, S* dx, S* dw, int64_t nse) {
  if (n < kLeastBatch) {
    Cut<SpmmJob<S>> of_x = CutSpmm(pool, transposed, n, std::move(data), ct, dx);
    Cut<SddmmJob<S>> of_data = CutSddmm(pool, p, n, x, ct, dw, nse);
    BothJobs<SpmmJob<S>, SddmmJob<S>> both{std::move(of_x.job), of_x.chunks, std::move(of_data.job)};
    return RunJob(pool, std::move(both), of_x.chunks + of_data.chunks, of_x.work + of_data.work);
  }
  const int64_t most = std::min<int64_t>(BatchBlocks::kGoodTile, Element<S>::Kernels().max_backward_vecs);
  const BatchBlocks blocks = BlocksFor<S>(transposed, n, most);
  const int64_t entries = transposed.entries();
  const int64_t slots = GradientSlots(blocks.count, CeilDiv(n, blocks.lanes), nse, sizeof(Sum<S>));
  const int64_t parts = RowParts(transposed, slots, kNative<S> && blocks.in_place(), pool.num_threads());
  Slots<S> sums(dw, nse, entries, slots, transposed.id, entries);
  MatmulBackwardJob<S> job{{transposed, blocks, parts}, slots, data.At(transposed.id, entries), ct, x, dx,
                           std::move(sums)};
  return RunJob(pool, std::move(job), slots * parts, 2 * (entries + transposed.rows) * n);
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_MATMUL_BACKWARD_H_
