// Pixels of row-major activations (batch, pixels, features), copied to and from the vectors of a packed tile.
#ifndef SPARSEJAX_HANDLERS_PIXELS_H_
#define SPARSEJAX_HANDLERS_PIXELS_H_

#include <cstdint>
#include <type_traits>

#include "../plan/conv_tiling.h"
#include "types.h"

namespace sparsejax {

// The examples of one block of the batch. The rows that a transposition takes are the examples of a pixel or, where the
// block has one example, `count` pixels that are `step` apart.
template <typename P>
class Pixels {
  using S = std::remove_const_t<P>;

 public:
  Pixels(P* data, int64_t pixels, int64_t features, const ConvTiling::Tile& tile)
      : data_(data + tile.batch_begin * pixels * features),
        plane_(pixels * features),
        features_(features),
        examples_(tile.batch_valid) {}

  // packed[f][lane] = some features of the pixels.
  void Load(int64_t pixel, int64_t count, int64_t step, Range features, S* packed, int64_t stride) const {
    Element<S>::Storage().transpose(At(pixel, features), Rows(count), features.end - features.begin, Step(count, step),
                                    packed, stride, false);
  }

  void Store(const S* packed, int64_t stride, int64_t pixel, int64_t count, int64_t step, Range features,
             bool stream) const {
    Element<S>::Storage().transpose(packed, features.end - features.begin, Rows(count), stride, At(pixel, features),
                                    Step(count, step), stream);
  }

  // Gets ownership of the lines that Store will write.
  void Prefetch(int64_t pixel, Range features) const {
    for (int64_t i = 0; i < examples_; ++i)
      for (int64_t f = features.begin; f < features.end; f += kLineBytes / static_cast<int64_t>(sizeof(S)))
        __builtin_prefetch(data_ + i * plane_ + pixel * features_ + f, 1);
  }

 private:
  P* At(int64_t pixel, Range features) const { return data_ + pixel * features_ + features.begin; }
  int64_t Rows(int64_t count) const { return count > 1 ? count : examples_; }
  int64_t Step(int64_t count, int64_t step) const { return count > 1 ? step * features_ : plane_; }

  P* data_;
  int64_t plane_, features_, examples_;
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_PIXELS_H_
