// The three jobs of the convolution handlers: a product (the forward product, and the input gradient on the transposed
// program), the weight gradient, and both gradients at once. Each packs one tile of the source at a time and runs row
// programs on it.
#ifndef SPARSEJAX_HANDLERS_CONV_JOBS_H_
#define SPARSEJAX_HANDLERS_CONV_JOBS_H_

#include <cstdint>

#include "conv_runs.h"
#include "gradient_slots.h"
#include "passes.h"
#include "shared_rows.h"
#include "types.h"

namespace sparsejax {

// Calls body(program, run, tile of one block of the batch, rows, packed source of the run) for all that has to be
// computed for part `part` of the rows in a unit.
template <typename S, typename Body>
void ForEachRunOfUnit(const ConvWork& work, int64_t unit, int64_t part, const S* source, const Body& body) {
  ForEachTile(work, unit, source, [&](const ConvTiling::Tile& tile, const S* packed) {
    ForEachRun(work, tile, [&](int64_t program, const PixelRun& run) {
      ForEachRowGroup(work, work.programs().View(program).begin, part, [&](Range rows) {
        work.tiling().ForEachBlock(tile, [&](const ConvTiling::Tile& block, int64_t at) {
          body(program, run, block, rows, packed + at + run.packed);
        });
      });
    });
  });
}

// The same for a task of a weight gradient; body has the sums of the task's slot as one more argument.
template <typename S, typename Body>
void ForEachRunOfTask(const ConvWork& work, const SlotTasks& tasks, const Slots<S>& out, int64_t task, const S* source,
                      const Body& body) {
  const int64_t slot = tasks.Slot(task), part = tasks.RowPart(task);
  if (tasks.IsFirst(task)) ForEachEntriesOfPart(work, part, [&](Range entries) { out.Clear(slot, entries); });
  const Range units = tasks.Items(task);
  for (int64_t unit = units.begin; unit < units.end; ++unit)
    ForEachRunOfUnit(work, unit, part, source,
                     [&](int64_t program, const PixelRun& run, const ConvTiling::Tile& tile, Range rows,
                         const S* packed) { body(program, run, tile, rows, packed, out.slot(slot)); });
}

// Whether a result of the destination's shape is evicted from the caches before anything reads it.
template <typename S>
bool ExceedsCaches(const ConvWork& work) {
  const ConvTiling& t = work.tiling();
  return work.programs().rows * t.y.out() * t.x.out() * t.batch * static_cast<int64_t>(sizeof(S)) >= kStreamBytes;
}

template <typename S>
struct ConvJob {
  ConvWork work;
  Values<S> data;
  const S* x;
  S* y;

  void Run(int64_t chunk) const {
    ForEachRunOfUnit(work, chunk / work.row_parts, chunk % work.row_parts, x,
                     [&](int64_t program, const PixelRun& run, const ConvTiling::Tile& tile, Range rows,
                         const S* packed) { RunRows(program, run, tile, rows, packed); });
  }

  void Before(int64_t chunk) const { data.Gather(chunk); }
  void After(int64_t) const {}

  void RunRows(int64_t program, const PixelRun& run, const ConvTiling::Tile& tile, Range rows, const S* packed) const {
    const ConvTiling& t = work.tiling();
    if (const int64_t vec_stride = DirectStride(t, tile, run))
      return Pieces(program, rows, packed, InPlace(t, y, rows, run, tile, vec_stride), ExceedsCaches<S>(work));
    const int64_t features = work.programs().rows;
    const RunView<S> to = InScratch<S>(t, Scratch::kOutput, rows, run);
    PrefetchRun(t, y, features, rows, run, tile);
    Pieces(program, rows, packed, to, false);
    StoreRun(t, to, y, features, rows, run, tile, ExceedsCaches<S>(work));
  }

  // The arguments for vectors [first, first + vecs) of a run in some rows, without the program.
  SpmmArgs<S> Args(Range rows, const S* packed, const RunView<S>& to, int64_t first, int vecs, bool stream) const {
    return {.row_begin = rows.begin,
            .row_end = rows.end,
            .data = data.get(),
            .x = packed + first * work.tiling().vector,
            .y = to.at + first * to.vec_stride,
            .y_row_stride = to.row_stride,
            .y_vec_stride = to.vec_stride,
            .vecs = vecs,
            .stream = stream};
  }

 private:
  void Pieces(int64_t program, Range rows, const S* packed, const RunView<S>& to, bool stream) const {
    const ConvTiling& t = work.tiling();
    const auto kernel = SpmmKernel<S>(work.plan->shared);
    ForEachPiece(to.vectors, kernel.most_vecs, [&](int64_t first, int vecs) {
      const SpmmArgs<S> args = Args(rows, packed, to, first, vecs, stream);
      RunPasses(kernel.run, args, t.vector, t.passes,
                [&](int64_t pass) { return work.programs().View(program + pass); });
    });
  }
};

template <typename S>
struct ConvWeightGradJob {
  ConvWork work;
  const S* x;
  const S* y;
  SlotTasks tasks;
  Slots<S> out;

  void Run(int64_t chunk) const {
    ForEachRunOfTask(
        work, tasks, out, chunk, x,
        [&](int64_t program, const PixelRun& run, const ConvTiling::Tile& tile, Range rows, const S* packed,
            Sum<S>* dw) { Pieces(program, rows, packed, Cotangent(run, tile, rows), dw); });
  }

  void Before(int64_t) const {}
  void After(int64_t chunk) const { out.Finish(chunk); }

 private:
  RunView<const S> Cotangent(const PixelRun& run, const ConvTiling::Tile& tile, Range rows) const {
    const ConvTiling& t = work.tiling();
    if (const int64_t vec_stride = DirectStride(t, tile, run)) return InPlace(t, y, rows, run, tile, vec_stride);
    return PackRun(t, y, work.programs().rows, rows, run, tile);
  }

  void Pieces(int64_t program, Range rows, const S* packed, const RunView<const S>& ct, Sum<S>* dw) const {
    const ConvTiling& t = work.tiling();
    const auto& k = Element<S>::Products();
    ForEachPiece(ct.vectors, k.max_vecs, [&](int64_t first, int vecs) {
      SddmmArgs<S> args{
          .row_begin = rows.begin,
          .row_end = rows.end,
          .x = packed + first * t.vector,
          .y = ct.at + first * ct.vec_stride,
          .y_row_stride = ct.row_stride,
          .y_vec_stride = ct.vec_stride,
          .vecs = vecs,
          .last_lanes = static_cast<int>(first + vecs == ct.vectors ? ct.last_lanes : t.vector),
          .dw = dw,
      };
      for (int64_t pass = 0; pass < t.passes; ++pass) {
        args.program = work.programs().View(program + pass);
        k.sddmm(args);
      }
    });
  }
};

// Both gradients, on the transposed program: rows are features of x, and the source is the cotangent of the
// convolution.
template <typename S>
struct ConvBackwardJob {
  ConvJob<S> product;  // from the cotangent to dx
  const S* x;
  SlotTasks tasks;
  Slots<S> out;

  void Run(int64_t chunk) const {
    ForEachRunOfTask(product.work, tasks, out, chunk, product.x,
                     [&](int64_t program, const PixelRun& run, const ConvTiling::Tile& tile, Range rows,
                         const S* packed, Sum<S>* dw) { RunRows(program, run, tile, rows, packed, dw); });
  }

  void Before(int64_t chunk) const { product.Before(chunk); }
  void After(int64_t chunk) const { out.Finish(chunk); }

 private:
  void RunRows(int64_t program, const PixelRun& run, const ConvTiling::Tile& tile, Range rows, const S* packed,
               Sum<S>* dw) const {
    const ConvTiling& t = product.work.tiling();
    S* dx = product.y;
    // With a stride, most pixels may meet no entry. Then x need not be read.
    if (IsEmpty(program, rows)) return product.RunRows(program, run, tile, rows, packed);
    if (const int64_t vec_stride = DirectStride(t, tile, run))
      return Pieces(program, rows, packed, InPlace(t, x, rows, run, tile, vec_stride),
                    InPlace(t, dx, rows, run, tile, vec_stride), ExceedsCaches<S>(product.work), dw);
    const int64_t features = product.work.programs().rows;
    const RunView<S> to = InScratch<S>(t, Scratch::kOutput, rows, run);
    PrefetchRun(t, dx, features, rows, run, tile);
    Pieces(program, rows, packed, PackRun(t, x, features, rows, run, tile), to, false, dw);
    StoreRun(t, to, dx, features, rows, run, tile, ExceedsCaches<S>(product.work));
  }

  bool IsEmpty(int64_t program, Range rows) const {
    const ConvTiling& t = product.work.tiling();
    for (int64_t pass = 0; pass < t.passes; ++pass) {
      const int32_t* ptr = product.work.programs().View(program + pass).begin;
      if (ptr[rows.begin] != ptr[rows.end]) return false;
    }
    return true;
  }

  void Pieces(int64_t program, Range rows, const S* packed, const RunView<const S>& from, const RunView<S>& to,
              bool stream, Sum<S>* dw) const {
    const ConvTiling& t = product.work.tiling();
    const auto kernel = BackwardKernel<S>(product.work.plan->shared);
    ForEachPiece(to.vectors, kernel.most_vecs, [&](int64_t first, int vecs) {
      BackwardArgs<S> args{product.Args(rows, packed, to, first, vecs, stream)};
      args.tile = from.at + first * from.vec_stride;
      args.tile_row_stride = from.row_stride;
      args.tile_vec_stride = from.vec_stride;
      args.last_lanes = static_cast<int>(first + vecs == to.vectors ? to.last_lanes : t.vector);
      args.dw = dw;
      RunPasses(kernel.run, args, t.vector, t.passes,
                [&](int64_t pass) { return product.work.programs().View(program + pass); });
    });
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_CONV_JOBS_H_
