// How a convolution is divided into tiles, and the layout of a packed tile.
//
// A tile covers some output rows and output columns, and as many blocks of the batch as share cache lines, so that
// memory is read and written in whole lines. The packed source of a block is an array (channel, plane, line of rows,
// line of columns, lane): an output pixel is `lanes` batch elements, and a row of output pixels is contiguous. For
// large batches, a pixel is one full vector. For small batches, and those that would fill vectors badly, a pixel is
// the whole batch, and vectors run across neighbouring pixels and from the end of one row of the packed tile into the
// next. The results between the rows are not used.
//
// A packed tile fits the second-level cache. Tiles below one another form a strip. A task computes the tiles of a
// strip from the top, keeps the packed lines that the next tile reads too and packs only the others. Where the
// pattern has enough entries, a run of pixels is computed in passes over the channels, each of which adds to the sums
// of the previous one, so that the input of a pass fits the first-level cache.
#ifndef SPARSEJAX_PLAN_CONV_TILING_H_
#define SPARSEJAX_PLAN_CONV_TILING_H_

#include <algorithm>
#include <cstdint>

#include "cache_model.h"
#include "conv_axis.h"
#include "partition.h"

namespace sparsejax {

struct ConvTiling {
  // What the choice of tiles depends on, besides the axes.
  struct Problem {
    int64_t channels;  // of the source
    int64_t batch;
    int64_t vector;         // elements per vector
    int64_t max_vecs;       // vectors per tile of registers
    int64_t element_bytes;
    int64_t row_entries;    // entries per row of a program, on average; 0 if there shall be one pass
    bool source_row_major = false, destination_row_major = false;
  };

  ConvAxis y, x;
  int64_t channels;  // of the source
  int64_t batch;
  int64_t lanes;   // batch elements per pixel of a packed tile
  int64_t vector;  // elements per vector
  int64_t batch_blocks;
  bool source_row_major, destination_row_major;
  int64_t group;                                     // blocks of the batch per tile: those that share cache lines
  int64_t passes, pass_channels;                     // passes over the channels, and channels per pass
  int64_t rows, row_blocks, columns, column_blocks;  // outputs of one phase per tile, and number of tiles
  ConvAxis::Lines y_lines, x_lines;
  int64_t run_rows = 1;  // rows of pixels that vectors run across
  int64_t row_stride = 0, plane_stride = 0, channel_stride = 0;  // elements of the packed tile

  ConvTiling(ConvAxis y_axis, ConvAxis x_axis, const Problem& p)
      : y(std::move(y_axis)),
        x(std::move(x_axis)),
        channels(p.channels),
        batch(p.batch),
        lanes(LanesPerPixel(p.batch, p.vector, x.Count(0), p.max_vecs)),
        vector(p.vector),
        batch_blocks(CeilDiv(p.batch, lanes)),
        source_row_major(p.source_row_major),
        destination_row_major(p.destination_row_major),
        group(BlocksPerLine(p)) {
    ChooseColumns(p.max_vecs);
    ChoosePasses(kPassBytes / p.element_bytes, p.row_entries);
    ChooseRows(kTileBytes / p.element_bytes / group);
    if (!fits()) return;
    if (SaturatingMul(group, Elements(rows, columns)) > kMostElements) group = 1;
    y_lines = ConvAxis::Lines(y, rows);
    x_lines = ConvAxis::Lines(x, columns);
    row_stride = x_lines.count() * lanes;
    plane_stride = PlaneStride(y_lines.count(), x_lines.count());
    if (lanes % vector != 0) ChooseRunRows(p.max_vecs);
    channel_stride = plane_stride * y.planes() * x.planes();
    // Packing a row-major pixel writes one place of every channel.
    if (source_row_major) channel_stride = OddLines(channel_stride, p.element_bytes);
    if (passes > 1) SpreadChannels(p.element_bytes);
  }

  int64_t batch_groups() const { return CeilDiv(batch_blocks, group); }
  int64_t strips() const { return batch_groups() * column_blocks; }
  int64_t block_elements() const { return channels * channel_stride; }
  int64_t packed_elements() const { return group * block_elements(); }
  int64_t bytes() const { return y.bytes() + x.bytes() + y_lines.bytes() + x_lines.bytes(); }  // of this description

  // Whether a packed tile is small enough for int32 offsets and for memory. If not, no other member may be used.
  bool fits() const { return Elements(rows, columns) <= kMostElements; }
  static constexpr int64_t kMostElements = int64_t{1} << 27;

  // Offset within a channel of the packed tile of what a tap reads for the first output of a phase.
  int64_t TapOffset(const Tap& ty, const Tap& tx) const {
    return (ty.plane * x.planes() + tx.plane) * plane_stride + y_lines.StartOf(ty.shift) * row_stride +
           x_lines.StartOf(tx.shift) * lanes;
  }

  struct Tile {
    int64_t batch_begin, batch_valid;  // batch elements of its first block
    int64_t row_begin, column_begin;   // outputs, counted within a phase
  };
  // Tile `block` of a strip, counted from the top. Strips that differ in their part of the batch only have
  // neighbouring numbers, because their elements are neighbours in memory.
  Tile At(int64_t strip, int64_t block) const {
    const int64_t begin = strip % batch_groups() * group * lanes;
    return {begin, std::min(lanes, batch - begin), block * rows, strip / batch_groups() * columns};
  }

  // Calls body(tile of one block of the batch, its offset in the packed tile) for the blocks of a tile.
  template <typename Body>
  void ForEachBlock(const Tile& tile, const Body& body) const {
    for (int64_t i = 0; i < group; ++i) {
      const int64_t begin = tile.batch_begin + i * lanes;
      if (begin >= batch) return;
      body(Tile{begin, std::min(lanes, batch - begin), tile.row_begin, tile.column_begin}, i * block_elements());
    }
  }

 private:
  // One vector, or the whole batch where half a tile of registers holds a whole row of pixels. The whole batch too
  // where padding it to full vectors would waste more than a fifth of them.
  static int64_t LanesPerPixel(int64_t batch, int64_t vector, int64_t pixels, int64_t max_vecs) {
    if (batch % vector != 0 && batch < 4 * vector) return std::max<int64_t>(batch, 1);
    if (batch % vector == 0 && 2 * batch / vector * pixels <= max_vecs) return batch;
    return vector;
  }

  // Blocks of the batch that share cache lines. Row-major activations have one example per line.
  int64_t BlocksPerLine(const Problem& p) const {
    if (p.source_row_major && p.destination_row_major) return 1;
    return std::clamp<int64_t>(kLineBytes / (lanes * p.element_bytes), 1, std::max<int64_t>(1, batch_blocks));
  }

  // Elements per plane. Where vectors run across pixels, one more vector, which a kernel may read past the last
  // pixel.
  int64_t PlaneStride(int64_t y_count, int64_t x_count) const {
    const int64_t used = SaturatingMul(SaturatingMul(x_count, lanes), y_count);
    return lanes % vector ? (CeilDiv(used, vector) + 1) * vector : used;
  }

  // Packed elements of a tile of this many rows and columns; saturating, because attributes may have any values.
  int64_t Elements(int64_t n_rows, int64_t n_columns) const {
    const int64_t planes = SaturatingMul(channels, SaturatingMul(y.planes(), x.planes()));
    return SaturatingMul(planes, PlaneStride(y.LineCount(n_rows), x.LineCount(n_columns)));
  }

  // The largest n in [least, all] with fits(n), or `least` if there is none. fits(n) implies fits(n - 1).
  template <typename Fits>
  static int64_t Largest(int64_t least, int64_t all, const Fits& fits) {
    while (least < all) {
      const int64_t middle = least + (all - least + 1) / 2;
      fits(middle) ? least = middle : all = middle - 1;
    }
    return least;
  }

  // Rows are divided into parts that a tile of registers holds, as equal as possible: the fewer parts, the less is
  // packed twice where they meet.
  void ChooseColumns(int64_t max_vecs) {
    const int64_t all = std::max<int64_t>(1, x.Count(0));
    columns = CeilDiv(all, CeilDiv(all, std::max<int64_t>(1, max_vecs * vector / lanes)));
    column_blocks = CeilDiv(all, columns);
  }

  // Passes as large as fit the cache, if a row has kEntriesPerPass entries in each, because in each pass a row reads
  // and writes its tile. `most`: packed elements that fit.
  void ChoosePasses(int64_t most, int64_t row_entries) {
    constexpr int64_t kEntriesPerPass = 8;
    passes = std::max<int64_t>(1, CeilDiv(Elements(1, columns), most));
    if (row_entries / passes < kEntriesPerPass) passes = 1;
    pass_channels = std::max<int64_t>(1, CeilDiv(channels, passes));
    passes = std::max<int64_t>(1, CeilDiv(channels, pass_channels));
  }

  // Adds room after each channel, so that the runs of pixels that a pass reads are spread over the sets of the
  // first-level cache. Channels a power of two apart would share a few sets and evict each other. The model is a
  // cache of kSets sets of kWays lines; the stride chosen is the smallest with the least number of lines in the
  // fullest set.
  void SpreadChannels(int64_t element_bytes) {
    constexpr int64_t kSets = 64, kWays = 8;
    const int64_t plane_bytes = plane_stride * element_bytes, run_bytes = y.LineCount(1) * row_stride * element_bytes;
    const int64_t planes = y.planes() * x.planes(), pad = kLineBytes / element_bytes;
    int64_t best_load = channels * run_bytes, best = channel_stride;
    const int64_t end = std::min(channel_stride + kSets * pad, kMostElements / channels + 1);  // offsets stay in int32
    for (int64_t stride = channel_stride; stride < end && best_load > kWays; stride += pad) {
      int64_t loads[kSets] = {}, load = 0;
      for (int64_t channel = 0; channel < pass_channels; ++channel)
        for (int64_t plane = 0; plane < planes; ++plane) {
          const int64_t begin = channel * stride * element_bytes + plane * plane_bytes;
          for (int64_t line = begin / kLineBytes; line * kLineBytes < begin + run_bytes; ++line)
            load = std::max(load, ++loads[line % kSets]);
        }
      if (load < best_load) best_load = load, best = stride;
    }
    channel_stride = best;
  }

  // Tiles of equal heights, as high as fit the cache. `most`: packed elements that fit.
  void ChooseRows(int64_t most) {
    const int64_t all = std::max<int64_t>(1, y.Count(0));
    rows = Largest(1, all, [&](int64_t n) { return Elements(n, columns) <= most; });
    rows = CeilDiv(all, CeilDiv(all, rows));
    row_blocks = CeilDiv(all, rows);
  }

  // As many rows of pixels as a tile of registers holds.
  void ChooseRunRows(int64_t max_vecs) {
    const int64_t gaps = row_stride - columns * lanes;
    run_rows = std::clamp<int64_t>((max_vecs * vector + gaps) / std::max<int64_t>(1, row_stride), 1, rows);
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CONV_TILING_H_
