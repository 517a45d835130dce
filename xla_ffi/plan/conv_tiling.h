// How a convolution is cut into tiles, and where everything lies in a packed tile.
//
// A tile is a run of output rows and of output columns, and as many blocks of the batch as share lines of cache, so that
// memory is read and written in whole lines; a narrow vector is a part of one. The packed source of a block has memory
// (channel, plane, line of rows, line of columns, lane): one output pixel is `lanes` batch elements, and a row of
// output pixels is a contiguous run. Large batches take one full vector per pixel; small or awkward ones keep the whole
// batch in a pixel and let vectors run across neighbouring pixels, and from the end of one row of the packed tile into
// the next: what is computed between the rows is dropped.
//
// A packed tile fits the second-level cache. Tiles below one another form a strip: a task goes down the strip, keeps
// the lines that the next tile needs too and packs only new ones. Where the pattern is dense enough, a run of pixels is
// computed in passes over the channels, so that what a pass reads fits the first-level cache; each adds to the last.
#ifndef SPARSEJAX_PLAN_CONV_TILING_H_
#define SPARSEJAX_PLAN_CONV_TILING_H_

#include <algorithm>
#include <cstdint>

#include "conv_axis.h"
#include "partition.h"

namespace sparsejax {

struct ConvTiling {
  ConvAxis y, x;
  int64_t channels;      // of the source
  int64_t batch;
  int64_t lanes;         // batch elements per pixel in a tile
  int64_t vector;        // elements per vector
  int64_t batch_blocks;
  int64_t group;         // blocks of the batch per tile: those whose elements share lines of cache
  int64_t passes, pass_channels;  // channels are taken in parts of so many
  int64_t rows, row_blocks, columns, column_blocks;  // outputs of one phase per tile, and tiles
  ConvAxis::Lines y_lines, x_lines;
  int64_t run_rows = 1;  // rows of pixels that vectors run across
  int64_t row_stride = 0, plane_stride = 0, channel_stride = 0;  // elements of the packed tile

  // `max_vecs`: vectors of a tile of registers. `element_bytes`: of a packed element; `stored_bytes`: of one of the
  // activations. `row_entries`: stored entries per row of the program, on average, whose channels are spread over all.
  ConvTiling(ConvAxis y_axis, ConvAxis x_axis, int64_t channels_, int64_t batch_, int64_t vector_, int64_t max_vecs,
             int64_t element_bytes, int64_t stored_bytes, int64_t row_entries)
      : y(std::move(y_axis)),
        x(std::move(x_axis)),
        channels(channels_),
        batch(batch_),
        lanes(LanesPerPixel(batch_, vector_, x.Count(0), max_vecs)),
        vector(vector_),
        batch_blocks(CeilDiv(batch_, lanes)),
        group(std::clamp<int64_t>(kLine / (lanes * stored_bytes), 1, std::max<int64_t>(1, batch_blocks))) {
    ChooseColumns(max_vecs);
    ChoosePasses(kPassBytes / element_bytes, row_entries);
    ChooseRows(kTileBytes / element_bytes / group);
    if (!fits()) return;
    if (SaturatingMul(group, Elements(rows, columns)) > kMostElements) group = 1;
    y_lines = ConvAxis::Lines(y, rows);
    x_lines = ConvAxis::Lines(x, columns);
    row_stride = x_lines.count() * lanes;
    plane_stride = PlaneStride(y_lines.count(), x_lines.count());
    if (lanes % vector != 0) ChooseRunRows(max_vecs);
    channel_stride = plane_stride * y.planes() * x.planes();
    if (passes > 1) SpreadChannels(element_bytes);
  }

  int64_t batch_groups() const { return CeilDiv(batch_blocks, group); }
  int64_t strips() const { return batch_groups() * column_blocks; }
  int64_t block_elements() const { return channels * channel_stride; }
  int64_t packed_elements() const { return group * block_elements(); }
  int64_t bytes() const { return y.bytes() + x.bytes() + y_lines.bytes() + x_lines.bytes(); }  // of this description

  // Whether a packed tile is of a size that int32 offsets and memory can hold; if not, nothing else may be used.
  bool fits() const { return Elements(rows, columns) <= kMostElements; }
  static constexpr int64_t kMostElements = int64_t{1} << 27;
  static constexpr int64_t kLine = 64;  // bytes of a line of cache

  // Offset in the packed tile, within a channel, of the source of the tile's first output of a phase.
  int64_t TapOffset(const Tap& ty, const Tap& tx) const {
    return (ty.plane * x.planes() + tx.plane) * plane_stride + y_lines.StartOf(ty.shift) * row_stride +
           x_lines.StartOf(tx.shift) * lanes;
  }

  struct Tile {
    int64_t batch_begin, batch_valid;  // batch elements of its first block
    int64_t row_begin, column_begin;   // outputs, counted within a phase
  };
  // Tile `block` of a strip, counted downwards. Strips of one place and different parts of the batch are neighbours, as
  // their elements are in memory.
  Tile At(int64_t strip, int64_t block) const {
    const int64_t begin = strip % batch_groups() * group * lanes;
    return {begin, std::min(lanes, batch - begin), block * rows, strip / batch_groups() * columns};
  }

  // Calls body(tile of one block of the batch, where it lies in the packed tile) for the blocks of a tile.
  template <typename Body>
  void ForEachBlock(const Tile& tile, const Body& body) const {
    for (int64_t i = 0; i < group; ++i) {
      const int64_t begin = tile.batch_begin + i * lanes;
      if (begin >= batch) return;
      body(Tile{begin, std::min(lanes, batch - begin), tile.row_begin, tile.column_begin}, i * block_elements());
    }
  }

 private:
  // One vector, or the whole batch where a row of pixels is so short that half a tile of registers holds it. Padding a
  // block of the batch to a full vector may waste a fifth at most; otherwise the whole batch is one pixel.
  static int64_t LanesPerPixel(int64_t batch, int64_t vector, int64_t pixels, int64_t max_vecs) {
    if (batch % vector != 0 && batch < 4 * vector) return std::max<int64_t>(batch, 1);
    if (batch % vector == 0 && 2 * batch / vector * pixels <= max_vecs) return batch;
    return vector;
  }

  // A plane of pixels ends with room for the last vector to read past it.
  int64_t PlaneStride(int64_t y_count, int64_t x_count) const {
    const int64_t used = SaturatingMul(SaturatingMul(x_count, lanes), y_count);
    return lanes % vector ? (CeilDiv(used, vector) + 1) * vector : used;
  }

  // Packed elements of a tile of so many rows and columns; saturates, because attributes may be absurd.
  int64_t Elements(int64_t n_rows, int64_t n_columns) const {
    const int64_t planes = SaturatingMul(channels, SaturatingMul(y.planes(), x.planes()));
    return SaturatingMul(planes, PlaneStride(y.LineCount(n_rows), x.LineCount(n_columns)));
  }

  // The largest n in [least, all] for which `fits(n)`, or least.
  template <typename Fits>
  static int64_t Largest(int64_t least, int64_t all, const Fits& fits) {
    while (least < all) {
      const int64_t middle = least + (all - least + 1) / 2;
      fits(middle) ? least = middle : all = middle - 1;
    }
    return least;
  }

  // Equal parts of a row that a tile of registers holds, or nearly: lines overlap where parts meet.
  void ChooseColumns(int64_t max_vecs) {
    const int64_t all = std::max<int64_t>(1, x.Count(0));
    columns = CeilDiv(all, CeilDiv(all, std::max<int64_t>(1, max_vecs * vector / lanes)));
    column_blocks = CeilDiv(all, columns);
  }

  // Passes as large as fit, if a row has entries enough in each: a pass costs a row reading and writing its tile.
  void ChoosePasses(int64_t most, int64_t row_entries) {
    constexpr int64_t kEntriesPerPass = 8;
    passes = std::max<int64_t>(1, CeilDiv(Elements(1, columns), most));
    if (row_entries / passes < kEntriesPerPass) passes = 1;
    pass_channels = std::max<int64_t>(1, CeilDiv(channels, passes));
    passes = std::max<int64_t>(1, CeilDiv(channels, pass_channels));
  }

  // Room after each channel, so that what a pass reads of neighbouring channels lies in different sets of the first-level
  // cache: what is a power of two apart would share a few sets and push itself out.
  void SpreadChannels(int64_t element_bytes) {
    constexpr int64_t kSets = 64, kWays = 8;
    const int64_t plane_bytes = plane_stride * element_bytes, run_bytes = y.LineCount(1) * row_stride * element_bytes;
    const int64_t planes = y.planes() * x.planes(), pad = kLine / element_bytes;
    int64_t best_load = channels * run_bytes, best = channel_stride;
    for (int64_t stride = channel_stride; stride < channel_stride + kSets * pad && best_load > kWays; stride += pad) {
      int64_t loads[kSets] = {}, load = 0;
      for (int64_t channel = 0; channel < pass_channels; ++channel)
        for (int64_t plane = 0; plane < planes; ++plane) {
          const int64_t begin = channel * stride * element_bytes + plane * plane_bytes;
          for (int64_t line = begin / kLine; line * kLine < begin + run_bytes; ++line)
            load = std::max(load, ++loads[line % kSets]);
        }
      if (load < best_load) best_load = load, best = stride;
    }
    channel_stride = best;
  }

  // As many rows as fit, in equal parts.
  void ChooseRows(int64_t most) {
    const int64_t all = std::max<int64_t>(1, y.Count(0));
    rows = Largest(1, all, [&](int64_t n) { return Elements(n, columns) <= most; });
    rows = CeilDiv(all, CeilDiv(all, rows));
    row_blocks = CeilDiv(all, rows);
  }

  // Rows that a tile of registers holds.
  void ChooseRunRows(int64_t max_vecs) {
    const int64_t gaps = row_stride - columns * lanes;
    run_rows = std::clamp<int64_t>((max_vecs * vector + gaps) / std::max<int64_t>(1, row_stride), 1, rows);
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CONV_TILING_H_
