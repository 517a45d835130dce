// Shared by the jobs of a convolution: packed tiles of the source, and runs of pixels of the destination, which
// kernels access in place or through scratch.
#ifndef SPARSEJAX_HANDLERS_CONV_RUNS_H_
#define SPARSEJAX_HANDLERS_CONV_RUNS_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "../plan/conv_plan.h"
#include "../runtime/scratch.h"
#include "conv_pack.h"
#include "passes.h"
#include "pixels.h"
#include "types.h"

namespace sparsejax {

// Prepared once per call and shared by its tasks. A unit of work is a segment of a strip of tiles; a task computes a
// part of the rows of a unit.
struct ConvWork {
  std::shared_ptr<const ConvPlan> plan;
  int64_t segments;  // per strip
  int64_t row_parts = 1;
  int64_t call = Scratch::NewCall();

  const ConvTiling& tiling() const { return plan->tiling; }
  const ConvPrograms& programs() const { return plan->programs; }
  int64_t units() const { return tiling().strips() * segments; }
};

// A run of output pixels of one phase of a tile: `rows` rows of `pixels` pixels each. Neighbours in the run are a
// step of the phase apart in the destination.
struct PixelRun {
  int64_t first_pixel;  // in the destination plane
  int64_t rows, pixels;
  int64_t packed;  // offset of the run in the packed tile, without that of a tap

  // Elements of a packed tile from the first pixel of the run to the last, both included.
  int64_t Elements(const ConvTiling& t) const { return (rows - 1) * t.row_stride + pixels * t.lanes; }
  // First pixel of row i in the destination plane.
  int64_t Pixel(const ConvTiling& t, int64_t i) const { return first_pixel + i * t.y.step() * t.x.out(); }
};

// Calls body(program of the first pass, run) for all runs of a tile: phase by phase, run_rows rows of pixels at a
// time.
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
  const Range blocks = Part(t.row_blocks, work.segments, unit % work.segments);
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    const ConvTiling::Tile tile = t.At(unit / work.segments, block);
    body(tile, tiles.Pack(tile, unit / work.segments, block));
  }
}

// Divides `vectors` into parts of at most `most`, as equal as possible, and calls body(first vector, number of
// vectors) for each.
template <typename Body>
void ForEachPiece(int64_t vectors, int64_t most, const Body& body) {
  const int64_t pieces = CeilDiv(vectors, most);
  for (int64_t i = 0; i < pieces; ++i) {
    const Range part = Part(vectors, pieces, i);
    body(part.begin, static_cast<int>(part.end - part.begin));
  }
}

// Elements between neighbouring vectors of a run, if it consists of full vectors at one stride in the destination, so
// that kernels can access it in place; 0 if it does not.
inline int64_t DirectStride(const ConvTiling& t, const ConvTiling::Tile& tile, const PixelRun& run) {
  if (t.destination_row_major) return 0;
  if (t.lanes == t.vector && tile.batch_valid == t.lanes) return t.x.step() * t.batch;
  const bool one_piece = t.lanes == t.batch && t.x.step() == 1 && run.rows == 1;
  return one_piece && run.pixels * t.lanes % t.vector == 0 ? t.vector : 0;
}

// The rows that part `part` of a unit has of the program with these row pointers.
inline Range RowsOf(const ConvWork& work, const int32_t* row_ptr, int64_t part) {
  return RowsOfPart(row_ptr, work.programs().rows, work.row_parts, part);
}

// Calls body(rows) for the rows of a part, a group at a time. Without passes, the results of a group stay in scratch
// for a short time where they are row-major.
template <typename Body>
void ForEachRowGroup(const ConvWork& work, const int32_t* row_ptr, int64_t part, const Body& body) {
  const ConvTiling& t = work.tiling();
  ForEachPart(RowsOf(work, row_ptr, part), t.destination_row_major && t.passes == 1 ? kStagedRows : kRowGroup, body);
}

// Calls body(entries), one range per program, for all entries of the rows of a part. Those rows are chosen by the row
// pointers of the first pass, as in ForEachRowGroup.
template <typename Body>
void ForEachEntriesOfPart(const ConvWork& work, int64_t part, const Body& body) {
  const ConvTiling& t = work.tiling();
  for (int64_t phase = 0; phase < t.y.phases() * t.x.phases(); ++phase) {
    const Range rows = RowsOf(work, work.programs().View(phase * t.passes).begin, part);
    for (int64_t pass = 0; pass < t.passes; ++pass) {
      const int32_t* row_ptr = work.programs().View(phase * t.passes + pass).begin;
      body(Range{row_ptr[rows.begin], row_ptr[rows.end]});
    }
  }
}

// The pixels of a run in some rows of the destination, as a kernel accesses them.
template <typename T>
struct RunView {
  T* at;                           // the run in the first of the rows
  int64_t row_stride, vec_stride;  // elements
  int64_t vectors;
  int64_t last_lanes;  // lanes of the last vector that are pixels

  operator RunView<const T>() const { return {at, row_stride, vec_stride, vectors, last_lanes}; }
};

// Calls body(pixel, number of pixels, their offset in a packed run) for pixels that are copied together: a row of
// pixels of one example, or a pixel of several.
template <typename Body>
void ForEachPixels(const ConvTiling& t, const PixelRun& run, const Body& body) {
  const int64_t together = t.lanes == 1 ? run.pixels : 1;
  for (int64_t i = 0; i < run.rows; ++i)
    for (int64_t p = 0; p < run.pixels; p += together)
      body(run.Pixel(t, i) + p * t.x.step(), together, i * t.row_stride + p * t.lanes);
}

// The plane of a row in an array of the destination's shape.
template <typename P>
P* Planes(const ConvTiling& t, P* planes, int64_t row) {
  return planes + row * t.y.out() * t.x.out() * t.batch;
}

// The run in place. `vec_stride` is DirectStride's result.
template <typename P>
RunView<P> InPlace(const ConvTiling& t, P* planes, Range rows, const PixelRun& run, const ConvTiling::Tile& tile,
                   int64_t vec_stride) {
  P* at = Planes(t, planes, rows.begin) + run.first_pixel * t.batch + tile.batch_begin;
  return {.at = at,
          .row_stride = t.y.out() * t.x.out() * t.batch,
          .vec_stride = vec_stride,
          .vectors = run.pixels * t.lanes / t.vector,
          .last_lanes = t.vector};
}

// Scratch for the run, in the layout of a packed tile.
template <typename T>
RunView<T> InScratch(const ConvTiling& t, Scratch::Slot slot, Range rows, const PixelRun& run) {
  const int64_t used = run.Elements(t), vectors = CeilDiv(used, t.vector), stride = vectors * t.vector;
  T* at = Scratch::Local(slot).Get<T>((rows.end - rows.begin) * stride);
  return {.at = at,
          .row_stride = stride,
          .vec_stride = t.vector,
          .vectors = vectors,
          .last_lanes = used - (vectors - 1) * t.vector};
}

// Short pieces of activations are prefetched this many features before they are copied.
constexpr int64_t kFeaturesAhead = 4;

// The run of an array of the destination's shape, which has `features`, packed in scratch; zero where there is no
// pixel.
template <typename S>
RunView<const S> PackRun(const ConvTiling& t, const S* planes, int64_t features, Range rows, const PixelRun& run,
                         const ConvTiling::Tile& tile) {
  const RunView<S> view = InScratch<S>(t, Scratch::kPackedY, rows, run);
  const int64_t used = run.pixels * t.lanes;
  const int64_t whole = run.rows == 1 ? used : 0;  // elements of a row of the view that will be written, if all of them
  for (int64_t r = 0; r < rows.end - rows.begin; ++r)
    std::fill(view.at + r * view.row_stride + whole, view.at + (r + 1) * view.row_stride, S{});
  if (t.destination_row_major) {
    const Pixels<const S> from(planes, t.y.out() * t.x.out(), features, tile);
    ForEachPixels(t, run, [&](int64_t pixel, int64_t count, int64_t at) {
      from.Load(pixel, count, t.x.step(), rows, view.at + at, view.row_stride);
    });
    return view;
  }
  std::vector<int32_t> pixel(run.pixels);
  for (int64_t i = 0; i < run.pixels; ++i) pixel[i] = static_cast<int32_t>(i * t.x.step());
  const auto& storage = Element<S>::Storage();
  const int64_t plane = t.y.out() * t.x.out() * t.batch;
  for (int64_t r = rows.begin; r < rows.end; ++r)
    for (int64_t i = 0; i < run.rows; ++i) {
      const S* from = Planes(t, planes, r) + run.Pixel(t, i) * t.batch + tile.batch_begin;
      S* to = view.at + (r - rows.begin) * view.row_stride + i * t.row_stride;
      if (t.lanes == t.batch && t.x.step() == 1) {
        storage.copy_rows(from, 1, used, used, to, used);
      } else {
        storage.pack_pixels(from, pixel.data(), run.pixels, t.batch, tile.batch_valid, t.lanes, kFeaturesAhead * plane,
                            to);
      }
    }
  return view;
}

// Gets ownership of the lines that StoreRun will write, where they are short pieces far apart.
template <typename S>
void PrefetchRun(const ConvTiling& t, S* planes, int64_t features, Range rows, const PixelRun& run,
                 const ConvTiling::Tile& tile) {
  if (!t.destination_row_major) return;
  const Pixels<S> to(planes, t.y.out() * t.x.out(), features, tile);
  for (int64_t i = 0; i < run.rows; ++i)
    for (int64_t p = 0; p < run.pixels; ++p) to.Prefetch(run.Pixel(t, i) + p * t.x.step(), rows);
}

// Writes the pixels of the run from scratch to the destination. `stream`: around the caches.
template <typename S>
void StoreRun(const ConvTiling& t, const RunView<S>& view, S* planes, int64_t features, Range rows, const PixelRun& run,
              const ConvTiling::Tile& tile, bool stream) {
  if (t.destination_row_major) {
    const Pixels<S> to(planes, t.y.out() * t.x.out(), features, tile);
    return ForEachPixels(t, run, [&](int64_t pixel, int64_t count, int64_t at) {
      to.Store(view.at + at, view.row_stride, pixel, count, t.x.step(), rows, stream);
    });
  }
  const auto store = Element<S>::Storage().copy_rows;
  const int64_t plane = t.y.out() * t.x.out() * t.batch, count = rows.end - rows.begin;
  for (int64_t i = 0; i < run.rows; ++i) {
    const S* from = view.at + i * t.row_stride;
    S* to = Planes(t, planes, rows.begin) + run.Pixel(t, i) * t.batch + tile.batch_begin;
    if (t.x.step() == 1 && tile.batch_valid == t.batch) {
      store(from, count, view.row_stride, run.pixels * t.lanes, to, plane);
    } else {
      for (int64_t r = 0; r < count; ++r) {
        S* row = to + r * plane;
        for (int64_t p = 0; p < run.pixels; ++p)
          __builtin_prefetch(row + kFeaturesAhead * plane + p * t.x.step() * t.batch, 1);
        store(from + r * view.row_stride, run.pixels, t.lanes, tile.batch_valid, row, t.x.step() * t.batch);
      }
    }
  }
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_CONV_RUNS_H_
