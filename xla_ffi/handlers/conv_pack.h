// Packs the source of a convolution's tiles: from activations in either layout to that of ConvTiling.
#ifndef SPARSEJAX_HANDLERS_CONV_PACK_H_
#define SPARSEJAX_HANDLERS_CONV_PACK_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../plan/conv_tiling.h"
#include "../runtime/scratch.h"
#include "pixels.h"
#include "types.h"

namespace sparsejax {

// The packed source of one tile at a time, in the calling thread's scratch. Work of earlier tasks of the same call on
// this thread is reused: a tile that is packed already is not packed again, and a tile right below it reuses the lines
// that both read.
template <typename S>
class PackedTiles {
 public:
  PackedTiles(const ConvTiling& t, const S* x, int64_t call)
      : t_(t),
        x_(x),
        call_(call),
        scratch_(Scratch::Local(Scratch::kPackedX)),
        packed_(scratch_.GetFor<S>(call, t.packed_elements())) {
    for (int64_t i = 0; i < t.y_lines.count(); ++i) carried_.push_back(t.y_lines.CarriedFrom(i, t.rows));
  }

  // Packs tile `block` of strip `strip`.
  const S* Pack(const ConvTiling::Tile& tile, int64_t strip, int64_t block) {
    const int64_t part = strip * t_.row_blocks + block;
    if (scratch_.Holds(call_, part)) return packed_;
    const bool below = block > 0 && scratch_.Holds(call_, part - 1);
    FindColumns(tile);
    t_.source_row_major ? PackPixels(tile, below) : PackChannels(tile, below);
    scratch_.Hold(call_, part);
    return packed_;
  }

 private:
  // Batch-minor: channel by channel.
  void PackChannels(const ConvTiling::Tile& tile, bool below) const {
    for (int64_t channel = 0; channel < t_.channels; ++channel) {
      S* to = packed_ + channel * t_.channel_stride;
      for (int64_t plane = 0; plane < t_.y.planes(); ++plane, to += t_.x.planes() * t_.plane_stride)
        for (int64_t i = 0; i < t_.y_lines.count(); ++i) {
          const int64_t carried = below ? carried_[i] : -1;
          const int64_t row = t_.y.Source(plane, tile.row_begin + t_.y_lines.line(i));
          t_.ForEachBlock(tile, [&](const ConvTiling::Tile& block, int64_t at) {
            if (carried >= 0) return Carry(to + at, carried, i);
            PackLine(block, channel, row, to + at + i * t_.row_stride);
          });
        }
    }
  }

  // Row-major: all channels of a pixel in turn.
  void PackPixels(const ConvTiling::Tile& tile, bool below) const {
    for (int64_t plane = 0; plane < t_.y.planes(); ++plane)
      for (int64_t i = 0; i < t_.y_lines.count(); ++i) {
        const int64_t carried = below ? carried_[i] : -1;
        const int64_t row = t_.y.Source(plane, tile.row_begin + t_.y_lines.line(i));
        t_.ForEachBlock(tile, [&](const ConvTiling::Tile& block, int64_t at) {
          S* to = packed_ + at + plane * t_.x.planes() * t_.plane_stride;
          if (carried >= 0) {
            for (int64_t c = 0; c < t_.channels; ++c) Carry(to + c * t_.channel_stride, carried, i);
          } else {
            PackPixelsOfLine(block, row, to + i * t_.row_stride);
          }
        });
      }
  }

  void PackPixelsOfLine(const ConvTiling::Tile& tile, int64_t row, S* to) const {
    const int64_t columns = t_.x_lines.count();
    const bool padded = row < 0 || tile.batch_valid < t_.lanes || std::any_of(pixel_.begin(), pixel_.end(), IsPadding);
    if (padded)
      for (int64_t c = 0; c < t_.channels; ++c)
        for (int64_t px = 0; px < t_.x.planes(); ++px)
          std::fill_n(to + c * t_.channel_stride + px * t_.plane_stride, columns * t_.lanes, S{});
    if (row < 0 || body_ == 0) return;  // nothing but padding
    const Pixels<const S> line(x_, t_.y.in() * t_.x.in(), t_.channels, tile);
    if (t_.lanes == 1 && body_ > 0) {  // one example: a vector is neighbouring pixels
      line.Load(row * t_.x.in() + pixel_[lead_], body_, 1, {0, t_.channels}, to + lead_, t_.channel_stride);
      return;
    }
    for (int64_t i = 0; i < static_cast<int64_t>(pixel_.size()); ++i)
      if (!IsPadding(pixel_[i]))
        line.Load(row * t_.x.in() + pixel_[i], 1, 1, {0, t_.channels},
                  to + i / columns * t_.plane_stride + i % columns * t_.lanes, t_.channel_stride);
  }

  static bool IsPadding(int32_t pixel) { return pixel < 0; }

  void FindColumns(const ConvTiling::Tile& tile) {
    pixel_.clear();
    for (int64_t plane = 0; plane < t_.x.planes(); ++plane)
      for (int64_t i = 0; i < t_.x_lines.count(); ++i)
        pixel_.push_back(static_cast<int32_t>(t_.x.Source(plane, tile.column_begin + t_.x_lines.line(i))));
    FindBody();
  }

  // Finds the pixels of a line in memory, if they are contiguous and have only padding before and after them.
  void FindBody() {
    const auto inside = [](int32_t p) { return p >= 0; };
    const auto first = std::find_if(pixel_.begin(), pixel_.end(), inside);
    const auto last = std::find_if_not(first, pixel_.end(), inside);
    lead_ = first - pixel_.begin();
    body_ = last - first;
    const bool one_piece = t_.lanes == t_.batch && t_.x.planes() == 1 && std::none_of(last, pixel_.end(), inside) &&
                           (body_ == 0 || *(last - 1) - *first + 1 == body_);
    if (!one_piece) body_ = -1;
  }

  // Moves a packed line. Lines only move up, so none is overwritten before it is moved.
  void Carry(S* to, int64_t from, int64_t line) const {
    for (int64_t px = 0; px < t_.x.planes(); ++px, to += t_.plane_stride)
      std::copy_n(to + from * t_.row_stride, t_.x_lines.count() * t_.lanes, to + line * t_.row_stride);
  }

  // Prefetches the line of the next channel while one is packed, as pack_pixels does. The processor's own prefetcher
  // does not follow, because lines are short and far apart.
  static void Prefetch(const S* line, int64_t elements) {
    const char* p = reinterpret_cast<const char*>(line);
    for (int64_t i = 0; i < elements * static_cast<int64_t>(sizeof(S)); i += kLineBytes) __builtin_prefetch(p + i);
  }

  void PackLine(const ConvTiling::Tile& tile, int64_t channel, int64_t row, S* to) const {
    const int64_t columns = t_.x_lines.count(), plane = t_.y.in() * t_.x.in() * t_.batch;
    for (int64_t px = 0; px < t_.x.planes(); ++px, to += t_.plane_stride) {
      if (row < 0) {
        std::fill_n(to, columns * t_.lanes, S{});
      } else {
        const S* from = x_ + channel * plane + row * t_.x.in() * t_.batch + tile.batch_begin;
        if (body_ >= 0) {
          const int64_t n = body_ * t_.lanes, begin = lead_ * t_.lanes;
          const S* body = from + (body_ ? pixel_[lead_] : 0) * t_.batch;
          Prefetch(body + plane, n);
          std::fill_n(to, begin, S{});
          Element<S>::Storage().pack_rows(body, 1, n, n, to + begin, columns * t_.lanes - begin);
          continue;
        }
        Element<S>::Storage().pack_pixels(from, pixel_.data() + px * columns, columns, t_.batch, tile.batch_valid,
                                          t_.lanes, plane, to);
      }
    }
  }

  const ConvTiling& t_;
  const S* x_;
  const int64_t call_;
  Scratch& scratch_;
  S* packed_;
  std::vector<int64_t> carried_;
  std::vector<int32_t> pixel_;
  int64_t lead_ = 0, body_ = -1;  // see FindBody: pixels of padding before the body, and of the body (-1: none)
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_CONV_PACK_H_
