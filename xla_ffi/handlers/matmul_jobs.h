// The two jobs behind the matrix products: spmm (both orientations) and sddmm. A task takes a block of the batch, packs
// it where it is not usable in place, and runs the kernel over its rows, in passes over the source's features.
#ifndef SPARSEJAX_HANDLERS_MATMUL_JOBS_H_
#define SPARSEJAX_HANDLERS_MATMUL_JOBS_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "../plan/batch_blocks.h"
#include "../runtime/parallel.h"
#include "../runtime/scratch.h"
#include "gradient_slots.h"
#include "types.h"

namespace sparsejax {

// A pattern by rows of the destination, borrowed from the call's operands.
struct Rows {
  const int32_t* row_ptr;
  const int32_t* indices;  // features of the source
  const int32_t* id;       // position in data; null when entry e is data[e]
  int64_t rows, features;

  int64_t entries() const { return row_ptr[rows]; }
};

struct MatmulWork {
  Rows pattern;
  BatchBlocks blocks;
  int64_t row_parts;  // tasks per block of the batch

  Span RowsOf(int64_t part) const { return RowsOfPart(pattern.row_ptr, pattern.rows, row_parts, part); }
};

// Calls body(program, pass) for each pass; row 0 of the program is the first row of the span.
template <typename Body>
void ForEachPass(const MatmulWork& work, Span span, int64_t offset_scale, const Body& body) {
  const Rows& p = work.pattern;
  const int32_t* ptr = p.row_ptr + span.begin;
  const int64_t rows = span.end - span.begin, passes = work.blocks.passes;
  if (passes == 1) return body(RowProgram{ptr, ptr + 1, p.indices, p.id, offset_scale}, 0);
  int32_t* begin = Scratch::Local(Scratch::kCuts).Get<int32_t>(2 * rows);
  int32_t* end = begin + rows;
  std::copy(ptr, ptr + rows, end);
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (int64_t r = 0; r < rows; ++r) {
      begin[r] = end[r];
      end[r] = EndOfPass(p.indices, begin[r], ptr[r + 1], p.features, pass, passes);
    }
    body(RowProgram{begin, end, p.indices, p.id, offset_scale}, pass);
  }
}

// A block of the batch for the kernels: rows of features, `stride` elements apart.
template <typename T>
struct Block {
  const T* data;
  int64_t stride;
};

template <typename S>
Block<Sum<S>> PackBlock(const S* x, int64_t row, int64_t rows, const BatchBlocks& b, int64_t block,
                        Scratch::Slot slot) {
  const int64_t stride = static_cast<int64_t>(b.vecs(block)) * b.lanes;
  Sum<S>* packed = Scratch::Local(slot).Get<Sum<S>>(rows * stride);
  const S* from = x + row * b.n + b.begin(block);
  for (int64_t r = 0; r < rows; ++r) {
    Element<S>::Storage().load(from + r * b.n, packed + r * stride, b.valid(block));
    std::fill(packed + r * stride + b.valid(block), packed + (r + 1) * stride, Sum<S>(0));
  }
  return {packed, stride};
}

template <typename S>
Block<Sum<S>> SourceBlock(const MatmulWork& work, const S* x, int64_t block) {
  if constexpr (kNative<S>) {
    if (work.blocks.in_place()) return {x, work.blocks.n};
  }
  return PackBlock(x, 0, work.pattern.features, work.blocks, block, Scratch::kPackedX);
}

// Whether the kernels may use the destination's side of a block where it lies.
template <typename S>
bool IsDirect(const BatchBlocks& blocks, int64_t block) {
  return kNative<S> && blocks.valid(block) % blocks.lanes == 0;
}

// Rows that go through scratch together, where they must.
constexpr int64_t kScratchRows = 32;

template <typename S>
struct SpmmJob {
  MatmulWork work;
  Values<S> data;
  const S* x;
  S* y;

  void Run(int64_t chunk) const {
    const BatchBlocks& blocks = work.blocks;
    const int64_t block = chunk / work.row_parts;
    const Span span = work.RowsOf(chunk % work.row_parts);
    if (span.begin == span.end) return;
    const Block<Sum<S>> source = SourceBlock(work, x, block);
    SpmmArgs<Sum<S>> args{{}, 0, 0, data.get(), source.data, nullptr, 0, blocks.lanes, blocks.vecs(block), false};
    if constexpr (kNative<S>) {
      if (IsDirect<S>(blocks, block)) {
        args.y = y + span.begin * blocks.n + blocks.begin(block);
        args.y_row_stride = blocks.n;
        return Passes(args, span, source.stride);
      }
    }
    // Through scratch where the output is not full vectors or not stored as computed.
    args.y_row_stride = static_cast<int64_t>(args.vecs) * blocks.lanes;
    const int64_t step = blocks.passes == 1 ? kScratchRows : span.end - span.begin;
    args.y = Scratch::Local(Scratch::kOutput).template Get<Sum<S>>(step * args.y_row_stride);
    for (int64_t r = span.begin; r < span.end; r += step) {
      const Span some{r, std::min(r + step, span.end)};
      Passes(args, some, source.stride);
      for (int64_t i = r; i < some.end; ++i)
        Element<S>::Storage().store(args.y + (i - r) * args.y_row_stride, y + i * blocks.n + blocks.begin(block),
                                    blocks.valid(block));
    }
  }

  void Finish() const {}

 private:
  void Passes(SpmmArgs<Sum<S>> args, Span span, int64_t source_stride) const {
    const auto& k = Element<S>::Kernels();
    const auto kernel = work.blocks.narrow >= 0 ? k.spmm_narrow[work.blocks.narrow] : k.spmm;
    args.row_end = span.end - span.begin;
    ForEachPass(work, span, source_stride, [&](const RowProgram& program, int64_t pass) {
      args.program = program;
      args.accumulate = pass > 0;
      kernel(args);
    });
  }
};

template <typename S>
struct SddmmJob {
  MatmulWork work;
  int64_t slots;
  const S* x;
  const S* y;
  Slots<S> out;

  void Run(int64_t chunk) const {
    const int64_t slot = chunk / work.row_parts;
    const Span rows = work.RowsOf(chunk % work.row_parts);
    const Span mine = Part(work.blocks.count, slots, slot);
    for (int64_t block = mine.begin; block < mine.end; ++block) RunBlock(block, rows, out.slot(slot));
  }

  void Finish() const { out.Finish(); }

 private:
  void RunBlock(int64_t block, Span span, Sum<S>* dw) const {
    const BatchBlocks& blocks = work.blocks;
    const auto& k = Element<S>::Kernels();
    const auto kernel = blocks.narrow >= 0 ? k.sddmm_narrow[blocks.narrow] : k.sddmm;
    const Block<Sum<S>> source = SourceBlock(work, x, block);
    SddmmArgs<Sum<S>> args{{}, 0, 0, source.data, nullptr, 0, blocks.lanes, blocks.vecs(block), blocks.lanes, dw};
    ForEachPass(work, span, source.stride, [&](const RowProgram& program, int64_t) {
      args.program = program;
      if constexpr (kNative<S>) {
        if (IsDirect<S>(blocks, block)) {
          args.row_begin = 0;
          args.row_end = span.end - span.begin;
          args.y = y + span.begin * blocks.n + blocks.begin(block);
          args.y_row_stride = blocks.n;
          return kernel(args);
        }
      }
      for (int64_t r = span.begin; r < span.end; r += kScratchRows) {
        args.row_begin = r - span.begin;
        args.row_end = std::min(r + kScratchRows, span.end) - span.begin;
        const auto cotangent = PackBlock(y, r, args.row_end - args.row_begin, blocks, block, Scratch::kPackedY);
        args.y = cotangent.data;
        args.y_row_stride = cotangent.stride;
        kernel(args);
      }
    });
  }
};

// Tasks per block: more than one only where there are few blocks, and where each must pack, only as many as repay it.
inline int64_t RowParts(const Rows& p, int64_t blocks, bool in_place) {
  const int64_t repaid = in_place ? p.rows : p.entries() / std::max<int64_t>(1, 16 * p.features);
  return std::clamp<int64_t>(std::min(CeilDiv(kWantedTasks, blocks), repaid), 1, std::max<int64_t>(1, p.rows));
}

template <typename S>
BatchBlocks BlocksFor(const Rows& p, int64_t n) {
  return BatchBlocks::Make(Element<S>::Kernels(), n, p.features, p.entries() / std::max<int64_t>(1, p.rows));
}

// y[rows, n] = pattern x[features, n].
template <typename S>
ffi::Future RunSpmm(ffi::ThreadPool& pool, const Rows& p, int64_t n, Values<S> data, const S* x, S* y) {
  const BatchBlocks blocks = BlocksFor<S>(p, n);
  const int64_t parts = RowParts(p, blocks.count, kNative<S> && blocks.in_place());
  SpmmJob<S> job{{p, blocks, parts}, std::move(data), x, y};
  return RunJob(pool, std::move(job), n == 0 ? 0 : blocks.count * parts, (p.entries() + p.rows) * n);
}

// out[nse] = products of y's rows with x's features at the entries; zero past them.
template <typename S>
ffi::Future RunSddmm(ffi::ThreadPool& pool, const Rows& p, int64_t n, const S* x, const S* y, S* out, int64_t nse) {
  const BatchBlocks blocks = BlocksFor<S>(p, n);
  const int64_t slots = GradientSlots(blocks.count, nse, sizeof(Sum<S>));
  const int64_t parts = RowParts(p, slots, kNative<S> && blocks.in_place());
  SddmmJob<S> job{{p, blocks, parts}, slots, x, y, Slots<S>(out, nse, p.entries(), slots)};
  return RunJob(pool, std::move(job), n == 0 ? 0 : slots * parts, p.entries() * n);
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_MATMUL_JOBS_H_
