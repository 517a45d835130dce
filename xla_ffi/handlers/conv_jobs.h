// The two jobs behind the convolution handlers: a product (forward, and input gradient on the transposed program) and
// the weight gradient. Both pack one tile of the source, then run row programs over it.
#ifndef SPARSEJAX_HANDLERS_CONV_JOBS_H_
#define SPARSEJAX_HANDLERS_CONV_JOBS_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "../plan/conv_plan.h"
#include "../runtime/scratch.h"
#include "conv_pack.h"
#include "gradient_slots.h"
#include "passes.h"
#include "types.h"

namespace sparsejax {

// What a call prepares once and its tasks share. A task is a segment of a strip of tiles, for a part of the rows.
struct ConvWork {
  std::shared_ptr<const ConvPlan> plan;
  int64_t segments;  // of a strip
  int64_t row_parts = 1;
  int64_t call = Scratch::NewCall();

  const ConvTiling& tiling() const { return plan->tiling; }
  const ConvPrograms& programs() const { return plan->programs; }
  int64_t units() const { return tiling().strips() * segments; }
};

// A run of output pixels of one phase of a tile: `rows` rows of `pixels`, steps apart from the first.
struct PixelRun {
  int64_t first_pixel;  // in the destination plane
  int64_t rows, pixels;
  int64_t packed;       // offset of the run in the packed tile, before taps

  // Elements from the first pixel's first to the last's last, as they lie in a packed tile.
  int64_t Elements(const ConvTiling& t) const { return (rows - 1) * t.row_stride + pixels * t.lanes; }
  // Where row i begins in the destination plane.
  int64_t Pixel(const ConvTiling& t, int64_t i) const { return first_pixel + i * t.y.step() * t.x.out(); }
};

// Calls body(program of the first pass, run) for every phase of the tile and its rows, run_rows at a time.
template <typename Body>
void ForEachRun(const ConvWork& work, const ConvTiling::Tile& tile, const Body& body) {
  const ConvTiling& t = work.tiling();
  for (int64_t py = 0; py < t.y.phases(); ++py) {
    const int64_t rows = std::min(t.rows, t.y.Count(py) - tile.row_begin);
    for (int64_t px = 0; px < t.x.phases(); ++px) {
      const int64_t pixels = std::min(t.columns, t.x.Count(px) - tile.column_begin);
      if (pixels <= 0) continue;
      const int64_t program = (py * t.x.phases() + px) * t.passes;
      for (int64_t i = 0; i < rows; i += t.run_rows) {
        const int64_t oy = py + (tile.row_begin + i) * t.y.step(), ox = px + tile.column_begin * t.x.step();
        body(program, PixelRun{oy * t.x.out() + ox, std::min(t.run_rows, rows - i), pixels, i * t.row_stride});
      }
    }
  }
}

// Calls body(tile, packed source) for all tiles of a unit.
template <typename S, typename Body>
void ForEachTile(const ConvWork& work, int64_t unit, const S* x, const Body& body) {
  const ConvTiling& t = work.tiling();
  PackedTiles<S> tiles(t, x, work.call);
  const Span blocks = Part(t.row_blocks, work.segments, unit % work.segments);
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    const ConvTiling::Tile tile = t.At(unit / work.segments, block);
    body(tile, tiles.Pack(tile, unit / work.segments, block));
  }
}

// Cuts a run of `vectors` into tiles the kernels take, in nearly equal parts: body(first vector, vectors).
template <typename Body>
void ForEachPiece(int64_t vectors, int64_t most, const Body& body) {
  const int64_t pieces = CeilDiv(vectors, most);
  for (int64_t i = 0; i < pieces; ++i) {
    const Span span = Part(vectors, pieces, i);
    body(span.begin, static_cast<int>(span.end - span.begin));
  }
}

// Elements between the vectors of a run where the destination lies in full vectors at one stride, so that kernels may
// use it in place; 0 where they may not.
inline int64_t DirectStride(const ConvTiling& t, const ConvTiling::Tile& tile, const PixelRun& run) {
  if (t.lanes == t.vector && tile.batch_valid == t.lanes) return t.x.step() * t.batch;
  const bool one_piece = t.lanes == t.batch && t.x.step() == 1 && run.rows == 1;
  return one_piece && run.pixels * t.lanes % t.vector == 0 ? t.vector : 0;
}

// Calls body(some rows) for groups of the rows that part `part` of a task has.
template <typename Body>
void ForEachRowGroup(const ConvWork& work, const int32_t* row_ptr, int64_t part, const Body& body) {
  const Span rows = RowsOfPart(row_ptr, work.programs().rows, work.row_parts, part);
  for (int64_t r = rows.begin; r < rows.end; r += kRowGroup) body(Span{r, std::min(r + kRowGroup, rows.end)});
}

template <typename S>
struct ConvJob {
  ConvWork work;
  Values<S> data;
  const S* x;
  S* y;

  void Run(int64_t chunk) const {
    ForEachTile(work, chunk / work.row_parts, x, [&](const ConvTiling::Tile& tile, const Sum<S>* packed) {
      ForEachRun(work, tile, [&](int64_t program, const PixelRun& run) {
        ForEachRowGroup(work, work.programs().View(program).begin, chunk % work.row_parts, [&](Span rows) {
          work.tiling().ForEachBlock(tile, [&](const ConvTiling::Tile& block, int64_t at) {
            RunRows(program, run, block, rows, packed + at + run.packed);
          });
        });
      });
    });
  }

  void Finish() const {}

 private:
  int64_t plane() const { return work.tiling().y.out() * work.tiling().x.out() * work.tiling().batch; }

  void RunRows(int64_t program, const PixelRun& run, const ConvTiling::Tile& tile, Span rows,
               const Sum<S>* packed) const {
    const ConvTiling& t = work.tiling();
    S* to = y + rows.begin * plane() + tile.batch_begin;
    SpmmArgs<Sum<S>> args{{}, rows.begin, rows.end, data.get(), packed, nullptr, 0, 0, 0, nullptr, false};
    if constexpr (kNative<S>) {
      if (const int64_t vec_stride = DirectStride(t, tile, run)) {
        args.y = to + run.first_pixel * t.batch;
        args.y_row_stride = plane();
        args.y_vec_stride = vec_stride;
        args.stream = work.programs().rows * plane() * static_cast<int64_t>(sizeof(S)) >= kStreamBytes;
        return Pieces(args, program, run.pixels * t.lanes / t.vector);
      }
    }
    // Into scratch, then pixel by pixel to where they belong.
    const int64_t vectors = CeilDiv(run.Elements(t), t.vector), stride = vectors * t.vector;
    args.y = Scratch::Local(Scratch::kOutput).template Get<Sum<S>>((rows.end - rows.begin) * stride);
    args.y_row_stride = stride;
    args.y_vec_stride = t.vector;
    Pieces(args, program, vectors);
    for (int64_t i = 0; i < run.rows; ++i)
      StoreRows(args.y + i * t.row_stride, rows.end - rows.begin, stride, run.pixels, tile.batch_valid,
                to + run.Pixel(t, i) * t.batch);
  }

  void Pieces(SpmmArgs<Sum<S>> args, int64_t program, int64_t vectors) const {
    const Sum<S>* x_run = args.x;
    Sum<S>* y_run = args.y;
    const auto& k = Element<S>::Kernels();
    ForEachPiece(vectors, k.max_vecs, [&](int64_t first, int vecs) {
      args.x = x_run + first * work.tiling().vector;
      args.y = y_run + first * args.y_vec_stride;
      args.vecs = vecs;
      RunPasses(k.spmm, args, work.tiling().vector, work.tiling().passes,
                [&](int64_t pass) { return work.programs().View(program + pass); });
    });
  }

  void StoreRows(const Sum<S>* from, int64_t rows, int64_t stride, int64_t pixels, int64_t valid, S* to) const {
    const ConvTiling& t = work.tiling();
    const auto store = Element<S>::Storage().store_rows;
    if (t.x.step() == 1 && valid == t.batch) return store(from, rows, stride, pixels * t.lanes, to, plane());
    for (int64_t i = 0; i < rows; ++i)
      store(from + i * stride, pixels, t.lanes, valid, to + i * plane(), t.x.step() * t.batch);
  }
};

template <typename S>
struct ConvWeightGradJob {
  ConvWork work;
  const S* x;
  const S* y;
  int64_t slots;
  Slots<S> out;

  void Run(int64_t chunk) const {
    const int64_t slot = chunk / work.row_parts;
    const Span mine = Part(work.units(), slots, slot);
    for (int64_t unit = mine.begin; unit < mine.end; ++unit) RunUnit(unit, chunk % work.row_parts, out.slot(slot));
  }

  void Finish() const { out.Finish(); }

 private:
  void RunUnit(int64_t unit, int64_t part, Sum<S>* dw) const {
    ForEachTile(work, unit, x, [&](const ConvTiling::Tile& tile, const Sum<S>* packed) {
      ForEachRun(work, tile, [&](int64_t program, const PixelRun& run) {
        ForEachRowGroup(work, work.programs().View(program).begin, part, [&](Span rows) {
          work.tiling().ForEachBlock(tile, [&](const ConvTiling::Tile& block, int64_t at) {
            SddmmArgs<Sum<S>> args{{}, rows.begin, rows.end, packed + at + run.packed, nullptr, 0, 0, 0, 0, dw};
            RunRows(args, program, run, block);
          });
        });
      });
    });
  }

  const S* Cotangent(int64_t row, int64_t pixel, const ConvTiling::Tile& tile) const {
    const ConvTiling& t = work.tiling();
    return y + (row * t.y.out() * t.x.out() + pixel) * t.batch + tile.batch_begin;
  }

  void RunRows(SddmmArgs<Sum<S>> args, int64_t program, const PixelRun& run,
               const ConvTiling::Tile& tile) const {
    const ConvTiling& t = work.tiling();
    if constexpr (kNative<S>) {
      if (const int64_t vec_stride = DirectStride(t, tile, run)) {
        args.y = Cotangent(args.row_begin, run.first_pixel, tile);
        args.y_row_stride = t.y.out() * t.x.out() * t.batch;
        args.y_vec_stride = vec_stride;
        return Pieces(args, program, run.pixels * t.lanes / t.vector, t.vector);
      }
    }
    const int64_t used = run.Elements(t), vectors = CeilDiv(used, t.vector);
    args.y_row_stride = vectors * t.vector;
    args.y_vec_stride = t.vector;
    args.y = PackCotangent(args, run, tile);
    Pieces(args, program, vectors, used - (vectors - 1) * t.vector);
  }

  // Rows of the cotangent packed like the source, zeros wherever there is no pixel.
  const Sum<S>* PackCotangent(const SddmmArgs<Sum<S>>& args, const PixelRun& run, const ConvTiling::Tile& tile) const {
    const ConvTiling& t = work.tiling();
    const int64_t rows = args.row_end - args.row_begin, stride = args.y_row_stride, used = run.pixels * t.lanes;
    Sum<S>* packed = Scratch::Local(Scratch::kPackedY).Get<Sum<S>>(rows * stride);
    std::fill_n(packed, rows * stride, Sum<S>(0));
    std::vector<int32_t> pixel(run.pixels);
    for (int64_t i = 0; i < run.pixels; ++i) pixel[i] = static_cast<int32_t>(i * t.x.step());
    const auto& storage = Element<S>::Storage();
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < run.rows; ++i) {
        const S* from = Cotangent(args.row_begin + r, run.Pixel(t, i), tile);
        Sum<S>* to = packed + r * stride + i * t.row_stride;
        if (t.lanes == t.batch && t.x.step() == 1) {
          storage.load_rows(from, 1, used, used, to, used);
        } else {
          storage.pack_pixels(from, pixel.data(), run.pixels, t.batch, tile.batch_valid, t.lanes, 0, to);
        }
      }
    return packed;
  }

  // `last_lanes` of the run's last vector are real.
  void Pieces(SddmmArgs<Sum<S>> args, int64_t program, int64_t vectors, int64_t last_lanes) const {
    const ConvTiling& t = work.tiling();
    const auto& k = Element<S>::Kernels();
    const Sum<S>*x_run = args.x, *y_run = args.y;
    ForEachPiece(vectors, k.max_vecs, [&](int64_t first, int vecs) {
      args.x = x_run + first * t.vector;
      args.y = y_run + first * args.y_vec_stride;
      args.vecs = vecs;
      args.last_lanes = static_cast<int>(first + vecs == vectors ? last_lanes : t.vector);
      for (int64_t pass = 0; pass < t.passes; ++pass) {
        args.program = work.programs().View(program + pass);
        k.sddmm(args);
      }
    });
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_CONV_JOBS_H_
