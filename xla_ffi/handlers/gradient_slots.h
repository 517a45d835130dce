// The output of a weight gradient: private partial sums per slot, added in the order of the slots at the end.
#ifndef SPARSEJAX_HANDLERS_GRADIENT_SLOTS_H_
#define SPARSEJAX_HANDLERS_GRADIENT_SLOTS_H_

#include <algorithm>
#include <memory>

#include "types.h"

namespace sparsejax {

template <typename S>
class Slots {
 public:
  // `out` has nse elements, of which the first nnz are entries and the rest padding. A slot has `entries` sums: entry i
  // of a slot is element position[i] of `out`, or element i where `position` is null; elements of none are zero.
  // Zeroes the partial sums. `position` must live as long as this object.
  Slots(S* out, int64_t nse, int64_t nnz, int64_t slots, const int32_t* position, int64_t entries)
      : out_(out), nse_(nse), nnz_(nnz), slots_(slots), position_(position), entries_(entries) {
    partial_.reset(new Sum<S>[std::max<int64_t>(slots * entries, 1)]());
  }

  Sum<S>* slot(int64_t s) const { return partial_.get() + s * entries_; }

  // Adds the slots, converts, and zeroes the padding.
  void Finish() const {
    Element<S>::Kernels().add_slots(partial_.get(), entries_, slots_, entries_);
    std::fill(out_ + (entries_ < nnz_ ? 0 : nnz_), out_ + nse_, S{});
    if (position_ == nullptr) return Element<S>::Storage().store_rows(partial_.get(), 1, nnz_, nnz_, out_, nnz_);
    if constexpr (kNative<S>) {
      Scatter(out_);
    } else {
      std::unique_ptr<Sum<S>[]> ordered(new Sum<S>[std::max<int64_t>(nnz_, 1)]());
      Scatter(ordered.get());
      Element<S>::Storage().store_rows(ordered.get(), 1, nnz_, nnz_, out_, nnz_);
    }
  }

 private:
  void Scatter(Sum<S>* to) const {
    for (int64_t i = 0; i < entries_; ++i) to[position_[i]] = partial_[i];
  }

  S* out_;
  int64_t nse_, nnz_, slots_;
  const int32_t* position_;
  int64_t entries_;
  std::shared_ptr<Sum<S>[]> partial_;
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_GRADIENT_SLOTS_H_
