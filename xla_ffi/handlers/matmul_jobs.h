// The two jobs of the matrix products: spmm (both orientations) and sddmm. A task packs a block of the batch, unless
// the kernels can read it in place, and runs the kernel for its rows, in passes over the features of the source.
// Packing and storing transpose where activations are row-major.
#ifndef SPARSEJAX_HANDLERS_MATMUL_JOBS_H_
#define SPARSEJAX_HANDLERS_MATMUL_JOBS_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "../plan/batch_blocks.h"
#include "../runtime/parallel.h"
#include "../runtime/scratch.h"
#include "activations.h"
#include "gradient_slots.h"
#include "passes.h"
#include "shared_rows.h"
#include "types.h"

namespace sparsejax {

// A pattern ordered by rows of the destination. The arrays are operands of the call.
struct Rows {
  const int32_t* row_ptr;
  const int32_t* indices;  // features of the source
  const int32_t* id;       // positions in `data`; null where entry e is data[e]
  int64_t rows, features;

  int64_t entries() const { return row_ptr[rows]; }
};

struct MatmulWork {
  Rows pattern;
  BatchBlocks blocks;
  int64_t row_parts;  // tasks per block of the batch
  int64_t shared;     // rows of a group with the same entries
  int64_t call = Scratch::NewCall();

  Range RowsOf(int64_t part) const { return RowsOfPart(pattern.row_ptr, pattern.rows, row_parts, part); }
};

// The row programs for some rows, pass by pass. Row 0 of a program is the first of the rows. A program is valid until
// that of the next pass is built.
class PassPrograms {
 public:
  PassPrograms(const MatmulWork& work, Range rows, int64_t offset_scale)
      : p_(work.pattern), passes_(work.blocks.passes), rows_(rows), offset_scale_(offset_scale) {
    if (passes_ == 1) return;
    begin_ = Scratch::Local(Scratch::kCuts).Get<int32_t>(2 * count());
    std::copy_n(p_.row_ptr + rows.begin, count(), end());
  }

  RowProgram operator()(int64_t pass) const {
    const int32_t* ptr = p_.row_ptr + rows_.begin;
    if (passes_ == 1) return {ptr, ptr + 1, p_.indices, offset_scale_};
    for (int64_t r = 0; r < count(); ++r) {
      begin_[r] = end()[r];
      end()[r] = EndOfPass(p_.indices, begin_[r], ptr[r + 1], p_.features, pass, passes_);
    }
    return {begin_, end(), p_.indices, offset_scale_};
  }

  int64_t count() const { return rows_.end - rows_.begin; }

 private:
  int32_t* end() const { return begin_ + count(); }

  const Rows& p_;
  int64_t passes_;
  Range rows_;
  int64_t offset_scale_;
  int32_t* begin_ = nullptr;
};

// Calls body(rows) for groups of the rows of a range. Every group reads the whole packed block; so with several passes,
// a group has as many rows as there is room for their partial sums.
template <typename S, typename Body>
void ForEachRowGroup(Range range, const BatchBlocks& blocks, const Body& body) {
  const int64_t room = kPartialBytes / (blocks.width * static_cast<int64_t>(sizeof(Sum<S>)));
  ForEachPart(range, blocks.passes > 1 ? std::max<int64_t>(1, room / kRowGroup) * kRowGroup : kRowGroup, body);
}

// A block of the batch as kernels read it: one row per feature, `stride` elements apart.
template <typename T>
struct Block {
  const T* data;
  int64_t stride;
};

// A block of the source: in place, or packed. A block that an earlier task of the call has packed on this thread is not
// packed again.
template <typename S>
Block<S> SourceBlock(const MatmulWork& work, const Activations<const S>& x, int64_t block) {
  const BatchBlocks& b = work.blocks;
  if (IsInPlace(x, b)) return {x.data, b.n};
  Scratch& scratch = Scratch::Local(Scratch::kPackedX);
  const int64_t stride = static_cast<int64_t>(b.vecs(block)) * b.lanes;
  S* packed = scratch.GetFor<S>(work.call, x.features * stride);
  if (!scratch.Holds(work.call, block)) {
    PackRows<S>(x, {0, x.features}, b, block, packed);
    scratch.Hold(work.call, block);
  }
  return {packed, stride};
}

// Some rows of a block of an array of the destination's shape: in place, or packed.
template <typename S>
Block<S> RowsBlock(const Activations<const S>& y, Range rows, const BatchBlocks& b, int64_t block) {
  if (IsDirect(y, b, block)) return {y.At(rows.begin, b.begin(block)), b.n};
  const int64_t count = rows.end - rows.begin, stride = static_cast<int64_t>(b.vecs(block)) * b.lanes;
  S* packed = Scratch::Local(Scratch::kPackedY).Get<S>(count * stride);
  PackRows<S>(y, rows, b, block, packed);
  return {packed, stride};
}

// Rows of a packed result that are computed before they are stored: few, so that they stay in the first-level cache,
// and whole cache lines of a row-major result. Two lines at a time are written faster than one.
template <typename S>
int64_t StagedRows(const BatchBlocks& blocks) {
  constexpr int64_t kLine = kLineBytes / sizeof(S);
  const int64_t fit = kStageBytes / (blocks.width * static_cast<int64_t>(sizeof(S)));
  return std::max<int64_t>(1, fit / kLine) * kLine;
}

// Runs a kernel that computes rows of the block and writes them to `to`: directly, or through scratch where the rows
// are no full vectors, are stored in another type, or are columns in memory. Then it calls ahead(rows) for a few rows
// at a time, before it computes them.
template <typename S, typename Args, typename Ahead>
void RunAndStore(void (*kernel)(const Args&), Args args, const MatmulWork& work, int64_t block, Range rows,
                 const PassPrograms& programs, const Activations<S>& to, const Ahead& ahead) {
  const BatchBlocks& b = work.blocks;
  args.vecs = b.vecs(block);
  args.y_vec_stride = b.lanes;
  args.stream = to.features * b.n * static_cast<int64_t>(sizeof(S)) >= kStreamBytes;
  if (IsDirect(to, b, block)) {
    args.y = to.At(rows.begin, b.begin(block));
    args.y_row_stride = b.n;
    return RunPasses(kernel, args, b.lanes, b.passes, programs);
  }
  args.y_row_stride = static_cast<int64_t>(args.vecs) * b.lanes;
  const int64_t staged = StagedRows<S>(b);
  args.y = Scratch::Local(Scratch::kOutput).template Get<S>(staged * args.y_row_stride);
  RunPasses(kernel, args, b.lanes, b.passes, programs, [&](const Args& last) {
    ForEachPart(rows, staged, [&](Range some) {
      PrefetchRows(to, some, b, block);
      ahead(some);
      Args part = RowsOf(last, {some.begin - rows.begin, some.end - rows.begin});
      part.stream = false;
      kernel(part);
      StoreRows<S>(part.y, to, some, b, block, args.stream);
    });
  });
}

template <typename S>
struct SpmmJob {
  MatmulWork work;
  Values<S> data;
  Activations<const S> x;
  Activations<S> y;

  void Run(int64_t chunk) const {
    const int64_t block = chunk / work.row_parts;
    const Range part = work.RowsOf(chunk % work.row_parts);
    if (part.begin == part.end) return;
    const Block<S> source = SourceBlock(work, x, block);
    ForEachRowGroup<S>(part, work.blocks, [&](Range rows) { RunRows(rows, block, source); });
  }

  void Before(int64_t chunk) const { data.Gather(chunk); }
  void After(int64_t) const {}

 private:
  void RunRows(Range rows, int64_t block, const Block<S>& source) const {
    const BatchBlocks& blocks = work.blocks;
    const auto& narrow = Element<S>::Products().spmm_narrow;
    const auto kernel = blocks.narrow >= 0 ? narrow[blocks.narrow] : SpmmKernel<S>(work.shared).run;
    const PassPrograms programs(work, rows, source.stride);
    const SpmmArgs<S> args{.row_end = programs.count(), .data = data.get(), .x = source.data};
    RunAndStore(kernel, args, work, block, rows, programs, y, [](Range) {});
  }
};

// Calls body(rows, block, source of the block, sums) for all that a task of a weight gradient has to compute.
template <typename S, typename Body>
void ForEachRowsOfTask(const MatmulWork& work, const SlotTasks& tasks, const Slots<S>& out, int64_t task,
                       const Activations<const S>& x, const Body& body) {
  const int64_t slot = tasks.Slot(task);
  const Range part = work.RowsOf(tasks.RowPart(task)), blocks = tasks.Items(task);
  if (tasks.IsFirst(task)) out.Clear(slot, {work.pattern.row_ptr[part.begin], work.pattern.row_ptr[part.end]});
  if (work.blocks.n == 0 || part.begin == part.end) return;
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    const Block<S> source = SourceBlock(work, x, block);
    ForEachRowGroup<S>(part, work.blocks, [&](Range rows) { body(rows, block, source, out.slot(slot)); });
  }
}

template <typename S>
struct SddmmJob {
  MatmulWork work;
  SlotTasks tasks;
  Activations<const S> x;
  Activations<const S> y;
  Slots<S> out;

  void Run(int64_t chunk) const {
    ForEachRowsOfTask(work, tasks, out, chunk, x, [&](Range rows, int64_t block, const Block<S>& source, Sum<S>* dw) {
      RunRows(rows, block, source, dw);
    });
  }

  void Before(int64_t) const {}
  void After(int64_t chunk) const { out.Finish(chunk); }

 private:
  void RunRows(Range rows, int64_t block, const Block<S>& source, Sum<S>* dw) const {
    const BatchBlocks& blocks = work.blocks;
    const auto& k = Element<S>::Products();
    const auto kernel = blocks.narrow >= 0 ? k.sddmm_narrow[blocks.narrow] : k.sddmm;
    const PassPrograms programs(work, rows, source.stride);
    const Block<S> cotangent = RowsBlock(y, rows, blocks, block);
    SddmmArgs<S> args{
        .row_end = programs.count(),
        .x = source.data,
        .y = cotangent.data,
        .y_row_stride = cotangent.stride,
        .y_vec_stride = blocks.lanes,
        .vecs = blocks.vecs(block),
        .last_lanes = blocks.lanes,
        .dw = dw,
    };
    for (int64_t pass = 0; pass < blocks.passes; ++pass) {
      args.program = programs(pass);
      kernel(args);
    }
  }
};

// Number of parts of the rows that are worth packing a block of the source for each, where it must be packed.
template <typename S>
int64_t RepaidParts(const Rows& p, const Activations<const S>& source, const BatchBlocks& blocks) {
  return IsInPlace(source, blocks) ? p.rows : p.entries() / std::max<int64_t>(1, 16 * p.features);
}

template <typename S>
BatchBlocks BlocksFor(const Rows& p, int64_t n, int64_t most_vecs) {
  const int64_t row_entries = p.entries() / std::max<int64_t>(1, p.rows);
  return BatchBlocks::Make(Element<S>::Products(), n, p.features, row_entries, most_vecs);
}

template <typename S>
SlotTasks TasksFor(const ffi::ThreadPool& pool, const Rows& p, const Activations<const S>& source,
                   const BatchBlocks& blocks, int64_t nse) {
  const int64_t slots = GradientSlots(blocks.count, CeilDiv(blocks.n, blocks.lanes), nse, sizeof(Sum<S>));
  return SlotTasks::Make(blocks.count, slots, RepaidParts<S>(p, source, blocks), p.rows, pool.num_threads());
}

// The arguments of RunJob: a job, its chunks and its amount of work.
template <typename Job>
struct PlannedJob {
  Job job;
  Chunks chunks;
  int64_t work;
};

template <typename Job>
ffi::Error RunPlanned(ffi::ThreadPool& pool, PlannedJob<Job> planned) {
  return RunJob(pool, std::move(planned.job), planned.chunks, planned.work);
}

// y = pattern x.
template <typename S>
PlannedJob<SpmmJob<S>> PlanSpmm(const ffi::ThreadPool& pool, const Rows& p, Values<S> data,
                                const Activations<const S>& x, const Activations<S>& y) {
  const int64_t shared = SharedRows(p.row_ptr, p.indices, p.rows);
  const BatchBlocks blocks =
      BlocksFor<S>(p, x.n, std::min<int64_t>(BatchBlocks::kGoodTile, SpmmKernel<S>(shared).most_vecs));
  const int64_t parts = RowParts(blocks.count, RepaidParts<S>(p, x, blocks), p.rows, pool.num_threads());
  data = data.At(p.id, p.entries());
  const Chunks chunks{.before = data.chunks(), .run = x.n == 0 || p.rows == 0 ? 0 : blocks.count * parts, .after = 0};
  return {.job = {.work = {p, blocks, parts, shared}, .data = std::move(data), .x = x, .y = y},
          .chunks = chunks,
          .work = (p.entries() + p.rows) * x.n};
}

// out[e] = sum over the batch of y's row times x's feature of entry e; zero for the padding up to nse.
template <typename S>
PlannedJob<SddmmJob<S>> PlanSddmm(const ffi::ThreadPool& pool, const Rows& p, const Activations<const S>& x,
                                  const Activations<const S>& y, S* out, int64_t nse) {
  const int64_t n = p.entries() == 0 ? 0 : x.n;  // no sum has a term, however large the batch
  const BatchBlocks blocks = BlocksFor<S>(p, n, Element<S>::Products().max_vecs);
  const SlotTasks tasks = TasksFor<S>(pool, p, x, blocks, nse);
  Slots<S> sums(out, nse, p.entries(), tasks.slots, nullptr, p.entries());
  const Chunks chunks = GradientChunks(0, tasks, sums);
  return {.job = {.work = {p, blocks, tasks.row_parts(), 1}, .tasks = tasks, .x = x, .y = y, .out = std::move(sums)},
          .chunks = chunks,
          .work = p.entries() * n};
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_MATMUL_JOBS_H_
