// Handlers of the matrix products: spmm, spmm_t (the same job on the transposed program) and sddmm.
//
// Activations arrive batch-minor: logical (batch, features) lies in memory as (features, batch). A task takes a block
// of the batch, packs it so that one feature's block is contiguous and full vectors, and runs the kernel over rows.
#include <algorithm>
#include <cstdint>

#include "../plan/partition.h"
#include "../runtime/parallel.h"
#include "../runtime/scratch.h"
#include "checks.h"
#include "gradient_slots.h"
#include "handlers.h"
#include "types.h"

namespace sparsejax {
namespace {

// How a (features, n) matrix is cut into blocks of the batch.
struct BatchBlocks {
  int64_t n;       // batch
  int64_t width;   // elements per block
  int64_t count;   // blocks
  int lanes;       // of one vector; below the full width for small batches
  int narrow;      // index into the narrow kernels, or -1

  template <typename T>
  static BatchBlocks Make(const FloatKernels<T>& k, int64_t n, int64_t features) {
    BatchBlocks b{n, 0, 0, k.lanes, -1};
    if (n <= k.narrow_lanes[0]) {
      b.narrow = n <= 1 ? 2 : n <= k.narrow_lanes[1] ? 1 : 0;
      b.lanes = k.narrow_lanes[b.narrow];
    }
    const int64_t vectors = std::max<int64_t>(1, CeilDiv(n, b.lanes));
    const int64_t fit = kTileBytes / std::max<int64_t>(1, features * b.lanes * sizeof(T));
    const int64_t tile = b.narrow >= 0 ? 1 : std::clamp<int64_t>(fit, 2, k.max_vecs);
    b.count = CeilDiv(vectors, tile);
    b.width = CeilDiv(vectors, b.count) * b.lanes;
    b.count = CeilDiv(vectors * b.lanes, b.width);
    return b;
  }

  int64_t begin(int64_t block) const { return block * width; }
  int64_t valid(int64_t block) const { return std::min(width, n - begin(block)); }
  int vecs(int64_t block) const { return static_cast<int>(CeilDiv(valid(block), lanes)); }
  // One block that is the whole matrix and full vectors: usable in place.
  bool in_place() const { return count == 1 && n == width; }
};

// A block of the batch for the kernels: `rows` features from `row`, `stride` elements apart.
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

// Parts of the rows so that there are enough tasks; where each must pack, only as many as repay it.
int64_t RowParts(int64_t blocks, int64_t nnz, int64_t rows, int64_t features, bool in_place) {
  const int64_t repaid = in_place ? rows : nnz / std::max<int64_t>(1, 16 * features);
  return std::clamp<int64_t>(std::min(CeilDiv(kWantedTasks, blocks), repaid), 1, std::max<int64_t>(1, rows));
}

template <typename S>
struct SpmmJob {
  RowProgram program;
  int64_t rows, features, row_parts;
  BatchBlocks blocks;
  Values<S> data;
  const S* x;
  S* y;

  void Run(int64_t chunk) const {
    const int64_t block = chunk / row_parts;
    const Span span = RowsOfPart(program.row_ptr, rows, row_parts, chunk % row_parts);
    if (span.begin == span.end) return;
    SpmmArgs<Sum<S>> args{program, span.begin, span.end, data.get(), nullptr, nullptr, 0, blocks.lanes, 0};
    args.vecs = blocks.vecs(block);
    const Block<Sum<S>> input = Input(block);
    args.x = input.data;
    args.program.offset_scale = input.stride;
    if constexpr (kNative<S>) {
      if (blocks.valid(block) % blocks.lanes == 0) {
        args.y = y + span.begin * blocks.n + blocks.begin(block);
        args.y_row_stride = blocks.n;
        return Kernel(args);
      }
    }
    Unpacked(args, span, block);
  }

  void Finish() const {}

 private:
  Block<Sum<S>> Input(int64_t block) const {
    if constexpr (kNative<S>) {
      if (blocks.in_place()) return {x, blocks.n};
    }
    return PackBlock(x, 0, features, blocks, block, Scratch::kPackedX);
  }

  void Kernel(const SpmmArgs<Sum<S>>& args) const {
    const auto& k = Element<S>::Kernels();
    (blocks.narrow >= 0 ? k.spmm_narrow[blocks.narrow] : k.spmm)(args);
  }

  // Through scratch, a few rows at a time, where the output is not full vectors or not stored as computed.
  void Unpacked(SpmmArgs<Sum<S>> args, Span span, int64_t block) const {
    constexpr int64_t kRows = 32;
    args.y_row_stride = static_cast<int64_t>(args.vecs) * blocks.lanes;
    args.y = Scratch::Local(Scratch::kOutput).template Get<Sum<S>>(kRows * args.y_row_stride);
    for (int64_t r = span.begin; r < span.end; r += kRows) {
      args.row_begin = r;
      args.row_end = std::min(r + kRows, span.end);
      Kernel(args);
      for (int64_t i = r; i < args.row_end; ++i)
        Element<S>::Storage().store(args.y + (i - r) * args.y_row_stride, y + i * blocks.n + blocks.begin(block),
                                    blocks.valid(block));
    }
  }
};

template <typename S>
struct SddmmJob {
  RowProgram program;
  int64_t rows, features, row_parts, slots;
  BatchBlocks blocks;
  const S* x;
  const S* y;
  Slots<S> out;

  void Run(int64_t chunk) const {
    const int64_t slot = chunk / row_parts;
    const Span rows_span = RowsOfPart(program.row_ptr, rows, row_parts, chunk % row_parts);
    const Span mine = Part(blocks.count, slots, slot);
    for (int64_t block = mine.begin; block < mine.end; ++block) RunBlock(block, rows_span, out.slot(slot));
  }

  void Finish() const { out.Finish(); }

 private:
  void RunBlock(int64_t block, Span span, Sum<S>* dw) const {
    constexpr int64_t kRows = 32;
    const auto& k = Element<S>::Kernels();
    const auto kernel = blocks.narrow >= 0 ? k.sddmm_narrow[blocks.narrow] : k.sddmm;
    SddmmArgs<Sum<S>> args{program, 0, 0, nullptr, nullptr, 0, blocks.lanes, blocks.vecs(block), blocks.lanes, dw};
    bool direct = false;
    Block<Sum<S>> input;
    if constexpr (kNative<S>) {
      direct = blocks.valid(block) % blocks.lanes == 0;
      if (blocks.in_place()) input = {x, blocks.n};
    }
    if (!(kNative<S> && blocks.in_place())) input = PackBlock(x, 0, features, blocks, block, Scratch::kPackedX);
    args.x = input.data;
    args.program.offset_scale = input.stride;
    for (int64_t r = span.begin; r < span.end; r += kRows) {
      args.row_begin = r;
      args.row_end = std::min(r + kRows, span.end);
      Block<Sum<S>> cotangent;
      if constexpr (kNative<S>) {
        if (direct) cotangent = {y + r * blocks.n + blocks.begin(block), blocks.n};
      }
      if (!direct) cotangent = PackBlock(y, r, args.row_end - r, blocks, block, Scratch::kPackedY);
      args.y = cotangent.data;
      args.y_row_stride = cotangent.stride;
      kernel(args);
    }
  }
};


// spmm over a row program given by (row_ptr, offset, id); shared by both orientations.
ffi::Future RunSpmm(const char* name, ffi::ThreadPool& pool, const ffi::AnyBuffer& data, const ffi::AnyBuffer& x,
                    const RowProgram& program, int64_t rows, ffi::AnyBuffer& y) {
  const int64_t n = x.dimensions()[0], features = x.dimensions()[1];
  Checker check(name);
  check.Rank("result", y, 2);
  check.SameType("data", data, x.element_type());
  check.SameType("result", y, x.element_type());
  check.FloatType("x", x.element_type());
  if (check.ok()) check.Size("result", Elements(y), n * rows);
  if (!check.ok()) return Failed(check.error());
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    const auto blocks = BatchBlocks::Make(Element<S>::Kernels(), n, features);
    const int64_t nnz = program.row_ptr[rows];
    const int64_t parts = RowParts(blocks.count, nnz, rows, features, kNative<S> && blocks.in_place());
    SpmmJob<S> job{program, rows, features, parts, blocks,
                   Values<S>(reinterpret_cast<const S*>(data.untyped_data()), Elements(data)),
                   reinterpret_cast<const S*>(x.untyped_data()), reinterpret_cast<S*>(y.untyped_data())};
    return RunJob(pool, std::move(job), n == 0 ? 0 : blocks.count * parts, nnz * n + rows * n);
  });
}

ffi::Future SpmmImpl(ffi::ThreadPool pool, ffi::AnyBuffer data, ffi::AnyBuffer x, Ints indptr, Ints indices,
                     ffi::Result<ffi::AnyBuffer> y) {
  constexpr const char* kName = "sparsejax_spmm";
  Checker check(kName);
  check.Rank("x", x, 2);
  if (check.ok()) {
    check.Size("data", Elements(data), Elements(indices));
    check.Pointers("indptr", indptr.typed_data(), Elements(indptr), Elements(indices));
    if (check.ok())
      check.Indices("indices", indices.typed_data(), indptr.typed_data()[Elements(indptr) - 1], x.dimensions()[1]);
  }
  if (!check.ok()) return Failed(check.error());
  const RowProgram program{indptr.typed_data(), indices.typed_data(), nullptr, 1};
  return RunSpmm(kName, pool, data, x, program, Elements(indptr) - 1, *y);
}

ffi::Future SpmmTImpl(ffi::ThreadPool pool, ffi::AnyBuffer data, ffi::AnyBuffer y, Ints indptr_t, Ints indices_t,
                      Ints perm_t, ffi::Result<ffi::AnyBuffer> x) {
  constexpr const char* kName = "sparsejax_spmm_t";
  Checker check(kName);
  check.Rank("y", y, 2);
  if (check.ok()) {
    check.Size("data", Elements(data), Elements(indices_t));
    check.Size("perm_t", Elements(perm_t), Elements(indices_t));
    check.Pointers("indptr_t", indptr_t.typed_data(), Elements(indptr_t), Elements(indices_t));
    if (check.ok()) {
      const int64_t nnz = indptr_t.typed_data()[Elements(indptr_t) - 1];
      check.Indices("indices_t", indices_t.typed_data(), nnz, y.dimensions()[1]);
      check.Indices("perm_t", perm_t.typed_data(), nnz, Elements(data));
    }
  }
  if (!check.ok()) return Failed(check.error());
  const RowProgram program{indptr_t.typed_data(), indices_t.typed_data(), perm_t.typed_data(), 1};
  return RunSpmm(kName, pool, data, y, program, Elements(indptr_t) - 1, *x);
}

ffi::Future SddmmImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer y, Ints indptr, Ints indices,
                      ffi::Result<ffi::AnyBuffer> out) {
  Checker check("sparsejax_sddmm");
  check.Rank("x", x, 2);
  check.Rank("y", y, 2);
  check.FloatType("x", x.element_type());
  check.SameType("y", y, x.element_type());
  check.SameType("result", *out, x.element_type());
  check.Size("result", Elements(*out), Elements(indices));
  check.Pointers("indptr", indptr.typed_data(), Elements(indptr), Elements(indices));
  if (check.ok()) {
    check.Size("y's batch", y.dimensions()[0], x.dimensions()[0]);
    check.Size("y's features", y.dimensions()[1], Elements(indptr) - 1);
    check.Indices("indices", indices.typed_data(), indptr.typed_data()[Elements(indptr) - 1], x.dimensions()[1]);
  }
  if (!check.ok()) return Failed(check.error());
  const int64_t n = x.dimensions()[0], features = x.dimensions()[1], rows = Elements(indptr) - 1;
  const int64_t nse = Elements(indices), nnz = indptr.typed_data()[rows];
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    const auto blocks = BatchBlocks::Make(Element<S>::Kernels(), n, features);
    const int64_t slots = GradientSlots(blocks.count, nse, sizeof(Sum<S>));
    const int64_t parts = RowParts(slots, nnz, rows, features, kNative<S> && blocks.in_place());
    const RowProgram program{indptr.typed_data(), indices.typed_data(), nullptr, 1};
    SddmmJob<S> job{program, rows, features, parts, slots, blocks,
                    reinterpret_cast<const S*>(x.untyped_data()), reinterpret_cast<const S*>(y.untyped_data()),
                    Slots<S>(reinterpret_cast<S*>(out->untyped_data()), nse, nnz, slots)};
    return RunJob(pool, std::move(job), n == 0 ? 0 : slots * parts, nnz * n);
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(SpmmHandler, SpmmImpl, BindProduct());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SpmmTHandler, SpmmTImpl, BindTransposedProduct());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SddmmHandler, SddmmImpl, BindProduct());

}  // namespace sparsejax
